"""Pictures through the nodes: video frames, very wide pictures, masks with soft edges, detail, candidates."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def paint(run: Run) -> Callable[..., torch.Tensor]:
    """paint(IMAGE, bundle=..., detail=..., Translate's inputs ...) -> IMAGE."""

    def execute(image: torch.Tensor, bundle: str = "tiny", detail: float = 1.0, **inputs: Any) -> torch.Tensor:
        tokenizer, translator, _ = run("StylerDALLE_Load", bundle=bundle)
        (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=image, detail=detail)
        (tokens,) = run("StylerDALLE_Translate", translator=translator, tokens=tokens, **inputs)
        picture: torch.Tensor = run("StylerDALLE_Detokenize", tokenizer=tokenizer, tokens=tokens)[0]
        return picture

    return execute


@pytest.fixture
def told(comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The progress that nodes report, (done, total)."""
    import comfy.utils

    calls: list[tuple[int, int]] = []
    # newer hosts send at most ten updates a second
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_PERCENT", 0, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: calls.append((done, total)))
    return calls


def picture(height: int, width: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    """A picture of random 8 px blocks, which has several different tokens even with a random tokenizer."""
    small = torch.rand(count, -(-height // 8), -(-width // 8), 3, generator=torch.Generator().manual_seed(seed))
    return small.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width]


@pytest.mark.parametrize("bundle", ["tiny", "half"])
@pytest.mark.parametrize(("height", "width"), [(37, 740), (740, 37), (9, 180), (65, 131)])
@pytest.mark.parametrize("channels", [3, 4])
def test_strips_and_sides_that_are_no_multiples_of_8(
    paint: Callable[..., torch.Tensor], bundle: str, height: int, width: int, channels: int
) -> None:
    image = picture(height, width)
    image = torch.cat([image, torch.rand(1, height, width, 1)], -1)[..., :channels]
    out = paint(image, bundle)
    assert out.shape == image.shape and out.is_contiguous() and 0 <= out.min() <= out.max() <= 1
    assert torch.equal(out[..., 3:], image[..., 3:])


@pytest.mark.parametrize("detail", [0.25, 0.5, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("bundle", ["tiny", "half"])
def test_another_detail_comes_back_in_the_pictures_size(paint: Callable[..., torch.Tensor], bundle: str, detail: float) -> None:
    image = picture(41, 66)
    out = paint(image, bundle, detail)
    assert out.shape == image.shape and not torch.equal(out, paint(image, bundle))


def test_detail_is_how_many_tokens_there_are_and_its_size_is_bounded(run: Run) -> None:
    tokenizer = run("StylerDALLE_Load", bundle="tiny")[0]
    grids = [
        run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=picture(48, 64), detail=detail)[0].grid
        for detail in (0.5, 1.0, 2.0)
    ]
    assert [tuple(grid.shape[1:]) for grid in grids] == [(3, 4), (6, 8), (12, 16)]
    with pytest.raises(ValueError, match=r"8200 x 8 px picture at detail 2 is worked on at 16400 x 16 px: at most 16384"):
        run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=torch.zeros(1, 8, 8200, 3), detail=2.0)


def test_progress_is_told_by_picture_and_by_window_of_the_whole_batch(run: Run, told: list[tuple[int, int]]) -> None:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="tiny")
    frames = picture(64, 64, 3)
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=frames)
    assert told == [(1, 3), (2, 3), (3, 3)]
    told.clear()
    (tokens,) = run("StylerDALLE_Translate", translator=translator, tokens=tokens)
    assert told[-1] == (27, 27) and (18, 27) in told and told == sorted(told)  # 3 x 3 windows a frame
    told.clear()
    run("StylerDALLE_Detokenize", tokenizer=tokenizer, tokens=tokens)
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("step", ["Tokenize", "Translate", "Detokenize"])
def test_cancel_stops_a_large_picture_within_a_second(
    run: Run, comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    import comfy.utils

    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="tiny")
    image = torch.zeros(1, 1500, 1500, 3)
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=image)
    inputs: dict[str, Any] = {
        "Tokenize": {"tokenizer": tokenizer, "image": image},
        "Translate": {"translator": translator, "tokens": tokens},
        "Detokenize": {"tokenizer": tokenizer, "tokens": tokens},
    }[step]
    asked: list[float] = []

    def hook(done: int, total: int, *_: object, **__: object) -> None:
        if not asked:
            assert done < total / 4, "the picture is done in few steps"
            asked.append(time.monotonic())
            comfy.model_management.interrupt_current_processing()

    # newer hosts send at most ten updates a second
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_PERCENT", 0, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(f"StylerDALLE_{step}", **inputs)
    assert time.monotonic() - asked[0] < 3  # about a second on an idle machine


def test_the_noise_is_the_same_for_every_frame(paint: Callable[..., torch.Tensor]) -> None:
    still = picture(48, 64).expand(3, -1, -1, -1)
    first, second, third = paint(still, temperature=3.0, seed=5)
    assert torch.equal(first, second) and torch.equal(first, third)
    assert not torch.equal(first, paint(still[:1], temperature=3.0, seed=6)[0])


def test_steady_keeps_what_did_not_change_and_lets_through_what_did(paint: Callable[..., torch.Tensor]) -> None:
    frames = picture(64, 192).repeat(3, 1, 1, 1)
    frames[1, :, :64] = picture(64, 64, seed=1)[0]  # a new left third
    frames[1:] = (frames[1:] + 0.004 * torch.randn(frames[1:].shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    alone, steady = paint(frames), paint(frames, steady=0.9)
    assert torch.equal(paint(frames, steady=0.0), alone)
    assert torch.equal(steady[0], alone[0])
    right, left = (slice(None), slice(136, None)), (slice(None), slice(0, 24))
    assert (steady[1][right] - steady[0][right]).abs().mean() < 0.5 * (alone[1][right] - alone[0][right]).abs().mean()
    assert torch.allclose(steady[1][left], alone[1][left], atol=0.02)
    hard = [paint(frames, steady=s, softness=0.0) for s in (0.0, 0.9)]
    assert (hard[1][1][right] - hard[1][0][right]).abs().mean() < (hard[0][1][right] - hard[0][0][right]).abs().mean()
    with pytest.raises(ValueError, match="steady 1.5"):
        paint(frames, steady=1.5)


def test_a_feathered_mask_blends_where_a_hard_one_cuts(run: Run, paint: Callable[..., torch.Tensor]) -> None:
    image, mask = picture(64, 128), torch.zeros(1, 64, 128)
    mask[..., 64:] = 1
    none, hard, soft, full = (
        paint(image, **inputs) for inputs in ({"strength": 0.0}, {"mask": mask}, {"mask": mask, "feather": 30}, {})
    )
    assert not torch.equal(hard, soft)
    assert torch.allclose(soft[:, :, :8], none[:, :, :8], atol=0.05) and not torch.equal(soft[:, :, 72:80], full[:, :, 72:80])
    regions = [run("StylerDALLE_StyleRegion", mask=mask, prompt="ukiyo-e", feather=px)[0] for px in (0, 30)]
    cut, blended = (paint(image, regions=region) for region in regions)
    assert not torch.equal(cut, blended)


def test_candidates_are_the_seeds_from_one_on_and_the_best_is_chosen(run: Run, paint: Callable[..., torch.Tensor]) -> None:
    image = picture(40, 56)
    several = paint(image, temperature=3.0, seed=7, candidates=3)
    assert torch.equal(several, torch.cat([paint(image, temperature=3.0, seed=seed) for seed in (7, 8, 9)]))
    with pytest.raises(ValueError, match="raise the temperature"):
        paint(image, candidates=2)
    reward = run("StylerDALLE_Load", bundle="tiny")[2]
    scores = [run("StylerDALLE_Reward", reward=reward, image=one[None], text="a mosaic")[0] for one in several]
    best, score, lines = run("StylerDALLE_Best", reward=reward, image=several, text="a mosaic", count=2)
    order = sorted(range(3), key=lambda i: -scores[i])[:2]
    assert torch.equal(best, several[order]) and score == pytest.approx(max(scores), abs=1e-6)
    assert [int(line.split()[-1]) - 1 for line in lines.splitlines()] == order


def test_keep_colour_takes_the_photos_colours(run: Run) -> None:
    image, photo = picture(32, 40, 2), torch.full((1, 16, 20, 3), 0.5)
    (grey,) = run("StylerDALLE_KeepColour", image=image, photo=photo)
    assert grey.shape == image.shape and torch.allclose(grey[..., 0], grey[..., 2], atol=1e-5)
    (same,) = run("StylerDALLE_KeepColour", image=image, photo=photo, amount=0.0)
    assert torch.equal(same, image)
    with pytest.raises(ValueError, match="3 photos for 2 pictures"):
        run("StylerDALLE_KeepColour", image=image, photo=photo.expand(3, -1, -1, -1))
    with pytest.raises(ValueError, match="shape"):
        run("StylerDALLE_KeepColour", image=image, photo=photo[..., 0])


def test_lines_of_the_photo_come_into_the_pictures(run: Run) -> None:
    photo = picture(40, 56, 2)
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
    (many,) = run("StylerDALLE_Translate", translator=bundle, tokens=tokens, prompt="ukiyo-e", temperature=1.0, candidates=3)
    plain, none, some = (
        run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=many, **given)[0]
        for given in ({}, {"photo": photo, "keep_lines": 0.0}, {"photo": photo})
    )
    assert torch.equal(plain, none) and some.shape == plain.shape and not torch.equal(some, plain)
    with pytest.raises(ValueError, match="4 photos for 6 pictures: give one photo, or one for each picture"):
        run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=many, photo=picture(40, 56, 4))
    with pytest.raises(ValueError, match="keep_lines 2 is out of range"):
        run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=many, photo=photo, keep_lines=2)
