"""Malicious and damaged files: each is refused in one line that names what it asks for, and nothing of it runs.

Every file goes through the command itself. A canary file shows whether a payload ran; an audit hook whether anything in the
process unpickled for real, or started a program.
"""

import functools
import importlib
import io
import operator
import os
import pickle
import pickletools
import random
import runpy
import struct
import subprocess
import sys
import timeit
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from stylerdalle.cli.main import main
from stylerdalle.convert.archive import MAGIC, VERSION

EVENTS: list[str] = []
sys.addaudithook(
    lambda event, args: EVENTS.append(event) if event in ("pickle.find_class", "os.system", "subprocess.Popen") else None
)
CANARY = "canary"  # in the folder that the test runs in
TOUCH = f"touch {CANARY}"
OPEN = f"open({CANARY!r}, 'w')"


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., object], *args: object):
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.args


class State:
    """Pickles as a call, followed by a state to set."""

    def __reduce__(self) -> tuple[object, ...]:
        return subprocess.Popen, (TOUCH,), {"shell": True}


CALLS = {
    "system": Call(os.system, TOUCH),
    "eval": Call(eval, OPEN),
    "exec": Call(exec, OPEN),
    "compile": Call(compile, OPEN, "x", "exec"),
    "open": Call(open, CANARY, "w"),
    "getattr": Call(getattr, [], "append"),
    "setattr": Call(setattr, "x", "y", 1),
    "import": Call(__import__, "os"),
    "import_module": Call(importlib.import_module, "os"),
    "Popen": Call(subprocess.Popen, ["touch", CANARY]),
    "check_output": Call(subprocess.check_output, ["touch", CANARY]),
    "partial": Call(functools.partial, os.system, TOUCH),
    "attrgetter": Call(operator.attrgetter, "system"),
    "methodcaller": Call(operator.methodcaller, "system", TOUCH),
    "run_path": Call(runpy.run_path, "payload.py"),
    "timeit": Call(timeit.repeat, OPEN),
    "remove": Call(os.remove, "file.pkl"),
    "loads": Call(pickle.loads, pickle.dumps(Call(os.system, TOUCH))),
    "torch.load": Call(torch.load, "file.pkl"),
    "hub.load": Call(torch.hub.load, "a/b", "c"),
    "map": Call(map, os.system, [TOUCH]),
    "type": Call(type, "X", (), {}),
    "bytes": Call(bytes, 10**6),
    "state": State(),
}

# names that lie behind what is allowed: (module, attribute)
NAMES = [
    ("dall_e.utils", "os"),
    ("dall_e.utils", "os.system"),
    ("dall_e.utils", "Conv2d.__init__"),
    ("dall_e.utils", "math"),
    ("dall_e", "load_model"),
    ("dall_e", "utils.Conv2d"),
    ("dall_e.encoder", "attr.s"),
    ("dall_e.encoder", "partial"),
    ("dall_e.encoder.os", "System"),
    ("torch.nn", "Module.__init__"),
    ("torch.nn.modules.module", "os"),
    ("torch.nn.modules.module", "torch.os.system"),
    ("torch.nn.modules.module", "Module.__setstate__"),
    ("torch.nn.modules", "container.Sequential"),
    ("torch.nn.modules.container.os", "System"),
    ("torch.nn.modules.container\n", "Sequential"),
    ("torch.nn.modules.container", "Sequential "),
    ("torch.nn.modules.container", "Ｓequential"),
    ("torch", "load"),
    ("torch", "os"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_import_dotted_name"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch.jit._pickle", "__builtins__"),
    ("torch.serialization", "load"),
    ("collections", "OrderedDict.__reduce__"),
    ("collections", "namedtuple"),
    ("__builtin__", "getattr"),
    ("builtins", "set.__class__"),
    ("copyreg", "_reconstructor"),
    ("copy_reg", "__newobj__"),
    ("_codecs", "encode"),
    ("__torch__", "os.system"),
    ("__torch__.os", "system.x"),
    ("os", "system"),
    ("nt", "system"),
    ("posix", "system"),
    ("", "system"),
    ("__main__", "__builtins__"),
    ("numpy.core.multiarray", "_reconstruct"),
]


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(full: str) -> bytes:
    return b"c" + "\n".join(full.rsplit(".", 1)).encode() + b"\n"


def storage(kind: str = "torch.FloatStorage", key: bytes = text("0"), count: bytes = b"K\x04") -> bytes:
    return b"(" + text("storage") + named(kind) + key + text("cpu") + count + b"tQ"


