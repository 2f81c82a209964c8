"""ruDALL-E's Gumbel VQGAN (Esser et al. 2021, arXiv 2012.09841; Jang et al. 2016, arXiv 1611.01144) as an image tokenizer.

Modules are named as in taming-transformers (github.com/CompVis/taming-transformers), so checkpoints of its GumbelVQ load as
they are. What differs from the authors:
- the token of a place is the likeliest code, not a Gumbel sample: a picture always gives the same tokens;
- attention is `scaled_dot_product_attention`, which does not hold all pairs of places at once;
- pictures of more than VQGAN_TILE tokens a side go through in tiles, because attention is quadratic in the area. Attention and
  group norms make a tile differ a little from its part of the whole, so neighbours are blended, before the argmax and in the
  pixels (images/tiling.py);
- float32 takes the place of float16, as in ruDALL-E; the projection to the vocabulary and the codebook are always float32.

Letters: B pictures of H x W pixels; h x w tokens; V codes; D the embed_dim; C any channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..images.tiling import blended
from .protocol import check_pixels, run_block

GROUPS = 32  # of every group norm
VQGAN_TILE = 72  # largest side of a tile in tokens: 512 px are one tile, 1024 px are 2 x 2
OVERLAP = 16  # tokens that neighbouring tiles share
LOGITS = 2**26  # logits held at once, 256 MB


@dataclass(frozen=True)
class VQGANConfig:
    """Sizes, under the names of taming-transformers' configs. The defaults are ruDALL-E's."""

    ch: int = 128  # width at full resolution; a multiple of 32
    ch_mult: tuple[int, ...] = (1, 1, 2, 4)  # width of each level over ch; every level after the first halves the picture
    num_res_blocks: int = 2  # of each level of the encoder; the decoder's have one more
    attn_resolutions: tuple[int, ...] = (32,)  # levels with attention after each block, by their side at `resolution`
    resolution: int = 256  # px of the pictures it was trained on; other sizes run too
    z_channels: int = 256  # what the encoder gives and the decoder takes
    embed_dim: int = 256  # numbers of a code
    n_embed: int = 8192  # codes

    def __post_init__(self) -> None:
        sizes = (self.ch, *self.ch_mult, self.num_res_blocks, self.resolution, self.z_channels, self.embed_dim, self.n_embed)
        if not self.ch_mult or min(sizes) < 1 or self.ch % GROUPS:
            raise ValueError(f"sizes {asdict(self)}: all must be 1 or more, and ch a multiple of {GROUPS}")


class VQGAN(nn.Module):
    """A Gumbel VQGAN as an `ImageTokenizer`."""

    sha256 = ""  # of its file, set by the one who reads it
    halo = None  # with attention and group norms every place depends on all others

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.downsample = 2 ** (len(config.ch_mult) - 1)
        self.vocab_size, self.embed_dim = config.n_embed, config.embed_dim
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.quantize = Codes(config.embed_dim, config.n_embed)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def of(cls, arch: Mapping[str, Any]) -> VQGAN:
        """A VQGAN with random weights, of the sizes that `arch` gave."""
        sizes: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in arch.items() if key != "type"
        }
        return cls(VQGANConfig(**sizes))

    def arch(self) -> dict[str, Any]:
        """Its type and sizes, as ImageTokenizer.arch."""
        return {"type": "vqgan", **asdict(self.config)}

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""
        return self.encoder.conv_in.weight.dtype

    def cast(self, dtype: torch.dtype) -> VQGAN:
        """Run in `dtype`, in place, the vocabulary's layers in float32. float16 means float32: its range is too small here."""
        self.to(torch.float32 if dtype == torch.float16 else dtype)
        self.quantize.float()
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], sides multiples of downsample -> tokens, long (B, h, w), the likeliest at each place."""
        unit = self.downsample
        check_pixels(images, unit)
        z = blended(self.features, images, unit, VQGAN_TILE * unit, OVERLAP * unit, 1 / unit)
        rows = max(1, LOGITS // (len(z) * z.shape[3] * self.vocab_size))
        return torch.cat([self.logits(part).argmax(1) for part in z.split(rows, 2)], 1)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> the features that `logits` projects, (B, D, h, w)."""
        x = (2 * images - 1).to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self.quant_conv(self.encoder(x))

    def logits(self, z: Tensor) -> Tensor:
        """Features (B, D, h, w) -> logits (B, V, h, w), float32."""
        with torch.autocast(z.device.type, enabled=False):
            return self.quantize.proj(z.float())

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) -> rows of the codebook (B, h, w, D), the paper's embedding."""
        return self.quantize.embed(tokens)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) -> images float32 (B, 3, H, W) in [0, 1]."""
        return self.decode_mixture(self.embed(tokens).permute(0, 3, 1, 2))

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Token probabilities (B, V, h, w) -> images (B, 3, H, W) in [0, 1], differentiable in the probabilities."""
        return self.decode_mixture(torch.einsum("bvhw,vd->bdhw", probabilities, self.quantize.embed.weight))

    def decode_mixture(self, embeddings: Tensor, recompute: bool = False) -> Tensor:
        """Mean embeddings (B, D, h, w) of the likely tokens -> images (B, 3, H, W) in [0, 1].

        Args:
            recompute: as of ImageTokenizer.
        """
        x = blended(partial(self.decode_embedded, recompute=recompute), embeddings, 1, VQGAN_TILE, OVERLAP, self.downsample)
        return (x.float().clamp(-1, 1) + 1) / 2

    def decode_embedded(self, embeddings: Tensor, recompute: bool = False) -> Tensor:
        """Mean embeddings (B, D, h, w) -> pixels (B, 3, H, W), about [-1, 1]."""
        x = embeddings.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self.decoder(self.post_quant_conv(x), recompute)


