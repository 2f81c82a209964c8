"""Token pairs made by a bundle's own styles, in the format of teacher_pairs.py: they include what was learnt after the teacher.

The hypernetwork (`stylerdalle tune --styles FILE --painted PAIRS`) learns from them, so that a prompt near to a bundled style
looks like it. Styles with a texture are left out: their pairs are made by filters.

    python -m stylerdalle.training.styled_pairs --contents contents.safetensors --bundle FOLDER --output pairs.safetensors
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint
from ..device import choose_device, choose_dtype
from ..storage import sha256
from ..tokenizers.protocol import ImageTokenizer
from ..tokenizers.tokens import Tokens
from ..translator.model import Translator
from ..translator.options import TranslateOptions
from ..translator.sampling import Sampling
from ..translator.style import Style
from ..translator.translate import translate
from .contents import contents_of
from .teacher_pairs import Part, contents_source, write_pairs

log = logging.getLogger(__name__)


def translated(
    translator: Translator, tokenizer: ImageTokenizer, styles: Sequence[Style], contents: Tensor, count: int, seed: int = 0
) -> Part:
    """(content, target, style, seed) of `count` pairs of every style, in the likeliest tokens.

    Args:
        contents: tokens of photos, (N, h, w).
        seed: of the order of the contents.
    """
    source = contents_source(contents, len(styles), seed)
    h, w = source.size
    found = []
    for number in range(count * len(styles)):
        content, style = source.draw(number).long(), number % len(styles)
        tokens = Tokens(content, h * tokenizer.downsample, w * tokenizer.downsample, tokenizer.vocab_size)
        options = TranslateOptions(sampling=Sampling(seed=number, softness=0))
        made = translate(translator, tokenizer, tokens, [(styles[style], 1.0)], options).grid
        found.append((content[0], made[0].cpu(), torch.tensor(style), torch.tensor(number)))
    content, target, style_of, seeds = (torch.stack(column) for column in zip(*found, strict=True))
    return content, target, style_of, seeds


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contents", type=Path, required=True, help="file of tokens of photos, from contents.py")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of translator, tokenizer and styles/")
    parser.add_argument("--count", type=int, default=72, help="pairs of each style")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        device = choose_device(args.device)
        dtype = choose_dtype(device)
        file, base = args.bundle / "tokenizer.safetensors", args.bundle / "translator.safetensors"
        tokenizer = checkpoint.load_tokenizer(file, device, dtype)
        translator = checkpoint.load_translator(base, device, dtype)
        loaded = {path.stem: checkpoint.load_style(path) for path in sorted((args.bundle / "styles").glob("*.safetensors"))}
        styles = {name: style.to(device, dtype) for name, style in loaded.items() if style.texture is None}
        # the tokenizer may have been polished since: its codes are the same
        pairs = translated(translator, tokenizer, list(styles.values()), contents_of(args.contents), args.count)
        notes = {"translator_sha256": sha256(base), "tokenizer_sha256": sha256(file)}
        write_pairs(args.output, [pairs], {"styles": list(styles), "recipe": {"command": "styled_pairs"}, **notes})
    except ValueError as error:
        print(f"styled_pairs: {error}", file=sys.stderr)
        return 2
    log.info("%s: %d pairs of %d styles", args.output, len(pairs[0]), len(styles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
