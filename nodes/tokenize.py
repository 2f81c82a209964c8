"""Tokenize: pictures to content tokens."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.tokenizers.codec import encode
from . import host
from .types import CATEGORY, TOKENIZER, TOKENS, expect, pixels


class Tokenize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Tokenize",
            display_name="Tokenize (StylerDALLE)",
            category=CATEGORY,
            description="Turns pictures of any size into content tokens, one for 8 x 8 pixels or as the translator needs them.",
            inputs=[
                TOKENIZER.Input("tokenizer", tooltip="The TOKENIZER of Load StylerDALLE."),
                io.Image.Input("image", tooltip="One or more pictures of any size. An alpha channel is kept."),
                io.Float.Input(
                    "detail",
                    default=1.0,
                    min=0.25,
                    max=4.0,
                    step=0.05,
                    optional=True,
                    tooltip="The size the picture is worked on at: 2 is twice its own, with marks half as large; 0.5 is half, "
                    "with large marks and a quarter of the time. It comes back in its own size.",
                ),
            ],
            outputs=[TOKENS.Output(display_name="TOKENS", tooltip="Content tokens, for Translate or Detokenize.")],
        )

    @classmethod
    def execute(cls, tokenizer: Bundle, image: torch.Tensor, detail: float = 1.0) -> io.NodeOutput:
        bundle = expect(tokenizer, Bundle, "TOKENIZER")
        images, alpha = pixels(image)
        host.use(bundle, bundle.tokenizer)
        upscale = bundle.translator.config.upscale
        return io.NodeOutput(encode(bundle.tokenizer, images, alpha, upscale, bundle.device, host.progress(), detail))
