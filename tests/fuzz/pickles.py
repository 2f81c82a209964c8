"""Model files of others: damaged torch files, and pickles made of any instructions. Nothing of them may run."""

import io
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import tiny
import torch
from convert.test_hostile import ARCHIVES, DICT, NAMES, PROGRAMS, SEQUENTIAL, legacy, named, storage, tensor, text, zipped
from fuzz.harness import damage
from fuzz.models import place
from hypothesis import strategies as st

from stylerdalle.convert.archive import read

RAN: list[str] = []
sys.addaudithook(
    lambda event, args: RAN.append(event) if event in ("pickle.find_class", "os.system", "subprocess.Popen") else None
)

NUMBERS = (b"K\x01", b"K\x04", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"J\xff\xff\xff\xff", b"G" + b"\x7f" * 8, b"N", b"\x88")
STACK = (b"(", b"t", b"}", b"]", b")", b"s", b"u", b"a", b"e", b"\x85", b"\x86", b"\x87", b"q\x00", b"h\x00", b"\x94", b"0", b"2")
OBJECTS = (b"R", b"b", b"\x81", b"Q", b"\x93", b"i", b"o", b"\x92", DICT, SEQUENTIAL, storage(), storage()[:-1], tensor()[:-1])
NAMED = [named(f"torch.{name}") for name in ("_utils._rebuild_tensor_v2", "FloatStorage", "device")] + [named("builtins.set")]
TEXTS = [text(word) for word in ("w", "state_dict", "storage", "__globals__")]
PARTS = st.sampled_from([*NUMBERS, *STACK, *OBJECTS, *NAMED, *TEXTS])


@cache
def valid() -> list[bytes]:
    """A small module, state dict and TorchScript file as torch saves them, in both of its formats."""
    files = []
    model = tiny.translator(tiny.tokenizer())
    for value in (model.state_dict(), {"state_dict": {"w": torch.rand(3, 2)}}, torch.nn.Sequential(torch.nn.Linear(2, 2))):
        for new in (True, False):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=new)
            files.append(stream.getvalue())
    script = place() / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2))), script)
    return [*files, script.read_bytes(), *(data for data, _ in ARCHIVES.values() if len(data) < 10_000)]


@st.composite
def programs(draw: Callable[..., Any]) -> bytes:
    """A pickle: a known bad one, with more or less in it, or any instructions."""
    if draw(st.booleans()):
        program = draw(st.sampled_from([p for p, _ in PROGRAMS.values() if len(p) < 10_000]))
        return draw(damage(b"\x80\x02" + program, 200)) if draw(st.booleans()) else b"\x80\x02" + program
    names = st.sampled_from(NAMES).map(lambda pair: f"c{pair[0]}\n{pair[1]}\n".encode())
    parts = draw(st.lists(PARTS | names | st.binary(min_size=1, max_size=3), max_size=14))
    return b"\x80\x02" + b"".join(parts) + b"."


def pickles(draw: Callable[..., Any]) -> str:
    """The target: finite shapes of the file's own tensors, or one sentence; nothing is imported, called or started."""
    way = draw(st.integers(0, 2))
    if way == 0:
        data = draw(damage(draw(st.sampled_from(valid())), 4096))
    else:
        data = draw(st.sampled_from((zipped, legacy)))(draw(programs()))
    path = place() / f"{os.getpid()}.pt"
    path.write_bytes(data)
    RAN.clear()
    try:
        found = read(path)
    finally:
        assert not RAN, RAN
    assert found and sum(t.numel() * t.element_size() for t in found.values()) <= 2 * len(data)
    return "right"
