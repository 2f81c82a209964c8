"""The non-autoregressive translator (NAT) of StylerDALLE (Xu, Sangineto, Sebe, ICCV 2023, arXiv 2303.09268, section 3.2).

Content tokens of a picture in, logits of stylised tokens out, all places at once. State-dict names are those of the
authors' research checkpoints. What differs from the authors:
- sizes are free, and `upscale` may be 1 (same grid: every token is translated in place) as well as the paper's 2
  (a half-resolution picture in, 4 tokens out for each token in);
- the decoder's input is the paper's, every token repeated 2 x 2 in place; the authors' code repeats rows in place but tiles
  columns, and `decoder_input` can say so;
- attention is `scaled_dot_product_attention`;
- dropout before the output layer is a plain dropout, off at inference (theirs stayed on);
- with `texture`, the decoder can read a texture (texture.py): its embeddings are added to the decoder's input. Off by default;
- with `noise`, it reads that many planes of noise (noise.py) beside the texture. Off by default.

Letters: B windows; n x n content tokens of D_tok numbers in each, u the upscale, so (u*n)^2 target tokens; D the width; V the
vocabulary; K planes of noise.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import check_decoder_input
from .noise import SPACINGS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TranslatorConfig:
    """Sizes of a translator. The defaults are those of the paper's StylerDALLE-1.

    Raises:
        ValueError: impossible sizes.
    """

    embed_dim: int = 128  # D_tok, of the tokenizer's embeddings
    vocab_size: int = 8192  # V, vocabulary size
    width: int = 512  # D
    heads: int = 8
    encoder_layers: int = 4
    decoder_blocks: int = 4  # of 3 sub-layers each: self, positional, cross
    grid: int = 16  # n, content tokens a side; larger pictures go through windows (windows.py)
    upscale: int = 2  # u, target tokens a side for each content token a side
    mlp_ratio: int = 2  # hidden width of an MLP, in D
    dropout: float = 0.5  # before the output layer, in training only
    texture: bool = False  # the decoder has a layer that reads textures
    noise: int = 0  # K, planes of noise that this layer reads beside a texture
    decoder_input: str = "repeated"  # with upscale 2: which token a place begins with, see settings.DECODER_INPUTS

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name not in ("dropout", "texture", "noise", "decoder_input") and value < 1:
                raise ValueError(f"{name} is {value}: it must be 1 or more")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        if self.noise and (self.noise != len(SPACINGS) or not self.texture):
            raise ValueError(f"{self.noise} planes of noise: a translator with a texture reads {len(SPACINGS)} or none")
        if self.upscale not in (1, 2):
            raise ValueError(f"upscale {self.upscale} is not known: 1 is same-grid, 2 is the paper's")
        check_decoder_input(self.decoder_input)


class Attention(nn.Module):
    """Multi-head attention; queries, keys and values projected without bias, the output with bias.

    Args:
        fused: one projection for keys and values (the encoder's layers), else one each (the decoder's).
    """

    def __init__(self, width: int, heads: int, fused: bool):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.to_queries = nn.Linear(width, width, bias=False)
        if fused:
            self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        else:
            self.to_keys = nn.Linear(width, width, bias=False)
            self.to_values = nn.Linear(width, width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, N, D), key and value (B, M, D), mask bool (N, M), True where attended -> (B, N, D)."""
        q = self.to_queries(query)
        k, v = self.to_keys_values(key).chunk(2, -1) if self.fused else (self.to_keys(key), self.to_values(value))
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, heads, N, D/heads)
        plain = (q.requires_grad and q.device.type == "cpu") or (mask is not None and masks_fail())
        x = (plain_attention if plain else F.scaled_dot_product_attention)(q, k, v, attn_mask=mask)
        return self.project(x.transpose(1, 2).flatten(2))  # (B, N, D)


@lru_cache
def masks_fail() -> bool:
    """Whether `scaled_dot_product_attention` gives wrong results with a mask: on ROCm in torch 2.6
    (github.com/pytorch/pytorch/issues/147460). One line of the log says so."""
    fail = torch.version.hip is not None and torch.__version__.startswith("2.6.")
    if fail:
        log.warning("torch %s on ROCm has a fault in masked attention: it is computed as plain products", torch.__version__)
    return fail


def plain_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """`scaled_dot_product_attention` in three products: on a CPU its gradient is more than twice as fast to compute.

    query (B, heads, N, d), key and value (B, heads, M, d), attn_mask bool (N, M), True where attended -> (B, heads, N, d).
    """
    q, k, v = (t.flatten(0, 1) for t in (query * query.shape[-1] ** -0.5, key.to(query.dtype), value.to(query.dtype)))
    with torch.autocast(query.device.type, enabled=False):  # which would compute the softmax in float32, at twice the cost
        if attn_mask is None:
            scores = q @ k.transpose(-2, -1)
        else:
            bias = q.new_zeros(attn_mask.shape).masked_fill(~attn_mask, float("-inf"))
            scores = torch.baddbmm(bias.expand(len(q), -1, -1), q, k.transpose(-2, -1))
        out = scores.softmax(-1) @ v
    return out.unflatten(0, query.shape[:2])


