"""ruDALL-E's VQGAN: a training checkpoint (GumbelVQ of taming-transformers) to a tokenizer file."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checkpoint import misfits

RESOLUTION = 256  # px of the training pictures, not in the tensors; only decides at which levels there is attention


def convert(sources: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one checkpoint -> (tensors of a tokenizer file, its arch). The loss network is left out.

    Raises:
        ValueError: they are not a Gumbel VQGAN.
    """
    from ..tokenizers.vqgan import VQGAN, VQGANConfig

    if len(sources) != 1:
        raise ValueError(f"a VQGAN is one file, not {len(sources)}")
    tensors = {name: tensor for name, tensor in sources[0].items() if not name.startswith("loss.")}
    try:
        ch = len(tensors["encoder.conv_in.weight"])
        levels = len({name.split(".")[2] for name in tensors if name.startswith("encoder.down.")})
        codes, width = tensors["quantize.embed.weight"].shape
        config = VQGANConfig(
            ch=ch,
            ch_mult=tuple(len(tensors[f"encoder.down.{i}.block.0.conv1.weight"]) // ch for i in range(levels)),
            num_res_blocks=len({name.split(".")[4] for name in tensors if name.startswith("encoder.down.0.block.")}),
            attn_resolutions=tuple(RESOLUTION >> i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in tensors),
            resolution=RESOLUTION,
            z_channels=len(tensors["encoder.conv_out.weight"]),
            embed_dim=width,
            n_embed=codes,
        )
        with torch.device("meta"):  # names and shapes only
            model = VQGAN(config)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"this is not a Gumbel VQGAN with the names of taming-transformers ({error})") from error
    if problems := misfits(model.state_dict(), tensors):
        raise ValueError(f"this is not a Gumbel VQGAN with the names of taming-transformers: {problems}")
    return tensors, model.arch()
