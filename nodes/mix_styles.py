"""Mix Styles: the weighted sum of two styles."""

from comfy_api.latest import io

from ..stylerdalle import Style
from ..stylerdalle.translator.style import mix
from .types import CATEGORY, STYLE, between, expect


class MixStyles(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_MixStyles",
            display_name="Mix Styles (StylerDALLE)",
            category=CATEGORY,
            description="Makes a new style from two: their weighted sum. Both must be tuned for the same translator.",
            inputs=[
                STYLE.Input("style_a", tooltip="A style from Load Style, Reward Tune or another Mix Styles."),
                STYLE.Input("style_b", tooltip="Another style, tuned for the same translator."),
                io.Float.Input(
                    "weight_a",
                    default=0.5,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of style_a: 0 is none, 1 is all of it, below 0 moves away from it.",
                ),
                io.Float.Input(
                    "weight_b",
                    default=0.5,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of style_b: 0 is none, 1 is all of it, below 0 moves away from it.",
                ),
                io.String.Input("name", default="mix", tooltip="The name of the new style."),
            ],
            outputs=[STYLE.Output(display_name="STYLE", tooltip="For Translate or Save Style.")],
        )

    @classmethod
    def execute(cls, style_a: Style, style_b: Style, weight_a: float, weight_b: float, name: str) -> io.NodeOutput:
        for weight in (weight_a, weight_b):
            between("weight", weight, -2, 2)
        parts = [(expect(style, Style, "STYLE"), weight) for style, weight in ((style_a, weight_a), (style_b, weight_b))]
        return io.NodeOutput(mix(parts, " ".join(name.split()) or "mix"))
