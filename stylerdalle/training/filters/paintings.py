"""Paintings: strokes, dots and washes."""

import numpy as np
import torch

from .strokes import (
    Brush,
    blur,
    contours,
    emboss,
    flatten,
    flow,
    luminance,
    noise,
    paint,
    pixel_grid,
    saturate,
    smoothstep,
    stretch,
    to_image,
    to_planes,
    towards,
    warp,
    waves,
)

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
    colours = towards(flat, VAN_GOGH, 1.7, 0.006, 0.85)
    lum = luminance(flat)
    colours = torch.lerp(colours, VAN_GOGH[0].view(3, 1, 1), 0.85 * contours(flat, 1.3))
    angle = flow(lum, 4.0, waves(lum.shape, VAN_GOGH_PERIOD), floor=2e-3)
    detail = blur((lum - blur(lum, 4)).abs(), 2)
    canvas, relief = colours, torch.zeros_like(lum)
    for brush, where in (
        (Brush(5, 22, 3.0, 0.5, 0.24, 0.035), torch.ones_like(lum)),
        (Brush(4, 16, 2.5, 0.35, 0.16, 0.035), smoothstep(detail, 0.02, 0.06)),
        (Brush(3, 11, 3.0, 0.3, 0.06, 0.02), smoothstep(detail, 0.05, 0.09)),
    ):
        canvas, relief = paint(canvas, relief, colours, angle, brush, generator, where, VAN_GOGH_PERIOD)
    return to_image(canvas * emboss(relief, 0.5))


DOTS = 3  # across a tile of 16 pixels
TINTS = torch.tensor([
    (0.2, -0.08, -0.08), (-0.1, 0.04, 0.2), (0.16, 0.1, -0.2), (-0.14, 0.14, -0.06), (0.02, -0.02, -0.04), (0.1, -0.12, 0.14),
    (-0.08, -0.06, 0.1), (0.04, 0.04, -0.1), (-0.2, -0.04, 0.04),
])  # of the dots of a tile, red, green and blue: together they are grey  # fmt: skip


def pointillism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Dots of 5 pixels in pure hues, warm beside cool, on a light ground that shows between them."""
    planes = flatten(stretch(to_planes(image), 0.02, 0.98, 0.8).pow(0.85), 2, rounds=1)
    pure = saturate(0.12 + 0.8 * planes, 1.7)
    y, x = pixel_grid(pure.shape[1:])
    pitch = 16 / DOTS
    nearest, dy, dx, dot = torch.full_like(y, torch.inf), y, x, torch.zeros_like(y, dtype=torch.long)
    for i, off in enumerate(generator.uniform(0.3, 0.7, (DOTS * DOTS, 2))):
        gap_y, gap_x = ((off[k] + (i // DOTS, i % DOTS)[k]) * pitch - (y, x)[k] for k in range(2))
        gap_y, gap_x = ((gap + 8) % 16 - 8 for gap in (gap_y, gap_x))
        far = (gap_y.square() + gap_x.square()).sqrt()
        closer = far < nearest
        nearest, dot = torch.where(closer, far, nearest), torch.where(closer, i, dot)
        dy, dx = torch.where(closer, gap_y, dy), torch.where(closer, gap_x, dx)
    dots = (warp(pure, dy, dx) + 0.8 * TINTS.T[:, dot]).clamp(0, 1)
    ground = torch.lerp(torch.tensor([0.98, 0.95, 0.86]).view(3, 1, 1).expand_as(pure), pure, 0.6)
    return to_image(torch.lerp(dots, ground, smoothstep(nearest, 2.2, 3.2)))


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


IMPRESSIONIST = torch.tensor(
    [
        (62, 66, 122), (96, 104, 168), (140, 152, 204), (186, 200, 226), (238, 236, 224), (250, 226, 170), (244, 190, 140),
        (222, 146, 138), (176, 116, 150), (80, 124, 100), (130, 168, 108), (190, 206, 134), (150, 116, 100), (88, 74, 96),
    ]
).float().div(255)  # fmt: skip


def impressionism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Short broken dabs of light: violet for shadow, rose and pale yellow for light, no outline and no black."""
    planes = saturate(stretch(to_planes(image), 0.01, 0.98, 0.8).pow(0.75), 1.5)
    light = 0.16 + 0.84 * planes
    colours = towards(flatten(light, 2, rounds=1), IMPRESSIONIST, 1.5, 0.006, 0.75)
    lum = luminance(colours)
    angle = flow(lum, 3.0, waves(lum.shape, 16), floor=2e-3)
    canvas, relief = colours, torch.zeros_like(lum)
    for brush in (Brush(6, 13, 4.0, 0.6, 0.05, 0.015), Brush(4, 8, 1.0, 0.5, 0.05, 0.02)):
        canvas, relief = paint(canvas, relief, colours, angle, brush, generator, torch.ones_like(lum), 16)
    return to_image(canvas * emboss(relief, 0.3))


