"""The translator with which a fetched tokenizer is a bundle at once: the identity over its codebook (translator/identity.py).

It has the paper's width and depth on the paper's target grid, reads content at full resolution, and has room for styles with a
texture and noise. Nothing is trained: `stylerdalle tune` learns styles on it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import checkpoint, storage
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.identity import returned, start_as_identity
from ..translator.model import Translator, TranslatorConfig
from ..translator.noise import SPACINGS

COMMAND = "identity"  # in the recipe of a translator made here
GRID = 32  # tokens a side of a window, 256 px: the paper's target grid
SPREAD = 0.125  # half of pretraining's: a mixture of the likely tokens, too, is nearly the token itself
SEED = 0  # of the weights that a style tunes and that change nothing yet
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A translator that was made of a codebook.

    Attributes:
        returned, tokens: how many of all tokens it returns as they are; two codes with one embedding cannot both be.
    """

    path: Path
    returned: int
    tokens: int
    seconds: float


def identity_config(tokenizer: ImageTokenizer) -> TranslatorConfig:
    """The sizes of the translator for a tokenizer."""
    return TranslatorConfig(
        embed_dim=tokenizer.embed_dim,
        vocab_size=tokenizer.vocab_size,
        grid=GRID,
        upscale=1,
        texture=True,
        noise=len(SPACINGS),
    )


def identity_translator(tokenizer: ImageTokenizer, config: TranslatorConfig | None = None) -> Translator:
    """A frozen translator that returns the tokens of this tokenizer as they are, in float32; always the same numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # nn.Linear draws from the global generator
        translator = Translator(config or identity_config(tokenizer))
    start_as_identity(translator, all_embeddings(tokenizer).cpu(), SPREAD)
    return translator.eval().requires_grad_(False)


def make_translator(tokenizer_path: Path, path: Path) -> Made:
    """Make the translator of a tokenizer file and write it to `path`.

    Raises:
        ValueError: the tokenizer file is missing or damaged.
    """
    started = time.monotonic()
    tokenizer = checkpoint.load_tokenizer(tokenizer_path)
    translator = identity_translator(tokenizer)
    recipe = {"command": COMMAND, "tokenizer_sha256": storage.sha256(tokenizer_path)}
    checkpoint.save_translator(path, translator, recipe=recipe, licence=storage.read_metadata(tokenizer_path).get("licence"))
    same = returned(translator, all_embeddings(tokenizer))
    made = Made(path, same, tokenizer.vocab_size, time.monotonic() - started)
    log.info("made %s: returns %d of %d tokens, %.1f s", path, made.returned, made.tokens, made.seconds)
    return made


def wanted(tokenizer_path: Path, path: Path) -> bool:
    """Whether a translator should be made at `path`: there is none, or one that was made here of another tokenizer.

    A translator from elsewhere, such as a trained one, stays.
    """
    if not path.exists():
        return True
    try:
        recipe = storage.read_recipe(path)
    except ValueError:  # damaged or foreign: whoever opens it says so
        return False
    return recipe.get("command") == COMMAND and recipe.get("tokenizer_sha256") != storage.sha256(tokenizer_path)
