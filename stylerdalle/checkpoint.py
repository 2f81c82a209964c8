"""Model files: safetensors with metadata, written atomically and checked before use.

Metadata keys (all strings): `format` = "stylerdalle/1", `kind`, `arch` (JSON, the sizes), `base_sha256` (styles: the
translator they belong to), `prompt`, `name`, `recipe` (JSON, how it was made), `licence`.
"""

from __future__ import annotations

import json
import logging
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .clip.protocol import CLIPModel
from .clip.statistics import StatisticsTower, StyleClipShape, build_style_clip
from .features import FeatureNetwork, FeatureShape
from .settings import shortened
from .storage import FILE_FORMAT, FILE_KINDS, read_metadata, replacing, sha256
from .tokenizers import registry
from .tokenizers.protocol import ImageTokenizer
from .translator.hypernetwork import HyperNetwork
from .translator.model import Translator, TranslatorConfig
from .translator.sizes import HyperConfig
from .translator.style import Style
from .translator.texture import Texture

if TYPE_CHECKING:
    from clip.model import CLIP

log = logging.getLogger(__name__)

STATISTICS_CLIP = "statistics-clip"  # type in the `arch` of a CLIP whose image tower reads statistics; others are OpenAI's
WORDS = "token_embedding.weight"  # of a CLIP: a row for each text token
MOST, MOST_WORDS = 1024, 1 << 20  # of a size that no tensor of the file has, such as a number of layers; of text tokens
LONGEST_REASON = 200  # characters
WORDS_USED = "token_embedding.used"  # where not all rows are kept: the tokens that have one


def write(path: str | Path, tensors: Mapping[str, Tensor], kind: str, **metadata: Any) -> None:
    """Write one model file. It is never half-written (storage.replacing).

    Args:
        kind: one of storage.FILE_KINDS.
        metadata: strings are written as they are, other values as JSON; None is left out.

    Raises:
        ValueError: an unknown kind.
        OSError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if kind not in FILE_KINDS:
        raise ValueError(f"kind {kind!r} is not known: {', '.join(FILE_KINDS)}")
    path = Path(path)
    notes = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items() if v is not None}
    notes = {k: v.encode(errors="replace").decode() for k, v in notes.items()}  # names of files may not be Unicode
    blob = save({k: v.contiguous() for k, v in tensors.items()}, {"format": FILE_FORMAT, "kind": kind, **notes})
    end = 8 + int.from_bytes(blob[:8], "little")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.write(sorted_header(blob[8:end]))
        stream.write(memoryview(blob)[end:])


def sorted_header(header: bytes) -> bytes:
    """A safetensors header (JSON) with its length before it, the metadata in order: equal contents give equal files.

    Styles know their translator by the hash of its file, and safetensors writes the metadata in a random order.
    """
    parts = json.loads(header)
    parts = {"__metadata__": dict(sorted(parts.pop("__metadata__").items())), **parts}
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a model file of the given kind, on the CPU, in the dtypes it was written in.

    Raises:
        ValueError: as read_metadata, or the file is of another kind, is damaged, or holds NaN or infinity.
    """
    metadata = read_metadata(path)
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} holds a {shortened(metadata.get('kind'))}, not a {kind}: choose a {kind} file")
    try:
        with torch.inference_mode(False), safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, RuntimeError, TypeError, AttributeError) as error:  # the last two: types torch lacks
        raise ValueError(f"{path} cannot be read ({shortened(error, LONGEST_REASON)}): copy it again") from error
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if not (tensor if tensor.element_size() > 1 else tensor.float()).isfinite().all():
            raise ValueError(
                f"{path} holds NaN or infinite numbers (in {name}): it is damaged or its training failed, replace it"
            )
    return tensors, metadata


def misfits(want: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """How `tensors` differ from `want`: the first five that are missing, unknown or of another shape; empty if they agree."""
    problems = [f"missing {name}" for name in want if name not in tensors]
    problems += [f"unknown {name}" for name in tensors if name not in want]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, need {tuple(want[name].shape)}"
        for name in want
        if name in tensors and tensors[name].shape != want[name].shape
    ]
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    return "; ".join(problems[:5]) + more


def _ready(module: nn.Module | ImageTokenizer, path: str | Path, device: torch.device | str, started: float) -> None:
    """Freeze a model that has been loaded, move it to its device and log it."""
    module.eval()
    module.requires_grad_(False)
    module.to(device)
    size = sum(p.numel() * p.element_size() for p in module.parameters()) / 1e6
    log.info("loaded %s: %.1f MB on %s in %.2f s", path, size, device, time.monotonic() - started)


