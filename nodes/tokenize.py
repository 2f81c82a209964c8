"""Tokenize: pictures to content tokens."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.pipeline import encode
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
            ],
            outputs=[TOKENS.Output(display_name="TOKENS", tooltip="Content tokens, for Translate or Detokenize.")],
        )

    @classmethod
    def execute(cls, tokenizer: Bundle, image: torch.Tensor) -> io.NodeOutput:
        bundle = expect(tokenizer, Bundle, "TOKENIZER")
        images, alpha = pixels(image)
        host.use(bundle, bundle.tokenizer)
        upscale = bundle.translator.config.upscale
        return io.NodeOutput(encode(bundle.tokenizer, images, alpha, upscale, bundle.device, host.progress()))
