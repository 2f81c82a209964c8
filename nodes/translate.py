"""Translate: content tokens to stylised tokens."""

from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style
from ..stylerdalle.progress import split
from ..stylerdalle.resolve import StyleFinder
from ..stylerdalle.settings import SEEDS, SOFTNESS, shortened
from ..stylerdalle.tokenizers.tokens import Tokens, joined
from ..stylerdalle.translator.options import MaskedStyle, TranslateOptions
from ..stylerdalle.translator.sampling import Sampling
from ..stylerdalle.translator.style import mix
from ..stylerdalle.translator.translate import translate
from . import host, inputs
from .speech import heard, spoken, understood, warned
from .types import CATEGORY, REGIONS, STYLE, TOKENS, TRANSLATOR, Regions, between, expect, planes

INPUTS = (
    TRANSLATOR.Input("translator", tooltip="The TRANSLATOR output of Load StylerDALLE or Reward Tune."),
    TOKENS.Input("tokens", tooltip="Content tokens from Tokenize with the same bundle."),
    io.String.Input(
        "prompt",
        default="a Van Gogh style oil painting",
        multiline=True,
        tooltip="The style, in English: the name or prompt of an existing style, or your own words. "
        "Mix several with weights: 'a pencil sketch:0.7, ukiyo-e:0.3'. "
        "If a STYLE is connected: leave the prompt empty to use only that style; other words are added to it. "
        "With the TRANSLATOR of Reward Tune: leave the prompt empty to use the new style.",
    ),
    STYLE.Input(
        "style", optional=True, tooltip="A style from Load Style. If nothing is connected, the prompt chooses the style."
    ),
    inputs.strength(),
    io.Float.Input(
        "temperature",
        default=0.0,
        min=0.0,
        max=5.0,
        step=0.05,
        tooltip="0 always takes the most likely token. Higher values choose more randomly; the result then depends on the seed.",
    ),
    io.Int.Input(
        "top_k",
        default=0,
        min=0,
        max=16384,
        step=1,
        tooltip="Choose only among this many most likely tokens; 0 means all. Only used if temperature is above 0.",
    ),
    inputs.seed(
        "The same seed gives the same picture. Another seed moves the brush marks and, if temperature is above 0, "
        "chooses other tokens."
    ),
    inputs.mask(),
    io.Float.Input(
        "softness",
        default=SOFTNESS,
        min=0.0,
        max=10.0,
        step=0.05,
        tooltip="0 uses one token at each place, as in the paper. Higher values blend the likely tokens: smoother, no blocks.",
    ),
    io.String.Input(
        "negative",
        default="",
        multiline=True,
        optional=True,
        tooltip="A prompt to move away from, such as 'dark'. Only for bundles that accept any prompt.",
    ),
    REGIONS.Input("regions", optional=True, tooltip="Other styles for parts of the picture, from Style Region."),
    io.Float.Input(
        "steady",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        tooltip="For video frames in order: 0 treats each frame alone. From 0.5 on, the brush marks move with the things in the "
        "picture, and the higher the value, the more slowly their colours change. What changes in the photo is painted anew.",
    ),
    inputs.feather(),
    io.Int.Input(
        "candidates",
        default=1,
        min=1,
        max=64,
        step=1,
        optional=True,
        tooltip="How many versions of each picture to make, with consecutive seeds. Best can choose among them. "
        "For more than 1, set temperature above 0.",
    ),
)


class Translate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Translate",
            display_name="Translate (StylerDALLE)",
            category=CATEGORY,
            description="Translates content tokens into tokens of the same picture in the style that you describe.",
            inputs=list(INPUTS),
            outputs=[TOKENS.Output(display_name="TOKENS", tooltip="Stylised tokens, for Detokenize.")],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> str:
        return host.stamp(host.style_file(name) for name in host.styles())  # a new style file can change what a prompt means

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
        parts = expect(regions, Regions, "REGIONS").parts if regions else ()
        between("candidates", candidates, 1, 64)
        if candidates > 1 and temperature == 0:
            raise ValueError(f"{candidates} candidates at temperature 0 would be identical: raise the temperature")
        finder = StyleFinder(with_user_styles(bundle))
        with heard() as warnings:
            used = [chosen_style(finder, prompt, style, negative), *(chosen_style(finder, p.prompt, p.style) for p in parts)]
        main, *others = (some.to(bundle.device, torch.float32) for some in used)
        masked = tuple(MaskedStyle(some, planes(part.mask), part.feather) for some, part in zip(others, parts, strict=True))
        options = TranslateOptions(strength, None if mask is None else planes(mask), feather, masked, steady=steady)
        seeds = [(seed + k) % SEEDS for k in range(candidates)]
        ui = shown(used, seeds, warnings)
        host.say(ui["text"])
        updates = split(host.progress(), [1] * candidates)
        host.use(bundle, bundle.tokenizer, bundle.translator)
        out = []
        for number, update in zip(seeds, updates, strict=True):
            how = replace(options, sampling=Sampling(temperature, top_k, seed=number, softness=softness))
            out.append(translate(bundle.translator, bundle.tokenizer, tokens, [(main, 1.0)], how, update))
        return io.NodeOutput(joined(out) if candidates > 1 else out[0], ui=ui)


def with_user_styles(bundle: Bundle) -> Bundle:
    """The bundle, with the user's style files for its translator added to its own."""
    return replace(bundle, style_paths=(*bundle.style_paths, *host.styles_for(bundle)))


def chosen_style(finder: StyleFinder, prompt: str, style: Style | None, negative: str = "") -> Style:
    """The connected style; without one, the style that the prompt describes; with both, the sum of the two.

    Raises:
        ValueError: the prompt is a file name, no style fits it, or the bundle has no network for prompts to add one to a style.
    """
    text = " ".join(prompt.split())
    if text.endswith(host.SUFFIX):
        raise ValueError(
            f"the prompt {shortened(repr(text))} is a file name: describe the style in words, or load the file with Load Style"
        )
    if style is None:
        return finder.find(text, negative)
    style, bundle = finder.find(expect(style, Style, "STYLE")), finder.bundle
    if not text or text.casefold() in (style.name.casefold(), style.prompt.casefold()):
        return style
    if bundle.hypernetwork_path is None:
        raise ValueError(
            f"the prompt is {shortened(repr(text))}, but the connected STYLE is {style.name!r} ({style.prompt!r}), and the "
            f"bundle {bundle.name!r} cannot combine them: empty the prompt, or disconnect the STYLE"
        )
    return mix([(style, 1.0), (finder.find(text, negative), 1.0)], f"{style.name} + {text}")


def shown(styles: list[Style], seeds: list[int], warnings: list[str]) -> dict[str, list[Any]]:
    """What the node shows and the history keeps: the styles used, how near a prompt is to the prompts trained on, the seeds."""
    near = [style.metadata.get("near") for style in styles]  # only in styles made by the network for any prompt
    text = [*map(understood, styles), *warned(warnings)]
    return spoken(text, style=[style.name or style.prompt for style in styles], near=near, seed=seeds)
