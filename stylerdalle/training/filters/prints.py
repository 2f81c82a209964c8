"""Flat colours and lines: woodblock, poster, comic, anime, pop art; and pixel art."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from .marks import Marks
from .operators import blur, contours, flatten, luminance, planes_to_image, saturate, smoothstep, stretch, to_planes, towards

WOODBLOCK = torch.tensor(
    [
        (244, 232, 204), (226, 206, 166), (206, 160, 84), (226, 168, 138), (202, 78, 52), (118, 78, 58), (116, 128, 74),
        (62, 88, 70), (168, 198, 206), (82, 124, 162), (28, 56, 100), (152, 146, 136), (36, 34, 42),
    ]
).float().div(255)  # fmt: skip


def ukiyo_e(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Flat woodblock colours, ink outlines and the grain of the block."""
    planes = stretch(to_planes(image), 0.01, 0.97, 0.9).pow(0.8)
    crisp = flatten(planes, 2, rounds=1)
    flat = saturate(flatten(crisp, 3, rounds=1), 1.3)
    colours = towards(blur(flat, 1.0), WOODBLOCK, 2.0, 0.0008)
    colours = colours * marks.light
    return planes_to_image(torch.lerp(colours, WOODBLOCK[12].view(3, 1, 1), contours(crisp, 1.0)))


