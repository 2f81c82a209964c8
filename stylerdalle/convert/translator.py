"""A translator of the StylerDALLE authors' research code, a state dict, to a translator file.

That code feeds the decoder rows repeated in place and columns tiled, where the paper's text repeats both in place. Its
checkpoints were trained so, and the converted file says so (`decoder_input`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import misfits
from ..translator.model import Translator, TranslatorConfig

HEADS = 8  # the authors' number: it cannot be inferred from the tensors


def convert(sources: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one checkpoint -> (tensors of a translator file, its arch).

    Raises:
        ValueError: they are not a translator of that code.
    """
    if len(sources) != 1:
        raise ValueError(f"a translator is one file, not {len(sources)}")
    tensors = {name.removeprefix("module."): tensor for name, tensor in sources[0].items()}  # added by training on several GPUs
    try:
        width, embed_dim = tensors["linear_proj.weight"].shape
        grid = len(tensors["nat_enc.pos_embedding.row_embed.weight"])
        config = TranslatorConfig(
            embed_dim=embed_dim,
            vocab_size=len(tensors["outNet.weight"]),
            width=width,
            heads=HEADS,
            encoder_layers=_count(tensors, "nat_enc.layers."),
            decoder_blocks=_count(tensors, "nat_dec.transformer.layers.") // 3,
            grid=grid,
            upscale=len(tensors["nat_dec.pos_embedding.row_embed.weight"]) // grid,
            mlp_ratio=len(tensors["nat_enc.layers.0.mlp.fc1.weight"]) // width,
            decoder_input="tiled",
        )
        with torch.device("meta"):  # names and shapes only
            want = Translator(config).state_dict()
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"this is not a translator of the authors' research code ({error})") from error
    if problems := misfits(want, tensors):
        raise ValueError(f"this is not a translator of the authors' research code: {problems}")
    return tensors, asdict(config)


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})
