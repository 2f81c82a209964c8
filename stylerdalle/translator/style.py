"""Styles: changes of the base translator's parameters that make it translate into a style.

A style is a low-rank adapter (LoRA, arXiv 2106.09685; one per style: StyleDrop, arXiv 2306.00983) of the translator's decoder and
output layer, or a full change of them. The translator itself is never modified: `merged` gives a dictionary of parameters for
`torch.func.functional_call`, W' = W + weight * B A. The base translator therefore stays available as the reference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .model import Translator
from .texture import Texture

# prefixes of the parameters that a style changes: the decoder and the output layer, as in the paper
TUNED = ("nat_dec.transformer.", "nat_dec.ln_final.", "nat_dec.texture.", "outNet.")
READS_TEXTURE = "nat_dec.texture."  # changed only by styles with a texture
FULLY_CHANGED = ("outNet.bias",)  # a low-rank adapter changes these without a rank: they are small


@dataclass(frozen=True)
class Style:
    """Changes of a translator's parameters, and a texture where the style has one."""

    tensors: Mapping[str, Tensor]  # NAME.lora_a (r, in) and NAME.lora_b (out, r), a low-rank change of NAME; or NAME.delta, full
    prompt: str = ""
    name: str = ""
    base_sha256: str = ""  # of the translator file it was tuned on; empty if unknown
    metadata: Mapping[str, str] = field(default_factory=dict)  # of its file
    texture: Texture | None = None
    blocks: float = (
        0.0  # 0 to 1, how much the picture's places are flat squares in few colours, as in pixel art (images/blocks.py)
    )

    def names(self) -> list[str]:
        """The translator's parameters that this style changes."""
        return sorted({key.rsplit(".", 1)[0] for key in self.tensors})

    @property
    def rank(self) -> int:
        """Of the adapter; 0: it changes whole parameters."""
        return next((len(tensor) for name, tensor in self.tensors.items() if name.endswith(".lora_a")), 0)

    def all_tensors(self) -> list[Tensor]:
        """Those of its adapter, by name, and of its texture."""
        texture = [self.texture.tokens, self.texture.weights] if self.texture else []
        return [*(self.tensors[name] for name in sorted(self.tensors)), *texture]

    def change(self, name: str) -> Tensor:
        """The change of one parameter at strength 1."""
        if f"{name}.delta" in self.tensors:
            return self.tensors[f"{name}.delta"]
        return self.tensors[f"{name}.lora_b"] @ self.tensors[f"{name}.lora_a"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Style:
        """The same style with its tensors on another device and in another dtype."""
        moved = {key: value.to(device, dtype) for key, value in self.tensors.items()}
        return replace(self, tensors=moved)

    def check(self, translator: Translator) -> None:
        """Raises ValueError if the style was made for a translator of other sizes."""
        shapes = {name: tuple(p.shape) for name, p in translator.named_parameters()}
        for name in self.names():
            if name not in shapes:
                raise ValueError(f"the style {self.name!r} changes {name!r}, which this translator does not have")
            got = tuple(self.change(name).shape)
            if got != shapes[name]:
                raise ValueError(
                    f"the style {self.name!r} changes {name} in shape {got}, this translator has {shapes[name]}: "
                    "the style was made for another translator"
                )
        if self.texture and not translator.config.texture:
            raise ValueError(
                f"the style {self.name!r} has a texture, which this translator cannot read: it was made for another translator"
            )


def new_adapter(translator: Translator, rank: int, generator: torch.Generator, with_texture: bool = False) -> dict[str, Tensor]:
    """Tensors of a new style that changes nothing yet: A random, B and full changes zero.

    Args:
        rank: of the low-rank changes; 0 changes every parameter fully, as the paper does.
        with_texture: the style has a texture: the layer that reads it is part of the adapter. A translator that reads noise
            has this layer in every adapter.

    Raises:
        ValueError: rank is negative or above the translator's width.
    """
    if not 0 <= rank <= translator.config.width:
        raise ValueError(f"rank {rank} is out of range: 1 to {translator.config.width}, this translator's width, or 0 for all")
    tensors: dict[str, Tensor] = {}
    for name, p in translator.named_parameters():
        if not name.startswith(TUNED) or (name.startswith(READS_TEXTURE) and not (with_texture or translator.config.noise)):
            continue
        if rank == 0:
            tensors[f"{name}.delta"] = p.new_zeros(p.shape, dtype=torch.float32)
        elif p.ndim == 2:
            a = torch.randn(rank, p.shape[1], generator=generator) / p.shape[1] ** 0.5
            tensors[f"{name}.lora_a"] = a.to(p.device)
            tensors[f"{name}.lora_b"] = p.new_zeros(p.shape[0], rank, dtype=torch.float32)
        elif name in FULLY_CHANGED:
            tensors[f"{name}.delta"] = p.new_zeros(p.shape, dtype=torch.float32)
    return tensors


def merged(translator: Translator, styles: Sequence[tuple[Style, float]]) -> dict[str, Tensor]:
    """The parameters that styles change, with the weighted sum of the changes added, for `functional_call`."""
    base = dict(translator.named_parameters())
    out: dict[str, Tensor] = {}
    for style, weight in styles:
        for name in style.names():
            change = weight * style.change(name)
            before = out[name] if name in out else base[name]
            out[name] = before + change.to(before)  # mixtures, and styles of a resumed run, may be on the CPU
    return out


def mix(styles: Sequence[tuple[Style, float]], name: str = "mix") -> Style:
    """The weighted sum of styles as one style.

    Low-rank changes of a parameter stay low-rank, [w1 B1, w2 B2] [A1; A2]; if one of them is full, the sum is full.

    Raises:
        ValueError: no styles, a weight that is not finite, or styles of different translators (with both hashes).
    """
    if not styles or not all(math.isfinite(weight) for _, weight in styles):
        raise ValueError(f"weights {[weight for _, weight in styles]}: give one or more styles, and a number for each")
    first = next((style for style, _ in styles if style.base_sha256), styles[0][0])
    for style, _ in styles:
        if style.base_sha256 not in ("", first.base_sha256):
            raise ValueError(
                f"the style {first.name!r} belongs to the translator with sha256 {first.base_sha256[:12]}…, {style.name!r} to "
                f"that with {style.base_sha256[:12]}…: only styles of the same translator can be mixed"
            )
    parts = [(style.to("cpu", torch.float32), weight) for style, weight in styles]
    tensors: dict[str, Tensor] = {}
    for parameter in sorted({parameter for style, _ in parts for parameter in style.names()}):
        tensors |= _mixed(parameter, [(style, weight) for style, weight in parts if parameter in style.names()])
    made = {"command": "mix", "styles": [{"name": s.name, "prompt": s.prompt, "weight": weight} for s, weight in styles]}
    licences = sorted({style.metadata["licence"] for style, _ in styles if "licence" in style.metadata})
    metadata = {"recipe": json.dumps(made)} | ({"licence": " and ".join(licences)} if licences else {})
    prompt = " + ".join(style.prompt for style, _ in styles)
    texture = sum_of_textures([(style.texture, weight) for style, weight in styles])
    blocks = min(1.0, max(0.0, sum(weight * style.blocks for style, weight in styles)))
    return Style(tensors, prompt, name, first.base_sha256, metadata, texture, blocks)


def sum_of_textures(textures: Sequence[tuple[Texture | None, float]]) -> Texture | None:
    """The weighted sum of textures as one Texture; None if there are none."""
    some = [(texture.to("cpu"), weight) for texture, weight in textures if texture]
    if not some:
        return None
    return Texture(torch.cat([t.tokens for t, _ in some]), torch.cat([weight * t.weights for t, weight in some]))


def _mixed(parameter: str, parts: Sequence[tuple[Style, float]]) -> dict[str, Tensor]:
    """The tensors of the weighted sum of several styles' changes of one parameter."""
    a, b, delta = (f"{parameter}.{kind}" for kind in ("lora_a", "lora_b", "delta"))
    shapes = {tuple(style.change(parameter).shape) for style, _ in parts}
    if len(shapes) > 1:
        raise ValueError(f"the styles change {parameter} in shapes {sorted(shapes)}: they are of different translators")
    if any(delta in style.tensors for style, _ in parts):
        return {delta: torch.stack([weight * style.change(parameter) for style, weight in parts]).sum(0)}
    return {
        a: torch.cat([style.tensors[a] for style, _ in parts]),  # (sum of r, in)
        b: torch.cat([weight * style.tensors[b] for style, weight in parts], 1),  # (out, sum of r)
    }


def translate_with(
    translator: Translator, embeddings: Tensor, styles: Sequence[tuple[Style, float]] = (), under: Tensor | None = None
) -> Tensor:
    """translator(embeddings, under) with styles merged in.

    Args:
        embeddings: (B, n*n, D_tok), of content tokens.
        styles: styles and their weights; none: the base translator.
        under: (B, (u*n)^2, D_tok + K), the texture and noise under the windows (laid_under).

    Returns:
        Logits (B, (u*n)^2, V), differentiable in the styles' tensors.
    """
    if not styles:
        logits: Tensor = translator(embeddings, under)
        return logits
    return torch.func.functional_call(translator, merged(translator, styles), (embeddings, under))
