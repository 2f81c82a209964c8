"""How the small CLIP is trained."""

import csv

import numpy as np
import pytest
import torch
from training.test_tokenizer import pictures

from stylerdalle.clip.package import clip
from stylerdalle.clip.scores import embed_texts
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.training.clip import (
    ClipConfig,
    bench_classes,
    build_clip,
    caption_of,
    class_of,
    prompts_of,
    style_accuracy,
    style_classes,
    train,
    used_tokens,
    with_full_context,
    words,
)

SMALL = ClipConfig(
    embed_dim=16,
    resolution=32,
    vision_width=8,
    text_width=64,
    text_layers=1,
    steps=50,
    last_steps=10,
    batch=8,
    least=2,
    average=0.5,
)


def art(style: str, count: int, captions: tuple[str, ...] = ()) -> list[Picture]:
    data = pictures(count)
    return [Picture(f"{style}-{i}", data[i].data, captions, style, kind="art") for i in range(count)]


def test_the_saved_form_reads_77_positions_and_says_the_same_of_short_texts():
    model = build_clip(SMALL).eval()
    full = with_full_context(model, SMALL)
    assert full.positional_embedding.shape[0] == 77
    from stylerdalle.clip.package import clip

    with torch.inference_mode():
        short = model.encode_text(clip.tokenize(["a cubist painting"], SMALL.context))
        assert torch.allclose(
            torch.nn.functional.normalize(short, dim=-1), embed_texts(full, ["a cubist painting"]), atol=2e-3
        )  # build_model rounds to fp16
        long = embed_texts(full, ["very " * 60])
    assert torch.isfinite(long).all()


def test_styles_with_too_few_pictures_are_no_class_and_photos_are_one():
    some = [*art("cubism", 3), *art("fauvism", 1), *pictures(4)]
    assert style_classes(some, 2) == {"cubism": "art", "photo": "photo"}
    assert class_of(some[-1]) == "photo"


def test_the_bench_takes_the_commonest_styles_and_settles_ties_by_the_training_data():
    held_out = [*art("cubism", 3), *art("fauvism", 1), *art("rococo", 1)]
    assert list(bench_classes(held_out, art("rococo", 5), most=2)) == ["cubism", "rococo"]


def test_captions_fall_back_on_the_style():
    rng = np.random.default_rng(0)
    assert all("cubism" in caption_of(art("cubism", 1)[0], rng) for _ in range(5))
    assert prompts_of("cubism", "art")[0] == "a cubism painting"


def test_words_are_those_seen_often_enough():
    known = words(art("cubism", 6, ("a cubist guitar",)), least=5)
    assert "guitar" in known and "cubism" in known
    assert "guitar" not in words(art("cubism", 3, ("a cubist guitar",)), least=5)


def test_used_tokens_are_those_of_captions_and_style_prompts():
    used = set(used_tokens(art("cubism", 1, ("a cubist guitar",))).tolist())
    assert set(clip.tokenize(["a cubist guitar", "cubism style"]).unique().tolist()) - {0} <= used
    assert not used & set(clip.tokenize(["lighthouse"])[0, 1:2].tolist())


def test_training_learns_to_tell_two_styles_apart(tmp_path):
    from io import BytesIO

    from PIL import Image

    def plain(style: str, colour: str) -> list[Picture]:
        out = []
        for i in range(6):
            stream = BytesIO()
            Image.new("RGB", (40 + i, 40), colour).save(stream, "PNG")
            out.append(Picture(f"{style}{i}", stream.getvalue(), style=style, kind="art"))
        return out

    some = [*plain("red art", "red"), *plain("blue art", "blue")]
    model = train(some, some, SMALL, Run(tmp_path))
    assert style_accuracy(model, some, {"red art": "art", "blue art": "art"}) == 1
    with (tmp_path / "curve.csv").open() as stream:
        assert float(next(csv.DictReader(stream))["valid_accuracy"]) == pytest.approx(1)
