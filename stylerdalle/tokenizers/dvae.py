"""OpenAI's discrete VAE (Ramesh et al. 2021, arXiv 2102.12092; github.com/openai/DALL-E) as an image tokenizer.

The modules are the `dall_e` package's own Encoder and Decoder, so the state dicts are the same. They are run differently, with
equal results:
- a token's row of the decoder's first 1x1 convolution is looked up, not multiplied with a one-hot tensor, which saves 33 MB for
  an image of 256 x 256;
- ReLU and 1x1 convolutions commute with nearest upsampling and run before it, on a quarter of the pixels;
- of the decoder's 6 output channels only the 3 means are computed (the others are the Laplace scale);
- the dtype is chosen once (`cast`), in channels_last. As in the package, the encoder's last and the decoder's first convolution
  stay float32: near ties between codes are decided there.

Letters: B pictures of H x W pixels; h x w tokens, h = H / 8; V codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from dall_e import Decoder, Encoder
from torch import Tensor, nn

from .protocol import check_pixels, run_block

EPSILON = 0.1  # the logit-Laplace distribution has pixels in [0.1, 0.9] (`dall_e.utils.logit_laplace_eps`)


class DVAE(nn.Module):
    """A dVAE as an `ImageTokenizer`.

    Args:
        encoder: `dall_e.Encoder` with 3 input channels.
        decoder: `dall_e.Decoder` with the same vocabulary and 3 output channels.

    Raises:
        ValueError: the two have vocabularies of different size.
    """

    downsample = 8
    sha256 = ""  # of its file, set by the one who reads it

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        if encoder.vocab_size != decoder.vocab_size:
            raise ValueError(
                f"encoder and decoder differ in vocabulary: {encoder.vocab_size} and {decoder.vocab_size}; "
                "give the two halves of one model"
            )
        self.encoder, self.decoder = encoder, decoder
        self.vocab_size: int = decoder.vocab_size
        self.embed_dim: int = decoder.n_init
        blocks_a_group = max(encoder.n_blk_per_group, decoder.n_blk_per_group)
        # the receptive field: three 3x3 convolutions a block, and one of 7x7
        self.halo: int = -(-(3 + 3 * blocks_a_group * (1 + 2 + 4 + 8)) // self.downsample)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def of(cls, arch: Mapping[str, Any]) -> DVAE:
        """A dVAE with random weights, of the sizes that `arch` gave."""
        sizes = {key: int(arch[key]) for key in ("n_hid", "n_blk_per_group", "vocab_size")}
        device = torch.empty(0).device  # the package would take the CPU, also within `with torch.device("meta")`
        return cls(Encoder(**sizes, device=device), Decoder(**sizes, n_init=int(arch["n_init"]), device=device))

    def arch(self) -> dict[str, Any]:
        """Its type and sizes, as ImageTokenizer.arch."""
        return {
            "type": "dvae",
            "n_hid": self.encoder.n_hid,
            "n_blk_per_group": self.encoder.n_blk_per_group,
            "n_init": self.decoder.n_init,
            "vocab_size": self.vocab_size,
        }

    @property
    def dtype(self) -> torch.dtype:
        """Of the convolutions."""
        return self.encoder.blocks.input.w.dtype

    def cast(self, dtype: torch.dtype) -> DVAE:
        """Run in `dtype`, in place, except for the two convolutions over the vocabulary."""
        self.to(dtype)
        self.encoder.blocks.output.conv.float()
        self.decoder.blocks.input.float()
        return self

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], H and W multiples of 8 -> (B, V, h, w), unnormalised."""
        x = map_pixels(images).to(self.dtype).contiguous(memory_format=torch.channels_last)
        features = self.features(x).float()
        with torch.autocast(x.device.type, enabled=False):
            return conv(self.encoder.blocks.output.conv, features)  # (B, V, h, w)

    def features(self, x: Tensor) -> Tensor:
        """Mapped pixels (B, 3, H, W) -> the input of the encoder's last convolution, (B, 8 n_hid, h, w)."""
        blocks = self.encoder.blocks
        x = conv(blocks.input, x)  # (B, n_hid, H, W)
        for group in (blocks.group_1, blocks.group_2, blocks.group_3, blocks.group_4):
            for layer in group:
                x = layer(x) if isinstance(layer, nn.MaxPool2d) else residual(layer, x)
        return F.relu(x)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> tokens, long (B, h, w), the likeliest code at each place."""
        check_pixels(images, self.downsample)
        return self.logits(images).argmax(1)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) -> rows of the decoder's first layer plus its bias (B, h, w, n_init), the paper's embedding."""
        layer = self.decoder.blocks.input
        return F.embedding(tokens, self.codebook()) + layer.b

    def codebook(self) -> Tensor:
        """(V, n_init): the rows of the decoder's first layer, without the bias."""
        return self.decoder.blocks.input.w[:, :, 0, 0].t()

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, h, w) -> images float32 (B, 3, 8h, 8w) in [0, 1]."""
        return self.decode_mixture(self.embed(tokens).permute(0, 3, 1, 2))

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Token probabilities (B, V, h, w) -> images (B, 3, 8h, 8w) in [0, 1], differentiable in the probabilities."""
        x = torch.einsum("bvhw,vd->bdhw", probabilities, self.codebook())
        return self.decode_mixture(x + self.decoder.blocks.input.b[:, None, None])

    def decode_mixture(self, embeddings: Tensor, recompute: bool = False) -> Tensor:
        """Mean embeddings (B, n_init, h, w) of the likely tokens -> images (B, 3, 8h, 8w) in [0, 1].

        Args:
            recompute: as of ImageTokenizer.
        """
        return to_pixels(self.decode_embedded(embeddings, recompute))

    def decode_embedded(self, x: Tensor, recompute: bool = False) -> Tensor:
        """Mean embeddings (B, n_init, h, w) -> the decoder's three mean channels before the sigmoid, (B, 3, 8h, 8w)."""
        blocks = self.decoder.blocks
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        upsample = False  # whether the next block begins with a nearest upsampling
        for group in (blocks.group_1, blocks.group_2, blocks.group_3, blocks.group_4):
            for layer in group:
                if isinstance(layer, nn.Upsample):
                    upsample = True
                else:
                    x = run_block(residual, layer, x, upsample, recompute=recompute)
                    upsample = False
        output = blocks.output.conv
        return F.conv2d(F.relu(x), output.w[:3], output.b[:3])


