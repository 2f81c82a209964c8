"""From photos and a style prompt to stylised pictures: the paper's figure 2, in three steps.

    photos -> tokenize -> content tokens -> translate -> stylised tokens -> detokenize -> pictures

The photos' lines, which are finer than a token, are added at last (images/lines.py).

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .bundle import Bundle, load_bundle
from .images.lines import add_lines
from .images.steady import Steady
from .progress import Progress, split
from .resolve import find_style
from .settings import LINES
from .tokenizers.codec import decode, encode, free_of_blocks
from .tokenizers.tokens import PHOTO_MEANS
from .translator import temporal
from .translator.masks import on_grid
from .translator.options import TranslateOptions
from .translator.sampling import DEFAULT, Sampling
from .translator.style import Style
from .translator.translate import translate

STEPS = (2, 3, 1)  # about the shares of the time that tokenize, translate and detokenize take
CHUNK = 4  # pictures that go through the three steps together: all of a long video's tokens would need much memory


class History:
    """What frames of a video need of those before them, for a video that comes in parts.

    Args:
        steady: as in TranslateOptions.
    """

    def __init__(self, steady: float):
        self.steady = steady
        self.tokens, self.pictures = temporal.History(steady), Steady(steady, PHOTO_MEANS)


def stylize(
    images: Tensor,
    style: str | Style,
    bundle: Bundle | str = "mini",
    strength: float = 1.0,
    mask: Tensor | None = None,
    sampling: Sampling = DEFAULT,
    progress: Progress | None = None,
    detail: float = 1.0,
    feather: float = 0.0,
    steady: float = 0.0,
    history: History | None = None,
    keep_lines: float = LINES,
) -> Tensor:
    """Pictures in a style.

    Args:
        images: float (B, 3, H, W) in [0, 1], or (B, 4, H, W) with an alpha channel, which is kept. Any size.
        style: the name of a bundled style, a prompt, the path of a style file, or a Style.
        bundle: from load_bundle, or its name.
        strength, mask, sampling, feather, steady: as in TranslateOptions.
        progress: called with (done, total) of all three steps; may raise to cancel.
        detail: as in `encode`.
        history: of the frames before, if the images go on with their video; it also says how steady they are to be.
        keep_lines: how much of the photos' lines is added, 0 to 1, times strength (at most 1) and mask; see images/lines.py.

    Returns:
        float32, of the shape of `images`, on their device.

    Raises:
        ValueError: images or options that cannot be used, or an unknown style.
    """
    check_images(images)
    steady = history.steady if history else steady
    options = TranslateOptions(strength, mask, feather, sampling=sampling, steady=steady)
    opened = load_bundle(bundle) if isinstance(bundle, str) else bundle
    found = find_style(opened, style)
    if mask is not None and len(mask) not in (1, len(images)):
        raise ValueError(f"there are {len(mask)} masks for {len(images)} pictures: give one mask, or one for each picture")
    history = history or History(steady)

    out = torch.empty(images.shape, device=images.device, memory_format=torch.channels_last)
    parts = [slice(first, first + CHUNK) for first in range(0, len(images), CHUNK)]
    for part, update in zip(parts, split(progress, [len(images[part]) for part in parts]), strict=True):
        own = replace(options, mask=mask if mask is None or len(mask) == 1 else mask[part])
        out[part], where = _stylized(images[part], found, opened, own, detail, history, update)
        if own.mask is not None:
            masked = on_grid(own.mask, (images.shape[-2], images.shape[-1]), feather)
            where = masked if where is None else where * masked.to(where)
        still = None if steady else sampling.seed  # of bends, which frames do not have
        add_lines(
            out[part], images[part], keep_lines * min(1.0, strength), where, still
        )  # here: the history keeps what it decoded
    return out


def _stylized(
    images: Tensor,
    style: Style,
    bundle: Bundle,
    options: TranslateOptions,
    detail: float,
    history: History,
    progress: Progress | None,
) -> tuple[Tensor, Tensor | None]:
    """A few pictures in a style, and where lines belong into them, as `free_of_blocks`."""
    tokenizing, translating, detokenizing = split(progress, STEPS)
    source, tokenizer = images.float(), bundle.tokenizer
    alpha = source[:, 3:] if source.shape[1] == 4 else None
    upscale = bundle.translator.config.upscale
    content = encode(tokenizer, source[:, :3], alpha, upscale, bundle.device, tokenizing, detail, options.steady > 0)
    stylised = translate(bundle.translator, tokenizer, content, [(style, 1.0)], options, translating, history.tokens)
    pictures = decode(tokenizer, stylised, images.device, detokenizing, history.pictures)
    return pictures, free_of_blocks(stylised, tokenizer.downsample)


def check_images(images: Tensor) -> None:
    """Raises ValueError unless the images are (B, 3 or 4, H, W), finite, with sides of 2 px or more."""
    if images.ndim != 4 or images.shape[1] not in (3, 4) or min(images.shape) < 1:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W) or (B, 4, H, W), not empty")
    if not all(image.isfinite().all() for image in images):
        raise ValueError("the images have NaN or infinite pixels: check where they were made")
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"a picture of {images.shape[-1]} x {images.shape[-2]} px is too small: both sides need 2 px or more")