class MLP(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return self.fc2(F.relu(self.fc1(x)))


class Layer(nn.Module):
    """x += attn(LN(query), key, value); x += mlp(LN(x)).

    Args:
        fused: an encoder's layer: key and value are the normed query (pre-norm). Otherwise they enter without a norm.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int, fused: bool):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, fused)
        self.mlp = MLP(width, mlp_ratio * width)

    def forward(
        self,
        x: Tensor,
        query: Tensor | None = None,
        key: Tensor | None = None,
        value: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (B, N, D), query (B, N, D), key and value (B, M, D), mask bool (N, M), True where attended -> (B, N, D).

        query, key and value are x by default. With `fused`, key and value are not used.
        """
        q = self.norm1(x if query is None else query)
        if self.attn.fused:
            key = value = q
        x = x + self.attn(q, x if key is None else key, x if value is None else value, mask)
        return x + self.mlp(self.norm2(x))


class Positions(nn.Module):
    """Learned positions of a square grid: position (y, x) = concat(col_embed[x], row_embed[y])."""

    def __init__(self, side: int, width: int):
        super().__init__()
        self.row_embed, self.col_embed = nn.Embedding(side, width // 2), nn.Embedding(side, width // 2)
        for table in (self.row_embed, self.col_embed):
            nn.init.uniform_(table.weight)

    def forward(self) -> Tensor:
        """-> (side*side, D)."""
        row, col = self.row_embed.weight, self.col_embed.weight
        n = len(row)
        return torch.cat([col.expand(n, n, -1), row[:, None].expand(n, n, -1)], -1).flatten(0, 1)


class Encoder(nn.Module):
    """Learned positions, then pre-norm layers over the content tokens."""

    def __init__(self, c: TranslatorConfig):
        super().__init__()
        self.pos_embedding = Positions(c.grid, c.width)
        self.layers = nn.ModuleList(Layer(c.width, c.heads, c.mlp_ratio, fused=True) for _ in range(c.encoder_layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n*n, D) -> (B, n*n, D)."""
        x = x + self.pos_embedding()
        for layer in self.layers:
            x = layer(x)
        return x


class Decoder(nn.Module):
    """Blocks of three layers: attention of the target tokens to each other, to positions, and to the encoder's output."""

    def __init__(self, c: TranslatorConfig):
        super().__init__()
        self.pos_embedding = Positions(c.grid * c.upscale, c.width)
        self.transformer = nn.Module()  # checkpoints have the layers under this name
        self.transformer.layers = nn.ModuleList(
            Layer(c.width, c.heads, c.mlp_ratio, fused=False) for _ in range(3 * c.decoder_blocks)
        )
        self.ln_final = nn.LayerNorm(c.width)
        if c.texture:
            self.texture = nn.Linear(c.embed_dim + c.noise, c.width, bias=False)
            nn.init.zeros_(self.texture.weight)

    def layers(self) -> list[Layer]:
        """The 3 * decoder_blocks layers in order."""
        return [layer for layer in self.transformer.modules() if isinstance(layer, Layer)]

    def forward(self, x: Tensor, memory: Tensor, under: Tensor | None = None) -> Tensor:
        """x (B, N, D), N = (u*n)^2; memory (B, n*n, D), of the encoder; under (B, N, D_tok + K) or None -> (B, N, D)."""
        if under is not None:
            x = x + self.texture(under.to(x.dtype))
        others = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)  # a position does not attend to itself
        positions = self.pos_embedding().expand_as(x)
        for i, layer in enumerate(self.layers()):
            if i % 3 == 0:
                x = layer(x, mask=others)
            elif i % 3 == 1:
                x = layer(x, query=positions, key=positions, mask=others)
            else:
                x = layer(x, key=memory, value=memory)
        return self.ln_final(x)


class Translator(nn.Module):
    """The NAT: (B, n*n, D_tok) embeddings of content tokens -> (B, (u*n)^2, V) logits of stylised tokens."""

    def __init__(self, config: TranslatorConfig):
        super().__init__()
        self.config = config
        self.linear_proj = nn.Linear(config.embed_dim, config.width)
        self.nat_enc = Encoder(config)
        self.nat_dec = Decoder(config)
        self.dropout = nn.Dropout(config.dropout)
        self.outNet = nn.Linear(config.width, config.vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.outNet.weight.dtype

    def forward(self, embeddings: Tensor, under: Tensor | None = None) -> Tensor:
        """Logits of the target tokens.

        Args:
            embeddings: (B, n*n, D_tok), of content tokens.
            under: (B, (u*n)^2, D_tok + K), the texture and the noise under the target tokens (texture.laid_under); None: neither.

        Returns:
            (B, (u*n)^2, V).

        Raises:
            ValueError: embeddings of another shape, or a texture for a translator without `texture`.
        """
        n, u = self.config.grid, self.config.upscale
        if under is not None and not self.config.texture:
            raise ValueError("this translator reads no texture: use a style without one, or a translator with `texture`")
        if under is not None and under.shape[-1] != self.config.embed_dim + self.config.noise:
            raise ValueError(
                f"{under.shape[-1]} numbers lie under each token: this translator reads {self.config.embed_dim} of a texture and "
                f"{self.config.noise} of noise"
            )
        if embeddings.ndim != 3 or embeddings.shape[1:] != (n * n, self.config.embed_dim):
            raise ValueError(
                f"embeddings of shape {tuple(embeddings.shape)}: this translator reads (B, {n * n}, {self.config.embed_dim})"
            )
        e = F.relu(self.linear_proj(embeddings.to(self.dtype)))  # (B, n*n, D)
        memory = self.nat_enc(e)
        x = enlarged(e.unflatten(1, (n, n)), u, self.config.decoder_input).flatten(1, 2)  # (B, (u*n)^2, D)
        return self.outNet(self.dropout(self.nat_dec(x, memory, under)))  # (B, (u*n)^2, V)


def enlarged(x: Tensor, upscale: int, decoder_input: str) -> Tensor:
    """The decoder's input: content tokens (B, n, n, D) on the target grid, (B, u*n, u*n, D), see settings.DECODER_INPUTS."""
    rows = x.repeat_interleave(upscale, 1)
    return rows.repeat(1, 1, upscale, 1) if decoder_input == "tiled" else rows.repeat_interleave(upscale, 2)
