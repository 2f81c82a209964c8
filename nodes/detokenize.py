"""Detokenize: tokens to pictures, at the size of the pictures that were tokenized."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.images.lines import add_lines
from ..stylerdalle.settings import LINES
from ..stylerdalle.tokenizers.codec import decode, free_of_blocks
from ..stylerdalle.tokenizers.tokens import Tokens
from . import host, inputs
from .types import CATEGORY, TOKENIZER, TOKENS, between, expect, pixels, rare


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
                io.Image.Input(
                    "photo",
                    optional=True,
                    tooltip="What went into Tokenize, or one photo for all: fine lines of it are drawn into the pictures.",
                ),
                rare(inputs.keep_lines()),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The pictures at their original size.")],
        )

    @classmethod
    def execute(
        cls,
        tokenizer: Bundle,
        tokens: Tokens,
        even: bool = False,
        photo: torch.Tensor | None = None,
        keep_lines: float = LINES,
    ) -> io.NodeOutput:
        bundle, tokens = expect(tokenizer, Bundle, "TOKENIZER"), expect(tokens, Tokens, "TOKENS")
        between("keep_lines", keep_lines, 0, 1)
        if photo is not None:
            pixels(photo)
        host.use(bundle, bundle.tokenizer)
        pictures = decode(bundle.tokenizer, tokens, host.image_device(), host.progress())  # (B, C, H, W)
        if photo is not None:
            where = free_of_blocks(tokens, bundle.tokenizer.downsample)
            add_lines(pictures, photo.movedim(-1, 1), keep_lines, where, None if tokens.steady else tokens.seed)
        if even and min(pictures.shape[-2:]) > 1:
            height, width = (side - side % 2 for side in pictures.shape[-2:])
            pictures = pictures[..., :height, :width]
        return io.NodeOutput(pictures.movedim(1, -1).contiguous())  # uncut, it lies so already
