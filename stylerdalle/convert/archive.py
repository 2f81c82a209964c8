"""Tensors of foreign model files by name: safetensors, torch's zip format (TorchScript included) and its format before 1.6.

pickles.py reads the pickles without running them; the numbers are copied from the file's bytes. torch.load(weights_only=True)
would not do: it reads neither whole modules nor TorchScript, and the installed torch may be one in which it was still unsafe
(CVE-2025-32434).
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .pickles import Record, StorageRef, TensorRef, load

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001  # of the format before 1.6
LARGEST_PICKLE = 64 << 20  # bytes in a zip: it holds names and sizes, the numbers are in other parts
MOST_MODULES, LONGEST_NAME = 10_000, 500
DAMAGE = (SafetensorError, zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, RuntimeError, OverflowError)
BIG_ENDIAN = "its numbers are big-endian: save it again on an ordinary machine"


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a model file, by state-dict name.

    Raises:
        ValueError: the file is missing, damaged, of an unknown format, or asks for something that no model needs (the message
            names it).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist: check the path")
    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            if head[:1] == b"<":
                raise ValueError("it is a web page: download the file itself")
            if head[8:9] == b"{":
                return load_file(path)
            if head[:4] == b"PK\x03\x04":
                return _read_zip(file, path.stat().st_size)
            if head[:1] == b"\x80":
                return _read_legacy(file, path.stat().st_size)
        raise ValueError("it is neither safetensors nor a torch file" if head else "it is empty: copy it again")
    except DAMAGE as error:
        raise ValueError(f"{path} cannot be read: it is damaged ({str(error)[:160]}), copy it again") from error
    except OSError as error:  # such as a place before the file's beginning, which the system refuses
        raise ValueError(f"{path} cannot be read ({error.strerror or error}): copy it again, or check its permissions") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_zip(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """A zip of FOLDER/data.pkl and each storage's bytes as FOLDER/data/KEY, none of them compressed."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if bad := next((m.filename for m in members if {"", ".."} & set(re.split(r"[/\\]", m.filename.rstrip("/")))), None):
            raise ValueError(f"it names a file outside itself, {ascii(bad)[:80]}: torch did not make it")
        folders = [m.filename.split("/")[0] for m in members if re.fullmatch(r"[^/]+/data\.pkl", m.filename)]
        if len(folders) != 1:
            raise ValueError(f"it is a zip with {len(folders)} models in it, not a torch file")
        stored = {m.filename: m for m in members if m.compress_type == zipfile.ZIP_STORED}

        def part(name: str, limit: int) -> bytes:
            member = stored.get(f"{folders[0]}/{name}")
            if member is None or member.file_size != member.compress_size or member.file_size > limit:
                raise ValueError(f"its part {ascii(name)[:80]} is missing, or not as torch writes it: copy it again")
            return archive.read(member)

        if f"{folders[0]}/byteorder" in stored and part("byteorder", 16) != b"little":
            raise ValueError(BIG_ENDIAN)
        root, _ = load(io.BytesIO(part("data.pkl", LARGEST_PICKLE)))
        return _tensors(root, lambda storage: part(f"data/{storage.key}", size), size)


def _read_legacy(file: BinaryIO, size: int) -> dict[str, Tensor]:
    """Five pickles (magic number, version, machine, model, the storages' keys), then the count and the bytes of each storage."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        stream: Any = data
        if load(stream)[0] != MAGIC or load(stream)[0] != VERSION:
            raise ValueError("it is a pickle, but not of a torch model")
        machine = load(stream)[0]
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError(BIG_ENDIAN)
        root, storages = load(stream)
        keys = load(stream)[0]
        if not isinstance(keys, list) or {k for k in keys if isinstance(k, str)} != storages.keys() or len(keys) != len(storages):
            raise ValueError("its storages do not match its tensors: copy it again")
        places: dict[str, tuple[int, int]] = {}
        place = data.tell()
        for key in keys:
            length = storages[key].count * storages[key].dtype.itemsize
            if place + 8 + length > size or struct.unpack_from("<q", data, place)[0] != storages[key].count:
                raise ValueError("it is cut short: copy it again")
            places[key] = (place + 8, place + 8 + length)
            place += 8 + length
        return _tensors(root, lambda storage: data[slice(*places[storage.key])], size)


def _tensors(root: Any, read_bytes: Callable[[StorageRef], bytes], size: int) -> dict[str, Tensor]:
    found = _references(root)
    if not found:
        raise ValueError("it has no tensors with names: a state dict or a module is needed")
    if sum(ref.count * ref.storage.dtype.itemsize for ref in found.values()) > 2 * size:  # tied weights share one
        raise ValueError(f"its tensors claim more than its {size} bytes can hold: copy it again")
    tensors = {}
    for name, ref in found.items():
        dtype, raw = ref.storage.dtype, read_bytes(ref.storage)
        if len(raw) != ref.storage.count * dtype.itemsize:
            raise ValueError(f"its storage {ascii(ref.storage.key)[:80]} has {len(raw)} bytes, not {ref.storage.count} numbers")
        numbers = torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        tensors[name] = numbers.as_strided(ref.shape, ref.stride, ref.offset).clone(memory_format=torch.contiguous_format)
    return tensors


def _references(root: Any) -> dict[str, TensorRef]:
    """Tensors by name: of a state dict, of a checkpoint with one under "state_dict", or of a module."""
    if isinstance(root, dict):
        inner = root.get("state_dict", root)
        return {str(k): v for k, v in inner.items() if isinstance(v, TensorRef)} if isinstance(inner, dict) else {}
    found: dict[str, TensorRef] = {}
    todo = [("", root)] if isinstance(root, Record) else []
    for visited, (prefix, module) in enumerate(todo):  # grows as it goes
        if visited > MOST_MODULES or len(prefix) > LONGEST_NAME:
            raise ValueError("its modules contain themselves: it is not a model")
        parts = [module.state.get(key, {}) for key in ("_parameters", "_buffers", "_modules")]
        attributes = [part for part in parts if isinstance(part, dict)] if any(parts) else [module.state]  # else: TorchScript
        for name, value in (item for part in attributes for item in part.items()):
            if isinstance(value, TensorRef):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Record):
                todo.append((f"{prefix}{name}.", value))
    return found