class Codes(nn.Module):
    """The vocabulary: logits of the codes, and their embeddings."""

    def __init__(self, width: int, codes: int):
        super().__init__()
        self.proj, self.embed = nn.Conv2d(width, codes, 1), nn.Embedding(codes, width)


class Encoder(nn.Module):
    """(B, 3, H, W) -> (B, z_channels, h, w)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip([config.ch, *widths], widths, strict=False)):
            self.down.append(Level(before, width, config.num_res_blocks, attends(config, i), halve=i < len(widths) - 1))
        self.mid = Middle(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, z_channels, h, w)."""
        x = self.conv_in(x)  # (B, ch, H, W)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, z_channels, h, w) -> (B, 3, H, W)."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()  # level 0 is full resolution, as in the encoder; they run from the last to the first
        for i, (before, width) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
            self.up.append(Level(before, width, config.num_res_blocks + 1, attends(config, i), double=i > 0))
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """(B, z_channels, h, w) -> (B, 3, H, W)."""
        x = run_block(self.mid, self.conv_in(x), recompute=recompute)  # (B, ch * ch_mult[-1], h, w)
        for level in reversed(self.up):
            x = level(x, recompute)
        return run_block(self.last, x, recompute=recompute)

    def last(self, x: Tensor) -> Tensor:
        """(B, ch, H, W) -> (B, 3, H, W)."""
        return self.conv_out(F.silu(self.norm_out(x)))


def attends(config: VQGANConfig, level: int) -> bool:
    """Whether this level has attention."""
    return config.resolution // 2**level in config.attn_resolutions


class Level(nn.Module):
    """Blocks of one resolution, attention after each where the level has it, then the step to the next resolution."""

    def __init__(self, before: int, width: int, blocks: int, attention: bool, halve: bool = False, double: bool = False):
        super().__init__()
        self.block = nn.ModuleList(Residual(width if i else before, width) for i in range(blocks))
        self.attn = nn.ModuleList(Attention(width) for _ in range(blocks if attention else 0))
        self.downsample = Halve(width) if halve else nn.Identity()
        self.upsample = Double(width) if double else nn.Identity()

    def forward(self, x: Tensor, recompute: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, C', H / 2, W / 2), (B, C', 2 H, 2 W) or (B, C', H, W)."""
        for i, block in enumerate(self.block):
            x = run_block(block, x, recompute=recompute)
            if self.attn:
                x = run_block(self.attn[i], x, recompute=recompute)
        return self.upsample(self.downsample(x))


class Middle(nn.Module):
    """Two blocks with attention between them, at the resolution of the tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = Residual(width, width), Attention(width), Residual(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Residual(nn.Module):
    """x + two 3x3 convolutions, each after a group norm and SiLU."""

    def __init__(self, before: int, width: int):
        super().__init__()
        self.norm1, self.conv1 = norm(before), nn.Conv2d(before, width, 3, padding=1)
        self.norm2, self.conv2 = norm(width), nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class Attention(nn.Module):
    """x + one head of attention over all places."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))  # (B, 1, hw, C)
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C, h, w)
        return x + self.proj_out(h)


class Halve(nn.Module):
    """A 3x3 convolution of stride 2; the picture is padded on the right and below only."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Double(nn.Module):
    """Nearest upsampling and a 3x3 convolution."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def norm(width: int) -> nn.GroupNorm:
    """The group norm of taming-transformers."""
    return nn.GroupNorm(GROUPS, width, eps=1e-6)
