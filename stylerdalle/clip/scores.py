"""CLIP rewards as pure functions: tensors in, tensor out.

Pixels are resized (bicubic, antialiased) and normalised with CLIP's mean and standard deviation; the authors fed CLIP
pixels as they were (`normalise=False` for exact reproduction).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..images.files import over_white
from .protocol import CLIPModel

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CONTEXT = 77  # CLIP's tokens a text, its begin and end marks included
NEUTRAL = "a photo"  # where the directional reward starts from
Box = tuple[int, int, int]  # top, left, side in px
log = logging.getLogger(__name__)


def prepare(images: Tensor, side: int, normalise: bool = True) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, side, side): the shortest side resized, the centre kept, then normalised."""
    h, w = images.shape[-2:]
    scale = side / min(h, w)
    if scale != 1:
        size = (max(side, round(h * scale)), max(side, round(w * scale)))
        images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = (images.shape[-2] - side) // 2, (images.shape[-1] - side) // 2
    images = images[..., top : top + side, left : left + side]
    if normalise:
        mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        images = (images - mean) / std
    return images


def embed_images(model: CLIPModel, images: Tensor, normalise: bool = True) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> unit vectors (B, E), float32, differentiable."""
    x = prepare(images.float(), model.visual.input_resolution, normalise)
    return F.normalize(model.encode_image(x.to(model.dtype)).float(), dim=-1)


def embed_texts(model: CLIPModel, texts: Sequence[str]) -> Tensor:
    """Texts -> unit vectors (B, E), float32. Over CLIP's 77 tokens a text is cut, with a warning that shows what was lost."""
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
    """Paper's reward and score: row-wise cosine of unit vectors (B, E) and (B, E) or (E) -> (B)."""
    return (images * texts).sum(-1)


def judge(model: CLIPModel, text: str) -> Callable[[Tensor], float]:
    """A function of a picture (1, 3 or 4, H, W): how well it matches the text. Transparent parts are seen as white."""
    said = embed_texts(model, [text])

    def score(picture: Tensor) -> float:
        alpha = picture[:, 3:] if picture.shape[1] == 4 else None
        return float(cosine(embed_images(model, over_white(picture[:, :3], alpha).to(said.device)), said))

    return score


def directional(images: Tensor, contents: Tensor, style: Tensor, neutral: Tensor) -> Tensor:
    """cos(dI, dT), dI = output - content, dT = style text - neutral text (StyleGAN-NADA, arXiv 2108.00946): (B)."""
    return F.cosine_similarity(images - contents, style - neutral, dim=-1)


def crop_boxes(count: int, side: int, generator: torch.Generator, least: float = 0.5) -> list[Box]:
    """`count` random squares of between `least` and all of a picture of `side` px."""
    u = torch.rand(count, 3, generator=generator).tolist()
    sides = [int(side * (least + (1 - least) * a)) for a, _, _ in u]
    return [(int((side - s) * b), int((side - s) * c), s) for s, (_, b, c) in zip(sides, u, strict=True)]


def take_crops(images: Tensor, boxes: Sequence[Box], side: int) -> Tensor:
    """Box i of picture i, resized: (N, 3, side, side)."""
    return torch.cat(
        [
            F.interpolate(image[None, :, y : y + s, x : x + s], (side, side), mode="bilinear", antialias=True)
            for image, (y, x, s) in zip(images, boxes, strict=True)
        ]
    )


def credit(rewards: Tensor, boxes: Sequence[Box], side: int, places: int) -> Tensor:
    """Rewards of boxes to the places under them (patch reward: CLIPstyler, arXiv 2112.00374).

    Args:
        rewards: (V, k), of V boxes in k pictures.
        side: of the pictures in px.
        places: tokens a side.

    Returns:
        (k, places, places), at each place the mean reward of the boxes over its middle, or of all boxes where there is none.
    """
    middle = (torch.arange(places, device=rewards.device) + 0.5) * side / places
    inside = []
    for top, left, length in boxes:
        rows, columns = ((middle >= first) & (middle < first + length) for first in (top, left))
        inside.append(rows[:, None] & columns[None])
    cover = torch.stack(inside).to(rewards.dtype)  # (V, places, places)
    total = torch.einsum("vk,vyx->kyx", rewards, cover)
    return torch.where(cover.sum(0) > 0, total / cover.sum(0).clamp(min=1), rewards.mean(0)[:, None, None])


@torch.inference_mode()
def score_pictures(model: CLIPModel, images: Tensor, prompt: str) -> Tensor:
    """Paper's metric / 100: cos(CLIP(picture), CLIP(prompt)) for pictures (B, 3, H, W), over 5 views each -> (B)."""
    generator = torch.Generator().manual_seed(0)
    text = embed_texts(model, [prompt])[0]
    whole = cosine(embed_images(model, images), text)
    side = model.visual.input_resolution
    parts = [
        cosine(embed_images(model, take_crops(images, [box] * len(images), side)), text)
        for box in crop_boxes(4, min(images.shape[-2:]), generator)
    ]
    return torch.stack([whole, *parts]).mean(0)