def _arch(metadata: dict[str, str], path: str | Path) -> dict[str, Any]:
    """The sizes of a model, from its file's metadata."""
    try:
        arch = json.loads(metadata["arch"])
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not state its sizes (metadata key 'arch'): it is damaged, copy it again") from error
    if not isinstance(arch, dict):
        raise _impossible(path, "they are not an object")
    return arch


def _impossible(path: str | Path, reason: object) -> ValueError:
    """An error for a file whose sizes are not possible."""
    return ValueError(
        f"{path} states sizes that cannot be built ({shortened(reason, LONGEST_REASON)}): it is damaged or from another version"
    )


Built = TypeVar("Built", bound="nn.Module | ImageTokenizer")


def _built(build: Callable[[], Built], arch: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | Path) -> Built:
    """build(), a model of the sizes in `arch`, which the tensors of its file fit.

    The model is first built without memory: a file of a few bytes may state sizes of many gigabytes.

    Raises:
        ValueError: the sizes are not possible, or are not those of the tensors.
    """
    most = max([MOST, len(tensors), *(side for tensor in tensors.values() for side in tensor.shape)])
    try:
        if any(size > most for size in _integers(arch)):
            raise ValueError(f"a size is larger than {most}, the most in this file")
        with torch.device("meta"):
            problems = misfits(build().state_dict(), tensors)
        if not problems:
            return build()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, ArithmeticError) as error:
        raise _impossible(path, error) from error
    raise ValueError(f"{path} does not fit its own description: {problems}")


def _integers(value: Any) -> Iterator[int]:
    """The integers in a JSON value."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _integers(inner)


def save_tokenizer(path: str | Path, tokenizer: ImageTokenizer, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a tokenizer. Tensors have the names of its authors' package."""
    tensors = {name: tensor.to(dtype) for name, tensor in tokenizer.state_dict().items()}
    write(path, tensors, "tokenizer", arch=tokenizer.arch(), **metadata)


