"""Contents: tokens of crops of photos, in a file that teachers paint (teacher_pairs.py --contents).

Photos are read, cut and encoded once, for any number of teachers, so a machine that paints needs no photos. The file is
safetensors of kind "contents":

    content (N, h, w) uint16    tokens of a crop of h * 8 x w * 8 px

    python -m stylerdalle.training.contents --images SHARDS --output contents.safetensors --count 3000 --size 320
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..bundle import WEIGHTS
from ..checkpoint import load_tokenizer, read, write
from ..device import choose_device, choose_dtype
from ..storage import read_metadata, sha256
from .teacher_data import photo_crops, photo_tokens, read_photos

log = logging.getLogger(__name__)
LARGE, ZOOM = 0.7, (0.5, 1.2)  # of the crops that pairs are made from, as for `photo_crops`
VOCABULARY = 1 << 16  # tokens, at most, of a file of contents or pairs


def check_vocabulary(tokenizer_path: Path, tokens: int) -> None:
    """Raises ValueError if a vocabulary is too large for uint16."""
    if tokens > VOCABULARY:
        raise ValueError(f"{tokenizer_path} has {tokens} tokens: a file holds {VOCABULARY} at most, use a smaller vocabulary")


def make_contents(
    images: Sequence[str], tokenizer_path: Path, output: Path, count: int, size: int, seed: int, device: torch.device
) -> None:
    """Write the tokens of `count` crops of `size` px.

    Raises:
        ValueError: no photos, a size that is no multiple of the tokenizer's, or a vocabulary too large for uint16.
    """
    tokenizer = load_tokenizer(tokenizer_path, device, choose_dtype(device))
    check_vocabulary(tokenizer_path, tokenizer.vocab_size)
    if size < tokenizer.downsample or size % tokenizer.downsample or count < 1:
        raise ValueError(f"{count} crops of {size} px: need one or more, of a multiple of {tokenizer.downsample} px")
    tokens = photo_tokens(tokenizer, photo_crops(read_photos(images), size, LARGE, ZOOM), count, seed, device)
    recipe = {"command": "contents", "count": count, "size": size, "large": LARGE, "zoom": ZOOM, "seed": seed}
    write(output, {"content": tokens.to(torch.uint16)}, "contents", recipe=recipe, tokenizer_sha256=sha256(tokenizer_path))


def read_contents(path: Path, tokenizer_path: Path) -> Tensor:
    """The contents of a file, int32 (N, h, w).

    Raises:
        ValueError: it holds none, or they are of another tokenizer than `tokenizer_path`.
    """
    content = contents_of(path)
    if read_metadata(path).get("tokenizer_sha256") != sha256(tokenizer_path):
        raise ValueError(f"{path} is of another tokenizer than {tokenizer_path}: make the contents anew, or give its own")
    return content


def contents_of(path: Path) -> Tensor:
    """The same, of whatever tokenizer. Raises ValueError if the file holds none."""
    tensors, _ = read(path, "contents")
    if "content" not in tensors or tensors["content"].ndim != 3 or not tensors["content"].numel():
        raise ValueError(f"{path} holds no contents: make it anew")
    return tensors["content"].int()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=3000, help="crops")
    parser.add_argument("--size", type=int, default=320, help="px of a crop, a multiple of 8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        device = choose_device(args.device)
        make_contents(args.images, args.tokenizer, args.output, args.count, args.size, args.seed, device)
    except ValueError as error:
        print(f"contents: {error}", file=sys.stderr)
        return 2
    log.info("%s: %d contents", args.output, args.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
