"""A photo -> the same photo in a hand-made approximation of an art style, pixel for pixel in place.

The pairs teach small models what colour statistics do not show: lines, hatching, blocks, strokes, cells and dots. Marks
have fixed sizes in pixels (lines 2, blocks 8, strokes 4-8, cells 10-17) so that they survive tokens of 8x8 pixels.
Nothing is learned here and no artist's method is claimed: `strokes.py` names the papers whose operators are simplified.

    painted = apply("van_gogh", photo, numpy.random.default_rng(0))   # uint8 (H, W, 3), sides from 16 pixels
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .strokes import (
    Brush,
    along,
    blur,
    boundaries,
    cells,
    contours,
    emboss,
    flatten,
    flow,
    luminance,
    means,
    noise,
    paint,
    palette_distance,
    pixel_grid,
    saturate,
    smoothstep,
    stretch,
    to_image,
    to_planes,
    warp,
    waves,
)

PITCH = 16 / 2**0.5  # of hatching at 45 degrees, in pixels
Filter = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _hatching(darkness: Tensor, degrees: float, pitch: float, generator: np.random.Generator, wobble: float = 1.5) -> Tensor:
    """Ink (H, W) of parallel strokes at an angle, wider where darkness (H, W) is higher, none where it is 0.

    With 45 degrees, the pitch PITCH and no wobble, strokes repeat every 2 x 2 blocks of 8 pixels: a translator of such tokens
    can foretell them.
    """
    y, x = pixel_grid(darkness.shape)
    turn = np.deg2rad(degrees)
    u = (x * np.cos(turn) + y * np.sin(turn) + wobble * noise(generator, darkness.shape, 60)) / pitch + 200
    v = (y * np.cos(turn) - x * np.sin(turn)) / 70 + 100
    # every line is cut into strokes of its own phase, so that rows do not end together
    phase = torch.frac(v + torch.frac(torch.floor(u) * 0.618))
    pressure = 0.35 + 0.65 * smoothstep(phase, 0.0, 0.15) * (1 - smoothstep(phase, 0.75, 1.0))
    ridge = 1 - (torch.frac(u) - 0.5).abs() * 2
    return smoothstep(ridge + 0.55 * darkness, 0.62, 1.05) * pressure * smoothstep(darkness, 0.0, 0.12)


def pencil_sketch(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Graphite contours with hatching in one direction in the darks and a second in the deepest, on off-white paper."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = stretch(luminance(flat), strength=0.8).pow(0.85)
    line = contours(flat, 1.1, reach=3)
    soft = blur(tone, 2.5)
    ink = torch.zeros_like(tone)
    for degrees, start in ((45, 0.6), (-45, 0.22)):
        dark = (1 - soft / start).clamp(0, 1)
        ink = 1 - (1 - ink) * (1 - 0.52 * _hatching(dark, degrees, PITCH, generator, wobble=0))
    ink = 1 - (1 - ink) * (1 - 0.95 * line) * (1 - 0.2 * (1 - soft))
    ink = ink * (1 - 0.12 * noise(generator, tone.shape, 1.5).abs())
    grey = (0.965 + 0.008 * noise(generator, tone.shape, 2)) * (1 - 0.86 * ink)
    return to_image(torch.stack([grey, grey * 0.995, grey * 0.98]))


def pixel_art(image: np.ndarray, generator: np.random.Generator, block: int = 8) -> np.ndarray:
    """Blocks of exactly `block` pixels from the top-left corner in 14-20 vivid colours, darker where shapes end."""
    height, width = image.shape[:2]
    planes = saturate(stretch(flatten(to_planes(image), max(2, block // 3), rounds=1), 0.01, 0.99, 0.8), 1.35)
    pad = (0, -width % block, 0, -height % block)
    small = F.avg_pool2d(F.pad(planes[None], pad, mode="replicate"), block)[0]  # (3, H / block, W / block)
    small = small + 0.7 * (small - blur(small, 1.2))
    edge = (blur(luminance(small), 0.8) - luminance(small)).clamp_min(0)
    small = small * (1 - 0.55 * smoothstep(edge, 0.06, 0.12))
    colours = int(generator.integers(14, 21))
    quantised = Image.fromarray(to_image(small)).quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=0)
    pixels = np.asarray(quantised.convert("RGB"))
    return np.ascontiguousarray(pixels.repeat(block, 0).repeat(block, 1)[:height, :width])


def pixel_art_4(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Pixel art in blocks of 4 pixels."""
    return pixel_art(image, generator, block=4)


