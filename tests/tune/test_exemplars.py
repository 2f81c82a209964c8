"""Exemplars as a reward."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle import checkpoint
from stylerdalle.cli.main import main
from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.learn.run import Run
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.exemplars import Exemplars
from stylerdalle.tune.loop import tune
from stylerdalle.tune.objective import Objective

SMALL = TuneConfig(steps=2, batch=2, size=32, views=2, rank=2, softness=20, exemplar_size=64)
PROMPT = "a ukiyo-e print"


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1))).requires_grad_(False)


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


def stripes(side: int = 64, vertical: bool = True, shift: float = 0.0) -> torch.Tensor:
    wave = 0.5 + 0.4 * torch.sin(torch.arange(side) * 0.8 + shift)
    picture = wave.expand(1, 3, side, side)
    return picture if vertical else picture.transpose(2, 3)


def test_a_picture_of_the_style_is_nearer_than_another_whatever_its_size(network):
    exemplars = Exemplars(network, [torch.nn.functional.interpolate(stripes(), scale_factor=3.0)], 64)
    near, far = (exemplars.distances(network(stripes(64, v, 1.0)), stripes())[0] for v in (True, False))
    assert near < 0.5 * far


def test_of_several_exemplars_the_nearest_counts(network):
    one, both = Exemplars(network, [stripes()], 64), Exemplars(network, [stripes(vertical=False), stripes()], 64)
    picture = stripes(64, True, 2.0)
    assert torch.equal(one.distances(network(picture), picture)[0], both.distances(network(picture), picture)[0])


def test_the_photo_itself_has_no_distance_in_content(network):
    photo = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    content = Exemplars(network, [stripes()], 64).distances(network(torch.cat([photo, photo.flip(-1)])), photo)[1]
    assert content[0] < 1e-5 < content[1]


def test_other_exemplars_or_another_size_are_another_run(network, models, tmp_path):
    first, second, third = (Exemplars(network, [stripes(vertical=v)], s) for v, s in ((True, 64), (False, 64), (True, 72)))
    assert len({first.sha256, second.sha256, third.sha256}) == 3
    tune(*models, pictures(2), PROMPT, SMALL, Run(tmp_path), exemplars=first)
    with pytest.raises(ValueError, match="exemplars"):
        tune(*models, pictures(2), PROMPT, SMALL, Run(tmp_path), exemplars=second)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_rewarded_for_nearness(network, models, method):
    config = dataclasses.replace(SMALL, method=method, softness=20 if method == "direct" else 0)
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, near = (Objective(*models, PROMPT, config, e) for e in (None, Exemplars(network, [photo], 64)))
    text, boxes = plain.text(""), [(0, 0, 32)]
    whole = [float(o.judge(photo, photo, text, boxes)[0]) for o in (plain, near)]
    far = float(near.judge(stripes(32), photo, text, boxes)[0])
    assert far < whole[1] < whole[0]


def test_the_style_alone_is_a_reward_only_where_there_are_exemplars(network, models):
    config = dataclasses.replace(SMALL, patch_weight=0, directional_weight=0)
    Objective(*models, PROMPT, config, Exemplars(network, [stripes()], 64))
    with pytest.raises(ValueError, match="all weights of the reward are 0"):
        Objective(*models, PROMPT, config)


def test_without_pictures_there_are_no_exemplars(network):
    with pytest.raises(ValueError, match="at least one picture"):
        Exemplars(network, [], 64)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_weights_are_one_a_picture_and_above_0(weights, network):
    with pytest.raises(ValueError, match="weights .* of 2 exemplars: give one above 0 for each"):
        Exemplars(network, [stripes(), stripes()], 64, weights)


def test_other_weights_are_another_run_and_equal_ones_are_not(network):
    hashes = [Exemplars(network, [stripes(), stripes()], 64, weights).sha256 for weights in (None, [1.0, 1.0], [1.0, 0.8])]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_recogniser_knows_the_exemplars_from_others(network):
    upright = [stripes(96, shift=float(k)) for k in range(3)]
    rng = torch.Generator().manual_seed(0)
    others = [stripes(96, False), *(torch.rand(1, 3, 80, 64, generator=rng) for _ in range(29))]
    exemplars = Exemplars(network, upright, 64)
    before = exemplars.sha256
    assert torch.equal(exemplars.surprise(network(upright[0])), torch.zeros(1))  # without one
    exemplars.learn_from(iter(others), 64)
    assert exemplars.sha256 != before
    seen = torch.cat([stripes(64, shift=0.5), torch.rand(1, 3, 64, 64, generator=rng)]).requires_grad_(True)
    surprise = exemplars.surprise(network(seen))
    assert surprise[0] < 0.5 < 2 * surprise[0] < surprise[1]
    surprise.sum().backward()
    assert seen.grad is not None and seen.grad[1].abs().max() > 0


def test_the_nearest_of_the_others_may_be_of_the_same_style(network):
    rng = torch.Generator().manual_seed(0)
    far = [torch.rand(1, 3, 64, 64, generator=rng) for _ in range(10)]
    known, twice = (Exemplars(network, [stripes(64)], 64) for _ in range(2))
    known.learn_from(far[:9], 64)
    twice.learn_from([*far[:9], stripes(64)], 64)  # the last one is left out
    picture = network(stripes(64, shift=1.0))
    assert twice.surprise(picture) < 2 * known.surprise(picture) < 1


def test_exemplars_among_the_others_do_not_count(network):
    far = [torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(k)) for k in range(4)]
    alone, among = (Exemplars(network, [stripes(64)], 64) for _ in range(2))
    alone.learn_from(far, 64)
    among.learn_from([far[0], stripes(64), *far[1:]], 64)
    assert alone.sha256 == among.sha256
    picture = network(stripes(64, shift=1.0))
    assert torch.equal(alone.surprise(picture), among.surprise(picture))


def test_a_picture_alone_is_too_little_to_tell_from(network):
    exemplars = Exemplars(network, [stripes(64)], 64)
    exemplars.learn_from([torch.rand(1, 3, 64, 64)], 64)
    assert exemplars.recogniser is None


def test_the_recogniser_is_a_part_of_the_reward(network, models):
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exemplars = Exemplars(network, [stripes(64)], 64)
    exemplars.learn_from([torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(k)) for k in range(6)], 32)
    plain, known = (
        Objective(*models, PROMPT, dataclasses.replace(SMALL, recognised_weight=weight), exemplars) for weight in (0.0, 2.0)
    )
    wholes = [float(o.judge(photo, photo, plain.text(""), [(0, 0, 32)])[0]) for o in (plain, known)]
    assert wholes[0] - wholes[1] == pytest.approx(2 * float(exemplars.surprise(network(photo))), rel=1e-4)


def test_the_command_tunes_on_exemplars_and_names_them_in_the_file(bundle_folder, tmp_path, network):
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    checkpoint.save_features(bundle / "features.safetensors", network)
    for name in ("photo.png", "wave.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 255, (80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    words = f"tune --style waves --images {tmp_path}/photo.png --exemplars {tmp_path}/wave.png --bundle {bundle}"
    words += f" --output {tmp_path}/waves.safetensors --steps 1 --batch 1 --size 32 --views 1 --run-dir {tmp_path}/run"
    assert main(words.split()) == 0
    assert json.loads(checkpoint.read_metadata(tmp_path / "waves.safetensors")["recipe"])["exemplars"] == ["wave.png"]


@pytest.mark.parametrize("option", ["--name", "--start", "--pairs", "--exemplars"])
def test_what_is_of_one_style_is_refused_for_a_network_of_many(option, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a mosaic\n")
    words = f"tune --styles {tmp_path}/prompts.txt --images {tmp_path} --output {tmp_path}/out.safetensors {option} waves"
    assert main(words.split()) == 2
    assert f"{option} cannot be used with --styles" in capsys.readouterr().err