FAUVE = torch.tensor(
    [
        (28, 36, 120), (30, 90, 190), (70, 170, 210), (20, 110, 80), (60, 170, 80), (180, 210, 60), (250, 220, 60),
        (250, 150, 40), (232, 80, 40), (200, 30, 60), (240, 120, 160), (250, 200, 190), (120, 50, 140), (250, 240, 210),
    ]
).float().div(255)  # fmt: skip


def fauvism(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Flat areas of pure unmixed colour, shadows blue, violet and green, lights orange and rose, dark blue outlines."""
    planes = stretch(to_planes(image), 0.01, 0.98).pow(0.9)
    crisp = flatten(planes, 2, rounds=1)
    flat = flatten(crisp, 3, rounds=2)
    tone = luminance(flat)
    warm = torch.tensor([0.16, 0.0, -0.16]).view(3, 1, 1)
    tinted = saturate((flat + warm * (2 * smoothstep(tone, 0.25, 0.75) - 1)).clamp(0, 1), 2.6)
    colours = towards(blur(tinted, 1.0), FAUVE, 1.3, 0.002)
    angle = flow(tone, 3.0, waves(tone.shape, 16), floor=1e-3)
    canvas, relief = paint(
        colours, torch.zeros_like(tone), colours, angle, Brush(6, 14, 3.0, 0.6, 0.07, 0.02), generator, torch.ones_like(tone), 16
    )
    canvas = canvas * emboss(relief, 0.08)
    return to_image(torch.lerp(canvas, FAUVE[0].view(3, 1, 1), contours(crisp, 1.6, reach=6)))


BAROQUE = torch.tensor(
    [
        (14, 9, 7), (38, 24, 16), (68, 42, 26), (104, 66, 38), (146, 98, 56), (190, 142, 88), (226, 188, 132), (248, 226, 180),
        (110, 30, 22), (158, 60, 38), (46, 50, 36), (84, 84, 58), (44, 54, 66),
    ]
).float().div(255)  # fmt: skip


def baroque(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Chiaroscuro: golden light out of brown darkness, in smooth glazes with soft edges."""
    planes = flatten(stretch(to_planes(image), 0.02, 0.98), 2, rounds=2)
    tone = luminance(planes).clamp_min(0.02)
    dark = 0.93 * tone.pow(1.7) / (tone.pow(1.7) + 0.42 * (1 - tone).pow(1.3))
    glaze = saturate((planes * (dark / tone)).clamp(0, 1), 1.25)
    colours = towards(blur(glaze, 0.7), BAROQUE, 1.0, 0.004, 0.85)
    angle = flow(tone, 4.0, waves(tone.shape, 16), floor=1e-3)
    canvas, relief = paint(
        colours, torch.zeros_like(tone), colours, angle, Brush(4, 12, 3.0, 0.25, 0.05, 0.01), generator, torch.ones_like(tone), 16
    )
    return to_image(torch.lerp(colours, canvas, 0.6) * emboss(relief, 0.06))
