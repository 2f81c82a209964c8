"""An image tower for CLIP that sees style: the means and deviations of the channels of early and middle layers.

The statistics of a network's layers describe style (Gatys et al., arXiv 1508.06576), and most of it is in the mean and the
deviation of each channel (Huang and Belongie, arXiv 1703.06868). The layers are frozen: those of EfficientNet-lite0, inverted
bottlenecks with ReLU6 (Tan and Le, arXiv 1905.11946; Sandler et al., arXiv 1801.04381), batch norms folded into the
convolutions. A small head makes CLIP's embedding of the statistics. The text tower and everything else are OpenAI's: the model
is a `clip.model.CLIP` whose `visual` is this tower. training/style_clip.py is how it is trained.

Letters: B pictures, S their side in px, C channels, D statistics, E numbers in an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..device import constant
from .scores import CONTEXT, MEAN, STD

if TYPE_CHECKING:
    from clip.model import CLIP

STEM = 32  # channels of the first convolution
LITE0 = (  # EfficientNet-lite0's blocks: kernel, stride, channels that leave it
    *((3, 1, 16), (3, 2, 24), (3, 1, 24), (5, 2, 40), (5, 1, 40), (3, 2, 80), (3, 1, 80), (3, 1, 80)),
    *((5, 1, 112), (5, 1, 112), (5, 1, 112), (5, 2, 192), (5, 1, 192), (5, 1, 192), (5, 1, 192), (3, 1, 320)),
)
STAGES = (0, 1, 3, 5, 8, 11, 15, 16)  # the layers read by default: the stem (0) and the last block of each width
LEAST_VARIANCE = 1e-4  # added to variances, so that the deviation of a plain picture has a gradient
VOCABULARY = 49408  # CLIP's text tokens
TEXT_HEAD = 64  # width of a head of the text transformer


@dataclass(frozen=True)
class StyleClipShape:
    """Sizes of a CLIP whose image tower reads statistics.

    Attributes:
        image_resolution: side of the pictures that it sees, px.
        read: layers whose statistics are read, ascending; 0 is the stem, k the k-th block. Later layers are left out.
        hidden: width of the head's hidden layer.
        embed_dim: numbers in an embedding.
        text_width: of the text transformer; a multiple of 64.
        text_layers: of the text transformer.
    """

    image_resolution: int = 160
    read: tuple[int, ...] = STAGES
    hidden: int = 512
    embed_dim: int = 256
    text_width: int = 128
    text_layers: int = 3

    def __post_init__(self) -> None:
        if not self.read or list(self.read) != sorted(set(self.read)) or self.read[0] < 0 or self.read[-1] > len(LITE0):
            raise ValueError(f"layers {self.read}: need ascending numbers from 0 to {len(LITE0)}")
        if min(self.image_resolution, self.hidden, self.embed_dim, self.text_layers) < 1 or self.text_width % TEXT_HEAD:
            raise ValueError(f"sizes {self}: need positive numbers, and a text width that is a multiple of {TEXT_HEAD}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each layer that is read."""
        return tuple((STEM, *(channels for _, _, channels in LITE0))[layer] for layer in self.read)

    @property
    def statistics(self) -> int:
        """D, how many statistics are read."""
        return 2 * sum(self.widths)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: ceil(size / stride) places, the odd pixel of padding at the right and bottom."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in (x.shape[-1], x.shape[-2])]
        if pads[0] % 2 or pads[1] % 2:
            x = F.pad(x, (pads[0] // 2, pads[0] - pads[0] // 2, pads[1] // 2, pads[1] - pads[1] // 2))
            pads = [0, 0]
        return F.conv2d(x, self.weight, self.bias, stride, (pads[1] // 2, pads[0] // 2), groups=self.groups)


class Bottleneck(nn.Module):
    """An inverted bottleneck: a 1x1 convolution to six times the channels, a depthwise one, a 1x1 back, which is linear."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, wider: int = 6):
        super().__init__()
        wide = inputs * wider
        self.expand = nn.Conv2d(inputs, wide, 1) if wider > 1 else None
        self.depthwise = SameConv2d(wide, wide, kernel, stride, groups=wide)
        self.project = nn.Conv2d(wide, outputs, 1)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = F.relu6(self.expand(x), inplace=True) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.skip else y


def channel_statistics(layers: Sequence[Tensor]) -> Tensor:
    """Means and deviations of all channels, (B, C_k, H_k, W_k) each -> (B, D), in float32."""
    parts = []
    for layer in layers:
        with torch.autocast(layer.device.type, enabled=False):  # sums over all places need float32
            flat = layer.float().flatten(2)  # (B, C, N)
            parts += [flat.mean(-1), (flat.var(-1, unbiased=False) + LEAST_VARIANCE).sqrt()]
    return torch.cat(parts, 1)


def columns(of: Sequence[int], read: Sequence[int]) -> Tensor:
    """Where the statistics of the layers `read` are among those of the layers `of`, long (D)."""
    ends = torch.tensor([2 * width for width in StyleClipShape(read=tuple(of)).widths]).cumsum(0).tolist()
    parts = [torch.arange(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return torch.cat([parts[list(of).index(layer)] for layer in read])


class StatisticsTower(nn.Module):
    """Pictures normalised for CLIP, (B, 3, S, S), to embeddings (B, E)."""

    centre: Tensor  # (D), mean of each statistic over the training pictures
    scale: Tensor  # (D), 1 / its deviation

    def __init__(self, shape: StyleClipShape):
        super().__init__()
        self.shape, self.input_resolution = shape, shape.image_resolution
        self.conv1 = SameConv2d(3, STEM, 3, 2)  # by this name CLIP learns its dtype
        inputs = (STEM, *(channels for _, _, channels in LITE0))
        self.blocks = nn.ModuleList(
            Bottleneck(inputs[k], channels, kernel, stride, 6 if k else 1)
            for k, (kernel, stride, channels) in enumerate(LITE0[: shape.read[-1]])
        )
        self.register_buffer("centre", torch.zeros(shape.statistics))
        self.register_buffer("scale", torch.ones(shape.statistics))
        self.straight = nn.Linear(shape.statistics, shape.embed_dim)
        self.hidden = nn.Linear(shape.statistics, shape.hidden)
        self.bent = nn.Linear(shape.hidden, shape.embed_dim, bias=False)

    def look(self, images: Tensor) -> Tensor:
        """Pictures normalised for CLIP, (B, 3, S, S) -> their statistics (B, D), in float32."""
        mean, std = (constant(v, images.device, images.dtype).view(3, 1, 1) for v in (MEAN, STD))
        x = (255 * (images * std + mean) - 127) / 128  # as EfficientNet-lite was trained
        x = F.relu6(self.conv1(x.contiguous(memory_format=torch.channels_last)), inplace=True)
        layers = [x] if 0 in self.shape.read else []
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in self.shape.read:
                layers.append(x)
        return channel_statistics(layers)

    def embed(self, statistics: Tensor) -> Tensor:
        """Statistics (B, D) -> embeddings (B, E), not normalised."""
        x = ((statistics - self.centre) * self.scale).to(self.straight.weight.dtype)
        out: Tensor = self.straight(x) + self.bent(F.gelu(self.hidden(x)))
        return out

    def forward(self, images: Tensor) -> Tensor:
        """Pictures normalised for CLIP, (B, 3, S, S) -> embeddings (B, E), not normalised."""
        return self.embed(self.look(images))


def build_style_clip(shape: StyleClipShape, context: int = CONTEXT, vocab_size: int = VOCABULARY) -> CLIP:
    """An untrained CLIP of the given sizes. It draws its weights from torch's global generator.

    Args:
        context: text positions.
        vocab_size: text tokens.
    """
    from .package import clip

    model = clip.model.CLIP(
        embed_dim=shape.embed_dim,
        image_resolution=1,
        vision_layers=0,
        vision_width=64,
        vision_patch_size=1,
        context_length=context,
        vocab_size=vocab_size,
        transformer_width=shape.text_width,
        transformer_heads=shape.text_width // TEXT_HEAD,
        transformer_layers=shape.text_layers,
    )
    model.visual = StatisticsTower(shape)
    return model
