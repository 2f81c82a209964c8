"""Token pairs for the translator, painted by a teacher: C = encode(photo), T = encode(teacher(decode(C), noise)).

The teacher sees what the translator sees, the decoded tokens and a noise field on the token grid, so its marks can be foretold.
The file is safetensors of kind "pairs", N pairs of h x w tokens:

    content (N, h, w) uint16    tokens of the photo
    target  (N, h, w) uint16    tokens of the painted photo
    style   (N,) uint8          number of the style in the metadata `styles`
    seed    (N,) int32          the noise is noise_field(h, w, torch.Generator().manual_seed(seed))[0]

    python -m stylerdalle.training.teacher_pairs --images SHARDS --teacher weights/mini/teacher.safetensors \\
        --output pairs.safetensors --minutes 30
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
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
from ..storage import read_metadata, sha256
from ..tokenizers.protocol import ImageTokenizer
from .teacher_data import photo_crops, read_photos
from .teacher_network import Teacher, load_teacher, paint
from .teacher_styles import without_cast

log = logging.getLogger(__name__)
SAVE_MINUTES = 2.0  # between two writes of the file


@dataclass(frozen=True)
class PairsConfig:
    """Defaults are the recipe of the shipped translator's pairs."""

    size: int = 320  # px of a crop: wider than a window of the translator, so that windows overlap in it
    large: float = 0.7  # share of crops from photos of 300 px and more
    zoom: tuple[float, float] = (0.5, 1.2)  # px of the crop per px of the photo
    seed: int = 0


class Pairs(NamedTuple):
    """Token pairs as in the file, and the names of the styles."""

    content: Tensor  # long (N, h, w)
    target: Tensor  # long (N, h, w)
    style: Tensor  # long (N,)
    seed: Tensor  # long (N,)
    styles: tuple[str, ...]


@torch.inference_mode()
def rounds(
    teacher: Teacher,
    tokenizer: ImageTokenizer,
    photos: Sequence[Picture],
    config: PairsConfig,
    device: torch.device,
    number: int = 0,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Without end: (content, target, style, seed) of a pair for every style, each of another photo, from pair `number` on."""
    draw = photo_crops(photos, config.size, config.large, config.zoom)
    while True:
        found = []
        for row, name in enumerate(teacher.names):
            photo = draw(np.random.default_rng([config.seed, number])).to(device)
            content = tokenizer.encode(photo)
            painted = paint(teacher, tokenizer.decode(content).float(), [name], seed=number)
            target = tokenizer.encode(without_cast(painted, name))
            found.append((content[0].cpu(), target[0].cpu(), torch.tensor(row), torch.tensor(number)))
            number += 1
        content, target, style, seed = (torch.stack(parts) for parts in zip(*found, strict=True))
        yield content, target, style, seed


def paint_pairs(
    teacher_path: Path,
    tokenizer_path: Path,
    photos: Sequence[Picture],
    output: Path,
    config: PairsConfig,
    device: torch.device,
    minutes: float = float("inf"),
    megabytes: float = 50,
    count: int = 1_000_000,
) -> int:
    """Write pairs of all styles, as many rounds as minutes, megabytes and `count` allow, one at least -> their number.

    The file is written every few minutes; where it exists already, made by the same teacher, it is continued.

    Raises:
        ValueError: a vocabulary too large for uint16, or an existing file by another teacher or with other options.
    """
    teacher, tokenizer = load_teacher(teacher_path, device), load_tokenizer(tokenizer_path, device, choose_dtype(device))
    if tokenizer.vocab_size > 1 << 16:
        raise ValueError(
            f"{tokenizer_path} has {tokenizer.vocab_size} tokens: pairs hold 65536 at most, use a smaller vocabulary"
        )
    hashes = {"teacher_sha256": sha256(teacher_path), "tokenizer_sha256": sha256(tokenizer_path)}
    notes = {"styles": list(teacher.names), "recipe": {"command": "teacher_pairs", **asdict(config)}, **hashes}
    parts = _begun(output, notes)
    done = sum(len(part[0]) for part in parts)
    room = min(int(megabytes * 1e6 / (4 * (config.size // tokenizer.downsample) ** 2 + 5) / len(teacher.names)), count)
    started = saved = time.monotonic()
    for found in rounds(teacher, tokenizer, photos, config, device, done):
        parts.append(found)
        done += len(teacher.names)
        now = time.monotonic()
        full = now - started > 60 * minutes or done // len(teacher.names) >= room
        if full or now - saved > 60 * SAVE_MINUTES:
            _write(output, parts, notes)
            saved = now
            log.info("%d pairs in %s", done, output)
        if full:
            break
    return done


def _begun(output: Path, notes: dict[str, Any]) -> list[tuple[Tensor, ...]]:
    """The pairs of an existing file, all in one part."""
    if not output.is_file():
        return []
    pairs, metadata = read_token_pairs(output), read_metadata(output)
    differ = [
        key for key, value in notes.items() if metadata.get(key) != (value if isinstance(value, str) else json.dumps(value))
    ]
    if differ:
        raise ValueError(f"{output} was made with another {', '.join(differ)}: delete it, or give another --output")
    return [pairs[:4]]


def _write(output: Path, parts: Sequence[tuple[Tensor, ...]], notes: dict[str, Any]) -> None:
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--teacher", type=Path, default=WEIGHTS / "mini" / "teacher.safetensors")
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=PairsConfig.size, help="px of a crop, a multiple of 8")
    parser.add_argument("--count", type=int, default=1_000_000, help="pairs a style, at most")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=PairsConfig.seed)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = PairsConfig(size=args.size, seed=args.seed)
    try:
        photos = read_photos(args.images)
        device = choose_device(args.device)
        limits = {"minutes": args.minutes, "megabytes": args.megabytes, "count": args.count}
        made = paint_pairs(args.teacher, args.tokenizer, photos, args.output, config, device, **limits)
    except ValueError as error:
        print(f"teacher_pairs: {error}", file=sys.stderr)
        return 2
    log.info("%s: %d pairs", args.output, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
