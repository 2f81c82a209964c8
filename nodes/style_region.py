"""Style Region: another style for a part of the picture."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Style
from . import inputs
from .types import CATEGORY, REGIONS, STYLE, Region, Regions, between, expect, planes


class StyleRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_StyleRegion",
            display_name="Style Region (StylerDALLE)",
            category=CATEGORY,
            description="Uses another style in a part of the picture. Several can be chained; later regions cover earlier ones.",
            inputs=[
                io.Mask.Input("mask", tooltip="Where to use this style: white fully, grey partly, black not at all."),
                io.String.Input(
                    "prompt",
                    default="a pencil sketch",
                    multiline=True,
                    tooltip="The style of this region, written as in Translate.",
                ),
                STYLE.Input(
                    "style",
                    optional=True,
                    tooltip="A style from Load Style. Leave the prompt empty to use only this style; other words are added.",
                ),
                REGIONS.Input(
                    "regions", optional=True, tooltip="Earlier regions, from another Style Region. This one covers them."
                ),
                inputs.feather(),
            ],
            outputs=[REGIONS.Output(display_name="REGIONS", tooltip="For Translate, or for another Style Region.")],
        )

    @classmethod
    def execute(
        cls, mask: torch.Tensor, prompt: str, style: Style | None = None, regions: Regions | None = None, feather: int = 0
    ) -> io.NodeOutput:
        between("feather", feather, 0, 4096)
        before = expect(regions, Regions, "REGIONS").parts if regions else ()
        if style is None and not prompt.strip():
            raise ValueError("the region has no style: enter a prompt, or connect a STYLE")
        return io.NodeOutput(Regions((*before, Region(planes(mask), prompt, style, feather))))
