"""Translate: content tokens to the tokens of the same picture in a style."""

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style
from ..stylerdalle.pipeline import find_style, translate
from ..stylerdalle.sampling import SOFTNESS, Sampling
from ..stylerdalle.tokenizers import Tokens
from . import host
from .types import CATEGORY, STYLE, TOKENS, TRANSLATOR, expect


class Translate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Translate",
            display_name="Translate (StylerDALLE)",
            category=CATEGORY,
            description="Translates content tokens into the tokens of the same picture in the style you describe.",
            inputs=[
                TRANSLATOR.Input("translator", tooltip="The TRANSLATOR of Load StylerDALLE, or of Reward Tune."),
                TOKENS.Input("tokens", tooltip="Content tokens, from Tokenize with the same bundle."),
                io.String.Input(
                    "prompt",
                    default="a Van Gogh style oil painting",
                    multiline=True,
                    tooltip="The style: the name or prompt of a style you have, or words close to it. "
                    "With a STYLE connected: empty, or that style's name or prompt; "
                    "with the TRANSLATOR of Reward Tune: empty for the style it learnt.",
                ),
                STYLE.Input("style", optional=True, tooltip="A style from Load Style; without it the prompt chooses one."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="0 leaves the content as it is, 1 is the style as it was tuned, 2 exaggerates it.",
                ),
                io.Float.Input(
                    "temperature",
                    default=0.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="0 takes the likeliest token everywhere; higher values draw more freely and vary with the seed.",
                ),
                io.Int.Input(
                    "top_k",
                    default=0,
                    min=0,
                    max=16384,
                    step=1,
                    tooltip="Draw among this many likeliest tokens only; 0 is all. It matters with temperature above 0.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    step=1,
                    control_after_generate=True,
                    tooltip="The same seed gives the same picture. It matters with temperature above 0.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where to stylise: white fully, grey partly, black not at all."),
                io.Float.Input(
                    "softness",
                    default=SOFTNESS,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="0 shows one token a place, as in the paper; more blends the likely ones: smoother, no blocks.",
                ),
            ],
            outputs=[TOKENS.Output(display_name="TOKENS", tooltip="Stylised tokens, for Detokenize.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> str:
        return host.stamp(host.style_file(name) for name in host.styles())  # a prompt may mean a new style tomorrow

    @classmethod
    def execute(
        cls,
        translator: Bundle,
        tokens: Tokens,
        prompt: str,
        strength: float,
        temperature: float,
        top_k: int,
        seed: int,
        style: Style | None = None,
        mask: torch.Tensor | None = None,
        softness: float = SOFTNESS,
    ) -> io.NodeOutput:
        bundle, tokens = expect(translator, Bundle, "TRANSLATOR"), expect(tokens, Tokens, "TOKENS")
        styles = [(style_meant(bundle, prompt, style).to(bundle.device, torch.float32), 1.0)]
        sampling = Sampling(temperature, top_k, seed=seed, softness=softness)
        where = None if mask is None else one_or_each(mask, len(tokens.grid))
        host.use(bundle, bundle.tokenizer, bundle.translator)
        return io.NodeOutput(
            translate(
                bundle.translator,
                bundle.tokenizer,
                tokens,
                styles,
                strength,
                where,
                sampling,
                host.progress(),
            )
        )


def style_meant(bundle: Bundle, prompt: str, style: Style | None) -> Style:
    """The connected style, if the prompt agrees; without one, the style the prompt describes."""
    text = " ".join(prompt.split())
    if text.endswith(host.SUFFIX):
        raise ValueError(f"the prompt {text!r} is a file's name: describe the style in words, or use the Load Style node")
    if style is None:
        return find_style(replace(bundle, style_paths=(*bundle.style_paths, *host.styles_for(bundle))), text)
    style = expect(style, Style, "STYLE")
    if text and text.casefold() not in (style.name.casefold(), style.prompt.casefold()):
        raise ValueError(
            f"the prompt says {text!r}, the connected STYLE is {style.name!r} ({style.prompt!r}): "
            "empty the prompt, or disconnect the STYLE"
        )
    return find_style(bundle, style)


def one_or_each(mask: torch.Tensor, count: int) -> torch.Tensor:
    """(H, W) or (B, H, W) -> (1 or count, H, W) in [0, 1]."""
    mask = mask.reshape(-1, *mask.shape[-2:]).float().clamp(0, 1)
    if len(mask) not in (1, count):
        raise ValueError(f"there are {len(mask)} masks for {count} pictures: give one mask, or one for each picture")
    return mask
