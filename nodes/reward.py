"""Reward: the CLIP score of pictures for a text."""

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle
from ..stylerdalle.clip.scores import judge
from ..stylerdalle.resolve import check_prompt, warn_of_unknown_words
from . import host
from .speech import heard, spoken, warned
from .types import CATEGORY, REWARD, each, expect


class Reward(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_Reward",
            display_name="Reward (StylerDALLE)",
            category=CATEGORY,
            description="Scores how well pictures match a text: the cosine similarity of CLIP embeddings, from -1 to 1.",
            inputs=[
                REWARD.Input("reward", tooltip="The REWARD output of Load StylerDALLE."),
                io.Image.Input("image", tooltip="One or more pictures. Transparent areas count as white."),
                io.String.Input(
                    "text",
                    default="a Van Gogh style oil painting",
                    multiline=True,
                    tooltip="The text to compare with, in English.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="score", tooltip="The mean score. Compare only scores for the same text."),
                io.String.Output(display_name="scores", tooltip="One line for each picture."),
            ],
        )

    @classmethod
    def execute(cls, reward: Bundle, image: torch.Tensor, text: str) -> io.NodeOutput:
        with heard() as warnings:
            scores = clip_scores(reward, image, text)
        mean = sum(scores) / len(scores)
        lines = [f"{value:+.4f}  picture {number}" for number, value in enumerate(scores, 1)]
        return io.NodeOutput(mean, "\n".join(lines), ui=spoken([*lines, *warned(warnings)], score=[mean], scores=scores))


def clip_scores(reward: Bundle, image: torch.Tensor, text: str) -> list[float]:
    """The CLIP score of each picture of an IMAGE (B, H, W, 3 or 4) for a text, in [-1, 1]; with progress and cancel.

    Raises:
        ValueError: an input that cannot be used, such as an empty text.
    """
    bundle, text = expect(reward, Bundle, "REWARD"), check_prompt(text, "text")
    warn_of_unknown_words(bundle.clip_path, text)
    clip, progress = bundle.clip, host.progress()
    host.use(bundle, clip)
    score, scores = judge(clip, text), list[float]()
    for picture in each(image):
        scores.append(score(picture))
        progress(len(scores), len(image))
    return scores
