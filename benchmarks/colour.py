"""Whether kept colours bring the photo's edges, or a grid, into the stylised picture.

Usage:

    python benchmarks/colour.py [PHOTO] [--styles van-gogh ukiyo-e stained-glass]

For each style: the photo's chroma as it is (before), as Keep Colour fits it, which may leave [0, 1] (fitted), and as Keep Colour
gives it (now). Columns: the mean chroma edge where the stylised picture is plain, per unit of chroma; its correlation with the
photo's; the chroma step at every eighth column compared with the others; the mean difference of the colours from the photo's
after a blur of 50 px, of 255. Then the share of pixels that are too dark or too bright for the fitted colour.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stylerdalle import load_bundle, stylize
from stylerdalle.images.colour import fitted_chroma, into_gamut, keep_colour, luma
from stylerdalle.images.files import read_picture, resized

PHOTO = Path(__file__).resolve().parent.parent / "docs" / "demo" / "photo.jpg"


def chroma(image: Tensor) -> Tensor:
    return image - luma(image)


def edges(image: Tensor) -> Tensor:
    """(1, C, H, W) -> (1, H - 1, W - 1): the sum of steps to the right and down, over channels."""
    right, down = image[..., :-1, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, :-1]
    return (right.abs() + down.abs()).sum(1)


def blurred(image: Tensor) -> Tensor:
    return F.avg_pool2d(F.avg_pool2d(image, 25, 1, 12, count_include_pad=False), 25, 1, 12, count_include_pad=False)


def measures(out: Tensor, styled: Tensor, photo: Tensor) -> tuple[float, float, float, float]:
    """Of a picture with kept colours: leak, correlation, grid, difference, as in the file's docstring."""
    kept, wanted = chroma(out), chroma(photo)
    strength = edges(styled)
    plain = strength < strength.median()
    ours, theirs = edges(kept)[plain], edges(wanted)[plain]
    leak = ours.mean() / kept.abs().sum(1).mean()
    correlation = torch.corrcoef(torch.stack([ours, theirs]))[0, 1]
    steps = kept.diff(dim=-1).abs().sum((0, 1, 2))
    at = torch.arange(len(steps)) % 8 == 7
    return (
        float(leak),
        float(correlation),
        float(steps[at].mean() / steps[~at].mean()),
        float((blurred(kept) - blurred(wanted)).abs().mean() * 255),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO)
    parser.add_argument("--styles", nargs="+", default=["van-gogh", "ukiyo-e", "stained-glass"])
    args = parser.parse_args()
    bundle, photo = load_bundle("mini"), resized(read_picture(args.photo)[0][:, :3], 512)
    for name in args.styles:
        styled = stylize(photo, name, bundle)
        light = luma(styled)
        before, fitted = into_gamut(light, chroma(photo)), light + fitted_chroma(chroma(photo), light)
        beyond = ((fitted < 0) | (fitted > 1)).any(1).float().mean()
        for when, out in (("before", before), ("fitted", fitted), ("now", keep_colour(styled, photo))):
            leak, correlation, grid, off = measures(out, styled, photo)
            print(f"{name:16} {when:7} leak {leak:.4f} correlation {correlation:.3f} grid {grid:.2f} colours off {off:.2f}")
        print(f"{name:16} too dark or bright {beyond:.3f}")


if __name__ == "__main__":
    main()
