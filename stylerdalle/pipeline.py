"""From pictures and a style prompt to stylised pictures: what the command line and the nodes share.

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

from torch import Tensor

from .bundle import Bundle, load_bundle
from .progress import Progress
from .resolve import find_style
from .tokenizers.codec import decode, encode
from .translator.sampling import DEFAULT, Sampling
from .translator.style import Style
from .translator.translate import translate


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
    """Pictures in a style: tokenize, translate, detokenize.

    Args:
        images: float (B, 3, H, W) in [0, 1], or (B, 4, H, W): alpha is put back unchanged. Any size.
        style: a bundled style's name, a prompt, a style file's path, or a Style.
        bundle: from load_bundle, or its name.
        others: as `encode` and `translate`.

    Returns:
        float32, the shape of `images`, on the CPU or the bundle's device as `images` was.

    Raises:
        ValueError: pictures or options that cannot be used, an unknown style.
    """
    if images.ndim != 4 or images.shape[1] not in (3, 4) or min(images.shape) < 1:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W) or (B, 4, H, W), not empty")
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"a picture of {images.shape[-1]} x {images.shape[-2]} px is too small: both sides need 2 px or more")
    opened = load_bundle(bundle) if isinstance(bundle, str) else bundle
    found = find_style(opened, style)
    source = images.float()
    alpha = source[:, 3:] if source.shape[1] == 4 else None
    upscale = opened.translator.config.upscale
    tokens = encode(opened.tokenizer, source[:, :3], alpha, upscale, opened.device, detail=detail)
    tokens = translate(
        opened.translator,
        opened.tokenizer,
        tokens,
        [(found, 1.0)],
        strength,
        mask,
        sampling,
        progress,
        feather=feather,
        steady=steady,
    )
    return decode(opened.tokenizer, tokens, images.device)
