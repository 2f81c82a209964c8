"""Translate: content tokens to the tokens of the same picture in a style."""

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style
from ..stylerdalle.progress import split
from ..stylerdalle.resolve import StyleFinder
from ..stylerdalle.tokenizers.tokens import Tokens, joined
from ..stylerdalle.translator.options import MaskedStyle, TranslateOptions
from ..stylerdalle.translator.sampling import SEEDS, SOFTNESS, Sampling
from ..stylerdalle.translator.style import mix
from ..stylerdalle.translator.translate import translate
from . import host
from .types import CATEGORY, REGIONS, STYLE, TOKENS, TRANSLATOR, Regions, expect


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
                    tooltip="The style: the name or prompt of a style you have, or any other words; "
                    "several with weights: 'a pencil sketch:0.7, ukiyo-e:0.3'. "
                    "With a STYLE connected: empty, or that style's name or prompt; other words are laid over it. "
                    "With the TRANSLATOR of Reward Tune: empty for the style it learnt.",
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
                    max=SEEDS - 1,
                    step=1,
                    control_after_generate=True,
                    tooltip="The same seed gives the same picture. Another moves the style's marks, and draws anew with "
                    "temperature above 0.",
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
                io.String.Input(
                    "negative",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="A prompt to lead away from, such as 'dark'. Only for bundles that take any prompt.",
                ),
                REGIONS.Input("regions", optional=True, tooltip="Other styles for parts of the picture, from Style Region."),
                io.Float.Input(
                    "steady",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="For the frames of a video, in order: how much of the frame before stays where the photo did not "
                    "change. 0 makes each by itself; 0.5 to 0.9 flickers less.",
                ),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=4096,
                    step=1,
                    optional=True,
                    tooltip="Pixels over which the mask's edges become soft, to either side.",
                ),
                io.Int.Input(
                    "candidates",
                    default=1,
                    min=1,
                    max=64,
                    step=1,
                    optional=True,
                    tooltip="So many pictures of each, with the seeds from this one on, for Best to choose from. "
                    "Above 1 it needs temperature above 0.",
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
        negative: str = "",
        regions: Regions | None = None,
        steady: float = 0.0,
        feather: int = 0,
        candidates: int = 1,
    ) -> io.NodeOutput:
        bundle, tokens = expect(translator, Bundle, "TRANSLATOR"), expect(tokens, Tokens, "TOKENS")
        finder = StyleFinder(replace(bundle, style_paths=(*bundle.style_paths, *host.styles_for(bundle))))
        meant = [style_meant(finder, prompt, style, negative)]
        parts = expect(regions, Regions, "REGIONS").parts if regions else ()
        meant += [style_meant(finder, part.prompt, part.style) for part in parts]
        main, *others = (some.to(bundle.device, torch.float32) for some in meant)
        masked = tuple(MaskedStyle(some, planes(part.mask), part.feather) for some, part in zip(others, parts, strict=True))
        where = None if mask is None else planes(mask)
        if candidates > 1 and temperature == 0:
            raise ValueError(f"{candidates} candidates at temperature 0 would all be the same: raise the temperature")
        seeds = [(seed + k) % SEEDS for k in range(candidates)]
        told = split(host.progress(), [1] * candidates)
        host.use(bundle, bundle.tokenizer, bundle.translator)
        out = []
        for number, progress in zip(seeds, told, strict=True):
            sampling = Sampling(temperature, top_k, seed=number, softness=softness)
            options = TranslateOptions(strength, where, feather, masked, sampling, steady)
            out.append(translate(bundle.translator, bundle.tokenizer, tokens, [(main, 1.0)], options, progress))
        ui = {"text": [described(style) for style in meant], "style": [style.name or style.prompt for style in meant]}
        ui |= {"near": [style.metadata.get("near") for style in meant], "seed": seeds}
        return io.NodeOutput(joined(out) if candidates > 1 else out[0], ui=ui)


def described(style: Style) -> str:
    """A line about a style that was used: where a network made it, how near its prompt is to what the network knows."""
    near = style.metadata.get("near")
    return f"{style.prompt or style.name}: {near}" if near else f"{style.prompt or style.name}: a style of its own"


def style_meant(finder: StyleFinder, prompt: str, style: Style | None, negative: str = "") -> Style:
    """The connected style; without one, the style the prompt describes; with both, the one laid over the other."""
    text = " ".join(prompt.split())
    if text.endswith(host.SUFFIX):
        raise ValueError(f"the prompt {text!r} is a file's name: describe the style in words, or use the Load Style node")
    if style is None:
        return finder.find(text, negative)
    style, bundle = finder.find(expect(style, Style, "STYLE")), finder.bundle
    if not text or text.casefold() in (style.name.casefold(), style.prompt.casefold()):
        return style
    if bundle.hypernetwork_path is None:
        raise ValueError(
            f"the prompt says {text!r}, the connected STYLE is {style.name!r} ({style.prompt!r}), and the bundle "
            f"{bundle.name!r} takes no other prompts: empty the prompt, or disconnect the STYLE"
        )
    return mix([(style, 1.0), (finder.find(text, negative), 1.0)], f"{style.name} + {text}")


def planes(mask: torch.Tensor) -> torch.Tensor:
    """A MASK, (H, W) or (B, H, W), as (1 or B, H, W)."""
    return mask.reshape(-1, *mask.shape[-2:])
