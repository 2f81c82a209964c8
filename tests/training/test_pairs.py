"""Made pairs."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle.learn.pairs import read_pairs
from stylerdalle.training.pairs import coded_texture, make_pairs
from stylerdalle.training.registry import find


def test_made_pairs_are_reproducible_and_of_the_size_asked_for():
    photos, made, places = make_pairs(pictures(2), "pixel-art", 32, 3)
    assert photos.shape == made.shape == (3, 3, 32, 32)
    assert photos.dtype == torch.uint8
    assert places.shape == (3, 2) and places.min() >= 0 and places.max() < 64
    again = make_pairs(pictures(2), "pixel-art", 32, 3)
    assert torch.equal(made, again[1])
    assert torch.equal(made, made[..., ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3))


def test_the_marks_of_a_made_picture_lie_where_its_place_says():
    plain = [replace(picture, data=grey()) for picture in pictures(1)]
    _, made, places = make_pairs(plain, "stained-glass", 64, 4)
    lead = find("stained-glass").marks.line
    for picture, (y, x) in zip(made, (8 * places).tolist(), strict=True):
        under = torch.roll(lead, (-y, -x), (0, 1))[:64, :64]
        dark = picture.float().mean(0)
        assert dark[under > 0.9].mean() < 0.3 * dark[under < 0.1].mean()


def test_a_texture_is_what_a_tokenizer_makes_of_the_marks_without_a_seam():
    tokenizer = tiny.tokenizer()
    made = coded_texture(tokenizer, "stained-glass")
    assert made.tokens.shape == (1, 64, 64)
    twice = torch.from_numpy(np.tile(find("stained-glass").picture(), (2, 2, 1))).permute(2, 0, 1)[None].float() / 255
    inner = slice(32, 96)  # far from the edges of the four squares
    assert torch.equal(tokenizer.encode(twice)[0, inner, inner], made.tokens[0].roll((-32, -32), (0, 1)))
    assert coded_texture(tokenizer, "pixel-art") is None


def grey() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (96, 96), (150, 150, 150)).save(stream, "PNG")
    return stream.getvalue()


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_pairs_of_a_folder_are_cut_at_the_same_places(tmp_path):
    for i in range(2):
        write(tmp_path / "photos" / f"{i}.png", noise(60, 80, i))
        write(tmp_path / "styled" / f"{i}.png", 255 - noise(60, 80, i))
    photos, styled, _ = read_pairs(tmp_path, 32, 5)
    assert photos.shape == styled.shape == (5, 3, 32, 32)
    assert (photos.int() + styled.int() - 255).abs().max() <= 1
    assert photos.float().std(0).mean() > 1  # five different places
    assert torch.equal(photos, read_pairs(tmp_path, 32, 5)[0])


def test_a_styled_picture_of_another_size_is_brought_to_the_photos(tmp_path):
    write(tmp_path / "photos" / "a.png", noise(40, 80))
    write(tmp_path / "styled" / "a.jpg", noise(80, 160))
    assert read_pairs(tmp_path, 32, 2)[1].shape == (2, 3, 32, 32)


def test_folders_that_hold_no_pairs_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no picture: pairs are FOLDER/photos"):
        read_pairs(tmp_path, 32, 1)
    write(tmp_path / "photos" / "a.png", noise(40, 40))
    write(tmp_path / "photos" / "b.png", noise(40, 40))
    write(tmp_path / "styled" / "a.png", noise(40, 80))
    with pytest.raises(ValueError, match="b is in only one of photos and styled"):
        read_pairs(tmp_path, 32, 1)
    write(tmp_path / "styled" / "b.png", noise(40, 40))
    with pytest.raises(ValueError, match="must have the same shape"):
        read_pairs(tmp_path, 32, 1)
