"""Reads the pickles in model files without running them.

A pickle is a program for a stack machine, with instructions that import and call anything. The machine here knows only the
instructions that model files need, and imports and calls nothing: a class becomes a `Name`, an object a `Record` of its
attributes, a tensor a `TensorRef` to a place in the file. Everything else is refused by name. The standard library's pickletools
splits the bytes into instructions and runs none of them.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import torch

MOST_INSTRUCTIONS = 500_000  # the largest pickle of the official files has about 20,000
MOST_DIMS = 8  # of a tensor
STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# classes whose objects become records: those of the dVAE's package, torch's layers, and a TorchScript file's own
CLASSES = re.compile(
    r"(dall_e\.(encoder|decoder|utils)|torch\.nn\.modules\.[a-z_]+)\.[A-Z]\w*|__torch__(\.\w+)*\.[A-Za-z_]\w*", re.ASCII
)
CALLS = {
    "collections.OrderedDict",
    "builtins.set",
    "__builtin__.set",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.jit._pickle.build_intlist",
    "torch.jit._pickle.build_doublelist",
    "torch.jit._pickle.build_boollist",
    "torch.jit._pickle.build_tensorlist",
    "torch.jit._pickle.restore_type_tag",
}
TYPES = {f"torch.{prefix}{name}": dtype for name, dtype in STORAGES.items() for prefix in ("", "cuda.")}


@dataclass(frozen=True)
class Name:
    """A class or function that the file names. Nothing is imported."""

    full: str


@dataclass(eq=False)
class Record:
    """An object in the file: its class's name and its attributes."""

    cls: Name
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StorageRef:
    """A torch storage: `count` numbers elsewhere in the file, under `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor: a view of a storage, checked to lie within it."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    count: int  # of numbers


def load(stream: IO[bytes]) -> tuple[Any, dict[str, StorageRef]]:
    """Read the next pickle of a stream -> (what it describes, the storages it refers to by key).

    Raises:
        ValueError: it is damaged or cut short, or asks for something that model files do not need (the message names it).
    """
    machine = Machine()
    for op, arg in _instructions(stream):
        if op == "STOP":
            return machine.result(), machine.storages
        machine.step(op, arg)
    raise ValueError("its pickle is cut short: copy it again")


class Machine:
    """The stack machine. Any instruction that does not fit the stack raises ValueError."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, StorageRef] = {}

    def step(self, op: str, arg: Any) -> None:
        """Carry out one instruction, by its name in pickletools."""
        match op:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(arg)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" | "TUPLE":
                self.stack.append(self._tuple(op))
            case "EMPTY_LIST" | "APPEND" | "APPENDS":
                self.stack.append([] if op == "EMPTY_LIST" else self._extended_list(op))
            case "EMPTY_DICT" | "SETITEM" | "SETITEMS":
                self.stack.append({} if op == "EMPTY_DICT" else self._extended_dict(op))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self.memo[len(self.memo) if op == "MEMOIZE" else arg] = top = self.pop()
                self.stack.append(top)
            case "BINGET" | "LONG_BINGET":
                if arg not in self.memo:
                    raise _damaged()
                self.stack.append(self.memo[arg])
            case "GLOBAL" | "STACK_GLOBAL" | "NEWOBJ" | "REDUCE" | "BUILD" | "BINPERSID":
                self.stack.append(self._object(op, arg))
            case _:
                raise _refused(f"has the pickle instruction {op}{'' if arg is None else ' ' + _short(arg)}")

    def result(self) -> Any:
        """The one value that is left at the end."""
        value = self.pop()
        if self.stack or self.marks:
            raise _damaged()
        return value

    def pop(self, kind: type | tuple[type, ...] = object) -> Any:
        """Take the top value, which must lie above the last mark and be of a kind."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise _damaged()
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """Take the last mark and all values above it."""
        if not self.marks:
            raise _damaged()
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _tuple(self, op: str) -> tuple[Any, ...]:
        if op == "TUPLE":
            return tuple(self.pop_mark())
        return tuple(reversed([self.pop() for _ in range(0 if op == "EMPTY_TUPLE" else int(op[-1]))]))

    def _extended_list(self, op: str) -> list[Any]:
        items = [self.pop()] if op == "APPEND" else self.pop_mark()
        target: list[Any] = self.pop(list)
        target.extend(items)
        return target

    def _extended_dict(self, op: str) -> dict[Any, Any]:
        items = [self.pop(), self.pop()][::-1] if op == "SETITEM" else self.pop_mark()
        target: dict[Any, Any] = self.pop(dict)
        if len(items) % 2:
            raise _damaged()
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, int)):  # hashing a deeply nested tuple can take forever
                raise _refused(f"has a {type(key).__name__} as a key")
            target[key] = value
        return target

    def _object(self, op: str, arg: Any) -> Any:
        """A class or function by name, an object, or the result of a call. Nothing is imported or called."""
        match op:
            case "GLOBAL":
                return _name(*arg.split(" ", 1))
            case "STACK_GLOBAL":
                attribute, module = self.pop(str), self.pop(str)
                return _name(module, attribute)
            case "NEWOBJ":
                args, cls = self.pop(tuple), self.pop(Name)
                if args or not CLASSES.fullmatch(cls.full):
                    raise _refused(f"makes {cls.full} of {_short(args)}")
                return Record(cls)
            case "REDUCE":
                args, called = self.pop(tuple), self.pop(Name)
                return _call(called.full, args)
            case "BUILD":
                state, target = self.pop(dict), self.pop((Record, dict))
                if isinstance(target, Record):  # attributes of a dict, such as `_metadata` of a state dict, are not needed
                    target.state.update(state)
                return target
            case _:  # BINPERSID
                return _persistent(self.pop(tuple), self.storages)


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    instructions = pickletools.genops(stream)
    for _ in range(MOST_INSTRUCTIONS):
        try:
            op, arg, _ = next(instructions)
        except StopIteration:
            return
        except (ValueError, OverflowError) as error:
            raise ValueError(f"its pickle is damaged ({str(error)[:80]}): copy it again") from error
        yield op.name, arg
    raise _refused(f"has more than {MOST_INSTRUCTIONS:,} pickle instructions")


def _damaged() -> ValueError:
    return ValueError("its pickle is damaged: copy it again")


def _refused(does: str) -> ValueError:
    return ValueError(f"it {does}, which no supported model needs: it may be unsafe, and nothing of it was run")


def _short(value: Any) -> str:
    """A value of the file for a message: short, without control characters; only texts and numbers are shown."""
    return ascii(value)[:120] if isinstance(value, (str, bytes, int, float)) else type(value).__name__


def _name(module: str, attribute: str = "") -> Name:
    full = f"{module}.{attribute}"
    if "." in attribute or not (full in CALLS or full in TYPES or CLASSES.fullmatch(full)):
        raise _refused(f"asks for {_short(full)[1:-1]}")
    return Name(full)


def _call(name: str, args: tuple[Any, ...]) -> Any:
    """The result of a call, found without calling anything."""
    short = name.removeprefix("torch._utils.").removeprefix("torch.jit._pickle.")
    match short, args:
        case "collections.OrderedDict", ():
            return {}
        case (("builtins.set" | "__builtin__.set"), (list() as items,)):
            return items
        case "torch.device", (str() as device, *_):
            return device
        case (
            ("_rebuild_tensor" | "_rebuild_tensor_v2"),
            (StorageRef() as storage, offset, tuple() as shape, tuple() as stride, *_),
        ):
            return _tensor(storage, offset, shape, stride)
        case "_rebuild_parameter", (TensorRef() as tensor, *_):
            return tensor
        case (("build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"), (list() as items,)):
            return items
        case "restore_type_tag", (value, str()):
            return value
    raise _refused(f"calls {name} with ({', '.join(map(_short, args))[:120]})")


def _tensor(storage: StorageRef, offset: Any, shape: tuple[Any, ...], stride: tuple[Any, ...]) -> TensorRef:
    numbers = (offset, *shape, *stride)
    # `type`, not `isinstance`, which takes True for an int
    if len(shape) != len(stride) or len(shape) > MOST_DIMS or any(type(n) is not int or n < 0 for n in numbers):
        raise _refused(f"has a tensor at {_short(offset)} of shape ({', '.join(map(_short, shape))[:120]})")
    count = 1
    for n in shape:
        count *= n
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise _refused(f"has a tensor of {count} numbers, up to number {last}, in a storage of {storage.count}")
    return TensorRef(storage, offset, shape, stride, count)


def _persistent(parts: tuple[Any, ...], storages: dict[str, StorageRef]) -> Any:
    """An object kept outside the pickle: a storage, or in files of torch < 1.6 a module's class (its source code is ignored)."""
    match parts:
        case ("module", Name() as cls, *_) if CLASSES.fullmatch(cls.full):
            return cls
        case ("storage", Name() as kind, str() as key, str(), int() as count, *view) if (
            kind.full in TYPES and count >= 0 and view in ([], [None])
        ):
            storage = StorageRef(key, TYPES[kind.full], count)
            if storages.setdefault(key, storage) != storage:
                raise _refused(f"has the storage {_short(key)} twice, with different sizes")
            return storage
    raise _refused(f"points outside its pickle to ({', '.join(map(_short, parts))[:120]})")
