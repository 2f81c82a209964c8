"""The recipes of the styles in the box: prompt, filter of the made pairs, options of the tuner.

They begin with what joint.py learnt from made pairs.

    python -m stylerdalle.training.styles van-gogh ukiyo-e --images SHARDS --start JOINT/styles
    python -m stylerdalle.training.styles --images SHARDS --start JOINT/styles            # all of them
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from .. import checkpoint, storage
from ..bundle import WEIGHTS
from ..device import choose_device, choose_dtype
from ..learn.pictures import Picture, split
from ..learn.run import Run
from ..learn.sources import read_pictures
from ..tune.config import TuneConfig
from ..tune.loop import TuneState, tune
from .pairs import make_pairs

LICENCE = "MIT"


@dataclass(frozen=True)
class Recipe:
    """How one bundled style is made."""

    prompt: str
    filter: str  # of filters/, for made pairs
    config: TuneConfig
    pairs: int  # made


def _recipe(prompt: str, made: str, pairs: int = 100, **options: float) -> Recipe:
    # little KL: on made pairs a style is far from the base, and its pull would bring the photo's colours back.
    # A low rate: this CLIP likes drawings better with blue and brown blots in them
    defaults = {"steps": 5, "check_every": 5, "pairs_weight": 1.0, "kl_weight": 0.005, "lr": 1e-4}
    return Recipe(prompt, made, TuneConfig(**{**defaults, **options}), pairs)  # type: ignore[arg-type]


RECIPES = {
    "van-gogh": _recipe("a Van Gogh style oil painting", "van_gogh"),
    "ukiyo-e": _recipe("a ukiyo-e print", "ukiyo_e"),
    "pencil-sketch": _recipe("a pencil sketch", "pencil_sketch"),
    "pixel-art": _recipe("pixel art", "pixel_art"),
    "watercolour": _recipe("a watercolour painting", "watercolour"),
    "comic": _recipe("a comic book illustration", "comic"),
    "impressionism": _recipe("an impressionist oil painting", "impressionism"),
    "pointillism": _recipe("a pointillist painting", "pointillism"),
    "fauvism": _recipe("a fauvist painting", "fauvism"),
    "cubism": _recipe("a cubist painting", "cubism"),
    "baroque": _recipe("a baroque oil painting", "baroque"),
    "charcoal": _recipe("a charcoal drawing", "charcoal"),
    "ink": _recipe("an ink drawing", "ink"),
    "pop-art": _recipe("pop art", "pop_art"),
    "anime": _recipe("anime", "anime"),
    "art-nouveau": _recipe("an art nouveau poster", "art_nouveau"),
    "stained-glass": _recipe("a stained glass window", "stained_glass"),
}


def large_photos(pictures: Sequence[Picture]) -> list[Picture]:
    """Photos of 256 px and more on their shortest side, or all photos where there is none."""
    photos = [p for p in pictures if p.kind in ("photo", "wallpaper") and p.style == "photo"]
    return [p for p in photos if min(p.size) >= 256] or photos


def make(name: str, recipe: Recipe, pictures: Sequence[Picture], folder: Path, run: Run, start: Path) -> Path:
    """Tune one style, from the file `start` on, on the models of `folder` and save it under its styles/ -> the file."""
    device = choose_device("auto")
    dtype = choose_dtype(device)
    tokenizer = checkpoint.load_tokenizer(folder / "tokenizer.safetensors", dtype=dtype)
    base = folder / "translator.safetensors"
    translator = checkpoint.load_translator(base)
    model = checkpoint.load_clip(folder / "clip.safetensors")
    photos = large_photos(split(pictures)[0])
    begun = checkpoint.load_style(start)
    with tqdm(total=recipe.config.steps, desc=name, disable=not sys.stderr.isatty()) as bar:

        def show(state: TuneState) -> None:
            bar.n = state.step
            bar.set_postfix(loss=f"{state.loss:.3f}")

        window = tokenizer.downsample * translator.config.grid * translator.config.upscale
        pairs = make_pairs(photos, recipe.filter, window, recipe.pairs, unit=tokenizer.downsample)
        learnt = tune(tokenizer, translator, model, photos, recipe.prompt, recipe.config, run, pairs, show, start=begun)
    path = folder / "styles" / f"{name}.safetensors"
    how = {**asdict(recipe.config), "pairs": f"{recipe.pairs} made by the filter {recipe.filter!r}"}
    how["start"] = json.loads(begun.metadata.get("recipe", "{}"))
    style = replace(learnt.style, name=name, base_sha256=storage.sha256(base))
    checkpoint.save_style(path, style, recipe=how, licence=LICENCE, **learnt.notes())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(RECIPES)}; default all")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument(
        "--folder", type=Path, default=WEIGHTS / "mini", help="the bundle's models; styles/ in it receives the files"
    )
    parser.add_argument("--start", type=Path, required=True, metavar="FOLDER", help="styles/ of joint training's output")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs")
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in RECIPES]:
        parser.error(f"no recipe for {', '.join(unknown)}: choose from {', '.join(RECIPES)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = read_pictures(args.images)
    for name in args.names or RECIPES:
        run = Run(args.run_dir / f"style-{name}", resume=not args.no_resume)
        print(make(name, RECIPES[name], pictures, args.folder, run, args.start / f"{name}.safetensors"))


if __name__ == "__main__":
    main()
