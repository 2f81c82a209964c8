"""Luma, and stylised pictures with the colours of their photos.

The luma is the stylised picture's (luminance transfer, arXiv 1606.05897). The photo's chroma is not laid over it as it is: its
edges would show where the style has painted others, and with them the blocks of a JPEG's chroma. Instead it is fitted, in windows
of a few tokens, as an affine function of the stylised luma (a guided filter with that luma as the guide, arXiv 1505.00996). So
colours change where brush marks do, and elsewhere softly.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import constant
from ..progress import Progress
from .alpha import without_hidden
from .resample import interpolated

# weights of red, green and blue
LUMA_709 = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709, sRGB's
LUMA_601 = (0.299, 0.587, 0.114)  # ITU-R BT.601
RADIUS = 16  # px around a place whose colours are fitted together: two tokens
EPS = 2e-3  # variance of luma below which a window counts as plain: there the colour is the window's mean
COARSE = 4  # the fit is computed on a picture this much smaller


def luma(images: Tensor, weights: Sequence[float] = LUMA_709) -> Tensor:
    """(..., 3, H, W) -> (..., 1, H, W), the weighted sum of the channels."""
    return (images * constant(tuple(weights), images.device, images.dtype).view(3, 1, 1)).sum(-3, keepdim=True)


def keep_colour(images: Tensor, photos: Tensor, amount: float = 1.0, progress: Progress | None = None) -> Tensor:
    """Stylised pictures with the colours of their photos, without the photos' edges.

    The luma is the stylised picture's, the chroma the photo's as `fitted_chroma`. Where this would leave [0, 1], it is
    desaturated into gamut.

    Args:
        images: (B, 3 or 4, H, W) in [0, 1]; an alpha channel is kept.
        photos: as in `beside`.
        amount: 0 gives the pictures unchanged, 1 the photos' colours.
        progress: called with (pictures done, pictures in all); may raise to cancel.

    Returns:
        As `images`.

    Raises:
        ValueError: amount is out of range, or the pictures are no multiple of the photos.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount {amount} is out of range: 0 (the style's colours) to 1 (the photo's)")
    out = images.clone()
    for i, (picture, photo) in enumerate(beside(out, photos)):
        light = luma(picture)
        chroma = fitted_chroma(photo - luma(photo), light)
        picture.lerp_(into_gamut(light, chroma), amount)
        if progress:
            progress(i + 1, len(out))
    return out


def beside(images: Tensor, photos: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each picture's three channels (1, 3, H, W), not copied, and the photo that it was made of, (1, 3, H, W).

    Args:
        images: (B, 3 or 4, H, W) in [0, 1].
        photos: (B, 3 or 4, h, w) in [0, 1], resized to the pictures' size; one for all pictures, or as many, or all of them again
            and again, as with several candidates. Colours under alpha 0 are not read.

    Raises:
        ValueError: the pictures are no multiple of the photos.
    """
    if not len(photos) or len(images) % len(photos):
        raise ValueError(f"there are {len(photos)} photos for {len(images)} pictures: give one photo, or one for each picture")
    for i, picture in enumerate(images[:, :3].split(1)):  # one at a time, to save memory
        given = photos[i % len(photos)][None].to(picture)
        photo = given[:, :3] if given.shape[1] == 3 else without_hidden(given[:, :3], given[:, 3:])
        if photo.shape != picture.shape:
            photo = interpolated(photo, (picture.shape[-2], picture.shape[-1])).clamp(0, 1)
        yield picture, photo


def into_gamut(light: Tensor, chroma: Tensor) -> Tensor:
    """Luma (1, 1, H, W) and chroma (1, 3, H, W) as a picture in [0, 1]: where they leave it, the chroma is made weaker."""
    room = torch.where(chroma > 0, 1 - light, light)
    fits = (room / chroma.abs().clamp(min=1e-6)).amin(1, keepdim=True).clamp(max=1)  # (1, 1, H, W)
    return (light + fits * chroma).clamp(0, 1)


def fitted_chroma(chroma: Tensor, light: Tensor) -> Tensor:
    """Chroma as an affine function of luma in each window of RADIUS, the functions blended from window to window.

    Args:
        chroma: (1, 3, H, W), of the photo: its pixels less their luma.
        light: (1, 1, H, W), the luma of the stylised picture.

    Returns:
        (1, 3, H, W), of luma 0 as `chroma`.
    """
    small = [max(1, -(-side // COARSE)) for side in light.shape[-2:]]
    guide, colour = (F.interpolate(x, small, mode="area") for x in (light, chroma))
    mean, mean_colour = window_mean(guide), window_mean(colour)
    slope = (window_mean(guide * colour) - mean * mean_colour) / (window_mean(guide.square()) - mean.square() + EPS)
    parts = torch.cat([slope, mean_colour - slope * mean], 1)  # (1, 6, h, w)
    smooth = F.interpolate(window_mean(parts), light.shape[-2:], mode="bicubic")
    return smooth[:, :3] * light + smooth[:, 3:]


def window_mean(x: Tensor, around: int = RADIUS // COARSE) -> Tensor:
    """The mean of the window around each place, (B, C, h, w) -> the same; beyond the edges the outermost values go on."""
    for dim, pad in ((-1, (around, around, 0, 0)), (-2, (0, 0, around, around))):
        padded = F.pad(x, pad, mode="replicate")
        parts = [padded.narrow(dim, k, x.shape[dim]) for k in range(2 * around + 1)]
        x = functools.reduce(Tensor.add_, parts[1:], parts[0].clone()) / len(parts)  # twice as fast as avg_pool2d
    return x