def load_tokenizer(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> ImageTokenizer:
    """A tokenizer ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "tokenizer")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):
        tokenizer = _built(lambda: registry.build(arch), arch, tensors, path)
        tokenizer.load_state_dict(tensors)
        tokenizer.cast(dtype)
        tokenizer.sha256 = sha256(path)
        _ready(tokenizer, path, device, started)
    return tokenizer


def save_translator(path: str | Path, translator: Translator, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a translator. Tensors have the names of the authors' checkpoints."""
    tensors = {name: tensor.to(dtype) for name, tensor in translator.state_dict().items()}
    write(path, tensors, "translator", arch=asdict(translator.config), **metadata)


def load_translator(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Translator:
    """A translator ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "translator")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):
        translator = _built(lambda: Translator(TranslatorConfig(**arch)), arch, tensors, path)
        translator.load_state_dict(tensors)
        translator.to(dtype)
        _ready(translator, path, device, started)
    return translator


def save_clip(
    path: str | Path, model: CLIPModel, dtype: torch.dtype = torch.float16, used: Tensor | None = None, **metadata: Any
) -> None:
    """Write a CLIP. Tensors have OpenAI's names, from which `clip.model.build_model` infers the sizes; for a CLIP with a
    `StatisticsTower` they are in `arch`.

    Args:
        used: numbers of the text tokens to keep, long (N): those that captions had. The others were never trained; they need no
            room in the file and are zero when it is loaded. None: all are kept.
    """
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    arch: dict[str, Any] = {"type": "clip", "image_resolution": model.visual.input_resolution}
    if isinstance(model.visual, StatisticsTower):
        arch = {"type": STATISTICS_CLIP, **asdict(model.visual.shape)}
    if used is not None:
        whole = tensors[WORDS]
        arch["vocab_size"] = len(whole)
        tensors |= {WORDS: whole[used], WORDS_USED: used.to(torch.int32)}
    write(path, tensors, "clip", arch=arch, **metadata)


def _statistics_clip(arch: dict[str, Any], tensors: dict[str, Tensor], path: str | Path) -> CLIP:
    """An untrained CLIP of the sizes that a file states, which its tensors fit."""
    sizes: dict[str, Any] = {key: value for key, value in arch.items() if key not in ("type", "vocab_size")}
    return _built(lambda: build_style_clip(StyleClipShape(**{**sizes, "read": tuple(sizes["read"])})), sizes, tensors, path)


def _openai_clip(tensors: dict[str, Tensor]) -> CLIP:
    """The CLIP of the sizes that tensors of OpenAI's names have. Raises the package's own errors where they have none."""
    from .clip.package import clip

    return clip.model.build_model(dict(tensors))


def load_clip(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> CLIPModel:
    """A CLIP ready to run: OpenAI's, or one whose image tower reads statistics (clip/statistics.py).

    Raises:
        ValueError: naming what is wrong with the file.
    """
    started = time.monotonic()
    tensors, metadata = read(path, "clip")
    with torch.inference_mode(False):
        arch = _arch(metadata, path) if "arch" in metadata else {}
        try:
            if WORDS_USED in tensors:
                used, rows = tensors.pop(WORDS_USED).long(), tensors[WORDS]
                if not 0 < int(arch["vocab_size"]) <= MOST_WORDS:
                    raise IndexError(f"a vocabulary of {arch['vocab_size']}")
                whole = rows.new_zeros(int(arch["vocab_size"]), rows.shape[1])
                tensors[WORDS] = whole.index_copy_(0, used, rows)
            statistics = arch.get("type") == STATISTICS_CLIP
            model = _statistics_clip(arch, tensors, path) if statistics else _openai_clip(tensors)
        except (KeyError, RuntimeError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
            raise ValueError(f"{path} is not a complete CLIP ({shortened(error, LONGEST_REASON)}): copy it again") from error
        model.float().load_state_dict(tensors)  # again: build_model has rounded them to fp16
        model.to(dtype)
        _ready(model, path, device, started)
    return model


def save_features(path: str | Path, network: FeatureNetwork, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a feature network."""
    tensors = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    write(path, tensors, "features", arch=asdict(network.shape), **metadata)


def load_features(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> FeatureNetwork:
    """A feature network ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "features")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):
        network = _built(lambda: FeatureNetwork(FeatureShape(tuple(arch["widths"]), tuple(arch["depths"]))), arch, tensors, path)
        network.load_state_dict(tensors)
        network.to(dtype)
        _ready(network, path, device, started)
    return network


def save_style(path: str | Path, style: Style, dtype: torch.dtype = torch.float16, **metadata: Any) -> None:
    """Write a style with its prompt, its name, the hash of its base translator and the metadata it was loaded with."""
    tensors = {name: tensor.detach().cpu().to(dtype) for name, tensor in style.tensors.items()}
    if style.texture:
        tensors |= {"texture.tokens": style.texture.tokens.cpu().to(torch.int16), "texture.weights": style.texture.weights.cpu()}
    kept = {key: value for key, value in style.metadata.items() if key not in ("format", "kind")}
    notes = {"prompt": style.prompt, "name": style.name, "base_sha256": style.base_sha256, "blocks": style.blocks or None}
    write(path, tensors, "style", **{**kept, **notes, **metadata})


def holds_style(path: str | Path, style: Style) -> bool:
    """Whether a file holds this style already: the same changes and texture as `save_style` would write, for the same prompt and
    translator. Its name and how it was made do not count."""
    try:
        other = load_style(path)
    except (ValueError, OSError):
        return False
    same = (other.prompt, other.base_sha256, other.blocks) == (style.prompt, style.base_sha256, style.blocks)
    same = same and other.tensors.keys() == style.tensors.keys()
    one, two = style.texture, other.texture
    if not same or (one is None) != (two is None):
        return False
    pairs = [(tensor.detach().cpu().to(torch.float16).float(), other.tensors[name]) for name, tensor in style.tensors.items()]
    if one and two:
        pairs += [(one.tokens.cpu(), two.tokens), (one.weights.cpu(), two.weights)]
    return all(torch.equal(a, b) for a, b in pairs)


def load_style(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Style:
    """A style. `Style.check` and `check_base` tell whether it fits a translator.

    Raises:
        ValueError: the file is not a style or is damaged.
    """
    tensors, metadata = read(path, "style")
    textures = [tensors.pop(name) for name in ("texture.tokens", "texture.weights") if name in tensors]
    bad = [key for key in tensors if key.rsplit(".", 1)[-1] not in ("lora_a", "lora_b", "delta")]
    if bad or not tensors:
        raise ValueError(f"{path} is not a style this version can read (unknown tensors {bad[:3]}): update the pack")
    halves = {key.removesuffix(".lora_a") + ".lora_b" for key in tensors if key.endswith(".lora_a")}
    halves |= {key.removesuffix(".lora_b") + ".lora_a" for key in tensors if key.endswith(".lora_b")}
    if lost := sorted(halves - tensors.keys()):
        raise ValueError(f"{path} is damaged ({lost[0]} is missing): copy it again")
    for key, tensor in tensors.items():
        other = tensors.get(f"{key.removesuffix('.lora_a')}.lora_b")
        if not tensor.is_floating_point() or (
            key.endswith(".lora_a") and other is not None and (tensor.ndim, other.ndim, len(tensor)) != (2, 2, other.shape[-1])
        ):
            raise ValueError(f"{path} is damaged ({key} is {tensor.dtype} of shape {tuple(tensor.shape)}): copy it again")
    name = metadata.get("name") or Path(path).stem
    if any(unicodedata.category(c) == "Cc" for c in name + metadata.get("prompt", "").replace("\n", " ")):
        raise ValueError(f"{path} has control characters in its name or prompt: it is damaged, or made to deceive; do not use it")
    try:
        texture = Texture(textures[0].long(), textures[1].float()) if textures else None
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path} is damaged ({error}): copy it again") from error
    blocks = share_of(metadata.get("blocks", "0"))
    if blocks is None:
        raise ValueError(f"{path} is damaged (blocks is {metadata['blocks'][:40]!r}, not 0 to 1): copy it again")
    style = Style(tensors, metadata.get("prompt", ""), name, metadata.get("base_sha256", ""), metadata, texture, blocks)
    return style.to(device, dtype)


def share_of(text: str) -> float | None:
    """The number in [0, 1] that a text of a file is; None for anything else."""
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 <= share <= 1 else None


def save_hypernetwork(
    path: str | Path, network: HyperNetwork, translator_path: str | Path, clip_path: str | Path, **metadata: Any
) -> None:
    """Write a hypernetwork with its prompts and the hashes of the translator and the CLIP it was made for."""
    state = network.state_dict()
    tensors = {name: tensor.to(torch.float16 if tensor.is_floating_point() else torch.int16) for name, tensor in state.items()}
    arch = {**asdict(network.config), "shapes": network.shapes}
    hashes = {"base_sha256": sha256(translator_path), "clip_sha256": sha256(clip_path)}
    write(path, tensors, "hypernetwork", arch=arch, prompts=list(network.prompts), **hashes, **metadata)


def load_hypernetwork(path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> HyperNetwork:
    """A hypernetwork ready to run. Raises ValueError naming what is wrong with the file."""
    started = time.monotonic()
    tensors, metadata = read(path, "hypernetwork")
    arch = _arch(metadata, path)
    with torch.inference_mode(False):

        def build() -> HyperNetwork:
            textures = torch.zeros(tensors["textures"].shape, dtype=torch.long)
            sizes = {key: value for key, value in arch.items() if key != "shapes"}
            return HyperNetwork(HyperConfig(**sizes), arch["shapes"], _prompts(metadata), textures)

        network = _built(build, arch, tensors, path)
        network.load_state_dict(tensors)
        network.to(dtype)
        _ready(network, path, device, started)
    return network


def _prompts(metadata: dict[str, str]) -> list[str]:
    """The prompts that a hypernetwork was trained on."""
    return [str(text) for text in json.loads(metadata.get("prompts", "[]"))]


def check_base(style: Style, translator_path: str | Path) -> None:
    """Raises ValueError, with both hashes, if the style was tuned on another translator file."""
    have = sha256(translator_path)
    if style.base_sha256 and style.base_sha256 != have:
        raise ValueError(
            f"the style {style.name!r} was tuned on another translator (sha256 {style.base_sha256[:12]}…) than "
            f"{Path(translator_path).name} (sha256 {have[:12]}…): load the translator it belongs to, or tune it anew"
        )


def check_hypernetwork(path: str | Path, translator_path: str | Path, clip_path: str | Path) -> None:
    """Raises ValueError, with both hashes, if the hypernetwork was made for another translator or CLIP."""
    metadata = read_metadata(path)
    for what, key, other in (("translator", "base_sha256", translator_path), ("CLIP", "clip_sha256", clip_path)):
        have = sha256(other)
        if metadata.get(key, have) != have:
            raise ValueError(
                f"{path} was made for another {what} (sha256 {metadata[key][:12]}…) than {other} (sha256 {have[:12]}…): "
                "replace it by the one made for these files, or remove it"
            )