def conv(layer: Any, x: Tensor) -> Tensor:
    """A `dall_e.utils.Conv2d` on x (B, C, H, W), in the dtype of its weights."""
    return F.conv2d(x, layer.w, layer.b, padding=layer.kw // 2)


def residual(block: Any, x: Tensor, upsample: bool = False) -> Tensor:
    """A block of the `dall_e` encoder or decoder on x (B, C, H, W).

    Args:
        upsample: first double the height and width of x (nearest). A decoder block's first convolution and its id_path are 1x1
            and therefore run before it.
    """
    path = block.res_path
    h = F.relu(conv(path.conv_1, F.relu(x)))
    x = x if isinstance(block.id_path, nn.Identity) else conv(block.id_path, x)
    if upsample:
        h, x = (F.interpolate(t, scale_factor=2.0, mode="nearest") for t in (h, x))
    h = conv(path.conv_4, F.relu(conv(path.conv_3, F.relu(conv(path.conv_2, h)))))
    return x + block.post_gain * h if block.post_gain != 1 else x + h


def map_pixels(images: Tensor) -> Tensor:
    """Pixels in [0, 1] -> [0.1, 0.9], for the logit-Laplace distribution."""
    return (1 - 2 * EPSILON) * images + EPSILON


def to_pixels(x: Tensor) -> Tensor:
    """The decoder's mean channels -> float32 pixels in [0, 1], clamped."""
    return unclamped_pixels(x).clamp(0, 1)


def unclamped_pixels(x: Tensor) -> Tensor:
    """The same, not clamped: in [-1/8, 9/8], for losses."""
    return (torch.sigmoid(x.float()) - EPSILON) / (1 - 2 * EPSILON)
