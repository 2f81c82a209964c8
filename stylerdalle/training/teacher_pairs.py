"""Token pairs for the translator, painted by a teacher: C = encode(photo), T = encode(teacher(decode(C), noise)).

The teacher sees what the translator sees, the decoded tokens and a noise field on the token grid, so its marks are predictable.
The file is safetensors of kind "pairs", N pairs of h x w tokens:

    content (N, h, w) uint16    tokens of the photo
    target  (N, h, w) uint16    tokens of the painted photo
    style   (N,) uint8          number of the style in the metadata `styles`
    seed    (N,) int32          the noise is noise_field(h, w, torch.Generator().manual_seed(seed))[0]

The contents are crops of photos, or come from a file of contents (contents.py) and are shared by the styles:

    python -m stylerdalle.training.teacher_pairs --images SHARDS --teacher weights/mini/teacher.safetensors \\
        --output pairs.safetensors --minutes 30
    python -m stylerdalle.training.teacher_pairs --contents contents.safetensors --teacher weights/mini/teacher.safetensors \\
        --output pairs.safetensors --count 600
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bundle import WEIGHTS
from ..checkpoint import load_tokenizer, read, write
from ..device import choose_device, choose_dtype
from ..learn.pictures import Picture
from ..learn.schedule import batches
from ..storage import read_metadata, sha256
from ..tokenizers.protocol import ImageTokenizer
from ..translator.noise import noise_field
from .contents import LARGE, ZOOM, check_vocabulary, read_contents
from .teacher_data import photo_crops, read_photos
from .teacher_network import Teacher, load_teacher, paint_under
from .teacher_start import started_from
from .teacher_styles import without_cast

log = logging.getLogger(__name__)
SAVE_MINUTES = 2.0  # between two writes of the file
BATCH = 32  # pairs that are painted together


@dataclass(frozen=True)
class PairsConfig:
    """Options of crops of photos; the defaults are the recipe of the shipped translator's pairs."""

    size: int = 320  # px of a crop: wider than a window of the translator, so that windows overlap in it
    large: float = LARGE  # share of crops from photos of 300 px and more
    zoom: tuple[float, float] = ZOOM  # px of the crop per px of the photo
    seed: int = 0


class Pairs(NamedTuple):
    """Token pairs as in the file, and the names of the styles."""

    content: Tensor  # long (N, h, w)
    target: Tensor  # long (N, h, w)
    style: Tensor  # long (N,)
    seed: Tensor  # long (N,)
    styles: tuple[str, ...]


Part = tuple[Tensor, Tensor, Tensor, Tensor]  # the tensors of some pairs


class Source(NamedTuple):
    """Where the contents of pairs come from. Pairs are numbered; pair n is of style n % S."""

    draw: Callable[[int], Tensor]  # number of a pair -> its photo, float (1, 3, H, W) in [0, 1], or its content, int (1, h, w)
    size: tuple[int, int]  # (h, w) of a content
    recipe: dict[str, Any]  # which contents these are


def photo_source(photos: Sequence[Picture], config: PairsConfig, unit: int) -> Source:
    """Every pair has a random crop of a photo of its own.

    Args:
        unit: px of a token.
    """
    crop = photo_crops(photos, config.size, config.large, config.zoom)
    side = config.size // unit
    return Source(lambda number: crop(np.random.default_rng([config.seed, number])), (side, side), asdict(config))


