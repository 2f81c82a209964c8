"""How much stylised video frames flicker, with the mini bundle: mean absolute difference of neighbouring frames, of 255.

Two synthetic videos of a photo with sensor noise: in one the camera stands still, in the other it pans by 1.5 px and 0.5 px a
frame and zooms by 0.2 %. The motion is known and undone (bilinear) before a frame is compared with the one before, 16 px at the
edges left out; source and stylised frames in the same way. "ratio" is the flicker divided by that of the source frames.
"sharpness" is the mean squared difference of neighbouring pixels in the last frame divided by that in the first: a blur would
have little flicker, too. "seconds" is processor time for a frame, of translating, decoding and steadying.

Usage:

    python benchmarks/flicker.py [--photo FILE] [--camera still moving] [--frames 8] [--steady 0 0.5 0.9] [--save DIR]
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import stylerdalle
from stylerdalle.images.files import read_picture, write_picture
from stylerdalle.resolve import find_style
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.translate import translate

PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
HEIGHT, WIDTH = 256, 384
Camera = tuple[float, float, float]  # px right, px down, zoom


def camera(frame: int, moving: bool) -> Camera:
    """Where the camera is at a frame."""
    return (1.5 * frame, 0.5 * frame, 1 + 0.002 * frame) if moving else (0.0, 0.0, 1.0)


def view_of(picture: Tensor, view: Camera, size: tuple[int, int]) -> Tensor:
    """The view of a camera on a picture (1, 3, H, W): `size` px around the centre, moved and zoomed, bilinear."""
    right, down, zoom = view
    height, width = picture.shape[-2:]
    y = ((torch.arange(size[0]) - (size[0] - 1) / 2) / zoom + down) / (height - 1) * 2
    x = ((torch.arange(size[1]) - (size[1] - 1) / 2) / zoom + right) / (width - 1) * 2
    grid = torch.stack([x.expand(size[0], -1), y[:, None].expand(-1, size[1])], -1)
    return F.grid_sample(picture, grid[None], align_corners=True)


def flicker(frames: Tensor, views: list[Camera]) -> float:
    """Mean |frame - the previous frame seen by the current camera|, of 255, without a border of 16 px."""
    differences = []
    for i, (before, now) in enumerate(itertools.pairwise(frames.split(1))):
        (x0, y0, z0), (x1, y1, z1) = views[i : i + 2]
        moved = view_of(before, ((x1 - x0) * z0, (y1 - y0) * z0, z1 / z0), (HEIGHT, WIDTH))
        differences.append((now - moved)[..., 16:-16, 16:-16].abs().mean())
    return float(torch.stack(differences).mean()) * 255


def sharpness(frame: Tensor) -> float:
    """Mean squared difference of neighbouring pixels of (3, H, W), without a border of 16 px."""
    inner = frame[..., 16:-16, 16:-16]
    return float(sum((inner.diff(dim=dim)).square().mean() for dim in (-1, -2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, default=PHOTO, help="of 512 x 384 px or more (default: the demo photo)")
    parser.add_argument("--camera", nargs="+", choices=("still", "moving"), default=["still", "moving"])
    parser.add_argument("--style", default="van-gogh")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.01, help="standard deviation of the sensor noise; pixels are 0 to 1")
    parser.add_argument("--steady", type=float, nargs="+", default=[0, 0.5, 0.9])
    parser.add_argument("--temperature", type=float, nargs="+", default=[0, 1])
    parser.add_argument("--save", type=Path, help="folder for some of the frames")
    args = parser.parse_args()
    bundle = stylerdalle.load_bundle("mini")
    style, photo = find_style(bundle, args.style), read_picture(args.photo)[0]
    print(f"{args.style}, {args.frames} frames of {WIDTH} x {HEIGHT} px, noise {args.noise}")
    print(
        f"{'camera':>8}{'temperature':>13}{'steady':>8}{'source':>8}{'stylised':>10}{'ratio':>7}{'sharpness':>11}{'seconds':>9}"
    )
    for name in args.camera:
        moving = name == "moving"
        views = [camera(i, moving) for i in range(args.frames)]
        frames = torch.cat([view_of(photo, view, (HEIGHT, WIDTH)) for view in views])
        noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
        frames = (frames + args.noise * noise).clamp(0, 1)
        tokens, source = encode(bundle.tokenizer, frames), flicker(frames, views)
        for temperature, steady in itertools.product(args.temperature, args.steady):
            sampling, started = stylerdalle.Sampling(temperature), time.process_time()
            out = translate(
                bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)], TranslateOptions(sampling=sampling, steady=steady)
            )
            pictures = decode(bundle.tokenizer, out)
            got, seconds = flicker(pictures, views), (time.process_time() - started) / args.frames
            sharp = sharpness(pictures[-1]) / sharpness(pictures[0])
            line = f"{name:>8}{temperature:13g}{steady:8g}{source:8.2f}{got:10.2f}{got / source:7.2f}{sharp:11.2f}{seconds:9.2f}"
            print(line, flush=True)
            if args.save:
                for i in sorted({0, min(10, args.frames - 1), args.frames - 1}):
                    write_picture(args.save / f"{name}-{temperature:g}-{steady:g}-{i}.png", pictures[i], overwrite=True)


if __name__ == "__main__":
    main()
