"""Tokenize: pictures to content tokens."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.pipeline import encode
from . import host
from .types import CATEGORY, TOKENIZER, TOKENS, expect


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
        if image.ndim != 4 or image.shape[-1] not in (3, 4) or not image.numel():
            raise ValueError(f"the image has shape {tuple(image.shape)}: give pictures (B, H, W, 3), or 4 with alpha")
        pixels = image.movedim(-1, 1).float().clamp(0, 1)  # (B, C, H, W)
        alpha = pixels[:, 3:] if pixels.shape[1] == 4 else None
        host.use(bundle, bundle.tokenizer)
        upscale = bundle.translator.config.upscale
        return io.NodeOutput(encode(bundle.tokenizer, pixels[:, :3], alpha, upscale, bundle.device, host.progress()))
