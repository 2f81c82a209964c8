"""Makes the thumbnails of the templates, workflows/NAME.jpg, and docs/banner.jpg from the demo photo: what each template gives.

Usage:

    python benchmarks/thumbnails.py [--bundle mini] [--steps 80] [NAME ...]    # all, or these; "banner" is the banner

Most of the time goes into tune-a-style (`--steps`).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image
from torch import Tensor

from stylerdalle import Bundle, Sampling, load_bundle, stylize
from stylerdalle.images.colour import keep_colour
from stylerdalle.images.files import read_picture, resized, to_image
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.resolve import find_style
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.options import MaskedStyle, TranslateOptions
from stylerdalle.translator.style import mix
from stylerdalle.translator.translate import translate
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.loop import tune

ROOT = Path(__file__).resolve().parent.parent
PHOTO = ROOT / "docs" / "demo" / "photo.jpg"
SIZE = (384, 256)  # px of a thumbnail
VAN_GOGH = "a Van Gogh style oil painting"
PICKED = ("van-gogh", "ukiyo-e", "stained-glass", "watercolour")  # of style-transfer
BANNER = ("", "van-gogh", "stained-glass", "ukiyo-e")  # strips of the banner; "" is the photo


def halves(left: Image.Image, right: Image.Image) -> Image.Image:
    """The left half of one picture and the right half of another of the same size."""
    both = left.copy()
    box = (left.width // 2, 0, left.width, left.height)
    both.paste(right.crop(box), box[:2])
    return both


def strips(pictures: list[Image.Image], gap: int = 0) -> Image.Image:
    """Upright strips of pictures of one size, each the part of its picture at that place."""
    page, wide = Image.new("RGB", pictures[0].size, (24, 24, 24)), pictures[0].width / len(pictures)
    for k, picture in enumerate(pictures):
        box = (round(k * wide) + gap, gap, round((k + 1) * wide) - gap, picture.height - gap)
        page.paste(picture.crop(box), box[:2])
    return page


def inset(large: Image.Image, small: Image.Image) -> Image.Image:
    """A picture with another, smaller, in a frame in its lower left corner."""
    both, size = large.copy(), (large.width // 3, large.height // 3)
    both.paste((255, 255, 255), (16, large.height - size[1] - 32, size[0] + 32, large.height - 16))
    both.paste(small.resize(size, Image.Resampling.LANCZOS), (24, large.height - size[1] - 24))
    return both


def film(pictures: list[Image.Image]) -> Image.Image:
    """Frames side by side, with the holes of a film above and below."""
    page, wide = Image.new("RGB", SIZE, (16, 16, 16)), SIZE[0] // len(pictures)
    for k, picture in enumerate(pictures):
        tall = SIZE[1] - 56
        scaled = picture.resize((picture.width * tall // picture.height, tall), Image.Resampling.LANCZOS)
        page.paste(scaled.crop((0, 0, wide - 6, tall)), (k * wide + 3, 28))
        for x in range(k * wide + 8, (k + 1) * wide - 8, 24):
            page.paste((230, 230, 230), (x, 8, x + 12, 20))
            page.paste((230, 230, 230), (x, SIZE[1] - 20, x + 12, SIZE[1] - 8))
    return page


def grid(pictures: list[Image.Image]) -> Image.Image:
    """Four pictures, two by two, with a margin."""
    page = Image.new("RGB", SIZE, (24, 24, 24))
    small = (SIZE[0] // 2 - 6, SIZE[1] // 2 - 6)
    for k, picture in enumerate(pictures):
        page.paste(picture.resize(small, Image.Resampling.LANCZOS), (4 + (k % 2) * (small[0] + 4), 4 + (k // 2) * (small[1] + 4)))
    return page


def painted(bundle: Bundle, photo: Tensor, prompt: str, sampling: Sampling | None = None) -> Image.Image:
    return to_image(stylize(photo, prompt, bundle, sampling=sampling or Sampling()))


def keep(bundle: Bundle, photo: Tensor) -> Image.Image:
    styled = stylize(photo, VAN_GOGH, bundle)
    return strips([to_image(picture) for picture in (photo, styled, keep_colour(styled, photo, 1.0))])


def mixed(bundle: Bundle, photo: Tensor) -> Image.Image:
    one, other = (find_style(bundle, name) for name in ("van-gogh", "pencil-sketch"))
    return strips([to_image(stylize(photo, s, bundle)) for s in (one, mix([(one, 0.5), (other, 0.5)], "mix"), other)])


def region(bundle: Bundle, photo: Tensor) -> Image.Image:
    """As the template: the mask is where the photo's blue is above 0.75, the sky."""
    within = MaskedStyle(find_style(bundle, "a pencil sketch"), (photo[:, 2] > 0.75).float(), 16)
    tokens = encode(bundle.tokenizer, photo, upscale=bundle.translator.config.upscale, device=bundle.device)
    style = find_style(bundle, VAN_GOGH)
    out = translate(bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)], TranslateOptions(regions=(within,)))
    return to_image(decode(bundle.tokenizer, out))


