"""CLIP embeddings, and scores and rewards made of them, as pure functions.

Pixels are resized (bicubic, antialiased) and normalised with CLIP's mean and standard deviation. The paper's authors did not
normalise; `normalise=False` reproduces this.

Letters: B pictures or texts; E numbers in an embedding; N boxes; k pictures of one photo.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import constant
from ..images.files import over_white
from ..images.resample import interpolated
from .protocol import CLIPModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CONTEXT = 77  # tokens of a text that CLIP reads, including the begin and end tokens
NEUTRAL = "a photo"  # the text that the directional reward starts from
Box = tuple[int, int, int]  # top, left, side in px
log = logging.getLogger(__name__)


def prepare(images: Tensor, side: int, normalise: bool = True) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, side, side): shortest side resized, centre crop, normalised."""
    h, w = images.shape[-2:]
    scale = side / min(h, w)
    if scale != 1:
        size = (max(side, round(h * scale)), max(side, round(w * scale)))
        images = interpolated(images, size).clamp(0, 1)
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    images = images[..., top : top + side, left : left + side]
    if normalise:
        mean, std = (constant(v, images.device, images.dtype).view(3, 1, 1) for v in (MEAN, STD))
        images = (images - mean) / std
    return images


def embed_images(model: CLIPModel, images: Tensor, normalise: bool = True) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> unit vectors (B, E), float32, differentiable."""
    x = prepare(images.float(), model.visual.input_resolution, normalise)
    return F.normalize(model.encode_image(x.to(model.dtype)).float(), dim=-1)


def embed_texts(model: CLIPModel, texts: Sequence[str]) -> Tensor:
    """Texts -> unit vectors (B, E), float32. A text of more than CONTEXT tokens is cut, with a warning that shows the rest."""
    from .package import clip

    tokenizer = clip.clip._tokenizer
    for text in texts:
        codes = tokenizer.encode(text)
        if len(codes) > CONTEXT - 2:
            lost = tokenizer.decode(codes[CONTEXT - 2 :]).strip()
            log.warning("the text is %d tokens long and CLIP reads %d: cut off was %.80r", len(codes), CONTEXT - 2, lost)
    tokens = clip.tokenize(list(texts), truncate=True).to(model.token_embedding.weight.device)
    return F.normalize(model.encode_text(tokens).float(), dim=-1)


def cosine(images: Tensor, texts: Tensor) -> Tensor:
    """The paper's reward and score: the cosine of each row of unit vectors, (B, E) and (B, E) or (E) -> (B)."""
    return (images * texts).sum(-1)


def judge(model: CLIPModel, text: str) -> Callable[[Tensor], float]:
    """A function from a picture (1, 3 or 4, H, W) to its cosine with the text. Transparent parts count as white."""
    embedded = embed_texts(model, [text])

    def score(picture: Tensor) -> float:
        alpha = picture[:, 3:] if picture.shape[1] == 4 else None
        return float(cosine(embed_images(model, over_white(picture[:, :3], alpha).to(embedded.device)), embedded))

    return score


def directional(images: Tensor, contents: Tensor, style: Tensor, neutral: Tensor) -> Tensor:
    """Directional reward (StyleGAN-NADA, arXiv 2108.00946): cos(images - contents, style - neutral) -> (B).

    Args:
        images, contents: unit vectors of stylised pictures and of their photos, (B, E).
        style, neutral: unit vectors of the style's text and of a neutral one, (E).
    """
    return F.cosine_similarity(images - contents, style - neutral, dim=-1)


def crop_boxes(count: int, side: int, generator: torch.Generator, least: float = 0.5) -> list[Box]:
    """`count` random squares in a square picture of `side` px, with sides of `least` to 1 of it."""
    u = torch.rand(count, 3, generator=generator).tolist()
    sides = [int(side * (least + (1 - least) * a)) for a, _, _ in u]
    return [(int((side - s) * b), int((side - s) * c), s) for s, (_, b, c) in zip(sides, u, strict=True)]


def take_crops(images: Tensor, boxes: Sequence[Box], side: int) -> Tensor:
    """Box i of picture i, (N, 3, H, W) -> (N, 3, side, side), resized."""
    return torch.cat(
        [
            interpolated(image[None, :, y : y + s, x : x + s], (side, side), "bilinear")
            for image, (y, x, s) in zip(images, boxes, strict=True)
        ]
    )


def credit(rewards: Tensor, boxes: Sequence[Box], side: int, places: int) -> Tensor:
    """Distribute the rewards of boxes to the tokens under them (patch reward: CLIPstyler, arXiv 2112.00374).

    Args:
        rewards: (N, k), of N boxes in k pictures.
        side: of the pictures in px.
        places: tokens a side.

    Returns:
        (k, places, places): for each token, the mean reward of the boxes over its centre, or of all boxes if there is none.
    """
    middle = (torch.arange(places, device=rewards.device) + 0.5) * side / places
    inside = []
    for top, left, length in boxes:
        rows, columns = ((middle >= first) & (middle < first + length) for first in (top, left))
        inside.append(rows[:, None] & columns[None])
    cover = torch.stack(inside).to(rewards.dtype)  # (N, places, places)
    total = torch.einsum("nk,nyx->kyx", rewards, cover)
    return torch.where(cover.sum(0) > 0, total / cover.sum(0).clamp(min=1), rewards.mean(0)[:, None, None])


@torch.inference_mode()
def score_pictures(model: CLIPModel, images: Tensor, prompt: str) -> Tensor:
    """The held-out score: the mean cosine of 5 views of each picture (B, 3, H, W) and the prompt -> (B)."""
    generator = torch.Generator().manual_seed(0)
    text = embed_texts(model, [prompt])[0]
    whole = cosine(embed_images(model, images), text)
    side = model.visual.input_resolution
    parts = [
        cosine(embed_images(model, take_crops(images, [box] * len(images), side)), text)
        for box in crop_boxes(4, min(images.shape[-2:]), generator)
    ]
    return torch.stack([whole, *parts]).mean(0)
