"""Model files and prepared tokens: headers, metadata, shapes and bytes that are changed."""

import json
import os
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tiny
import torch
from fuzz.harness import EDGES, JSON, LAST, damage
from hypothesis import strategies as st
from images.test_decode import saved
from PIL import Image

from stylerdalle import checkpoint, storage
from stylerdalle.features.network import FeatureNetwork, FeatureShape
from stylerdalle.learn.prepare import PrepareConfig, prepare
from stylerdalle.learn.prepared import PreparedTokens
from stylerdalle.translator.style import Style, merged
from stylerdalle.translator.texture import Texture

LOADERS: dict[str, Callable[[Path], Any]] = {
    "tokenizer": checkpoint.load_tokenizer,
    "vqgan": checkpoint.load_tokenizer,
    "translator": checkpoint.load_translator,
    "clip": checkpoint.load_clip,
    "features": checkpoint.load_features,
    "hypernetwork": checkpoint.load_hypernetwork,
    "style": checkpoint.load_style,
    "textured": checkpoint.load_style,
}
TEXTS = st.sampled_from(
    ("", "x", "{", "[" * 3000, "null", "NaN", "1e999", "a\x1b[2Jb", "\x00", "é" * 300, "99999999999999999999")
)
TYPES = st.sampled_from(("F32", "F16", "BF16", "I64", "I32", "I16", "U8", "BOOL", "F64", "F8_E4M3", "F4", "X"))


@cache
def place() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


@cache
def valid() -> dict[str, bytes]:
    """A small file of every kind."""
    folder = tiny.write_bundle(place() / "bundle")
    tiny.write_hypernetwork(folder)
    files = {kind: folder / f"{kind}.safetensors" for kind in ("tokenizer", "translator", "clip", "hypernetwork")}
    files["style"] = folder / "styles" / "ukiyo-e.safetensors"
    files["textured"], files["vqgan"], files["features"] = (place() / f"{name}.safetensors" for name in ("t", "v", "f"))
    texture = Texture(torch.arange(32).view(2, 4, 4), torch.tensor([0.5, 0.5]))
    checkpoint.save_style(files["textured"], tiny.style(translator(), "mosaic", texture=texture))
    checkpoint.save_tokenizer(files["vqgan"], tiny.vqgan())
    checkpoint.save_features(files["features"], FeatureNetwork(FeatureShape((8, 8), (1, 1))))
    return {kind: path.read_bytes() for kind, path in files.items()}


@cache
def translator() -> Any:
    return tiny.translator(tiny.tokenizer())


@cache
def tokens() -> dict[str, bytes]:
    """The files of a small folder of prepared tokens."""
    photos, out = place() / "photos", place() / "tokens"
    photos.mkdir()
    for k in range(3):
        (photos / f"{k}.png").write_bytes(saved(Image.new("RGB", (40, 32), (60 * k, 9, 200)), "PNG"))
    prepare(tiny.tokenizer(), "0" * 64, [photos], out, PrepareConfig(sides=(32,), pictures=False))
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and not path.name.startswith(".")}


@st.composite
def changed(draw: Callable[..., Any], data: bytes) -> bytes:
    """A safetensors file whose header or bytes are changed."""
    way = draw(
        st.sampled_from(("bytes", "metadata", "metadata", "arch", "arch", "arch", "tensor", "tensor", "numbers", "length"))
    )
    if way == "bytes":
        return draw(damage(data))
    (length,) = struct.unpack("<Q", data[:8])
    if way == "length":
        return struct.pack("<Q", draw(st.sampled_from(EDGES))) + data[8:]
    body = data[8 + length :]
    if way == "numbers":
        at = draw(st.integers(0, max(0, len(body) - 2)))
        bad = draw(st.sampled_from((b"\x00\x7e", b"\x00\x7c", b"\xff\x7b", b"\xff\xff")))  # NaN, infinity, the largest, of fp16
        return data[: 8 + length] + body[:at] + bad + body[at + 2 :]
    header = json.loads(data[8 : 8 + length])
    notes = header.get("__metadata__", {})
    if way == "metadata":
        key = draw(st.sampled_from([*notes, "arch", "name", "prompt", "prompts", "words", "texture"]))
        notes[key] = draw(TEXTS | JSON.map(lambda value: json.dumps(value)[:400]))
        if draw(st.booleans()):
            notes.pop(draw(st.sampled_from(list(notes))))
    elif way == "arch":
        arch = json.loads(notes.get("arch", "{}"))
        for _ in range(draw(st.integers(1, 2))):
            arch[draw(st.sampled_from([*arch, "type", "more"]))] = draw(JSON)
        notes["arch"] = json.dumps(arch)
    else:
        name = draw(st.sampled_from([key for key in header if key != "__metadata__"]))
        tensor = header[name]
        match draw(st.integers(0, 4)):
            case 0:
                tensor["dtype"] = draw(TYPES)
            case 1:
                tensor["shape"] = draw(st.lists(st.integers(0, 9) | st.sampled_from(EDGES), max_size=5))
            case 2:
                tensor["shape"] = [*tensor["shape"][::-1]] if draw(st.booleans()) else [1, *tensor["shape"]]
            case 3:
                tensor["data_offsets"] = [draw(st.sampled_from((*EDGES, len(body)))), draw(st.sampled_from((*EDGES, len(body))))]
            case _:
                header[draw(st.sampled_from(("x.lora_a", "texture.tokens", "x", "", "a" * 300)))] = header.pop(name)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def models(draw: Callable[..., Any]) -> str:
    """The target: a file is loaded with finite numbers, and a style can be merged or is refused; or one sentence."""
    if draw(st.integers(0, 5)) == 0:
        return prepared(draw)
    kind = draw(
        st.sampled_from([*LOADERS, "style", "style", "style", "textured", "textured", "features"])
    )  # small ones more often
    path = place() / f"{os.getpid()}.safetensors"
    LAST[0] = data = draw(changed(valid()[kind]))
    path.write_bytes(data)
    storage._metadata.cache_clear()
    found = LOADERS[kind](path)
    if isinstance(found, Style):
        assert all(tensor.isfinite().all() for tensor in found.tensors.values())
        found.check(translator())
        assert all(value.isfinite().all() for value in merged(translator(), [(found, 1.0)]).values())
    else:
        assert all(value.isfinite().all() for value in found.state_dict().values())
    return "right"


def prepared(draw: Callable[..., Any]) -> str:
    """A folder of prepared tokens of which one file is damaged gives its tokens, or one sentence."""
    folder = place() / f"tokens-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    name = draw(st.sampled_from([name for name in tokens() if name != "tokens-00000.json"]))
    for other, data in tokens().items():
        (folder / other).write_bytes(data)
    data = tokens()[name]
    if name == "index.json" and draw(st.booleans()):
        index = json.loads(data)
        index[draw(st.sampled_from([*index]))] = draw(JSON)
        data = json.dumps(index).encode()
    else:
        data = draw(damage(data, 2048))
    (folder / name).write_bytes(data)
    found = PreparedTokens(folder, "0" * 64, (4, 4))
    _, targets = found.batch(0, 4, 0)
    assert targets.shape == (4, 4, 4) and targets.max() < found.vocab_size
    return "right"
