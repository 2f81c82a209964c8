"""Luma, and stylised pictures with the colours of their photos (luminance transfer, arXiv 1606.05897)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..progress import Progress
from .resample import interpolated

# weights of red, green and blue
LUMA_709 = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, sRGB's
LUMA_601 = (0.299, 0.587, 0.114)  # ITU-R BT.601


def luma(images: Tensor, weights: Sequence[float] = LUMA_709) -> Tensor:
    """(..., 3, H, W) -> (..., 1, H, W), the weighted sum of the channels."""
    return (images * images.new_tensor(weights).view(3, 1, 1)).sum(-3, keepdim=True)


def keep_colour(images: Tensor, photos: Tensor, amount: float = 1.0, progress: Progress | None = None) -> Tensor:
    """Stylised pictures with the chroma of their photos.

    The luma is the stylised picture's. Where the photo's chroma would leave [0, 1] with it, it is desaturated into gamut.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1]; an alpha channel is kept.
        photos: (B or 1, 3 or 4, h, w) in [0, 1]; resized to the pictures' size.
        amount: 0 gives the pictures unchanged, 1 the photos' colours.
        progress: called with (pictures done, pictures in all); may raise to cancel.

    Returns:
        As `images`.

    Raises:
        ValueError: amount is out of range, or there is neither one photo nor one for each picture.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount {amount} is out of range: 0 (the style's colours) to 1 (the photo's)")
    if len(photos) not in (1, len(images)):
        raise ValueError(f"there are {len(photos)} photos for {len(images)} pictures: give one photo, or one for each picture")
    out = images.clone()
    for i, picture in enumerate(out[:, :3].split(1)):  # one at a time, to save memory
        photo = photos[i if len(photos) > 1 else 0][None, :3].to(picture)
        if photo.shape != picture.shape:
            photo = interpolated(photo, (picture.shape[-2], picture.shape[-1])).clamp(0, 1)
        light = luma(picture)
        chroma = photo - luma(photo)
        room = torch.where(chroma > 0, 1 - light, light)
        fits = (room / chroma.abs().clamp(min=1e-6)).amin(1, keepdim=True).clamp(max=1)  # (1, 1, H, W)
        picture.lerp_((light + fits * chroma).clamp(0, 1), amount)
        if progress:
            progress(i + 1, len(out))
    return out
