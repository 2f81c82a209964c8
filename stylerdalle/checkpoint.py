"""Model files: safetensors with metadata, written atomically and checked before use.

Metadata keys (all strings): `format` = "stylerdalle/1", `kind`, `arch` (JSON, the sizes), `base_sha256` (styles: the
translator they belong to), `prompt`, `name`, `recipe` (JSON, how it was made), `licence`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .hypernetwork import HyperConfig, HyperNetwork
from .style import Style
from .texture import Texture
from .tokenizers.dvae import DVAE
from .tokenizers.vqgan import VQGAN
from .translator import Translator, TranslatorConfig

if TYPE_CHECKING:
    from clip.model import CLIP

FORMAT = "stylerdalle/1"
KINDS = ("tokenizer", "translator", "style", "clip", "hypernetwork", "teacher", "pairs")
TOKENIZERS: dict[str, type[DVAE] | type[VQGAN]] = {"dvae": DVAE, "vqgan": VQGAN}  # by arch type
log = logging.getLogger(__name__)


def write(path: str | Path, tensors: Mapping[str, Tensor], kind: str, **metadata: Any) -> None:
    """Write one model file: to a temporary file beside it, flushed, then renamed, so it is never half-written.

    Args:
        metadata: strings as they are; anything else as JSON; None is left out.

    Raises:
        ValueError: an unknown kind.
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not known: {', '.join(KINDS)}")
    path = Path(path)
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items() if v is not None}
    blob = save({k: v.contiguous() for k, v in tensors.items()}, {"format": FORMAT, "kind": kind, **notes})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(blob)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file beside `path`, which takes its place when it is whole and on the disk: a kill, an error or a
    full disk leave what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of one of our files, without its tensors.

    Raises:
        ValueError: the file is missing, damaged or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): copy it again") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a StylerDALLE file (format {metadata.get('format')!r}, need {FORMAT!r}): "
            "foreign weights must be converted first"
        )
    return dict(metadata)


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a file of the given kind.

    Raises:
        ValueError: as read_metadata, or the file is of another kind.
    """
    metadata = read_metadata(path)
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} holds a {metadata.get('kind')}, not a {kind}: choose a {kind} file")
    with torch.inference_mode(False), safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - not a mapping


def shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of one of our files, without reading the tensors."""
    read_metadata(path)
    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping


def sha256(path: str | Path) -> str:
    """Hex digest of a file, remembered while the file stays the same."""
    status = os.stat(path)
    return _sha256(os.path.realpath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _sha256(path: str, mtime: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def misfits(want: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """What is missing, not wanted or of another shape, the first five of it; empty where the two agree."""
    problems = [f"missing {name}" for name in want if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in want]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, need {tuple(want[name].shape)}"
        for name in want
        if name in tensors and tensors[name].shape != want[name].shape
    ]
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: str | Path) -> None:
    """load_state_dict with an error that lists what is missing or not wanted."""
    if problems := misfits(module.state_dict(), tensors):
        raise ValueError(f"{path} does not fit its own description: {problems}")
    module.load_state_dict(tensors)


def _ready(module: nn.Module, path: str | Path, device: torch.device | str, started: float) -> None:
    module.eval().requires_grad_(False).to(device)
    size = sum(p.numel() * p.element_size() for p in module.parameters()) / 1e6
    log.info("loaded %s: %.1f MB on %s in %.2f s", path, size, device, time.monotonic() - started)


def _arch(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    try:
        arch: dict[str, Any] = json.loads(metadata["arch"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} does not state its sizes (metadata key 'arch'): it is damaged, copy it again") from error
    return arch


def _hint(path: str | Path, error: Exception) -> ValueError:
    return ValueError(f"{path} states sizes that cannot be built ({error}): it is damaged or from another version")


def save_tokenizer(path: str | Path, tokenizer: DVAE | VQGAN, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a tokenizer, names as in its authors' package."""
    tensors = {name: tensor.to(dtype) for name, tensor in tokenizer.state_dict().items()}
    write(path, tensors, "tokenizer", arch=tokenizer.arch(), **metadata)


def load_tokenizer(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> DVAE | VQGAN:
    """A tokenizer ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "tokenizer")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):
        try:
            if arch["type"] not in TOKENIZERS:
                raise ValueError(f"type {arch['type']!r} is not known: {', '.join(TOKENIZERS)}")
            tokenizer = TOKENIZERS[arch["type"]].of(arch)
        except (KeyError, TypeError, ValueError) as error:
            raise _hint(path, error) from error
        _fill(tokenizer, tensors, path)
        tokenizer.cast(dtype)
        _ready(tokenizer, path, device, started)
    return tokenizer


def save_translator(path: str | Path, translator: Translator, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a translator, names as in the authors' checkpoints."""
    tensors = {name: tensor.to(dtype) for name, tensor in translator.state_dict().items()}
    write(path, tensors, "translator", arch=asdict(translator.config), **metadata)


def load_translator(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Translator:
    """A translator ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "translator")
    with torch.inference_mode(False):
        try:
            translator = Translator(TranslatorConfig(**_arch(metadata, path)))
        except (TypeError, ValueError) as error:
            raise _hint(path, error) from error
        _fill(translator, tensors, path)
        translator.to(dtype)
        _ready(translator, path, device, started)
    return translator


def save_clip(path: str | Path, model: CLIP, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a CLIP under OpenAI's names; `clip.model.build_model` infers its sizes from the tensors."""
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    arch = {"type": "clip", "image_resolution": model.visual.input_resolution}
    write(path, tensors, "clip", arch=arch, **metadata)


def load_clip(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> CLIP:
    """A CLIP ready to run. Raises ValueError naming what is wrong with the file."""
    from .clip_package import clip

    started = time.monotonic()
    tensors, _ = read(path, "clip")
    with torch.inference_mode(False):
        try:
            model = clip.model.build_model(dict(tensors))
        except (KeyError, RuntimeError, IndexError) as error:
            raise ValueError(f"{path} is not a complete CLIP ({error}): copy it again") from error
        model.float().load_state_dict(tensors)  # build_model leaves fp16, to which it has rounded them
        model.to(dtype)
        _ready(model, path, device, started)
    return model


def save_style(path: str | Path, style: Style, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a style with its prompt, name and the hash of its base translator, and what else it was loaded with."""
    tensors = {name: tensor.detach().cpu().to(dtype) for name, tensor in style.tensors.items()}
    if style.texture:
        tensors |= {"texture.tokens": style.texture.tokens.cpu().to(torch.int16), "texture.weights": style.texture.weights.cpu()}
    kept = {key: value for key, value in style.metadata.items() if key not in ("format", "kind")}
    notes = {"prompt": style.prompt, "name": style.name, "base_sha256": style.base_sha256}
    write(path, tensors, "style", **{**kept, **notes, **metadata})


def load_style(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Style:
    """A style. Whether it fits a translator is checked where the two meet (`Style.check`, `check_base`)."""
    tensors, metadata = read(path, "style")
    shown = [tensors.pop(name) for name in ("texture.tokens", "texture.weights") if name in tensors]
    bad = [key for key in tensors if key.rsplit(".", 1)[-1] not in ("lora_a", "lora_b", "delta")]
    if bad or not tensors:
        raise ValueError(f"{path} is not a style this version can read (unknown tensors {bad[:3]}): update the pack")
    halves = {key.removesuffix(".lora_a") + ".lora_b" for key in tensors if key.endswith(".lora_a")}
    halves |= {key.removesuffix(".lora_b") + ".lora_a" for key in tensors if key.endswith(".lora_b")}
    if lost := sorted(halves - tensors.keys()):
        raise ValueError(f"{path} is damaged ({lost[0]} is missing): copy it again")
    name = metadata.get("name") or Path(path).stem
    try:
        texture = Texture(shown[0].long(), shown[1].float()) if shown else None
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy it again") from error
    style = Style(tensors, metadata.get("prompt", ""), name, metadata.get("base_sha256", ""), metadata, texture)
    return style.to(device, dtype)


def save_hypernetwork(
    path: str | Path, network: HyperNetwork, translator_path: str | Path, clip_path: str | Path, **metadata: Any
) -> None:
    """Write a network for any prompt with its prompts and the hashes of the translator and the CLIP it belongs to."""
    state = network.state_dict()
    tensors = {name: tensor.to(torch.float16 if tensor.is_floating_point() else torch.int16) for name, tensor in state.items()}
    arch = {**asdict(network.config), "shapes": network.shapes}
    hashes = {"base_sha256": sha256(translator_path), "clip_sha256": sha256(clip_path)}
    write(path, tensors, "hypernetwork", arch=arch, prompts=list(network.prompts), **hashes, **metadata)


def load_hypernetwork(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HyperNetwork:
    """A network for any prompt, ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "hypernetwork")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):
        try:
            config = HyperConfig(**{k: v for k, v in arch.items() if k != "shapes"})
            network = HyperNetwork(
                config, arch["shapes"], _prompts(metadata), torch.zeros_like(tensors["textures"], dtype=torch.long)
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _hint(path, error) from error
        _fill(network, tensors, path)
        network.to(dtype)
        _ready(network, path, device, started)
    return network


def _prompts(metadata: dict[str, str]) -> list[str]:
    return [str(text) for text in json.loads(metadata.get("prompts", "[]"))]


def check_base(style: Style, translator_path: str | Path) -> None:
    """Raises ValueError with both hashes where a style was tuned on another translator file."""
    have = sha256(translator_path)
    if style.base_sha256 and style.base_sha256 != have:
        raise ValueError(
            f"the style {style.name!r} was tuned on another translator (sha256 {style.base_sha256[:12]}…) than "
            f"{Path(translator_path).name} (sha256 {have[:12]}…): load the translator it belongs to, or tune it anew"
        )


def check_hypernetwork(path: str | Path, translator_path: str | Path, clip_path: str | Path) -> None:
    """Raises ValueError with both hashes where a network for any prompt was made for another translator or CLIP."""
    metadata = read_metadata(path)
    for what, key, other in (("translator", "base_sha256", translator_path), ("CLIP", "clip_sha256", clip_path)):
        have = sha256(other)
        if metadata.get(key, have) != have:
            raise ValueError(
                f"{path} was made for another {what} (sha256 {metadata[key][:12]}…) than {other} (sha256 {have[:12]}…): "
                "put the one there that it belongs to, or remove it"
            )
