"""Best: keeps the pictures that match a text best, by their CLIP score."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from .reward import clip_scores
from .speech import heard, spoken, warned
from .types import CATEGORY, REWARD, between


class Best(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Best",
            display_name="Best (StylerDALLE)",
            category=CATEGORY,
            description="Keeps the pictures that match a text best, scored by CLIP: for example the best candidate of Translate.",
            inputs=[
                REWARD.Input("reward", tooltip="The REWARD output of Load StylerDALLE."),
                io.Image.Input("image", tooltip="Two or more pictures. Transparent areas count as white."),
                io.String.Input(
                    "text",
                    default="a Van Gogh style oil painting",
                    multiline=True,
                    tooltip="The text to compare with, in English.",
                ),
                io.Int.Input(
                    "count",
                    default=1,
                    min=1,
                    max=4096,
                    step=1,
                    tooltip="How many pictures to keep. If there are fewer, all are kept.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The best pictures, highest score first."),
                io.Float.Output(display_name="score", tooltip="The score of the best picture."),
                io.String.Output(display_name="scores", tooltip="One line for each picture kept."),
            ],
        )

    @classmethod
    def execute(cls, reward: Bundle, image: torch.Tensor, text: str, count: int) -> io.NodeOutput:
        between("count", count, 1, 4096)
        with heard() as warnings:
            scores = clip_scores(reward, image, text)
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
        lines = [f"{scores[i]:+.4f}  picture {i + 1}" for i in order]
        kept = {"score": [scores[i] for i in order], "picture": [i + 1 for i in order]}
        shown = spoken([*lines, *warned(warnings)], **kept)
        return io.NodeOutput(image[order], scores[order[0]], "\n".join(lines), ui=shown)
