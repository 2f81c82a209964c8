"""Style Region: a style for a part of the picture."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Style
from .types import CATEGORY, REGIONS, STYLE, Region, Regions, expect


class StyleRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_StyleRegion",
            display_name="Style Region (StylerDALLE)",
            category=CATEGORY,
            description="Gives a part of the picture a style of its own. Chain several; a later one lies over the ones before.",
            inputs=[
                io.Mask.Input("mask", tooltip="Where: white fully, grey partly, black not at all."),
                io.String.Input(
                    "prompt",
                    default="a pencil sketch",
                    multiline=True,
                    tooltip="The style there, as on Translate.",
                ),
                STYLE.Input("style", optional=True, tooltip="A style from Load Style, in place of the prompt or under it."),
                REGIONS.Input("regions", optional=True, tooltip="Regions that this one is laid over."),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=4096,
                    step=1,
                    optional=True,
                    tooltip="Pixels over which the mask's edges become soft, to either side.",
                ),
            ],
            outputs=[REGIONS.Output(display_name="REGIONS", tooltip="For Translate, or for another Style Region.")],
        )

    @classmethod
    def execute(
        cls, mask: torch.Tensor, prompt: str, style: Style | None = None, regions: Regions | None = None, feather: int = 0
    ) -> io.NodeOutput:
        before = expect(regions, Regions, "REGIONS").parts if regions else ()
        if style is None and not prompt.strip():
            raise ValueError("the region has no style: write a prompt, or connect a STYLE")
        return io.NodeOutput(Regions((*before, Region(mask, prompt, style, feather))))
