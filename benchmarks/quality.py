"""Quality of the mini models on held-out pictures: tokenizer PSNR, CLIP accuracy, translator gap, saturated colours.

Usage:

    python benchmarks/quality.py psnr   --heldout heldout-0000.tar
    python benchmarks/quality.py clip   --heldout heldout-0000.tar --train train-*.tar
    python benchmarks/quality.py gap    --heldout heldout-0000.tar [--translator FILE]
    python benchmarks/quality.py colour
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from stylerdalle import checkpoint
from stylerdalle.bundle import WEIGHTS
from stylerdalle.learn.crops import to_tensor
from stylerdalle.learn.pretraining import translation_gap
from stylerdalle.learn.sources import read_pictures
from stylerdalle.training.clip import bench_classes, style_accuracy
from stylerdalle.training.tokenizer import reconstruction_psnr

COLOURS = {
    "red": (220, 20, 20),
    "green": (20, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (250, 220, 20),
    "white": (255,) * 3,
    "black": (0,) * 3,
}


def photos(args: argparse.Namespace) -> list:
    found = [p for p in read_pictures(args.heldout) if p.kind == "photo"]
    return found[: args.count] if args.count else found


def psnr(args: argparse.Namespace) -> None:
    """Mean PSNR of encode + decode, of resized and of plain crops: held-out pictures are 320 px."""
    tokenizer = checkpoint.load_tokenizer(args.folder / "tokenizer.safetensors")
    some = photos(args)
    print(
        f"tokenizer, {len(some)} photos, shortest side resized to 256, centre crop: {reconstruction_psnr(tokenizer, some):.2f} dB"
    )
    values = []
    for picture in some:
        image = picture.open()
        x, y = (image.width - 256) // 2, (image.height - 256) // 2
        pixels = to_tensor([np.asarray(image.crop((x, y, x + 256, y + 256)))])
        with torch.inference_mode():
            got = tokenizer.decode(tokenizer.encode(pixels))
        values.append(-10 * math.log10(F.mse_loss(got, pixels).item()))
    print(f"tokenizer, {len(some)} photos, centre crop of 256 without resizing: {sum(values) / len(values):.2f} dB")


def clip(args: argparse.Namespace) -> None:
    """Macro top-1 accuracy over the 24 commonest styles of held-out art and graphics, with the prompts of training/clip.py."""
    model = checkpoint.load_clip(args.folder / "clip.safetensors")
    heldout = read_pictures(args.heldout)
    classes = bench_classes(heldout, read_pictures(args.train))
    some = [p for p in heldout if p.style in classes and p.kind != "photo"]
    accuracy = style_accuracy(model, some, classes)
    chance = f"chance {100 / len(classes):.1f} %"
    print(f"CLIP, {len(some)} pictures, {len(classes)} styles: {100 * accuracy:.1f} % macro top-1 ({chance})")


def gap(args: argparse.Namespace) -> None:
    """PSNR of the untuned translator's greedy output, compared with the tokenizer's own round trip."""
    tokenizer = checkpoint.load_tokenizer(args.folder / "tokenizer.safetensors")
    path = args.translator or args.folder / "translator.safetensors"
    translator = checkpoint.load_translator(path)
    some = photos(args)
    lost, trip, out = translation_gap(tokenizer, translator, some)
    kind = f"{path.name} (upscale {translator.config.upscale}), {len(some)} photos"
    print(f"{kind}: {out:.2f} dB, round trip {trip:.2f} dB, gap {lost:.2f} dB")


def colour(args: argparse.Namespace) -> None:
    """Encode and decode flat patches of saturated colours: the mean colour of the result, out of 255."""
    tokenizer = checkpoint.load_tokenizer(args.folder / "tokenizer.safetensors")
    for name, rgb in COLOURS.items():
        patch = torch.tensor(rgb).float().div(255).view(1, 3, 1, 1).expand(1, 3, 128, 128)
        with torch.inference_mode():
            got = tokenizer.decode(tokenizer.encode(patch))[0, :, 32:96, 32:96].mean((1, 2)) * 255
        worst = max(abs(a - b) for a, b in zip(got.tolist(), rgb, strict=True))
        print(f"{name}: {rgb} -> ({', '.join(f'{v:.0f}' for v in got.tolist())}), worst channel off by {worst:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("psnr", "clip", "gap", "colour"))
    parser.add_argument("--heldout", nargs="+", default=[])
    parser.add_argument("--train", nargs="+", default=[], help="clip: training shards, to break ties between styles")
    parser.add_argument("--folder", type=Path, default=WEIGHTS / "mini")
    parser.add_argument("--translator", type=Path)
    parser.add_argument("--count", type=int, default=0, help="number of photos (default: all)")
    args = parser.parse_args()
    if args.what != "colour" and not args.heldout:
        parser.error("--heldout is needed")
    {"psnr": psnr, "clip": clip, "gap": gap, "colour": colour}[args.what](args)


if __name__ == "__main__":
    main()
