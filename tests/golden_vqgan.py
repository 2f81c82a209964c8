"""A small Gumbel VQGAN made from a seed, and what taming-transformers gives for it: kept in tokenizers/vqgan.json.

The oracle is `taming-transformers-rom1504` from PyPI; of its requirements the modules used here need torch, numpy and einops
alone (`pip install --no-deps`). To write the file anew, from the root of the repository:

    PYTHONPATH=.:tests python tests/golden_vqgan.py
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stylerdalle.tokenizers.vqgan import VQGANConfig

FILE = Path(__file__).parent / "tokenizers" / "vqgan.json"
CONFIG = VQGANConfig(
    ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8,), resolution=32, z_channels=16, embed_dim=16, n_embed=64
)
SIDE = 48  # px: not the size it is "trained" on
SEED = 3


def weights(shapes: Mapping[str, Any], seed: int = SEED) -> dict[str, Tensor]:
    """Random tensors of these shapes; numpy's RandomState draws the same numbers in every version."""
    random, made = np.random.RandomState(seed), {}
    for name in sorted(shapes):
        drawn = torch.from_numpy(random.standard_normal(shapes[name])).float()
        if "norm" in name:
            made[name] = 0.2 * drawn + name.endswith("weight")
        elif name == "quantize.embed.weight":
            made[name] = drawn
        else:
            made[name] = drawn / math.sqrt(drawn[0].numel() or 1) if drawn.ndim > 1 else 0.1 * drawn
    return made


def picture() -> Tensor:
    """(1, 3, SIDE, SIDE) in [0, 1]."""
    return torch.from_numpy(np.random.RandomState(SEED + 1).random_sample((1, 3, SIDE, SIDE))).float()


def code_grid() -> Tensor:
    """(1, 5, 7) tokens."""
    return torch.from_numpy(np.random.RandomState(SEED + 2).randint(0, CONFIG.n_embed, (1, 5, 7)))


def oracle(config: VQGANConfig) -> nn.Module:
    """A GumbelVQ put together from taming-transformers' own modules. Raises ImportError where the package is not there."""
    from taming.modules.diffusionmodules.model import Decoder, Encoder
    from taming.modules.vqvae.quantize import GumbelQuantize

    names = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resolution", "z_channels")
    sizes = {name: getattr(config, name) for name in names} | {"in_channels": 3, "out_ch": 3}
    model = nn.Module()
    model.encoder, model.decoder = Encoder(**sizes, double_z=False), Decoder(**sizes)
    model.quantize = GumbelQuantize(config.embed_dim, config.embed_dim, config.n_embed)
    model.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
    model.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
    return model.eval().requires_grad_(False)


def oracle_logits(model: nn.Module, images: Tensor) -> Tensor:
    return model.quantize.proj(model.quant_conv(model.encoder(2 * images - 1)))


def oracle_pixels(model: nn.Module, tokens: Tensor) -> Tensor:
    """As GumbelVQ.decode_code and ruDALL-E's own decode: one-hot codes, the decoder, [-1, 1] to [0, 1]."""
    codes = model.quantize.get_codebook_entry(tokens.flatten(), (*tokens.shape, -1))
    return (model.decoder(model.post_quant_conv(codes)).clamp(-1, 1) + 1) / 2


def made_by(model: nn.Module) -> dict[str, Any]:
    """What the file holds."""
    logits, pixels = oracle_logits(model, picture()), oracle_pixels(model, code_grid())
    best = logits.topk(2, 1).values
    return {
        "made_by": "taming-transformers-rom1504 0.0.6",
        "closest_call": round(float((best[:, 0] - best[:, 1]).min()), 5),  # between two tokens of a place, in logits
        "tokens": logits.argmax(1)[0].tolist(),
        "pixels": [[round(value, 6) for value in row] for row in pixels[0, :, ::4, ::4].flatten(1).tolist()],
    }


if __name__ == "__main__":
    theirs = oracle(CONFIG)
    theirs.load_state_dict(weights({name: tensor.shape for name, tensor in theirs.state_dict().items()}))
    FILE.write_text(json.dumps(made_by(theirs)) + "\n")
