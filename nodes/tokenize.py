"""Tokenize: pictures to content tokens."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.tokenizers.codec import encode
from . import host, inputs
from .types import CATEGORY, TOKENIZER, TOKENS, between, expect, pixels


class Tokenize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Tokenize",
            display_name="Tokenize (StylerDALLE)",
            category=CATEGORY,
            description="Turns pictures of any size into content tokens: one for 8 x 8 pixels, or fewer for some translators.",
            inputs=[
                TOKENIZER.Input("tokenizer", tooltip="The TOKENIZER output of Load StylerDALLE."),
                inputs.image(),
                inputs.detail(
                    "The size used for processing. 2 is twice the size: brush marks half as large, four times the time. "
                    "0.5 is half the size: marks twice as large, a quarter of the time. The result has the original size."
                ),
            ],
            outputs=[TOKENS.Output(display_name="TOKENS", tooltip="Content tokens, for Translate or Detokenize.")],
        )

    @classmethod
    def execute(cls, tokenizer: Bundle, image: torch.Tensor, detail: float = 1.0) -> io.NodeOutput:
        bundle = expect(tokenizer, Bundle, "TOKENIZER")
        between("detail", detail, 0.25, 4)
        images, alpha = pixels(image)
        host.use(bundle, bundle.tokenizer)
        upscale = bundle.translator.config.upscale
        return io.NodeOutput(encode(bundle.tokenizer, images, alpha, upscale, bundle.device, host.progress(), detail))
