"""A stylised picture with the photo's colours: its luminance, the photo's chroma (luminance transfer, arXiv 1606.05897)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.2126, 0.7152, 0.0722)  # of sRGB's red, green and blue (ITU-R BT.709)


def keep_colour(
    images: Tensor, photos: Tensor, amount: float = 1.0, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Stylised pictures with the colours of their photos.

    The luminance is exactly the stylised picture's; where the photo's chroma would leave [0, 1] with it, it is made paler.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1]; an alpha channel stays as it is.
        photos: (B or 1, 3 or 4, h, w) in [0, 1]; stretched to the size of the pictures.
        amount: 0 is the pictures as they are, 1 the photos' colours alone.
        progress: called with (pictures done, pictures in all); may raise to cancel.

    Raises:
        ValueError: amount is out of range, or there are not as many photos as pictures.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount {amount} is out of range: 0 (the style's colours) to 1 (the photo's)")
    if len(photos) not in (1, len(images)):
        raise ValueError(f"there are {len(photos)} photos for {len(images)} pictures: give one photo, or one for each picture")
    out = images.clone()
    for i, picture in enumerate(out[:, :3].split(1)):  # one at a time: the rest of the memory is a picture's
        photo = photos[i if len(photos) > 1 else 0][None, :3].to(picture)
        if photo.shape != picture.shape:
            photo = F.interpolate(photo, picture.shape[-2:], mode="bicubic", antialias=True).clamp(0, 1)
        light = luma(picture)
        chroma = photo - luma(photo)
        room = torch.where(chroma > 0, 1 - light, light)
        fits = (room / chroma.abs().clamp(min=1e-6)).amin(1, keepdim=True).clamp(max=1)  # (1, 1, H, W)
        picture.lerp_((light + fits * chroma).clamp(0, 1), amount)
        if progress:
            progress(i + 1, len(out))
    return out


def luma(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W)."""
    weights = images.new_tensor(LUMA).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True)
