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
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, StorageRef] = {}

    def pop(kind: type | tuple[type, ...] = object) -> Any:
        if len(stack) <= (marks[-1] if marks else 0) or not isinstance(stack[-1], kind):
            raise ValueError("its pickle is damaged: copy it again")
        return stack.pop()

    def pop_mark() -> list[Any]:
        if not marks:
            raise ValueError("its pickle is damaged: copy it again")
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for op, arg in _instructions(stream):
        match op:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[op])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(arg)
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [pop() for _ in range(0 if op == "EMPTY_TUPLE" else int(op[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                stack.append(tuple(pop_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND" | "APPENDS":
                items = [pop()] if op == "APPEND" else pop_mark()
                stack.append(_all_in(pop(list), items))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM" | "SETITEMS":
                items = [pop(), pop()][::-1] if op == "SETITEM" else pop_mark()
                stack.append(_set_in(pop(dict), items))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if op == "MEMOIZE" else arg] = top = pop()
                stack.append(top)
            case "BINGET" | "LONG_BINGET":
                if arg not in memo:
                    raise ValueError("its pickle is damaged: copy it again")
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_name(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = pop(str), pop(str)
                stack.append(_name(module, attribute))
            case "NEWOBJ":
                args, cls = pop(tuple), pop(Name)
                if args or not CLASSES.fullmatch(cls.full):
                    raise _refused(f"makes {cls.full} of {_short(args)}")
                stack.append(Record(cls))
            case "REDUCE":
                args, called = pop(tuple), pop(Name)
                stack.append(_call(called.full, args))
            case "BUILD":
                state, target = pop(dict), pop((Record, dict))
                if isinstance(target, Record):  # attributes of a dict, such as `_metadata` of a state dict, are not needed
                    target.state.update(state)
                stack.append(target)
            case "BINPERSID":
                stack.append(_persistent(pop(tuple), storages))
            case "STOP":
                value = pop()
                if stack or marks:
                    raise ValueError("its pickle is damaged: copy it again")
                return value, storages
            case _:
                raise _refused(f"has the pickle instruction {op}{'' if arg is None else ' ' + _short(arg)}")
    raise ValueError("its pickle is cut short: copy it again")


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


def _all_in(target: list[Any], items: list[Any]) -> list[Any]:
    target.extend(items)
    return target


def _set_in(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("its pickle is damaged: copy it again")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, (str, int)):  # hashing a deeply nested tuple can take forever
            raise _refused(f"has a {type(key).__name__} as a key")
        target[key] = value
    return target


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