VAN_GOGH = torch.tensor(
    [
        (18, 26, 66), (28, 58, 128), (52, 98, 182), (104, 160, 208), (170, 208, 210),
        (34, 84, 70), (92, 130, 62), (172, 178, 78), (250, 206, 52), (252, 236, 160),
        (236, 150, 40), (200, 148, 70), (122, 76, 44), (190, 66, 40), (70, 44, 40),
    ]
).float().div(255)  # fmt: skip


VAN_GOGH_PERIOD = 16  # pixels, of the strokes' places before they are enlarged: with it a translator can foretell them


def van_gogh(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Thick curved strokes along contours and swirls, in three sizes, colours drawn to his palette, lit as impasto."""
    planes = saturate(stretch(to_planes(image), 0.01, 0.99, 0.8), 1.35)
    flat = flatten(planes, 2, rounds=1)
    nearness = torch.softmax(-palette_distance(flat, VAN_GOGH, 1.7) / 0.006, dim=0)  # (K, H, W)
    colours = torch.lerp(flat, torch.einsum("khw,kc->chw", nearness, VAN_GOGH), 0.85)
    lum = luminance(flat)
    colours = torch.lerp(colours, VAN_GOGH[0].view(3, 1, 1), 0.85 * contours(flat, 1.3))
    angle = flow(lum, 3.0, waves(lum.shape, VAN_GOGH_PERIOD), floor=4e-4)
    detail = blur((lum - blur(lum, 4)).abs(), 2)
    canvas, relief = colours, torch.zeros_like(lum)
    for brush, where in (
        (Brush(6, 30, 3.5, 0.5, 0.12, 0.035), torch.ones_like(lum)),
        (Brush(4.5, 20, 3.5, 0.35, 0.10, 0.04), smoothstep(detail, 0.02, 0.06)),
        (Brush(3, 11, 3.0, 0.3, 0.05, 0.02), smoothstep(detail, 0.05, 0.09)),
    ):
        canvas, relief = paint(canvas, relief, colours, angle, brush, generator, where, VAN_GOGH_PERIOD)
    return to_image(canvas * emboss(relief, 0.4))


WOODBLOCK = torch.tensor(
    [
        (244, 232, 204), (226, 206, 166), (206, 160, 84), (226, 168, 138), (202, 78, 52), (118, 78, 58), (116, 128, 74),
        (62, 88, 70), (168, 198, 206), (82, 124, 162), (28, 56, 100), (152, 146, 136), (36, 34, 42),
    ]
).float().div(255)  # fmt: skip


def ukiyo_e(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Flat woodblock colours, ink outlines and the grain of the block."""
    planes = stretch(to_planes(image), 0.01, 0.97, 0.9).pow(0.8)
    crisp = flatten(planes, 2, rounds=1)
    flat = saturate(flatten(crisp, 3, rounds=1), 1.3)
    distance = palette_distance(blur(flat, 1.0), WOODBLOCK, 2.0)  # (K, H, W)
    colours = torch.einsum("khw,kc->chw", torch.softmax(-distance / 0.0008, dim=0), WOODBLOCK)
    shape = colours.shape[1:]
    grain = along(noise(generator, shape, 1.5), torch.zeros(shape), 6)
    colours = colours * (1 + 0.04 * grain)
    return to_image(torch.lerp(colours, WOODBLOCK[12].view(3, 1, 1), contours(crisp, 1.0)))


def watercolour(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Luminous wobbling washes with darker rims and blooms on white paper, blue instead of black."""
    planes = stretch(to_planes(image), 0.01, 0.98, 0.9).pow(0.8)
    shape = planes.shape[1:]
    dy, dx = (1.8 * noise(generator, shape, 16) for _ in range(2))
    flat = flatten(flatten(warp(planes, dy, dx), 2, rounds=1), 3, rounds=1)
    # washes: brightness in soft steps, each layer ending in a rim of dried pigment
    tone = luminance(flat).clamp_min(0.05)
    steps = tone * 5 + 0.3 * noise(generator, shape, 30)
    level = torch.floor(steps) + smoothstep(torch.frac(steps), 0.0, 0.2)
    wash = saturate((flat * (0.4 + 0.6 * (level / 5 / tone)).clamp(0.6, 1.4)).clamp(0, 1), 1.5)
    shadow = torch.tensor([0.20, 0.22, 0.34]).view(3, 1, 1)
    wash = shadow + (1 - shadow) * wash
    smooth = blur(luminance(wash), 0.7)
    rim = (blur(smooth, 2.5) - smooth).clamp_min(0)
    bloom = 0.14 * noise(generator, shape, 36) + 0.07 * noise(generator, shape, 9)
    density = (1 + bloom + 7 * rim) * (1 - 0.9 * smoothstep(smooth, 0.88, 0.98))
    paper = torch.tensor([0.985, 0.98, 0.96]).view(3, 1, 1) * (1 + 0.012 * noise(generator, shape, 2.5))
    return to_image(wash.pow(density.clamp(0.1, 2.5)) * paper)


def _dots(shape: tuple[int, int], pitch: float) -> Tensor:
    """Halftone screen (H, W): a pixel is inside its dot where the wanted coverage exceeds the screen's 0..1."""
    y, x = pixel_grid(shape)
    wave = torch.cos(2 * torch.pi * (x + 0.5) / pitch) + torch.cos(2 * torch.pi * (y + 0.5) / pitch)
    return 0.5 + wave / 4


def comic(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Vivid flat colours, bold black lines and halftone dots of pitch 16 in the middle tones."""
    crisp = flatten(stretch(to_planes(image), 0.02, 0.97).pow(0.85), 2, rounds=1)
    flat = flatten(crisp, 3, rounds=1)
    tone = luminance(flat)
    level = (tone * 4).round().clamp(1, 4) / 4
    colours = saturate((flat * (level / tone.clamp_min(0.05))).clamp(0, 1), 1.9)
    inside = smoothstep(1.0 - 0.9 * blur(tone, 2) - _dots(tone.shape, 16), -0.06, 0.06)
    paler = torch.lerp(colours, torch.ones_like(colours), 0.55)
    middle = smoothstep(tone, 0.25, 0.35) * (1 - smoothstep(tone, 0.8, 0.9))
    colours = torch.lerp(colours, torch.lerp(paler, colours, inside), middle)
    ink = torch.maximum(contours(crisp, 1.4), 1 - smoothstep(blur(tone, 1), 0.10, 0.15))
    return to_image(colours * (1 - ink))


POP_PALETTES = torch.tensor(
    [
        [(38, 12, 74), (230, 24, 124), (255, 120, 20), (20, 190, 220), (255, 226, 40)],
        [(20, 20, 60), (20, 110, 220), (240, 30, 130), (255, 150, 30), (255, 235, 60)],
        [(50, 0, 60), (220, 20, 60), (0, 170, 190), (255, 200, 20), (255, 170, 200)],
        [(10, 30, 70), (150, 20, 170), (0, 180, 170), (255, 90, 140), (255, 240, 80)],
    ]
).float().div(255)  # fmt: skip


def pop_art(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Five flat vivid hues by brightness with a key drawing in the darkest, one of a few sets of hues by chance."""
    palette = POP_PALETTES[int(generator.integers(len(POP_PALETTES)))]  # (5, 3), dark to light
    crisp = flatten(to_planes(image), 2, rounds=1)
    tone = stretch(luminance(flatten(crisp, 3, rounds=2)), 0.02, 0.98)
    spread = torch.quantile(tone.flatten()[:: max(1, tone.numel() // 65536)], torch.tensor([0.17, 0.38, 0.6, 0.82]))
    cuts = torch.lerp(spread, torch.tensor([0.18, 0.38, 0.6, 0.8]), 0.5)
    tone, colours = blur(tone, 0.7), palette[0].view(3, 1, 1)
    for cut, colour in zip(cuts, palette[1:], strict=True):
        colours = torch.lerp(colours, colour.view(3, 1, 1), smoothstep(tone - cut, -0.004, 0.004))
    return to_image(torch.lerp(blur(colours, 0.5), palette[0].view(3, 1, 1), contours(crisp, 1.3)))


def _cell_colours(planes: Tensor, labels: Tensor, jitter: float, generator: np.random.Generator) -> Tensor:
    """Planes whose every cell has its mean colour, off by `jitter` in each channel."""
    count = int(labels.max()) + 1
    colour = means(planes.flatten(1), labels.flatten(), count)
    colour = colour + jitter * torch.from_numpy(generator.standard_normal((3, count), dtype=np.float32))
    return colour[:, labels.flatten()].view_as(planes)


def stained_glass(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Luminous saturated panes of about 17 pixels, bordered by dark lead that also follows the contours."""
    flat = flatten(stretch(to_planes(image), 0.02, 0.98), 2, rounds=2)
    labels = cells(flat, 17, 2.2, None, generator)
    lead = torch.maximum(boundaries(labels, 2.2), contours(flat, 1.1))
    glass = saturate(_cell_colours(flat, labels, 0.04, generator).clamp(0, 1), 2.0)
    glow = 1.12 - 0.45 * blur(lead, 2.5) + 0.05 * noise(generator, lead.shape, 5)
    return to_image((0.08 + 0.95 * glass) * glow * (1 - 0.93 * lead))


def mosaic(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Square-ish tiles of about 10 pixels laid along the contours in light grout."""
    planes = saturate(stretch(to_planes(image), 0.01, 0.99), 1.6)
    lum = luminance(planes)
    angle = flow(lum, 5.0, noise(generator, lum.shape, min(lum.shape) / 2), floor=2e-4)
    labels = cells(planes, 10, 0.7, angle, generator)
    tiles = _cell_colours(planes, labels, 0.05, generator)
    grout = boundaries(labels, 1.3)
    tiles = tiles * emboss(1 - blur(grout, 0.8), 0.25)
    return to_image(torch.lerp(tiles, torch.tensor([0.87, 0.84, 0.77]).view(3, 1, 1), 0.9 * grout))


def pointillism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Dots of 4-6 pixels of pure hues on a light ground, every twelfth or so of the complementary hue."""
    flat = flatten(stretch(to_planes(image), 0.02, 0.98, 0.8).pow(0.85), 2, rounds=1)
    pure, lum = saturate(flat, 1.9), luminance(flat)
    opposite = saturate((2 * lum - pure).clamp(0.1, 0.95), 1.6)  # the complement at the same brightness
    still, everywhere = torch.zeros_like(lum), torch.ones_like(lum)
    detail = smoothstep(blur((lum - blur(lum, 3)).abs(), 1.5), 0.03, 0.08)
    canvas = torch.lerp(torch.tensor([0.96, 0.94, 0.87]).view(3, 1, 1).expand_as(flat), flat, 0.3)
    for brush, picture, where in (
        (Brush(6, 6, 1.6, jitter=0.08, hue=0.05), pure, everywhere),
        (Brush(5, 5, 1.0, jitter=0.08, hue=0.09), pure, everywhere),
        (Brush(5, 5, 1.0, jitter=0.05, hue=0.05), opposite, 0.08 * everywhere),
        (Brush(4, 4, 2.0, jitter=0.05, hue=0.05), pure, detail),
    ):
        canvas, _ = paint(canvas, still, picture, still, brush, generator, where)
    return to_image(canvas)


def charcoal(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Coal rubbed over rough paper in slanting streaks under soft broad contours."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = stretch(luminance(flat), 0.02, 0.96).pow(0.8)
    streaks = along(noise(generator, tone.shape, 3), torch.full(tone.shape, -0.9), 12)
    tooth = 0.7 * noise(generator, tone.shape, 2.4) + 2 * streaks
    rubbed = smoothstep(1 - blur(tone, 1.5) + 0.10 * tooth, 0.12, 0.95)
    line = (blur(contours(flat, 1.5, reach=5), 0.7) * (1.15 + 0.15 * tooth)).clamp(0, 1)
    coal = 1 - (1 - rubbed) * (1 - line)
    grey = 0.95 * (1 - 0.9 * coal) + 0.008 * tooth
    return to_image(torch.stack([grey, grey * 0.99, grey * 0.965]))


def ink(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Black pen lines, hatching and cross-hatching on white, solid black in the deepest darks."""
    flat = flatten(to_planes(image), 2, rounds=1)
    tone = blur(stretch(luminance(flat), 0.03, 0.97).pow(0.8), 1.5)
    line = contours(flat, 1.2)
    marks = [line, 1 - smoothstep(tone, 0.10, 0.13)]
    for degrees, start in ((45, 0.5), (-45, 0.28)):
        dark = (1 - tone / start).clamp(0, 0.6)
        marks.append(smoothstep(_hatching(dark, degrees, PITCH, generator, wobble=0), 0.3, 0.55))
    return to_image(1 - torch.stack(marks).amax(0).expand(3, -1, -1))


FILTERS: dict[str, Filter] = {
    "pencil_sketch": pencil_sketch,
    "pixel_art": pixel_art,
    "pixel_art_4": pixel_art_4,
    "van_gogh": van_gogh,
    "ukiyo_e": ukiyo_e,
    "watercolour": watercolour,
    "comic": comic,
    "pop_art": pop_art,
    "stained_glass": stained_glass,
    "mosaic": mosaic,
    "pointillism": pointillism,
    "charcoal": charcoal,
    "ink": ink,
}

PROMPTS: dict[str, tuple[str, ...]] = {
    "pencil_sketch": (
        "a pencil sketch", "a pencil drawing", "a graphite sketch on paper", "a hand-drawn pencil sketch with hatching",
    ),
    "pixel_art": ("pixel art", "a pixel art picture", "8-bit pixel art", "retro video game pixel art"),
    "pixel_art_4": ("pixel art", "16-bit pixel art", "a detailed pixel art picture", "pixel art of an old video game"),
    "van_gogh": (
        "a Van Gogh style oil painting", "an oil painting in the style of Vincent van Gogh",
        "a post-impressionist oil painting with swirling brush strokes", "a Van Gogh painting",
    ),
    "ukiyo_e": ("a ukiyo-e print", "a Japanese woodblock print", "a ukiyo-e woodblock print by Hiroshige", "ukiyo-e"),
    "watercolour": ("a watercolour painting", "a watercolor painting", "a watercolour on paper", "watercolor"),
    "comic": ("a comic book illustration", "a comic book panel", "comic art with halftone dots", "a comic"),
    "pop_art": ("pop art", "a pop art picture", "a pop art screen print", "pop art in the style of Andy Warhol"),
    "stained_glass": ("stained glass", "a stained glass window", "a picture in stained glass", "leaded stained glass"),
    "mosaic": ("a mosaic", "a mosaic of small tiles", "a Roman mosaic", "a picture made of mosaic tiles"),
    "pointillism": (
        "a pointillist painting", "a pointillism painting", "a painting made of dots", "a painting by Georges Seurat",
    ),
    "charcoal": ("a charcoal drawing", "a charcoal sketch", "a drawing in black charcoal on paper"),
    "ink": ("an ink drawing", "a black ink drawing", "a pen and ink illustration", "black ink on white paper"),
}  # fmt: skip


# Marks of these filters are enlarged: at their own size they fall between tokens of 8x8 pixels and come back as mud.
SCALES = {"van_gogh": 2.0, "stained_glass": 1.75, "mosaic": 1.75, "pointillism": 1.75}


def apply(name: str, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Filter `name` of a uint8 (H, W, 3) picture with sides of 32 pixels or more; same size, same seed same picture."""
    if name not in FILTERS:
        raise ValueError(f"unknown filter {name!r}; choose one of: {', '.join(FILTERS)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if min(image.shape[:2]) < 32:
        raise ValueError(f"a picture must be at least 32 pixels wide and high, got {image.shape[:2]}")
    if name not in SCALES:
        return FILTERS[name](image, generator)
    height, width = image.shape[:2]
    small = (round(width / SCALES[name]), round(height / SCALES[name]))
    made = FILTERS[name](np.asarray(Image.fromarray(image).resize(small, Image.Resampling.LANCZOS)), generator)
    return np.asarray(Image.fromarray(made).resize((width, height), Image.Resampling.BICUBIC))
