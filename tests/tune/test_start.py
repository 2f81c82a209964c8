"""The style that tuning on exemplars begins with."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle import checkpoint, load_bundle, stylize
from stylerdalle.cli.main import main
from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.resolve import list_styles
from stylerdalle.tune.exemplars import Exemplars
from stylerdalle.tune.start import nearest_style


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1))).requires_grad_(False)


def test_the_style_that_made_the_exemplars_is_the_nearest(bundle, network):
    photo = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(5))
    styles = list_styles(bundle)
    assert len(styles) > 1
    for style in styles:
        exemplars = Exemplars(network, [stylize(photo, style, bundle)], 256)
        seen: list[tuple[int, int]] = []
        found = nearest_style(bundle, exemplars, pictures(2), style.rank, lambda *done, seen=seen: seen.append(done))
        assert found is not None and found.name == style.name
        assert seen[-1] == (len(styles), len(styles))


def test_of_styles_that_are_as_near_the_one_that_the_recogniser_takes_for_exemplars_is_the_start(bundle, network, monkeypatch):
    styles = list_styles(bundle)
    exemplars = Exemplars(network, [torch.rand(1, 3, 64, 64)], 64)
    monkeypatch.setattr(Exemplars, "nearest", lambda self, activations: torch.zeros(2))
    for wanted in range(len(styles)):
        doubts = iter([0.0 if k == wanted else 2.0 for k in range(len(styles))])
        monkeypatch.setattr(Exemplars, "surprise", lambda self, activations, doubts=doubts: torch.full((2,), next(doubts)))
        found = nearest_style(bundle, exemplars, pictures(2), styles[0].rank)
        assert found is not None and found.name == styles[wanted].name


def test_a_style_of_another_rank_is_no_start(bundle, network):
    exemplars = Exemplars(network, [torch.rand(1, 3, 64, 64)], 64)
    assert nearest_style(bundle, exemplars, pictures(1), 7) is None


@pytest.fixture
def words(bundle_folder, tmp_path, network) -> str:
    """A command line up to --start and --exemplars; there is a picture wave.png."""
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    checkpoint.save_features(bundle / "features.safetensors", network)
    for name in ("photo.png", "wave.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    rank = list_styles(load_bundle(bundle, device="cpu"))[0].rank
    options = f"--steps 1 --batch 1 --size 32 --views 1 --rank {rank} --run-dir {tmp_path}/run"
    return f"tune --style waves --images {tmp_path}/photo.png --bundle {bundle} --output {tmp_path}/waves.safetensors {options}"


@pytest.mark.parametrize(("given", "starts"), [("", True), (" --start nearest", True), (" --start none", False)])
def test_pictures_of_the_style_begin_with_the_nearest_one(words, given, starts, tmp_path):
    assert main(f"{words} --exemplars {tmp_path}/wave.png{given}".split()) == 0
    recipe = json.loads(checkpoint.read_metadata(tmp_path / "waves.safetensors")["recipe"])
    known = {style.name for style in list_styles(load_bundle(tmp_path / "bundle", device="cpu"))}
    assert (recipe.get("start") in known) == starts


def test_nearest_without_pictures_is_refused(words, capsys):
    assert main(f"{words} --start nearest --exemplars none".split()) == 2
    assert "--start nearest needs pictures of the style" in capsys.readouterr().err
