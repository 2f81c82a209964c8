"""Colour spaces to sRGB: ICC profiles, PNG's gAMA and cICP (W3C PNG, third edition), Adobe RGB by EXIF.

What a profile is called says little ("GIMP built-in Linear sRGB" is linear), so it is judged by what it does to colours.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

D65 = (0.3127, 0.329)
# xy of red, green and blue
SRGB = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PRIMARIES = {1: SRGB, 9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)), 12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))}
ADOBE_GAMMA = 563 / 256
STRIP = 256  # rows converted at once, because float32 takes 12 bytes a pixel
SAME = 2  # of 255: a profile that changes no colour by more is taken as sRGB
Curve = Callable[[np.ndarray], np.ndarray]  # from values to linear light, both in [0, 1]


def power(gamma: float) -> Curve:
    """The curve x^gamma."""
    return lambda values: values**gamma


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """The transfer function of sRGB (IEC 61966-2-1)."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: np.ndarray) -> np.ndarray:
    """Its inverse; values are clipped to [0, 1]."""
    values = values.clip(0, 1)
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def bt709_to_linear(values: np.ndarray) -> np.ndarray:
    """The transfer function of ITU-R BT.709."""
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


# transfer functions of cICP (ITU-T H.273); those of HDR, 16 and 18, need a display's brightness and are left out
TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), bt709_to_linear),
    4: power(2.2),
    8: lambda values: values,
    13: srgb_to_linear,
}


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The matrix (3, 3) from linear RGB of these primaries, white at D65, to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = D65
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


def from_space(image: Image.Image, primaries: tuple[tuple[float, float], ...], curve: Curve) -> Image.Image:
    """An RGB image of other primaries and transfer function, in sRGB. Colours beyond sRGB are clipped."""
    matrix = (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).astype(np.float32)
    linear = curve(np.arange(256) / 255).astype(np.float32)
    values = np.array(image)  # (H, W, 3)
    for top in range(0, len(values), STRIP):
        part = linear[values[top : top + STRIP]] @ matrix.T
        values[top : top + STRIP] = (255 * linear_to_srgb(part)).round()
    return Image.fromarray(values)


def from_gamma(image: Image.Image, gamma: float) -> Image.Image:
    """An L or RGB image whose values are light to the power `gamma`, in sRGB."""
    table = (255 * linear_to_srgb((np.arange(256) / 255) ** (1 / gamma))).round().astype(int).tolist()
    return image.point(table * len(image.getbands()))


def from_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """An L, RGB, CMYK or LAB image as RGB in sRGB, by its ICC profile; unchanged if the profile is sRGB's.

    Raises:
        ValueError: the profile cannot be used.
    """
    try:
        from PIL import ImageCms
    except ImportError as error:  # a Pillow without LittleCMS
        raise ValueError("this Pillow has no LittleCMS") from error
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip().upper()
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space, "")
        if mode != image.mode and not (mode == "RGB" and image.mode == "L"):
            raise ValueError(f"it is for {space or 'unknown'} values, the picture has {image.mode}")
        image = image.convert(mode)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB":
            colours = np.stack(np.meshgrid(*[np.linspace(0, 255, 9).astype(np.uint8)] * 3), -1).reshape(27, 27, 3)
            change = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform)).astype(int) - colours
            if abs(change).max() <= SAME:
                return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    return image if converted is None else converted


def from_lab(image: Image.Image) -> Image.Image:
    """A LAB image (CIE L*a*b*, D50) as RGB in sRGB.

    Raises:
        ValueError: this Pillow cannot convert it.
    """
    try:
        from PIL import ImageCms
    except ImportError as error:
        raise ValueError("this Pillow has no LittleCMS") from error
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    return ImageCms.applyTransform(image, transform) or image
