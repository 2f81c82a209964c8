"""Bundles: a tokenizer, a translator, a CLIP and styles that belong together, opened on one device."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from . import cache, checkpoint
from .clip.protocol import CLIPModel
from .device import choose_device, choose_dtype
from .features import FeatureNetwork
from .settings import did_you_mean
from .tokenizers.protocol import ImageTokenizer
from .translator.hypernetwork import HyperNetwork
from .translator.model import Translator
from .translator.style import Style

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
FEATURES = WEIGHTS / "mini" / "features.safetensors"  # sees pixels, not tokens: it serves every bundle that has none of its own
EXEMPLARS = WEIGHTS / "mini" / "exemplars.tar"  # works of art; serves the official bundles too
BUNDLE_PARTS = ("tokenizer", "clip", "translator")  # files that every bundle has
OFFICIAL = ("dalle", "rudalle")  # StylerDALLE-1 and -Ru: official tokenizer and CLIP, a translator made of the codebook
Load = Callable[..., Any]  # a function like cache.load: (loader, path, device, dtype) -> loader(path, device, dtype)


@dataclass(frozen=True)
class Bundle:
    """A tokenizer, a translator, a CLIP and styles that belong together, on one device."""

    name: str
    tokenizer: ImageTokenizer
    translator: Translator
    tokenizer_path: Path
    translator_path: Path
    clip_path: Path  # the CLIP is loaded when first needed: a style given by its name works without it
    style_paths: tuple[Path, ...]
    device: torch.device
    dtype: torch.dtype  # of the tokenizer and the translator
    load: Load = cache.load  # opens the files; a host that manages memory passes its own
    default_style: Style | None = None  # the style of an empty prompt, such as one just tuned; None: a prompt is needed
    features_path: Path = FEATURES  # compares styles with exemplars; loaded when first needed
    hypernetwork_path: Path | None = None  # makes a style for any prompt; None: only prompts near the bundle's own styles
    exemplars_path: Path | None = None  # works of art that tuning on a prompt alone compares with (tune/library.py); None: none

    @property
    def files(self) -> list[Path]:
        """All its files."""
        optional = [self.hypernetwork_path] if self.hypernetwork_path else []
        return [self.tokenizer_path, self.translator_path, self.clip_path, self.features_path, *optional, *self.style_paths]

    @property
    def clip(self) -> CLIPModel:
        """The CLIP, always in float32: it is small, and in bf16 cosines differ in the third digit."""
        model: CLIPModel = self.load(checkpoint.load_clip, self.clip_path, self.device, torch.float32)
        return model

    @property
    def features(self) -> FeatureNetwork:
        """The feature network, in float32."""
        network: FeatureNetwork = self.load(checkpoint.load_features, self.features_path, self.device, torch.float32)
        return network

    @property
    def hypernetwork(self) -> HyperNetwork | None:
        """In float32; None where the bundle has none. Raises ValueError if it was made for another translator or CLIP."""
        if self.hypernetwork_path is None:
            return None
        checkpoint.check_hypernetwork(self.hypernetwork_path, self.translator_path, self.clip_path)
        network: HyperNetwork = self.load(checkpoint.load_hypernetwork, self.hypernetwork_path, self.device, torch.float32)
        return network


def load_bundle(
    name_or_path: str | Path = "mini", device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> Bundle:
    """Open a bundle. Models come from the shared cache: a second call loads nothing.

    Args:
        name_or_path: a folder's name under weights/ (`dalle` and `rudalle` once their files are there), or any folder. The
            folder holds tokenizer, translator and clip .safetensors, and optionally styles/, hypernetwork.safetensors,
            features.safetensors and exemplars.tar.
        device, dtype: as choose_device and choose_dtype.

    Raises:
        ValueError: no such bundle, a missing or damaged file, or a device that this machine does not have.
    """
    known = sorted({*OFFICIAL, *(path.parent.name for path in WEIGHTS.glob("*/translator.safetensors"))})
    folder = WEIGHTS / name_or_path if str(name_or_path) in known else Path(name_or_path)
    if str(name_or_path) not in known and not folder.is_dir():
        hint = did_you_mean(str(name_or_path), known)
        raise ValueError(f"bundle {str(name_or_path)!r} is not known{hint}: {', '.join(known)}, or a folder's path")
    paths = {part: folder / f"{part}.safetensors" for part in BUNDLE_PARTS}
    if missing := [part for part, path in paths.items() if not path.is_file()]:
        raise ValueError(incomplete(folder.name, folder, missing))
    styles = sorted((folder / "styles").glob("*.safetensors"))
    network, features = (folder / f"{part}.safetensors" for part in ("hypernetwork", "features"))
    optional = network if network.is_file() else None
    tokenizer, clip, translator = paths.values()
    library = library_file(folder / "exemplars.tar", str(name_or_path))
    opened = open_bundle(folder.name, tokenizer, translator, clip, styles, optional, device, dtype, exemplars=library)
    return replace(opened, features_path=features) if features.is_file() else opened


def library_file(own: Path | None, name: str) -> Path | None:
    """The library of exemplars of a bundle: its own file where there is one, mini's for an official bundle, or None."""
    if own and own.is_file():
        return own
    return EXEMPLARS if name in OFFICIAL and EXEMPLARS.is_file() else None


