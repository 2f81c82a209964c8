"""Style Transfer: a photo in a style, in one node. Load, Tokenize, Translate and Detokenize do the same step by step."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style, stylize
from ..stylerdalle.images.colour import keep_colour as colours_of
from ..stylerdalle.progress import split
from ..stylerdalle.resolve import StyleFinder
from ..stylerdalle.settings import LINES, shortened
from ..stylerdalle.translator.sampling import Sampling
from . import host, inputs
from .speech import heard, spoken, understood, warned
from .translate import chosen_style, planes, with_user_styles
from .types import CATEGORY, between, pixels, rare, schema

ALIASES = [
    "style transfer",
    "stylize",
    "stylise",
    "art filter",
    "photo filter",
    "painting",
    "oil painting",
    "van gogh",
    "watercolor",
    "watercolour",
    "sketch",
    "pencil drawing",
    "anime",
    "cartoon",
    "ukiyo-e",
    "impressionism",
    "neural style",
    "StylerDALLE",
]
PLACEHOLDER = (64, 64)  # the all-black mask that LoadImage gives for a picture without alpha


def every_input() -> list[io.Input]:
    return [*common(list(host.style_choices())), *map(rare, seldom(host.bundles()))]


def common(names: list[str]) -> list[io.Input]:
    return [
        inputs.image(),
        io.Combo.Input(
            "style",
            options=names,
            default="van-gogh" if "van-gogh" in names else None,
            tooltip="The style to use, if the prompt is empty. The node's help shows them all.",
        ),
        inputs.strength(),
        inputs.seed("The same seed gives the same picture. Another seed moves the brush marks."),
        io.String.Input(
            "prompt",
            default="",
            multiline=True,
            optional=True,
            tooltip="Your own words instead of the style above, in English: 'a watercolour at night'. "
            "Mix several with weights: 'a pencil sketch:0.7, ukiyo-e:0.3'. Leave it empty to use the style above.",
        ),
        inputs.mask(),
        io.Float.Input(
            "keep_colour",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            tooltip="0 uses the colours of the style, 1 keeps the colours of the photo.",
        ),
    ]


def seldom(bundles: list[str]) -> list[io.Input]:
    return [
        inputs.detail(
            "The size of the brush marks: 2 makes them half as large and takes four times as long, 0.5 makes them twice as large."
        ),
        inputs.feather(),
        io.Combo.Input(
            "bundle",
            options=bundles,
            default="mini" if "mini" in bundles else None,
            optional=True,
            tooltip="The models to use. 'mini' comes with this pack; others are read from models/stylerdalle.",
        ),
        inputs.keep_lines(),
    ]


class Stylize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="StylerDALLE_Stylize",
            display_name="Style Transfer (StylerDALLE)",
            category=CATEGORY,
            description="Paints a photo in a style: choose one, or describe it in your own words. Nothing else is needed.",
            search_aliases=ALIASES,
            essentials_category="Image Tools",
            inputs=every_input(),
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The stylised pictures, in the size of the photos."),
                io.Image.Output(display_name="styles", tooltip="A sheet that shows every bundled style, for Preview Image."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> str:
        files = [host.style_file(name) for name in host.styles()]  # a new style file can change what a prompt means
        return host.stamp(files + [path for name in host.bundles() for path in host.bundle_files(name).values()])

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        style: str,
        strength: float,
        seed: int,
        prompt: str = "",
        mask: torch.Tensor | None = None,
        keep_colour: float = 0.0,
        detail: float = 1.0,
        feather: int = 0,
        bundle: str = "mini",
        keep_lines: float = LINES,
    ) -> io.NodeOutput:
        numbers = {"strength": (strength, 0, 2), "keep_colour": (keep_colour, 0, 1), "detail": (detail, 0.25, 4)}
        for name, (value, low, high) in {**numbers, "feather": (feather, 0, 4096), "keep_lines": (keep_lines, 0, 1)}.items():
            between(name, value, low, high)
        pixels(image)
        mask, notes = usable(mask, image)
        models = host.opened(bundle)
        with heard() as warnings:
            used = style_of(models, style, prompt)
        if prompt.strip():
            notes = [f"the prompt is used, and not the chosen style {shortened(repr(style))}", *notes]
        text = [understood(used), *warned(warnings), *warned(notes)]
        host.say(text)
        host.use(models, models.tokenizer, models.translator)
        photos = image.movedim(-1, 1)  # (B, 3 or 4, H, W)
        painting, colouring = split(host.progress(), (9, 1) if keep_colour else (1, 0))
        how = Sampling(seed=seed)
        look = {"strength": strength, "mask": mask, "detail": detail, "feather": feather, "keep_lines": keep_lines}
        made = stylize(photos, used.to(models.device, torch.float32), models, sampling=how, progress=painting, **look)
        if keep_colour:
            made = colours_of(made, photos, keep_colour, colouring)
        out = made.to(host.image_device()).movedim(1, -1).contiguous()
        ui = spoken(text, style=[used.name or used.prompt], near=[used.metadata.get("near")], seed=[seed])
        return io.NodeOutput(out, sheet(), ui=ui)


def style_of(models: Bundle, name: str, prompt: str) -> Style:
    """The style that the prompt describes, or without one the chosen style.

    Raises:
        ValueError: the name or prompt cannot be used.
    """
    finder = StyleFinder(with_user_styles(models))
    if prompt.strip():
        return chosen_style(finder, prompt, None)
    choices = host.style_choices(models.name)
    return finder.find(str(choices[host.choose("style", name, list(choices))]))


def usable(mask: torch.Tensor | None, image: torch.Tensor) -> tuple[torch.Tensor | None, list[str]]:
    """The mask (1 or B, H, W), and notes for the user. LoadImage's mask of a picture without alpha counts as none."""
    if mask is None:
        return None, []
    given = planes(mask)
    if given.any():
        return given, []
    if tuple(given.shape[-2:]) == PLACEHOLDER != tuple(image.shape[1:3]):
        return None, ["the mask is empty, so the whole picture is stylised: paint one in the mask editor to choose a part"]
    return given, ["the mask is black everywhere, so the photo keeps its look"]


def sheet() -> torch.Tensor:
    """The picture of all bundled styles, (1, H, W, 3)."""
    return host.help_picture("StylerDALLE_Stylize.jpg")
