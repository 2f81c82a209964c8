"""The teacher: a feed-forward network that paints a picture in one of several styles.

Johnson et al. 2016 (arXiv 1603.08155) with conditional instance normalisation (Dumoulin et al. 2017, arXiv 1610.07629): all
styles share the convolutions, a style is one row of scales and shifts. What differs: a noise field beside the picture, so that
plain areas get marks that differ from place to place. Training may start from the network of that paper (teacher_start.py).

Letters: B pictures, H, W pixels, h = H/8, w = W/8 places of the token grid, S styles, C channels, K noise planes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import misfits, read, write
from ..device import autocast
from ..translator.noise import SPACINGS, noise_field

UNIT = 8  # px between two places of the noise grid: the tokenizer's downsampling


@dataclass(frozen=True)
class TeacherShape:
    """The sizes of a teacher."""

    width: int = 32  # channels at full resolution
    inner: int = 64  # channels at a half and a quarter of the resolution
    blocks: int = 4  # residual blocks at a quarter of the resolution
    up: tuple[int, int] = (64, 32)  # channels at a half and at full resolution, on the way back


class StyleNorm(nn.Module):
    """Instance normalisation with one row of scales and shifts a style."""

    def __init__(self, styles: int, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(styles, channels))
        self.shift = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) and rows (B,) -> (B, C, H, W)."""
        scale, shift = self.scale[style], self.shift[style]  # (B, C)
        # instance normalisation is batch normalisation of one picture that has all channels of the batch; the fused kernel of
        # the latter also takes scales and shifts that differ from picture to picture, which F.instance_norm does not
        whole = x if len(x) == 1 else x.reshape(1, -1, *x.shape[2:])
        out = F.batch_norm(whole, None, None, scale.flatten(), shift.flatten(), training=True)
        return out.view(x.shape) if len(x) > 1 else out


class StyledLayer(nn.Module):
    """Resize, convolve with mirrored borders, normalise."""

    def __init__(self, styles: int, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
        self.norm = StyleNorm(styles, outputs)
        self.upsample = upsample

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) and rows (B,) -> (B, C', H', W'): the same size, half of it with stride 2, twice with `upsample`."""
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        margin = self.conv.kernel_size[0] // 2
        return self.norm(self.conv(F.pad(x, (margin,) * 4, mode="reflect")), style)


class StyledResidual(nn.Module):
    """Two layers and the way around them."""

    def __init__(self, styles: int, channels: int):
        super().__init__()
        self.first = StyledLayer(styles, channels, channels)
        self.second = StyledLayer(styles, channels, channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(B, C, H, W) and rows (B,) -> (B, C, H, W)."""
        return x + self.second(F.relu(self.first(x, style)), style)


class Teacher(nn.Module):
    """A picture and a noise field -> the picture in a style.

    Args:
        names: the styles, one row each.
        shape: the sizes.

    Raises:
        ValueError: no names, or a name twice.
    """

    def __init__(self, names: Sequence[str], shape: TeacherShape | None = None):
        super().__init__()
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a teacher needs styles of different names, not {list(names)}: name each once")
        self.names, self.shape = tuple(names), shape or TeacherShape()
        styles, width, inner = len(names), self.shape.width, self.shape.inner
        self.down = nn.ModuleList(
            [
                StyledLayer(styles, 3 + len(SPACINGS), width, kernel=9),
                StyledLayer(styles, width, inner, stride=2),
                StyledLayer(styles, inner, inner, stride=2),
            ]
        )
        self.blocks = nn.ModuleList([StyledResidual(styles, inner) for _ in range(self.shape.blocks)])
        half, full = self.shape.up
        self.up = nn.ModuleList([StyledLayer(styles, inner, half, upsample=True), StyledLayer(styles, half, full, upsample=True)])
        self.last = StyledLayer(styles, full, 3, kernel=9)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Paint.

        Args:
            images: (B, 3, H, W) in [0, 1], H and W multiples of 8.
            style: rows, long (B,).
            noise: (B, K, H/8, W/8), as `noise_field` makes it.

        Returns:
            float32 (B, 3, H, W) in [0, 1].
        """
        grid = (images.shape[-2] // UNIT, images.shape[-1] // UNIT)
        if images.shape[-2] % UNIT or images.shape[-1] % UNIT or noise.shape[-2:] != grid:
            raise ValueError(
                f"pictures of {images.shape[-1]} x {images.shape[-2]} px and noise of {noise.shape[-1]} x {noise.shape[-2]} "
                f"places do not fit: sides must be multiples of {UNIT} px, with one place of noise for each {UNIT} px"
            )
        field = F.interpolate(noise, scale_factor=float(UNIT), mode="bicubic")  # (B, K, H, W)
        x = torch.cat([2 * images - 1, field], 1).contiguous(memory_format=torch.channels_last)
        for layer in self.down:
            x = F.relu(layer(x, style))
        for block in self.blocks:
            x = block(x, style)
        for layer in self.up:
            x = F.relu(layer(x, style))
        return torch.sigmoid(self.last(x, style).float())

    def rows(self, names: Sequence[str]) -> Tensor:
        """The rows of styles, long (B,). Raises ValueError with the known names where one is unknown."""
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(f"the teacher has no style {', '.join(unknown)}: choose from {', '.join(self.names)}")
        return torch.tensor([self.names.index(name) for name in names])


def save_teacher(path: str | Path, teacher: Teacher, **metadata: Any) -> None:
    """Write a teacher as float16 safetensors of kind "teacher"; `metadata` as in `checkpoint.write`."""
    tensors = {name: tensor.detach().to(torch.float16) for name, tensor in teacher.state_dict().items()}
    write(path, tensors, "teacher", arch=asdict(teacher.shape), styles=list(teacher.names), **metadata)


def load_teacher(path: str | Path, device: torch.device | str = "cpu") -> Teacher:
    """A teacher of float32, ready to paint. Raises ValueError naming what is wrong with the file."""
    tensors, metadata = read(path, "teacher")
    try:
        arch = json.loads(metadata["arch"])
        if "up" in arch:
            arch["up"] = tuple(arch["up"])
        teacher = Teacher(json.loads(metadata["styles"]), TeacherShape(**arch))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe its teacher ({error}): train it anew") from error
    if problems := misfits(teacher.state_dict(), tensors):
        raise ValueError(f"{path} does not fit its own description: {problems}")
    teacher.load_state_dict(tensors)
    return teacher.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def paint(teacher: Teacher, images: Tensor, names: Sequence[str], seed: int = 0) -> Tensor:
    """Pictures (B, 3, H, W), one style's name for each -> (B, 3, H, W) in [0, 1]; equal seeds give equal pictures."""
    generator = torch.Generator().manual_seed(seed)
    noise = noise_field(images.shape[-2] // UNIT, images.shape[-1] // UNIT, generator, len(images))
    return paint_under(teacher, images, teacher.rows(names), noise)


@torch.inference_mode()
def paint_under(teacher: Teacher, images: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
    """As `paint`, under noise that is given, (B, K, H/8, W/8).

    Args:
        rows: of the styles (`Teacher.rows`), long (B,).
    """
    device = images.device
    with autocast(device):
        return teacher(images, rows.to(device, non_blocking=True), noise.to(device, non_blocking=True))
