"""Bundles: a tokenizer, a translator, a CLIP and the styles that belong to them, opened together on one device."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from . import cache, checkpoint
from .device import choose_device, choose_dtype
from .tokenizers.protocol import ImageTokenizer
from .translator.hypernetwork import HyperNetwork
from .translator.model import Translator
from .translator.style import Style

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
PARTS = ("tokenizer", "clip", "translator")
OFFICIAL = ("dalle", "rudalle")  # StylerDALLE-1 and -Ru: of weights that others published, and a translator that nobody did
Load = Callable[..., Any]  # (loader, path, device, dtype) -> what the loader gives, as `cache.load`


@dataclass(frozen=True)
class Bundle:
    """A tokenizer, a translator, a CLIP and the styles that belong to them, on one device."""

    name: str
    tokenizer: ImageTokenizer
    translator: Translator
    tokenizer_path: Path
    translator_path: Path
    clip_path: Path  # the CLIP is loaded when first needed: a named style works without it
    style_paths: tuple[Path, ...]
    device: torch.device
    dtype: torch.dtype
    load: Load = cache.load  # how its files are opened: a host that manages memory brings its own
    default_style: Style | None = None  # what an empty prompt means, where there is one: a translator just tuned
    hypernetwork_path: Path | None = None  # of the network that makes a style of any prompt, where there is one

    @property
    def clip(self) -> torch.nn.Module:
        # float32 always: the model is small, and cosines differ in the third digit in bf16
        model: torch.nn.Module = self.load(checkpoint.load_clip, self.clip_path, self.device, torch.float32)
        return model

    @property
    def hypernetwork(self) -> HyperNetwork | None:
        if self.hypernetwork_path is None:
            return None
        checkpoint.check_hypernetwork(self.hypernetwork_path, self.translator_path, self.clip_path)
        network: HyperNetwork = self.load(checkpoint.load_hypernetwork, self.hypernetwork_path, self.device, torch.float32)
        return network


def load_bundle(
    name_or_path: str | Path = "mini", device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> Bundle:
    """Open a bundle: a name under weights/ (`dalle` and `rudalle` once their files are there), or a folder with tokenizer,
    translator and clip .safetensors, styles/ and, for any prompt, hypernetwork.safetensors.

    Models come from the shared cache: a second call loads nothing.

    Raises:
        ValueError: no such bundle, an incomplete one, a damaged file, or a device this machine does not have.
    """
    known = sorted({*OFFICIAL, *(path.parent.name for path in WEIGHTS.glob("*/translator.safetensors"))})
    folder = WEIGHTS / name_or_path if str(name_or_path) in known else Path(name_or_path)
    if str(name_or_path) not in known and not folder.is_dir():
        raise ValueError(f"bundle {str(name_or_path)!r} is not known: {', '.join(known)}, or a folder's path")
    paths = {part: folder / f"{part}.safetensors" for part in PARTS}
    if missing := [part for part, path in paths.items() if not path.is_file()]:
        raise ValueError(incomplete(folder.name, folder, missing))
    styles = sorted((folder / "styles").glob("*.safetensors"))
    network = folder / "hypernetwork.safetensors"
    others = {"styles": styles, "hypernetwork": network if network.is_file() else None}
    return open_bundle(folder.name, **paths, **others, device=device, dtype=dtype)  # type: ignore[arg-type]


def tokenizer_file(name_or_path: str | Path) -> Path:
    """The tokenizer of a bundle that need not have anything else yet. Raises ValueError where it has none."""
    folder = WEIGHTS / name_or_path if (WEIGHTS / name_or_path).is_dir() or name_or_path in OFFICIAL else Path(name_or_path)
    path = folder / "tokenizer.safetensors"
    if not path.is_file():
        raise ValueError(incomplete(folder.name, folder, ["tokenizer"]))
    return path


def incomplete(name: str, folder: Path, missing: Sequence[str], command: str = "stylerdalle") -> str:
    """What to say of a bundle without some of its PARTS: which, where they go, and, of an official one, what brings them."""
    files = [f"{part}.safetensors" for part in missing]
    if name not in OFFICIAL:
        return f"bundle {folder} is not complete: {', '.join(files)} missing; put the files there"
    preset = {"dalle": "paper-1", "rudalle": "paper-ru"}[name]
    to = "" if folder == WEIGHTS / name else f" --to {shlex.quote(str(folder))}"
    ways = {
        "tokenizer": f"`{command} fetch {name}{to}`",
        "translator": f"none was published: `{command} prepare --tokenizer tokenizer.safetensors --images PHOTOS --output "
        f"TOKENS` and `{command} pretrain --preset {preset} --tokenizer tokenizer.safetensors --tokens TOKENS --output "
        f"translator.safetensors`, or `{command} convert translator CHECKPOINT --output translator.safetensors`",
        "clip": f"`{command} fetch clip{to}`",
    }
    wanted = ", ".join(f"{file} ({ways[part]})" for part, file in zip(missing, files, strict=True))
    return f"bundle {name!r} is not complete: {folder} needs {wanted}"


def open_bundle(
    name: str,
    tokenizer: Path,
    translator: Path,
    clip: Path,
    styles: Sequence[Path] = (),
    hypernetwork: Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    load: Load = cache.load,
) -> Bundle:
    """A bundle of files that may lie anywhere. Raises ValueError as load_bundle, and where the two models do not fit."""
    where = choose_device(device)
    kind = choose_dtype(where, dtype)
    tokens = load(checkpoint.load_tokenizer, tokenizer, where, kind)
    nat = load(checkpoint.load_translator, translator, where, kind)
    if (nat.config.vocab_size, nat.config.embed_dim) != (tokens.vocab_size, tokens.embed_dim):
        raise ValueError(
            f"the translator {translator} speaks {nat.config.vocab_size} tokens of {nat.config.embed_dim} numbers, "
            f"the tokenizer {tokenizer} {tokens.vocab_size} of {tokens.embed_dim}: they do not belong together"
        )
    return Bundle(
        name, tokens, nat, tokenizer, translator, clip, tuple(styles), where, kind, load, hypernetwork_path=hypernetwork
    )
