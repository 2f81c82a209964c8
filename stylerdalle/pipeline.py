"""From photos and a style prompt to stylised pictures: the paper's figure 2, in three steps.

    photos -> tokenize -> content tokens -> translate -> stylised tokens -> detokenize -> pictures

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

from torch import Tensor

from .bundle import Bundle, load_bundle
from .progress import Progress, split
from .resolve import find_style
from .tokenizers.codec import decode, encode
from .translator.options import TranslateOptions
from .translator.sampling import DEFAULT, Sampling
from .translator.style import Style
from .translator.translate import translate

STEPS = (2, 3, 1)  # about the shares of the time that tokenize, translate and detokenize take


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
) -> Tensor:
    """Pictures in a style.

    Args:
        images: float (B, 3, H, W) in [0, 1], or (B, 4, H, W) with an alpha channel, which is kept. Any size.
        style: the name of a bundled style, a prompt, the path of a style file, or a Style.
        bundle: from load_bundle, or its name.
        strength, mask, sampling, feather, steady: as in TranslateOptions.
        progress: called with (done, total) of all three steps; may raise to cancel.
        detail: as in `encode`.

    Returns:
        float32, of the shape of `images`, on their device.

    Raises:
        ValueError: images or options that cannot be used, or an unknown style.
    """
    check_images(images)
    options = TranslateOptions(strength, mask, feather, sampling=sampling, steady=steady)
    opened = load_bundle(bundle) if isinstance(bundle, str) else bundle
    found = find_style(opened, style)
    tokenizing, translating, detokenizing = split(progress, STEPS)

    source = images.float()
    alpha = source[:, 3:] if source.shape[1] == 4 else None
    upscale = opened.translator.config.upscale
    content = encode(opened.tokenizer, source[:, :3], alpha, upscale, opened.device, tokenizing, detail)
    stylised = translate(opened.translator, opened.tokenizer, content, [(found, 1.0)], options, translating)
    return decode(opened.tokenizer, stylised, images.device, detokenizing)


def check_images(images: Tensor) -> None:
    """Raises ValueError unless the images are (B, 3 or 4, H, W), finite, with sides of 2 px or more."""
    if images.ndim != 4 or images.shape[1] not in (3, 4) or min(images.shape) < 1:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W) or (B, 4, H, W), not empty")
    if not all(image.isfinite().all() for image in images):
        raise ValueError("the images have NaN or infinite pixels: check where they were made")
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"a picture of {images.shape[-1]} x {images.shape[-2]} px is too small: both sides need 2 px or more")
