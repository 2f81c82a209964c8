"""Windows over grids of any size."""

import itertools

import pytest
import torch

from stylerdalle.images.tiling import blended, faded, starts, tiles
from stylerdalle.translator import windows
from stylerdalle.translator.windows import falloff, translate_grid

VOCABULARY = 7


def greedy(logits: torch.Tensor) -> tuple[torch.Tensor]:
    return (logits.argmax(-1),)


def table_model(n: int, u: int):
    """Logits that depend on a token's own embedding alone: what windows average must then be the same as without."""
    table = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(0))

    def model(embeddings: torch.Tensor, strength: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        logits = (embeddings @ table).unflatten(1, (n, n))
        return logits.repeat_interleave(u, 1).repeat_interleave(u, 2).flatten(1, 2)

    return model, table


def grid_of(b: int, h: int, w: int) -> torch.Tensor:
    return torch.randn(b, h, w, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("length", range(1, 60))
@pytest.mark.parametrize(("window", "overlap"), [(16, 4), (8, 2), (4, 1), (5, 0), (4, 3)])
def test_starts_cover_every_place_with_the_overlap(length, window, overlap):
    first = starts(length, window, overlap)
    assert first[0] == 0
    assert first[-1] == max(0, length - window)
    assert all(a < b <= a + window - overlap for a, b in itertools.pairwise(first))


def test_the_weights_fall_to_the_edges_and_are_nowhere_zero():
    weight = falloff(6)
    assert weight.min() > 0
    assert weight[2, 2] == weight.max()
    assert torch.equal(weight, weight.flip(0, 1))


@pytest.mark.parametrize("upscale", [1, 2])
@pytest.mark.parametrize(("h", "w"), [(4, 4), (1, 1), (2, 9), (9, 2), (11, 13), (16, 5)])
def test_a_model_without_context_gives_the_same_tokens_through_windows_as_without(h, w, upscale):
    model, table = table_model(4, upscale)
    x = grid_of(2, h, w)
    (out,) = translate_grid(model, x, torch.ones(2, h, w), greedy, 4, upscale)
    whole = (x @ table).argmax(-1).repeat_interleave(upscale, 1).repeat_interleave(upscale, 2)
    assert torch.equal(out, whole)


def test_constant_logits_are_averaged_exactly():
    constant = torch.arange(VOCABULARY, dtype=torch.float32)
    seen = []

    def choose(logits: torch.Tensor) -> tuple[torch.Tensor]:
        seen.append(logits)
        return greedy(logits)

    translate_grid(lambda e, s, p: constant.expand(len(e), 16, -1), grid_of(1, 11, 13), torch.ones(1, 11, 13), choose, 4)
    logits = torch.cat(seen)
    assert len(logits) == 11 * 13
    assert torch.allclose(logits, constant.expand_as(logits), atol=1e-5)


def test_bands_give_what_one_sum_over_all_windows_gives():
    h, w, n, overlap = 13, 11, 4, 1
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(16 * 3, 16 * VOCABULARY, generator=generator)  # every place of a window sees all of it

    def model(embeddings: torch.Tensor, strength: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return (embeddings.flatten(1) @ mix).unflatten(1, (16, VOCABULARY))

    x = grid_of(1, h, w)
    total, weights = torch.zeros(h, w, VOCABULARY), torch.zeros(h, w, 1)
    for top in starts(h, n, overlap):
        for left in starts(w, n, overlap):
            logits = model(x[:, top : top + n, left : left + n].flatten(1, 2), None, None).view(n, n, VOCABULARY)
            total[top : top + n, left : left + n] += logits * falloff(n)[..., None]
            weights[top : top + n, left : left + n] += falloff(n)[..., None]
    rows = []

    def choose(logits: torch.Tensor) -> tuple[torch.Tensor]:
        rows.append(logits)
        return greedy(logits)

    (out,) = translate_grid(model, x, torch.ones(1, h, w), choose, n, overlap=overlap, batch=2)
    assert len(rows) == len(starts(h, n, overlap))
    assert torch.allclose(torch.cat(rows).view(h, w, -1), total / weights, atol=1e-4)
    assert torch.equal(out[0], (total / weights).argmax(-1))


def test_the_model_gets_the_strength_of_each_place():
    strength = torch.arange(6 * 6, dtype=torch.float32).view(1, 6, 6)
    seen: set[float] = set()

    def model(embeddings: torch.Tensor, part: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        seen.update(part.flatten().tolist())
        return torch.zeros(len(embeddings), 16, VOCABULARY)

    translate_grid(model, grid_of(1, 6, 6), strength, greedy, 4)
    assert seen == set(range(36))


def test_the_model_is_told_where_its_windows_begin():
    grid = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij"), -1)[None]  # (1, 9, 7, 2)

    def model(windows: torch.Tensor, strength: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        assert torch.equal(windows[:, 0], places.float())
        return torch.zeros(len(windows), 16, VOCABULARY)

    translate_grid(model, grid, torch.ones(1, 9, 7), greedy, 4)


def test_progress_counts_every_window_and_may_stop_the_work():
    model, _ = table_model(4, 1)
    calls = []
    translate_grid(model, grid_of(2, 9, 9), torch.ones(2, 9, 9), greedy, 4, batch=2, progress=lambda *c: calls.append(c))
    assert calls[-1][0] == calls[-1][1] == 2 * len(starts(9, 4, 1)) ** 2

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        translate_grid(model, grid_of(1, 9, 9), torch.ones(1, 9, 9), greedy, 4, progress=stop)


@pytest.mark.parametrize("overlap", [-1, 4])
def test_an_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(ValueError, match="0 to 3"):
        translate_grid(lambda e, s, p: e, grid_of(1, 9, 9), torch.ones(1, 9, 9), greedy, 4, overlap=overlap)


@pytest.mark.parametrize(("h", "w"), [(5, 5), (12, 12), (13, 8), (16, 40), (33, 17)])
def test_tiles_cover_a_picture_once_and_a_small_one_is_one_tile(h, w):
    covered = torch.zeros(h, w)
    boxes = tiles(h, w, 8, 2)
    for top, bottom, left, right in boxes:
        covered[top:bottom, left:right] += 1
    assert torch.equal(covered, torch.ones(h, w))
    assert (len(boxes) == 1) == (max(h, w) <= 12)


def test_a_wide_grid_chooses_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(windows, "PLACES", 20)
    model, table = table_model(4, 1)
    x, sizes = grid_of(1, 9, 10), []

    def choose(logits: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(logits))
        return greedy(logits)

    (out,) = translate_grid(model, x, torch.ones(1, 9, 10), choose, 4)
    assert torch.equal(out, (x @ table).argmax(-1))
    assert max(sizes) == 20 and sum(sizes) == 90


def test_what_is_chosen_can_be_put_into_tensors_that_are_there():
    model, _ = table_model(4, 2)
    x, there = grid_of(2, 5, 7), torch.zeros(2, 10, 14, dtype=torch.long)
    (out,) = translate_grid(model, x, torch.ones(2, 5, 7), greedy, 4, 2, out=[there])
    assert out is there and torch.equal(there, translate_grid(model, x, torch.ones(2, 5, 7), greedy, 4, 2)[0])


@pytest.mark.parametrize(("h", "w"), [(9, 9), (16, 41), (33, 17)])
@pytest.mark.parametrize(("unit", "scale"), [(1, 2), (4, 1 / 4)])
def test_tiles_that_fade_give_back_what_depends_on_its_own_place_alone(h, w, unit, scale):
    def resized(x: torch.Tensor) -> torch.Tensor:
        sides = [round(side * scale) for side in x.shape[-2:]]
        return 3 * torch.nn.functional.interpolate(x, sides, mode="nearest")

    x = torch.randn(1, 2, h * unit, w * unit, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(blended(resized, x, unit, 12 * unit, 4 * unit, scale), resized(x), atol=1e-5)


@pytest.mark.parametrize("length", [13, 24, 25, 40, 100])
def test_tiles_that_fade_are_no_larger_than_allowed_and_give_their_edges_no_weight(length):
    tiles = faded(length, 1, 12, 4, 2)
    assert all(places.stop - places.start <= 12 for places, _, _ in tiles)
    assert all(a.stop - b.start >= 4 for (a, _, _), (b, _, _) in itertools.pairwise(tiles))
    assert all((weight[:2] == 0).all() for _, _, weight in tiles[1:])  # a quarter of 4 places, two of the output
    assert all((weight[-2:] == 0).all() for _, _, weight in tiles[:-1])
    assert (tiles[0][2][0], tiles[-1][2][-1]) == (1, 1)