def contents_source(contents: Tensor, styles: int, seed: int, **recipe: Any) -> Source:
    """All styles share the contents (N, h, w). Each goes through them in the same random order, but begins at another place.

    So a style meets a content again only after all others, and all contents are used equally often.

    Args:
        seed: of the order.
        recipe: what identifies the contents.
    """
    order = np.random.default_rng(seed).permutation(len(contents))

    def draw(number: int) -> Tensor:
        turn, style = divmod(number, styles)
        place = order[(style * len(contents) // styles + turn) % len(contents)]
        return contents[place : place + 1]

    return Source(draw, (contents.shape[1], contents.shape[2]), {"seed": seed, **recipe})


@torch.inference_mode()
def painted(
    teacher: Teacher, tokenizer: ImageTokenizer, source: Source, device: torch.device, first: int, last: int, batch: int
) -> Iterator[Part]:
    """(content, target, style, seed) of the pairs `first` to `last` - 1, `batch` at a time.

    A pair's noise is that of its own number, so pairs do not depend on the batch but for rounding.
    """
    styles = len(teacher.names)

    def prepare(step: int, rng: np.random.Generator) -> tuple[range, Tensor, Tensor]:
        numbers = range(first + step * batch, min(first + (step + 1) * batch, last))
        noise = [noise_field(*source.size, torch.Generator().manual_seed(number)) for number in numbers]
        return numbers, torch.cat([source.draw(number) for number in numbers]), torch.cat(noise)

    for numbers, drawn, noise in batches(prepare, 0, 0, -(-(last - first) // batch)):
        given = drawn.to(device, non_blocking=True)
        content = tokenizer.encode(given) if given.is_floating_point() else given.long()
        seed = torch.tensor(numbers)
        row = seed % styles
        pictures = paint_under(teacher, tokenizer.decode(content).float(), row, noise)
        target = tokenizer.encode(without_cast(pictures, [teacher.names[number % styles] for number in numbers]))
        yield content.cpu(), target.cpu(), row, seed


def paint_pairs(
    teacher_path: Path,
    tokenizer_path: Path,
    given: Sequence[Picture] | Path,
    output: Path,
    config: PairsConfig,
    device: torch.device,
    minutes: float = float("inf"),
    megabytes: float = 50,
    count: int = 1_000_000,
    batch: int = BATCH,
    names: Sequence[str] = (),
) -> int:
    """Write pairs of all styles in turn, as many as minutes, megabytes and `count` a style allow, one a style at least.

    The file is written every few minutes; where it exists already, made by the same teacher, it is continued.

    Args:
        given: photos, or a file of contents; for the latter only the seed of `config` counts.
        names: of the teacher's styles, those to paint; none: all.

    Returns:
        The number of pairs in the file.

    Raises:
        ValueError: a vocabulary too large for uint16, contents of another tokenizer, or an existing file by another teacher or
            with other options.
    """
    teacher, tokenizer = load_teacher(teacher_path, device), load_tokenizer(tokenizer_path, device, choose_dtype(device))
    if names:
        teacher.rows(names)  # raises for an unknown one
        teacher = started_from(teacher, names, {name: name for name in names}).to(device).eval().requires_grad_(False)
    check_vocabulary(tokenizer_path, tokenizer.vocab_size)
    styles = len(teacher.names)
    if isinstance(given, Path):
        contents = read_contents(given, tokenizer_path)
        source = contents_source(contents, styles, config.seed, contents_sha256=sha256(given))
    else:
        source = photo_source(given, config, tokenizer.downsample)
    hashes = {"teacher_sha256": sha256(teacher_path), "tokenizer_sha256": sha256(tokenizer_path)}
    notes = {"styles": list(teacher.names), "recipe": {"command": "teacher_pairs", **source.recipe}, **hashes}
    parts = _begun(output, notes)
    done = sum(len(part[0]) for part in parts)
    room = min(int(megabytes * 1e6 / (4 * source.size[0] * source.size[1] + 5) / styles), count)
    last, started = styles * max(1, room), time.monotonic()
    saved = started
    for found in painted(teacher, tokenizer, source, device, done, last, batch):
        parts.append(found)
        done += len(found[0])
        now = time.monotonic()
        full = done >= last or (now - started > 60 * minutes and done >= styles)
        if full or now - saved > 60 * SAVE_MINUTES:
            write_pairs(output, parts, notes)
            saved = now
            log.info("%d pairs in %s after %.0f s", done, output, now - started)
        if full:
            break
    return done


def _begun(output: Path, notes: dict[str, Any]) -> list[Part]:
    """The pairs of an existing file, all in one part."""
    if not output.is_file():
        return []
    pairs, metadata = read_token_pairs(output), read_metadata(output)
    differ = [
        key for key, value in notes.items() if metadata.get(key) != (value if isinstance(value, str) else json.dumps(value))
    ]
    if differ:
        raise ValueError(f"{output} was made with another {', '.join(differ)}: delete it, or give another --output")
    return [(pairs.content, pairs.target, pairs.style, pairs.seed)]


def write_pairs(output: Path, parts: Sequence[Part], notes: dict[str, Any]) -> None:
    """Write the file of pairs, its metadata being `notes`."""
    types = {"content": torch.uint16, "target": torch.uint16, "style": torch.uint8, "seed": torch.int32}
    columns = zip(*parts, strict=True)
    write(output, {k: torch.cat(c).to(t) for (k, t), c in zip(types.items(), columns, strict=True)}, "pairs", **notes)


def read_token_pairs(path: str | Path) -> Pairs:
    """The pairs of a file. Raises ValueError naming what is wrong with it."""
    tensors, metadata = read(path, "pairs")
    names = ("content", "target", "style", "seed")
    if missing := [name for name in names if name not in tensors]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: make the pairs anew")
    content, target, style, seed = (tensors[name].long() for name in names)
    return Pairs(content, target, style, seed, tuple(json.loads(metadata["styles"])))


def read_painted(paths: Sequence[str | Path]) -> Pairs | None:
    """The pairs of several files as one; a style that several have takes those of the last of them. None for no files.

    Raises:
        ValueError: as `read_token_pairs`, or the files are of different tokenizers or sizes.
    """
    files = [read_token_pairs(path) for path in paths]
    if not files:
        return None
    for what, values in (
        ("tokenizers", [read_metadata(path).get("tokenizer_sha256") for path in paths]),
        ("sizes", [pairs.content.shape[1:] for pairs in files]),
    ):
        if differ := [str(path) for path, value in zip(paths, values, strict=True) if value != values[0]]:
            raise ValueError(f"{differ[0]} and {paths[0]} hold pairs of different {what}: paint them alike, or leave one out")
    last = {name: k for k, pairs in enumerate(files) for name in pairs.styles}  # number of the file that a style is from
    styles, parts = tuple(last), []
    for k, pairs in enumerate(files):
        number = torch.tensor([styles.index(name) if last[name] == k else -1 for name in pairs.styles])
        style = number[pairs.style]
        kept = style >= 0
        parts.append((pairs.content[kept], pairs.target[kept], style[kept], pairs.seed[kept]))
    content, target, style, seed = (torch.cat(column) for column in zip(*parts, strict=True))
    return Pairs(content, target, style, seed, styles)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    contents = parser.add_mutually_exclusive_group(required=True)
    contents.add_argument("--images", nargs="+", help="shards or folders with photos")
    contents.add_argument("--contents", type=Path, metavar="FILE", help="that contents.py wrote, instead of photos")
    parser.add_argument("--teacher", type=Path, default=WEIGHTS / "mini" / "teacher.safetensors")
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--styles", nargs="+", default=[], metavar="NAME", help="of the teacher's, those to paint; default all")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=PairsConfig.size, help="px of a crop of a photo, a multiple of 8")
    parser.add_argument("--batch", type=int, default=BATCH, help="pairs that are painted together")
    parser.add_argument("--count", type=int, default=1_000_000, help="pairs a style, at most")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=PairsConfig.seed, help="of the crops, or of the order of the contents")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = PairsConfig(size=args.size, seed=args.seed)
    try:
        if args.batch < 1:
            raise ValueError(f"--batch {args.batch}: need 1 or more")
        given = args.contents or read_photos(args.images)
        device = choose_device(args.device)
        limits = {"minutes": args.minutes, "megabytes": args.megabytes, "count": args.count, "batch": args.batch}
        made = paint_pairs(args.teacher, args.tokenizer, given, args.output, config, device, names=args.styles, **limits)
    except ValueError as error:
        print(f"teacher_pairs: {error}", file=sys.stderr)
        return 2
    log.info("%s: %d pairs", args.output, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