def candidates(bundle: Bundle, photo: Tensor) -> Image.Image:
    return grid([painted(bundle, photo, VAN_GOGH, Sampling(0.5, seed=seed)) for seed in range(4)])


def frames(bundle: Bundle, photo: Tensor) -> Image.Image:
    """Four frames of a camera that moves."""
    step = photo.shape[-1] // 16
    return film([painted(bundle, photo[..., k * step : k * step + 12 * step], VAN_GOGH) for k in range(4)])


def tuned(bundle: Bundle, photo: Tensor, steps: int) -> Image.Image:
    models = load_bundle(bundle.translator_path.parent, bundle.device, "fp32")  # for gradients
    file = BytesIO()
    to_image(photo).save(file, "PNG")
    photos, config = [Picture("photo", file.getvalue(), ())], TuneConfig.of("direct", steps=steps)
    prompt = "a flat vector illustration"
    with tempfile.TemporaryDirectory() as folder:
        learnt = tune(models.tokenizer, models.translator, models.clip, photos, prompt, config, Run(folder))
    return halves(to_image(photo), to_image(stylize(photo, learnt.style, models)))


def banner(bundle: Bundle, photo: Tensor) -> Image.Image:
    """The photo and three styles, strip by strip."""
    page, width = Image.new("RGB", (1050, 450)), 1050 // len(BANNER) + 1
    for k, name in enumerate(BANNER):
        picture = painted(bundle, photo, name) if name else to_image(photo)
        whole = picture.resize((1050, 1050 * picture.height // picture.width), Image.Resampling.LANCZOS)
        left, top = k * width, (whole.height - 450) // 2
        page.paste(whole.crop((left, top, left + width, top + 450)), (left, 0))
    return page


def template(name: str) -> Path:
    """The thumbnail's path of a template, whose file has a number before its name: workflows/06-stylize.jpg."""
    return next((ROOT / "workflows").glob(f"[0-9][0-9]-{name}.json")).with_suffix(".jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--steps", type=int, default=80, help="of tune-a-style")
    args = parser.parse_args()
    makers: dict[str, Callable[[Bundle, Tensor], Image.Image]] = {
        "style-transfer": lambda bundle, photo: grid([painted(bundle, photo, name) for name in PICKED]),
        "style-transfer.app": lambda bundle, photo: inset(painted(bundle, photo, "van-gogh"), to_image(photo)),
        "stylize": lambda bundle, photo: halves(to_image(photo), painted(bundle, photo, VAN_GOGH)),
        "stylize-subgraph": lambda bundle, photo: strips([to_image(photo), painted(bundle, photo, VAN_GOGH)] * 2, 4),
        "any-prompt": lambda bundle, photo: painted(bundle, photo, "a golden oil painting"),
        "keep-colour": keep,
        "mix-styles": mixed,
        "region-by-mask": region,
        "score": candidates,
        "video-frames": frames,
        "tune-a-style": lambda bundle, photo: tuned(bundle, photo, args.steps),
        "banner": banner,
    }
    if unknown := set(args.names) - set(makers):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(makers)}")
    bundle, photo = load_bundle(args.bundle), resized(read_picture(PHOTO)[0], 512)
    for name in args.names or makers:
        picture = makers[name](bundle, photo)
        path = ROOT / "docs/banner.jpg" if name == "banner" else template(name)
        picture = picture if name == "banner" else picture.resize(SIZE, Image.Resampling.LANCZOS)
        picture.save(path, quality=74 if name == "banner" else 86, optimize=True)  # tests/test_registry.py has the limits
        print(f"{path}: {path.stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
