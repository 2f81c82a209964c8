"""Keep Colour: the luminance of the stylised picture, the colours of the photo."""

import torch
from comfy_api.latest import io

from ..stylerdalle.images.colour import keep_colour
from . import host
from .types import CATEGORY, pixels


class KeepColour(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_KeepColour",
            display_name="Keep Colour (StylerDALLE)",
            category=CATEGORY,
            description="Gives stylised pictures the colours of their photos. Light and dark stay as in the style.",
            inputs=[
                io.Image.Input("image", tooltip="Stylised pictures from Detokenize. The alpha channel is kept."),
                io.Image.Input(
                    "photo", tooltip="The original photos, or one photo for all pictures. They are resized to the pictures."
                ),
                io.Float.Input(
                    "amount",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0 keeps the colours of the style, 1 uses the colours of the photo.",
                ),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The pictures with the photos' colours.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, photo: torch.Tensor, amount: float) -> io.NodeOutput:
        for given in (image, photo):
            pixels(given)
        out = keep_colour(image.movedim(-1, 1), photo.movedim(-1, 1), amount, host.progress())
        return io.NodeOutput(out.movedim(1, -1).contiguous())  # it lies so already