def tensor(offset: bytes = b"K\x00", shape: bytes = b"K\x04", stride: bytes = b"K\x01", of: bytes = b"") -> bytes:
    """A state dict of one tensor, by default in a storage of 4 numbers."""
    args = (of or storage()) + offset + b"(" + shape + b"t(" + stride + b"t"
    return b"}" + text("w") + named("torch._utils._rebuild_tensor_v2") + b"(" + args + b"\x89}tRs."


NAN, MINUS, SEQUENTIAL = (
    b"G" + struct.pack(">d", float("nan")),
    b"J\xff\xff\xff\xff",
    named("torch.nn.modules.container.Sequential"),
)
SELF = "contain themselves|do not match"
DICT = named("collections.OrderedDict")
# what the file is made of after the protocol mark: what the refusal names
PROGRAMS = {
    "INST": (b"(" + text(TOUCH) + b"ios\nsystem\n.", "INST 'os system'"),
    "OBJ": (b"(" + DICT + text(TOUCH) + b"o.", "OBJ"),
    "NEWOBJ_EX": (SEQUENTIAL + b")}\x92.", "NEWOBJ_EX"),
    "NEWOBJ with arguments": (SEQUENTIAL + b"(K\x01t\x81.", "Sequential"),
    "NEWOBJ of a function": (named("torch.device") + b")\x81.", "torch.device"),
    "a class called": (SEQUENTIAL + b")R.", "calls torch.nn.modules.container.Sequential"),
    "OrderedDict called with pairs": (DICT + b"](K\x01K\x02e\x85R.", "calls collections.OrderedDict"),
    "the set of a text": (named("builtins.set") + text("x") + b"\x85R.", "calls builtins.set"),
    "the device of nothing": (named("torch.device") + b")R.", "calls torch.device"),
    "a parameter of no tensor": (named("torch._utils._rebuild_parameter") + b"(]\x89}tR.", "_rebuild_parameter"),
    "BUILD on a list": (b"]}b.", "damaged"),
    "BUILD of slots": (SEQUENTIAL + b")\x81N}\x86b.", "damaged"),
    "BUILD on a class": (SEQUENTIAL + b"}b.", "damaged"),
    "EXT1": (b"\x82\x01.", "EXT1"),
    "EXT2": (b"\x83\x01\x00.", "EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "EXT4"),
    "PERSID": (b"Pstorage\n.", "PERSID"),
    "a persistent module of a function": (b"(" + text("module") + DICT + text("a") + text("b") + b"tQ.", "points outside"),
    "a persistent file": (b"(" + text("file") + text("/etc/passwd") + b"tQ.", "points outside"),
    "DUP": (b"K\x012.", "DUP"),
    "POP": (b"K\x01K\x020.", "POP"),
    "bytes that may be a pickle": (b"B" + struct.pack("<I", 4) + b"abcd.", "BINBYTES"),
    "BINBYTES8 of an exabyte": (b"\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "damaged"),
    "BINUNICODE of 4 GB": (b"X\xff\xff\xff\xffx.", "damaged"),
    "LONG4 of 2 GB": (b"\x8b\xff\xff\xff\x7fx.", "damaged"),
    "LONG of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n.", "damaged"),
    "a memo far away": (b"K\x01r\xff\xff\xff\xffh\x00.", "damaged"),
    "an empty stack": (b".", "damaged"),
    "below the mark": (b"K\x01(s.", "damaged"),
    "a mark that is not there": (b"K\x01t.", "damaged"),
    "more than one result": (b"K\x01K\x02.", "damaged"),
    "no end": (b"}", "damaged"),
    "no such instruction": (b"\xff.", "damaged"),
    "a key that is a tree of tuples": (b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.", "a tuple as a key"),
    "a key that is a list": (b"}]K\x01s.", "a list as a key"),
    "a million instructions": (b"}" * 1_000_000 + b".", "more than 500,000"),
    "a module in itself": (SEQUENTIAL + b")\x81q\x00}" + text("_modules") + b"}" + text("a") + b"h\x00ssb.", SELF),
    "no tensors": (b"}.", "no tensors|do not match"),
    "a number": (b"K\x07.", "no tensors|do not match"),
    "a shape that is not a number": (tensor(shape=NAN), "shape (nan)"),
    "a shape that is a truth": (tensor(shape=b"\x88"), "shape (True)"),
    "a shape that is a text": (tensor(shape=text("4")), "shape ('4')"),
    "a negative shape": (tensor(shape=MINUS), "shape (-1)"),
    "a negative stride": (tensor(stride=MINUS), "a tensor at 0"),
    "a negative offset": (tensor(offset=MINUS), "a tensor at -1"),
    "an offset that is not a number": (tensor(offset=NAN), "a tensor at nan"),
    "an offset out of range": (tensor(offset=b"K\x01"), "in a storage of 4"),
    "a stride out of range": (tensor(stride=b"K\x02"), "in a storage of 4"),
    "an endless tensor of one number": (tensor(shape=b"\x8a\x06\x00\x00\x00\x00\x00\x01", stride=b"K\x00"), "in a storage of 4"),
    "nine dimensions": (tensor(shape=b"K\x01" * 9, stride=b"K\x01" * 9), "shape"),
    "more strides than sides": (tensor(stride=b"K\x01K\x01"), "shape"),
    "a storage of no known kind": (tensor(of=storage("torch.QInt8Storage")), "torch.QInt8Storage"),
    "a storage that is a class": (tensor(of=storage("torch.nn.modules.container.Sequential")), "points outside"),
    "a storage of a negative count": (tensor(of=storage(count=MINUS)), "points outside"),
    "a storage of an exabyte": (tensor(of=storage(count=b"\x8a\x08" + struct.pack("<q", 1 << 58))), "numbers|cut short"),
    "a storage elsewhere": (tensor(of=storage(key=text("../../../etc/passwd"))), "passwd|do not match"),
    "a storage that is a view": (tensor(of=storage()[:-2] + b")tQ"), "points outside"),
    "a storage with two sizes": (storage() + storage(count=b"K\x05") + b"\x86" + tensor(), "twice"),
}  # fmt: skip


def zipped(program: bytes, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in {"data.pkl": program, "byteorder": b"little", "data/0": bytes(16), **members}.items():
            archive.writestr(f"archive/{name}", data)
    return stream.getvalue()


def legacy(program: bytes) -> bytes:
    head = (pickle.dumps(value, 2) for value in (MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True}))
    return b"".join(head) + program + pickle.dumps(["0"], 2) + struct.pack("<q", 4) + bytes(16)


FORMATS = {"zip": zipped, "legacy": legacy}


@pytest.fixture
def refuses(tmp_path, capsys, monkeypatch) -> Callable[[bytes], str]:
    """Convert a file of these bytes, which must be refused in one line -> that line."""
    monkeypatch.chdir(tmp_path)
    Path("payload.py").write_text(OPEN)

    def run(data: bytes) -> str:
        Path("file.pkl").write_bytes(data)
        EVENTS.clear()
        code = main(["convert", "translator", "file.pkl", "--output", "out.safetensors"])
        said = capsys.readouterr().err
        assert not EVENTS
        assert sorted(os.listdir()) == ["file.pkl", "payload.py"]
        assert Path("file.pkl").read_bytes() == data
        assert code == 2, said
        assert said.count("\n") == 1
        assert said.startswith("stylerdalle convert: file.pkl can")
        assert len(said) < 500
        return said

    return run


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_refused_by_its_name(call, form, refuses):
    for protocol in range(6):
        program = pickle.dumps({"state_dict": CALLS[call]}, protocol)
        if protocol < 2 and form == "legacy":
            program = b"\x80\x02" + program
        says = refuses(FORMATS[form](program))
        wants = [f"{module}.{name}" for module, name in names_in(program)] + ["the pickle instruction"] * (protocol < 2)
        assert any(name in says for name in wants), (says, wants)


def names_in(program: bytes) -> list[tuple[str, str]]:
    """The names that a pickle asks for."""
    found, texts = [], []
    for op, arg, _ in pickletools.genops(program):
        if op.name == "GLOBAL":
            found.append(tuple(arg.split(" ", 1)))
        elif op.name == "STACK_GLOBAL":
            found.append((texts[-2], texts[-1]))
        elif isinstance(arg, str):
            texts.append(arg)
    return found


@pytest.mark.parametrize(("module", "attribute"), NAMES, ids=map(".".join, NAMES))
def test_a_name_behind_an_allowed_one_is_refused_by_name(module, attribute, refuses):
    stacked = text(module) + text(attribute) + b"\x93"
    for put in (stacked, *([] if "\n" in module else [f"c{module}\n{attribute}\n".encode()])):
        for form in FORMATS.values():
            says = refuses(form(b"\x80\x04" + put + text(TOUCH) + b"\x85R."))
            assert f"asks for {ascii(f'{module}.{attribute}')[1:-1]}, which" in says or "damaged" in says


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_refused_by_what_it_does(name, form, refuses):
    program, wants = PROGRAMS[name]
    says = refuses(FORMATS[form](b"\x80\x02" + program))
    assert any(want in says for want in wants.split("|")), says


def test_the_programs_are_refused_for_what_is_wrong_with_them_alone(tmp_path, monkeypatch):
    from stylerdalle.convert.archive import read

    monkeypatch.chdir(tmp_path)
    for form in FORMATS.values():
        Path("good.pkl").write_bytes(form(b"\x80\x02" + tensor()))
        assert read("good.pkl")["w"].tolist() == [0, 0, 0, 0]


def compressed(program: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", program)
    return stream.getvalue()


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


GOOD = b"\x80\x02" + tensor()
ZIP = zipped(GOOD)
LIE = b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,16]}}'
SIZE = struct.pack("<II", len(GOOD), len(GOOD))
ARCHIVES = {
    "empty": (b"", "empty"),
    "a text": (b"hello world, no model", "neither"),
    "a web page": (b"<!DOCTYPE html><html>Not found</html>", "web page"),
    "only a zip's mark": (b"PK\x03\x04" + b"x" * 50, "damaged"),
    "a zip that begins late": (b"xx" + ZIP, "neither"),
    "a plain pickle": (pickle.dumps({"a": 1}, 2), "not of a torch model"),
    "a pickle of an older version": (pickle.dumps(MAGIC, 2) + pickle.dumps(1000, 2), "not of a torch model"),
    "a name that climbs out": (zipped(GOOD, **{"../../evil": b"x"}), "outside itself"),
    "a name that climbs out backwards": (zipped(GOOD, **{"..\\evil": b"x"}), "outside itself"),
    "a name from the root": (patched(ZIP, b"archive/byteorder", b"/rchive/byteorder"), "outside itself"),
    "a model that climbs out": (patched(ZIP, b"archive/data.pkl", b"../hive/data.pkl"), "outside itself"),
    "two models": (patched(zipped(GOOD, **{"xxxxx.pkl": GOOD}), b"archive/xxxxx.pkl", b"brchive0/data.pkl"), "2 models"),
    "no model": (patched(ZIP, b"data.pkl", b"date.pkl"), "0 models"),
    "a compressed bomb": (compressed(b"\x80\x02" + b"N" * 50_000_000), "part 'data.pkl'"),
    "sizes of 4 GB": (patched(ZIP, SIZE, b"\xf0\xff\xff\xff" * 2), "damaged|part 'data.pkl'"),
    "sizes that differ": (patched(ZIP, SIZE, struct.pack("<II", len(GOOD), 1 << 30)), "part 'data.pkl'"),
    "a storage that is too short": (zipped(GOOD, **{"data/0": bytes(12)}), "12 bytes, not 4"),
    "a storage that is too long": (zipped(GOOD, **{"data/0": bytes(20)}), "20 bytes, not 4"),
    "big-endian": (zipped(GOOD, byteorder=b"big"), "big-endian"),
    "bytes that changed": (patched(ZIP, bytes(16), b"\x01" * 16), "CRC"),
    "parts before the file's beginning": (patched(ZIP, ZIP[-6:-2], b"\xff\xff\xff\x00"), "cannot be read"),
    "a secret": (patched(ZIP, b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"), "encrypted"),
    "other storages": (patched(legacy(GOOD), pickle.dumps(["0"], 2), pickle.dumps(["1"], 2)), "do not match"),
    "storages twice": (patched(legacy(GOOD), pickle.dumps(["0"], 2), pickle.dumps(["0", "0"], 2)), "do not match"),
    "a storage of another count": (patched(legacy(GOOD), struct.pack("<q", 4), struct.pack("<q", 5)), "cut short"),
    "safetensors of an endless head": (struct.pack("<Q", 1 << 60) + b"{}", "damaged"),
    "safetensors of a lie": (struct.pack("<Q", len(LIE)) + LIE + bytes(16), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_broken_or_lying_archive_is_refused(name, refuses):
    data, wants = ARCHIVES[name]
    says = refuses(data)
    assert any(want in says for want in wants.split("|")), says


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """A real encoder as torch pickles it, in both formats."""
    path, found = tmp_path_factory.mktemp("whole") / "encoder.pkl", {}
    for form in FORMATS:
        torch.save(tiny.tokenizer().encoder, path, _use_new_zipfile_serialization=form == "zip")
        found[form] = path.read_bytes()
    return found


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_refused(form, whole, refuses):
    data = whole[form]
    for cut in random.Random(0).sample(range(1, len(data)), 20):
        refuses(data[:cut])


@pytest.mark.parametrize("form", FORMATS)
def test_random_damage_never_runs_anything(form, whole, refuses):
    """The file is not a translator, so it is refused even where the damage goes unnoticed."""
    draw = random.Random(1)
    spread = 20_000  # of the names and sizes, at the beginning of one format and anywhere in the other
    for _ in range(60):
        data = bytearray(whole[form])
        for _ in range(draw.choice((1, 3, 10))):
            data[draw.randrange(spread if draw.random() < 0.7 else len(data))] = draw.randrange(256)
        refuses(bytes(data))
