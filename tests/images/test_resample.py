"""Parts of resized pictures."""

import pytest
import torch
import torch.nn.functional as F

from stylerdalle.images.resample import resized_part, taps


@pytest.mark.parametrize("size", [(40, 60), (20, 30), (80, 120), (33, 71), (9, 200), (1, 1)])
def test_a_part_is_that_part_of_the_whole_resized(size):
    images = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    for rows, columns in (((0, size[0]), (0, size[1])), ((size[0] // 3, size[0]), (size[1] // 2, size[1]))):
        part = resized_part(images, size, rows, columns)
        assert torch.allclose(part, whole[..., rows[0] : rows[1], columns[0] : columns[1]], atol=1e-5)


def test_a_part_of_the_same_size_is_cut_out_and_beyond_the_edge_the_last_row_and_column_are_repeated():
    images = torch.rand(1, 3, 5, 7)
    part = resized_part(images, (5, 7), (2, 8), (4, 8))
    assert torch.equal(part[..., :3, :3], images[..., 2:, 4:])
    assert torch.equal(part[..., 3:, :3], images[..., 4:, 4:].expand(-1, -1, 3, -1))
    assert torch.equal(part[..., 3], part[..., 2])


def test_a_part_needs_only_the_places_near_it():
    a, b, weights = taps(1000, 500, 100, 110)
    assert 195 <= a < 200 and 220 < b <= 225
    assert weights.shape == (10, b - a)
    assert torch.allclose(weights.sum(1), torch.ones(10))
