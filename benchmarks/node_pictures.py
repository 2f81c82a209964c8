"""Makes the pictures in the nodes' help, web/docs/images/NODE.jpg: each is a real result of the node on the demo photo.

Usage:

    python benchmarks/node_pictures.py [--bundle mini] [--steps 80] [NODE ...]    # all nodes, or these

Most of the time goes into Reward Tune (`--steps`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from stylerdalle import Bundle, Sampling, Style, checkpoint, load_bundle, stylize
from stylerdalle.clip.scores import judge
from stylerdalle.images.colour import keep_colour
from stylerdalle.images.files import read_picture, resized, to_image
from stylerdalle.images.sheet import sheet
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run, draw_curve
from stylerdalle.resolve import find_style, list_styles
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.options import MaskedStyle, TranslateOptions
from stylerdalle.translator.style import mix
from stylerdalle.translator.translate import translate
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.loop import tune

ROOT = Path(__file__).resolve().parent.parent
PHOTO, FOLDER = ROOT / "docs" / "demo" / "photo.jpg", ROOT / "web" / "docs" / "images"
SIDE, SHOWN = 384, 160  # px: shortest side of the photo, height of a picture in the help
LIMIT, SHEET_LIMIT = 40 * 1024, 52 * 1024  # bytes per file, and of the sheet of all styles
TUNED = "a ukiyo-e print"
Shown = list[tuple[Image.Image, str]]  # pictures from left to right, with their captions


def load(bundle: Bundle, photo: Tensor) -> Shown:
    return [plain(photo), *(painted(bundle, photo, name) for name in ("van-gogh", "ukiyo-e", "watercolour"))]


def every_style(bundle: Bundle, photo: Tensor) -> Shown:
    return [plain(photo), *(painted(bundle, photo, style) for style in list_styles(bundle))]


def load_style(bundle: Bundle, photo: Tensor) -> Shown:
    files = [path for path in bundle.style_paths if path.stem in ("charcoal", "stained-glass", "pop-art")]
    return [painted(bundle, photo, str(path), path.name) for path in files]


def tokenize(bundle: Bundle, photo: Tensor) -> Shown:
    by_detail = [painted(bundle, photo, "van-gogh", f"detail {detail:g}", detail=detail) for detail in (0.5, 1, 2)]
    return [plain(photo), *by_detail]


def translated(bundle: Bundle, photo: Tensor) -> Shown:
    return [painted(bundle, photo, "van-gogh", f"strength {much:g}", strength=much) for much in (0, 0.7, 1, 1.3)]


def style_region(bundle: Bundle, photo: Tensor) -> Shown:
    y, x = (torch.linspace(-1, 1, side) for side in photo.shape[-2:])
    mask = ((y[:, None] / 0.8).square() + (x / 0.6).square() < 1).float()[None]  # (1, H, W)
    around, within = (find_style(bundle, name) for name in ("van-gogh", "pencil-sketch"))
    tokens = encode(bundle.tokenizer, photo, upscale=bundle.translator.config.upscale, device=bundle.device)
    out = translate(
        bundle.translator, bundle.tokenizer, tokens, [(around, 1.0)], TranslateOptions(regions=(MaskedStyle(within, mask),))
    )
    both = to_image(decode(bundle.tokenizer, out))
    return [plain(photo), (to_image(mask.expand(3, -1, -1)), "mask"), (both, f"{within.name} in {around.name}")]


def detokenize(bundle: Bundle, photo: Tensor) -> Shown:
    tokens = encode(bundle.tokenizer, photo, device=bundle.device)
    return [plain(photo), (to_image(decode(bundle.tokenizer, tokens)), "Tokenize > Detokenize"), painted(bundle, photo, "comic")]


def colour(bundle: Bundle, photo: Tensor) -> Shown:
    out = stylize(photo, "ukiyo-e", bundle)
    kept = [(to_image(keep_colour(out, photo, amount)), f"amount {amount:g}") for amount in (0, 0.5, 1)]
    return [plain(photo), *kept]


def mix_styles(bundle: Bundle, photo: Tensor) -> Shown:
    styles = find_style(bundle, "pop-art"), find_style(bundle, "pencil-sketch")
    names = " + ".join(f"0.5 {style.name}" for style in styles)
    half = painted(bundle, photo, mix([(style, 0.5) for style in styles], "mix"), names)
    return [painted(bundle, photo, styles[0]), half, painted(bundle, photo, styles[1])]


def save_style(bundle: Bundle, photo: Tensor) -> Shown:
    style = mix([(find_style(bundle, name), 0.5) for name in ("van-gogh", "ink")], "my-style")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my-style.safetensors")
        checkpoint.save_style(path, style)
        label = f"{path.name}, {path.stat().st_size / 1e6:.2f} MB"
        return [plain(photo), painted(bundle, photo, style), painted(bundle, photo, str(path), label)]


def reward(bundle: Bundle, photo: Tensor) -> Shown:
    pictures = [photo, *(stylize(photo, name, bundle) for name in ("ukiyo-e", "van-gogh"))]
    score = judge(bundle.clip, find_style(bundle, "van-gogh").prompt)
    return [(to_image(picture), f"{score(picture):+.4f}") for picture in pictures]


def best(bundle: Bundle, photo: Tensor) -> Shown:
    drawn = [stylize(photo, "van-gogh", bundle, sampling=Sampling(1.0, seed=seed)) for seed in range(3)]
    score = judge(bundle.clip, find_style(bundle, "van-gogh").prompt)
    found = sorted(((score(picture), k) for k, picture in enumerate(drawn)), reverse=True)
    return [(to_image(drawn[k]), f"{value:+.4f}  picture {k + 1}") for value, k in found]


def reward_tune(bundle: Bundle, photo: Tensor, steps: int) -> Shown:
    models = load_bundle(bundle.translator_path.parent, bundle.device, "fp32")  # for gradients
    file = BytesIO()
    to_image(photo).save(file, "PNG")
    config = TuneConfig.of("direct", steps=steps)
    photos = [Picture("photo", file.getvalue(), ())]
    with tempfile.TemporaryDirectory() as folder:
        tuned = tune(models.tokenizer, models.translator, models.clip, photos, TUNED, config, Run(folder))
    curve = draw_curve(tuned.rows)
    return [(curve, f"{tuned.steps} steps"), plain(photo), painted(models, photo, tuned.style, TUNED)]


NODES: dict[str, Callable[[Bundle, Tensor], Shown]] = {
    "Stylize": every_style,
    "Load": load,
    "LoadStyle": load_style,
    "Tokenize": tokenize,
    "Translate": translated,
    "StyleRegion": style_region,
    "Detokenize": detokenize,
    "KeepColour": colour,
    "SaveStyle": save_style,
    "MixStyles": mix_styles,
    "Reward": reward,
    "Best": best,
}


def plain(photo: Tensor) -> tuple[Image.Image, str]:
    return to_image(photo), "the photo"


def painted(
    bundle: Bundle, photo: Tensor, style: str | Style, label: str = "", strength: float = 1.0, detail: float = 1.0
) -> tuple[Image.Image, str]:
    found = find_style(bundle, style)
    return to_image(stylize(photo, found, bundle, strength, detail=detail)), label or found.name


def save(shown: Shown, path: Path) -> None:
    """Write the pictures as one JPEG of at most LIMIT bytes."""
    pictures, labels = zip(*shown, strict=True)
    many = len(pictures) > 4
    page = sheet(pictures, labels, 7 if many else None, 72 if many else SHOWN)
    limit = SHEET_LIMIT if many else LIMIT
    for quality in range(88, 28, -4):
        page.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= limit:
            print(f"{path}: {path.stat().st_size / 1024:.0f} KB at quality {quality}")
            return
    raise ValueError(f"{path} is larger than {limit} bytes even at the lowest quality: show fewer or smaller pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", metavar="NODE", help=f"default: all of {', '.join([*NODES, 'RewardTune'])}")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--steps", type=int, default=80, help="of Reward Tune")
    args = parser.parse_args()
    makers = NODES | {"RewardTune": lambda *given: reward_tune(*given, args.steps)}
    if unknown := set(args.nodes) - set(makers):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(makers)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    bundle, photo = load_bundle(args.bundle), resized(read_picture(PHOTO)[0], SIDE)
    for node in args.nodes or makers:
        save(makers[node](bundle, photo), FOLDER / f"StylerDALLE_{node}.jpg")


if __name__ == "__main__":
    main()
