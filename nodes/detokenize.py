"""Detokenize: tokens to pictures, at the size of the pictures that were tokenized."""

from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.tokenizers.codec import decode
from ..stylerdalle.tokenizers.tokens import Tokens
from . import host
from .types import CATEGORY, TOKENIZER, TOKENS, expect


class Detokenize(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Detokenize",
            display_name="Detokenize (StylerDALLE)",
            category=CATEGORY,
            description="Turns tokens back into pictures, at their original size and with their alpha channel.",
            inputs=[
                TOKENIZER.Input("tokenizer", tooltip="The same TOKENIZER that made the tokens."),
                TOKENS.Input(
                    "tokens", tooltip="Tokens from Translate. Tokens directly from Tokenize show what the tokenizer alone keeps."
                ),
                io.Boolean.Input(
                    "even",
                    default=False,
                    optional=True,
                    tooltip="For video: cuts off the last row or column where a side is odd, which most video formats refuse.",
                ),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The pictures at their original size.")],
        )

    @classmethod
    def execute(cls, tokenizer: Bundle, tokens: Tokens, even: bool = False) -> io.NodeOutput:
        bundle, tokens = expect(tokenizer, Bundle, "TOKENIZER"), expect(tokens, Tokens, "TOKENS")
        host.use(bundle, bundle.tokenizer)
        pictures = decode(bundle.tokenizer, tokens, host.image_device(), host.progress())  # (B, C, H, W)
        if even and min(pictures.shape[-2:]) > 1:
            height, width = (side - side % 2 for side in pictures.shape[-2:])
            pictures = pictures[..., :height, :width]
        return io.NodeOutput(pictures.movedim(1, -1).contiguous())  # uncut, it lies so already
