"""The published metric on held-out photos."""

import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle.cli.main import main
from stylerdalle.clip import scores as reward
from stylerdalle.learn.crops import centre_crop, to_tensor
from stylerdalle.learn.metric import bootstrap
from stylerdalle.learn.shards import write_shard
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import find_style


@pytest.fixture
def shard(tmp_path):
    """Four photos and a piece of art."""
    notes = [*({"kind": "photo"} for _ in range(4)), {"kind": "art"}]
    samples = [(p.key, {"png": p.data, "json": json.dumps(note).encode()}) for p, note in zip(pictures(5), notes, strict=True)]
    write_shard(tmp_path / "valid.tar", samples)
    return tmp_path / "valid.tar"


def run(capsys, folder, *words):
    logging.getLogger("stylerdalle").setLevel(logging.NOTSET)  # commands that train turn it up for the whole process
    capsys.readouterr()
    code = main(["evaluate", "--bundle", str(folder), "--device", "cpu", "--dtype", "fp32", *map(str, words)])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize("normalise", [True, False])
def test_the_figure_is_the_mean_of_100_cosines_computed_by_hand(bundle, bundle_folder, shard, capsys, normalise):
    words = ("--images", shard, "--style", "ukiyo-e", "--size", 64, "--json", "--normalise" if normalise else "--no-normalise")
    code, out, err = run(capsys, bundle_folder, *words)
    assert (code, err) == (0, "")
    facts = json.loads(out)
    text = reward.embed_texts(bundle.clip, ["a ukiyo-e print"])[0]
    style, values = find_style(bundle, "ukiyo-e"), []
    for picture in pictures(4):
        photo = to_tensor([np.asarray(centre_crop(picture.open(), 64))])
        both = [stylize(photo, style, bundle, keep_lines=0), photo]  # as in the paper
        values.append([100 * float(reward.embed_images(bundle.clip, one, normalise)[0] @ text) for one in both])
    want = np.mean(values, 0)
    assert facts["photos"] == 4  # the art is left out
    assert facts["score"] == pytest.approx(want[0], abs=1e-4)
    assert facts["unstylised"] == pytest.approx(want[1], abs=1e-4)
    assert abs(want[0] - want[1]) > 1e-3
    low, high = facts["interval"]
    assert min(v[0] for v in values) <= low <= facts["score"] <= high <= max(v[0] for v in values)


def test_count_takes_the_first_photos_and_the_text_says_both_figures(bundle_folder, shard, capsys):
    words = ("--images", shard, "--style", "ukiyo-e", "--size", 32)
    code, out, _ = run(capsys, bundle_folder, *words, "--count", 2)
    assert code == 0
    assert "mean of 2 photos of 32 px" in out
    one, other = run(capsys, bundle_folder, *words, "--count", 1, "--json"), run(capsys, bundle_folder, *words, "--json")
    assert json.loads(one[1])["photos"] == 1
    assert json.loads(other[1])["photos"] == 4
    assert out.splitlines()[1].startswith("stylised:")
    assert out.splitlines()[2].startswith("unstylised:")


def test_a_style_file_can_be_evaluated(bundle_folder, shard, capsys):
    path = bundle_folder / "styles" / "van-gogh.safetensors"
    code, out, _ = run(capsys, bundle_folder, "--images", shard, "--style", path, "--size", 32, "--count", 1, "--json")
    assert code == 0
    assert json.loads(out)["prompt"] == "a Van Gogh style oil painting"


def test_a_damaged_photo_is_named_and_the_others_are_scored(bundle_folder, tmp_path, capsys):
    good = pictures(1)[0].data
    write_shard(tmp_path / "valid.tar", [("a", {"png": good[:60]}), ("b", {"png": good})])
    words = ("--images", tmp_path / "valid.tar", "--style", "ukiyo-e", "--size", 32, "--json")
    code, out, err = run(capsys, bundle_folder, *words)
    assert code == 2
    assert json.loads(out)["photos"] == 1
    assert "a is damaged" in err


def test_pictures_without_a_photo_among_them_are_refused(bundle_folder, tmp_path, capsys):
    stream = io.BytesIO()
    Image.new("RGB", (40, 40)).save(stream, "PNG")
    write_shard(tmp_path / "art.tar", [("a", {"png": stream.getvalue(), "json": b'{"kind": "art"}'})])
    code, out, err = run(capsys, bundle_folder, "--images", tmp_path / "art.tar", "--style", "ukiyo-e")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "there is no photo among" in err


def test_the_interval_is_that_of_the_mean():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).tolist()
    low, high = bootstrap(values)
    half = 1.96 * np.std(values) / 20
    assert low == pytest.approx(np.mean(values) - half, abs=0.01)
    assert high == pytest.approx(np.mean(values) + half, abs=0.01)
    assert bootstrap([3.0]) == (3, 3)
