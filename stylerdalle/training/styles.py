"""Tune the bundled styles with the CLIP reward, by their recipes (registry.py), from what joint.py learnt from made pairs.

python -m stylerdalle.training.styles van-gogh ukiyo-e --images SHARDS --start JOINT/styles
python -m stylerdalle.training.styles --images SHARDS --start JOINT/styles            # all of them
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from .. import checkpoint, storage
from ..bundle import WEIGHTS
from ..device import choose_device, choose_dtype
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.sources import read_pictures
from ..tune.loop import TuneState, tune
from .pairs import make_pairs
from .registry import BUNDLED, STYLES, Recipe

LICENCE = "MIT"


def large_photos(pictures: Sequence[Picture]) -> list[Picture]:
    """Photos whose shortest side is 256 px or more; all photos if there are none of that size."""
    photos = [p for p in pictures if p.kind in ("photo", "wallpaper") and p.style == "photo"]
    return [p for p in photos if min(p.size) >= 256] or photos


def make(recipe: Recipe, pictures: Sequence[Picture], folder: Path, run: Run, start: Path) -> Path:
    """Tune one style and save it.

    Args:
        pictures: photos to learn from; a part of them is left out, for validation.
        folder: of the bundle; its models are used, and styles/NAME.safetensors is written.
        start: style file to begin with.

    Returns:
        The file written.
    """
    device = choose_device("auto")
    dtype = choose_dtype(device)
    tokenizer = checkpoint.load_tokenizer(folder / "tokenizer.safetensors", dtype=dtype)
    base = folder / "translator.safetensors"
    translator = checkpoint.load_translator(base)
    model = checkpoint.load_clip(folder / "clip.safetensors")
    photos = large_photos(split_validation(pictures)[0])
    begun = checkpoint.load_style(start)
    config = recipe.tuning
    with tqdm(total=config.steps, desc=recipe.name, disable=not sys.stderr.isatty()) as bar:

        def show(state: TuneState) -> None:
            bar.n = state.step
            bar.set_postfix(loss=f"{state.loss:.3f}")

        window = tokenizer.downsample * translator.config.grid * translator.config.upscale
        pairs = make_pairs(photos, recipe.name, window, recipe.pairs, unit=tokenizer.downsample) if recipe.filter else None
        config = config if pairs else replace(config, pairs_weight=0.0)
        learnt = tune(tokenizer, translator, model, photos, recipe.prompt, config, run, pairs, show, start=begun)
    path = folder / "styles" / f"{recipe.name}.safetensors"
    how = {**asdict(config), "pairs": f"{recipe.pairs} made by the filter {recipe.key!r}" if pairs else ""}
    how["start"] = json.loads(begun.metadata.get("recipe", "{}"))
    style = replace(learnt.style, name=recipe.name, base_sha256=storage.sha256(base))
    checkpoint.save_style(path, style, recipe=how, licence=LICENCE, **learnt.notes())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"styles to tune (default: all): {', '.join(BUNDLED)}")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--folder", type=Path, default=WEIGHTS / "mini", help="of the bundle; the style files go to its styles/")
    parser.add_argument("--start", type=Path, required=True, metavar="FOLDER", help="styles/ in the output of joint training")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs")
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BUNDLED]:
        parser.error(f"no recipe for {', '.join(unknown)}: choose from {', '.join(BUNDLED)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = read_pictures(args.images)
    for name in args.names or BUNDLED:
        run = Run(args.run_dir / f"style-{name}", resume=not args.no_resume)
        print(make(STYLES[name], pictures, args.folder, run, args.start / f"{name}.safetensors"))


if __name__ == "__main__":
    main()
