"""Load Style: reads a style file."""

from comfy_api.latest import io

from ..stylerdalle import checkpoint
from . import host
from .speech import spoken, understood
from .types import CATEGORY, STYLE


class LoadStyle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_LoadStyle",
            display_name="Load Style (StylerDALLE)",
            category=CATEGORY,
            description="Reads a style file. A style works only with the translator it was tuned for.",
            inputs=[
                io.Combo.Input(
                    "style",
                    options=host.styles(),
                    tooltip="A file in models/stylerdalle/styles, or one that came with a bundle.",
                ),
            ],
            outputs=[STYLE.Output(display_name="STYLE", tooltip="For Translate, Style Region or Mix Styles.")],
        )

    @classmethod
    def fingerprint_inputs(cls, style: str) -> str:
        return host.stamp([host.style_file(style)])

    @classmethod
    def execute(cls, style: str) -> io.NodeOutput:
        found = checkpoint.load_style(host.style_file(style))
        return io.NodeOutput(found, ui=spoken([understood(found)]))