def tokenizer_file(name_or_path: str | Path) -> Path:
    """The tokenizer's file of a bundle, which may lack its other files. Raises ValueError if it is missing."""
    folder = WEIGHTS / name_or_path if (WEIGHTS / name_or_path).is_dir() or name_or_path in OFFICIAL else Path(name_or_path)
    path = folder / "tokenizer.safetensors"
    if not path.is_file():
        raise ValueError(incomplete(folder.name, folder, ["tokenizer"]))
    return path


def incomplete(name: str, folder: Path, missing: Sequence[str], command: str = "stylerdalle") -> str:
    """An error message for a bundle that lacks some of BUNDLE_PARTS: which, where they go and, if it is an official bundle, how
    to get them.

    Args:
        command: how the user calls the command line.
    """
    files = [f"{part}.safetensors" for part in missing]
    if name not in OFFICIAL:
        return f"bundle {folder} is not complete: {', '.join(files)} missing; put the files there"
    preset = {"dalle": "paper-1", "rudalle": "paper-ru"}[name]
    to = "" if folder == WEIGHTS / name else f" --to {shlex.quote(str(folder))}"
    ways = {
        "tokenizer": f"`{command} fetch {name}{to}`",
        "translator": f"`{command} fetch {name}{to}` makes one of the tokenizer; to train one: `{command} prepare --tokenizer "
        f"tokenizer.safetensors --images PHOTOS --output "
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
    exemplars: Path | None = None,
) -> Bundle:
    """Open a bundle of files in any folders.

    Raises:
        ValueError: as load_bundle, or the translator was made for another tokenizer.
    """
    where = choose_device(device)
    kind = choose_dtype(where, dtype)
    tokens = load(checkpoint.load_tokenizer, tokenizer, where, kind)
    nat = load(checkpoint.load_translator, translator, where, kind)
    if (nat.config.vocab_size, nat.config.embed_dim) != (tokens.vocab_size, tokens.embed_dim):
        raise ValueError(
            f"the translator {translator} has a vocabulary of {nat.config.vocab_size} tokens of {nat.config.embed_dim} numbers, "
            f"the tokenizer {tokenizer} one of {tokens.vocab_size} of {tokens.embed_dim}: they do not belong together"
        )
    files = (tokenizer, translator, clip, tuple(styles))
    return Bundle(name, tokens, nat, *files, where, kind, load, hypernetwork_path=hypernetwork, exemplars_path=exemplars)