def comic(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Vivid flat colours, bold black lines and halftone dots in the middle tones."""
    crisp = flatten(stretch(to_planes(image), 0.02, 0.97).pow(0.85), 2, rounds=1)
    flat = flatten(crisp, 3, rounds=1)
    lum = luminance(flat)
    level = (lum * 4).round().clamp(1, 4) / 4
    colours = saturate((flat * (level / lum.clamp_min(0.05))).clamp(0, 1), 1.9)
    inside = smoothstep(1.0 - 0.9 * blur(lum, 2) - marks.more["cover"], -0.06, 0.06)
    paler = torch.lerp(colours, torch.ones_like(colours), 0.55)
    middle = smoothstep(lum, 0.25, 0.35) * (1 - smoothstep(lum, 0.8, 0.9))
    colours = torch.lerp(colours, torch.lerp(paler, colours, inside), middle)
    ink = torch.maximum(contours(crisp, 1.4), 1 - smoothstep(blur(lum, 1), 0.10, 0.15))
    return planes_to_image(colours * (1 - ink))


POP_PALETTES = torch.tensor(
    [
        [(38, 12, 74), (230, 24, 124), (255, 120, 20), (20, 190, 220), (255, 226, 40)],
        [(20, 20, 60), (20, 110, 220), (240, 30, 130), (255, 150, 30), (255, 235, 60)],
        [(50, 0, 60), (220, 20, 60), (0, 170, 190), (255, 200, 20), (255, 170, 200)],
        [(10, 30, 70), (150, 20, 170), (0, 180, 170), (255, 90, 140), (255, 240, 80)],
    ]
).float().div(255)  # fmt: skip


def pop_art(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Five flat vivid hues, dark to light, and outlines in the darkest; the second and the fourth have halftone dots of the next.

    The generator chooses one of four sets of hues.
    """
    palette = POP_PALETTES[int(generator.integers(len(POP_PALETTES)))]  # (5, 3), dark to light
    dots = smoothstep(marks.more["cover"], 0.55, 0.65)
    crisp = flatten(to_planes(image), 2, rounds=1)
    lum = stretch(luminance(flatten(crisp, 3, rounds=2)), 0.02, 0.98)
    spread = torch.quantile(lum.flatten()[:: max(1, lum.numel() // 65536)], torch.tensor([0.17, 0.38, 0.6, 0.82]))
    cuts = torch.lerp(spread, torch.tensor([0.18, 0.38, 0.6, 0.8]), 0.5)
    lum, colours = blur(lum, 0.7), palette[0].view(3, 1, 1)
    for k, (cut, colour) in enumerate(zip(cuts, palette[1:], strict=True), 1):
        flat = colour.view(3, 1, 1)
        dotted = torch.lerp(flat.expand_as(crisp), palette[k + 1].view(3, 1, 1), dots) if k in (1, 3) else flat
        colours = torch.lerp(colours, dotted, smoothstep(lum - cut, -0.004, 0.004))
    return planes_to_image(torch.lerp(blur(colours, 0.5), palette[0].view(3, 1, 1), contours(crisp, 1.3)))


def pixel_art(image: np.ndarray, generator: np.random.Generator, marks: Marks, block: int = 8) -> np.ndarray:
    """Blocks of exactly `block` pixels, counted from the top left corner, in 14-20 vivid colours, with darker edges."""
    height, width = image.shape[:2]
    planes = saturate(stretch(flatten(to_planes(image), max(2, block // 3), rounds=1), 0.01, 0.99, 0.8), 1.35)
    pad = (0, -width % block, 0, -height % block)
    small = F.avg_pool2d(F.pad(planes[None], pad, mode="replicate"), block)[0]  # (3, H / block, W / block)
    small = small + 0.7 * (small - blur(small, 1.2))
    edge = (blur(luminance(small), 0.8) - luminance(small)).clamp_min(0)
    small = small * (1 - 0.55 * smoothstep(edge, 0.06, 0.12))
    colours = int(generator.integers(14, 21))
    quantised = Image.fromarray(planes_to_image(small)).quantize(
        colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
    pixels = np.asarray(quantised.convert("RGB"))
    return np.ascontiguousarray(pixels.repeat(block, 0).repeat(block, 1)[:height, :width])


def pixel_art_4(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Pixel art in blocks of 4 pixels."""
    return pixel_art(image, generator, marks, block=4)


POSTER = torch.tensor(
    [
        (246, 234, 204), (232, 208, 158), (216, 176, 110), (190, 138, 66), (206, 120, 84), (160, 82, 58), (222, 170, 150),
        (142, 150, 100), (92, 112, 80), (150, 178, 166), (96, 134, 140), (116, 92, 66), (66, 46, 36),
    ]
).float().div(255)  # fmt: skip


def art_nouveau(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Flat gold, olive and terracotta as on a poster, strong brown outlines, curling ornament on light plain areas."""
    crisp = flatten(stretch(to_planes(image), 0.01, 0.97, 0.9).pow(0.85), 2, rounds=1)
    flat = flatten(saturate(crisp, 1.3), 3, rounds=1)
    colours = towards(blur(flat, 1.2), POSTER, 1.6, 0.0012)
    lum = luminance(flat)
    empty = smoothstep(blur(lum, 4), 0.6, 0.8) * (1 - smoothstep(blur((lum - blur(lum, 4)).abs(), 4), 0.02, 0.05))
    empty = empty * smoothstep(flat[2] - flat[0], -0.06, 0.02)  # not on skin
    ornament = marks.line * empty
    colours = torch.lerp(colours, POSTER[3].view(3, 1, 1), 0.75 * ornament)
    line = torch.maximum(contours(crisp, 1.8, reach=6), contours(crisp, 1.0))
    return planes_to_image(torch.lerp(colours, POSTER[12].view(3, 1, 1), line))


def anime(image: np.ndarray, generator: np.random.Generator, marks: Marks) -> np.ndarray:
    """Cel shading: clear bright colours in a light, a middle and a violet shadow tone, thin dark lines, a glow around lights."""
    crisp = flatten(stretch(to_planes(image), 0.01, 0.96).pow(0.8), 2, rounds=1)
    flat = flatten(flatten(crisp, 3, rounds=2), 4, rounds=1)
    lum = luminance(flat).clamp_min(0.05)
    levels = torch.tensor([0.22, 0.5, 0.76, 0.97])
    level, shade = torch.full_like(lum, 0.22), blur(lum, 1)
    for step, above in zip((0.3, 0.58, 0.84), levels[1:], strict=True):
        level = torch.lerp(level, above.expand_as(level), smoothstep(shade - step, -0.015, 0.015))
    colours = saturate((flat * (level / lum)).clamp(0, 1), 1.7)
    violet = torch.tensor([0.30, 0.24, 0.48]).view(3, 1, 1)
    colours = torch.lerp(colours, violet + 0.5 * colours, 0.55 * (1 - smoothstep(level, 0.22, 0.55)))
    light = blur((luminance(colours) - 0.75).clamp_min(0), 6)
    colours = colours + 0.5 * light * (1 - colours)
    return planes_to_image(torch.lerp(colours, torch.tensor([0.16, 0.11, 0.2]).view(3, 1, 1), 0.9 * contours(crisp, 1.0)))
