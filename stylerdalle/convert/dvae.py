"""OpenAI's dVAE: encoder.pkl and decoder.pkl, whole modules pickled in 2021, to one tokenizer file.

Only their tensors are read: the modules themselves do not run on current torch ('Upsample' object has no attribute
'recompute_scale_factor').
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checkpoint import misfits


def convert(halves: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of encoder and decoder, in either order -> (tensors of a tokenizer file, its arch).

    Raises:
        ValueError: they are not the encoder and decoder of one dVAE.
    """
    from dall_e import Decoder, Encoder

    parts: dict[str, dict[str, Tensor]] = {
        part: half for part in ("encoder", "decoder") for half in halves if _part(half) == part
    }
    if len(halves) != 2 or len(parts) != 2:
        found = ", ".join(_part(half) or "something else" for half in halves)
        raise ValueError(f"a dVAE needs its encoder and its decoder, but got: {found}; give encoder.pkl and decoder.pkl")
    encoder, decoder = parts["encoder"], parts["decoder"]
    try:
        common = {
            "n_hid": len(encoder["blocks.input.w"]),
            "n_blk_per_group": len({name.split(".")[2] for name in encoder if name.startswith("blocks.group_1.block_")}),
            "vocab_size": len(encoder["blocks.output.conv.w"]),
        }
        arch = {"type": "dvae", **common, "n_init": len(decoder["blocks.input.w"])}
        meta = torch.device("meta")
        want = {
            "encoder": Encoder(**common, device=meta).state_dict(),
            "decoder": Decoder(**common, n_init=arch["n_init"], device=meta).state_dict(),
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"these are not the encoder and decoder of OpenAI's dVAE ({error})") from error
    tensors = {f"{part}.{name}": tensor for part in want for name, tensor in parts[part].items()}
    if problems := misfits({f"{part}.{name}": t for part in want for name, t in want[part].items()}, tensors):
        raise ValueError(f"these are not the encoder and decoder of OpenAI's dVAE: {problems}")
    return tensors, arch


def _part(tensors: dict[str, Tensor]) -> str | None:
    """encoder, whose first kernel is wider than 1 (it sees pixels), or decoder; None for anything else."""
    first = tensors.get("blocks.input.w")
    return None if first is None or first.ndim != 4 else "decoder" if first.shape[-1] == 1 else "encoder"
