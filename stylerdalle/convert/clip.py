"""CLIP: OpenAI's TorchScript archive, or safetensors with the names of OpenAI (open_clip has the same) or of transformers.

The result has OpenAI's names, from which `clip.model.build_model` infers all sizes.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

# sizes and constants in the various files that are not weights
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")
# names of modules, transformers': OpenAI's
MODULE_NAMES = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_model.encoder.layers": "transformer.resblocks",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding": "visual.conv1",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "logit_scale": "logit_scale",
}
LAYER_NAMES = {  # within a layer, the same for images and texts
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def convert(sources: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one file -> (tensors of a CLIP file, its arch). Raises ValueError where they are not a CLIP of OpenAI's."""
    from ..clip.package import clip

    if len(sources) != 1:
        raise ValueError(f"a CLIP is one file, not {len(sources)}")
    tensors = {name: tensor for name, tensor in sources[0].items() if name.rsplit(".", 1)[-1] not in NOT_WEIGHTS}
    if any(name.startswith("text_model.") for name in tensors):
        tensors = openai_names(tensors)
    try:
        with torch.device("meta"):  # checks sizes and names, computes nothing
            model = clip.model.build_model({name: tensor.to("meta") for name, tensor in tensors.items()})
    except (LookupError, AttributeError, AssertionError, RuntimeError, ValueError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise ValueError(f"this is not a CLIP with the names of OpenAI or transformers ({reason})") from error
    return tensors, {"type": "clip", "image_resolution": model.visual.input_resolution}


def openai_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT CLIP of transformers under OpenAI's names, with queries, keys and values in one tensor and projections transposed."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in ("text_projection.weight", "visual_projection.weight"):
            out["text_projection" if name.startswith("text") else "visual.proj"] = tensor.t().contiguous()
        elif found := re.fullmatch(r"(.+)\.self_attn\.([qkv])_proj\.(weight|bias)", name):
            layer, part, kind = found.groups()
            if part == "q":
                names = [f"{layer}.self_attn.{part}_proj.{kind}" for part in "qkv"]
                if lost := [name for name in names if name not in tensors]:
                    raise ValueError(f"this CLIP is incomplete: {lost[0]} is missing")
                out[f"{_renamed(layer)}.attn.in_proj_{kind}"] = torch.cat([tensors[name] for name in names])
        else:
            out[_renamed(name)] = tensor
    return out


def _renamed(name: str) -> str:
    for old, new in MODULE_NAMES.items():
        if name == old or name.startswith(f"{old}."):
            name = new + name[len(old) :]
            break
    for old, new in LAYER_NAMES.items():
        name = name.replace(f".{old}.", f".{new}.")
    return name
