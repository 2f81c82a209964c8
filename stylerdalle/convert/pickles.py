"""Reads the pickles inside model files without running them.

A pickle is a program for a small stack machine, and among its instructions are "import this" and "call that". The machine here
knows only the instructions that models are saved with, and it imports and calls nothing: a class is a `Name`, an object of it a
`Record` of its attributes, a tensor a `TensorRef` to a place in the file. Anything else is refused by name. The standard
library's pickletools splits the bytes into instructions; it runs none of them.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import torch

MOST = 500_000  # instructions; the largest pickle among the official files has some 20,000
DIMS = 8  # of a tensor, at most
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
# classes whose objects are kept as records: of the dVAE's package, of torch's layers, and what a TorchScript file calls its own
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
    """An object of a class of the file: its attributes, no behaviour."""

    cls: Name
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """`count` numbers kept elsewhere in the file under `key`."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class TensorRef:
    """A tensor within a storage, checked to lie inside it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    count: int  # of its numbers


def load(stream: IO[bytes]) -> tuple[Any, dict[str, Storage]]:
    """What the next pickle of a stream describes, and the storages it speaks of. The stream is left behind it.

    Raises:
        ValueError: it is cut short, or wants something that model files do not need, which is named.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}

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
                if isinstance(target, Record):  # a dict's own attributes, as `_metadata` of a state dict, are not needed
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
    for _ in range(MOST):
        try:
            op, arg, _ = next(instructions)
        except StopIteration:
            return
        except (ValueError, OverflowError) as error:
            raise ValueError(f"its pickle is damaged ({str(error)[:80]}): copy it again") from error
        yield op.name, arg
    raise _refused(f"has more than {MOST:,} pickle instructions")


def _refused(does: str) -> ValueError:
    return ValueError(f"it {does}, which no model that is read here needs: it may be unsafe, and nothing of it was run")


def _short(value: Any) -> str:
    """A value of the file for a message: no control characters, not long (nor deep: only texts and numbers are shown)."""
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
        if not isinstance(key, (str, int)):  # a tuple of tuples of tuples takes forever to hash
            raise _refused(f"has a {type(key).__name__} as a key")
        target[key] = value
    return target


def _call(name: str, args: tuple[Any, ...]) -> Any:
    """What the call would give, without calling."""
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
            (Storage() as storage, offset, tuple() as shape, tuple() as stride, *_),
        ):
            return _tensor(storage, offset, shape, stride)
        case "_rebuild_parameter", (TensorRef() as tensor, *_):
            return tensor
        case (("build_intlist" | "build_doublelist" | "build_boollist" | "build_tensorlist"), (list() as items,)):
            return items
        case "restore_type_tag", (value, str()):
            return value
    raise _refused(f"calls {name} with ({', '.join(map(_short, args))[:120]})")


def _tensor(storage: Storage, offset: Any, shape: tuple[Any, ...], stride: tuple[Any, ...]) -> TensorRef:
    numbers = (offset, *shape, *stride)
    # `type`, not `isinstance`: True is an int
    if len(shape) != len(stride) or len(shape) > DIMS or any(type(n) is not int or n < 0 for n in numbers):
        raise _refused(f"has a tensor at {_short(offset)} of shape ({', '.join(map(_short, shape))[:120]})")
    count = 1
    for n in shape:
        count *= n
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise _refused(f"has a tensor of {count} numbers, up to number {last}, in a storage of {storage.count}")
    return TensorRef(storage, offset, shape, stride, count)


def _persistent(parts: tuple[Any, ...], storages: dict[str, Storage]) -> Any:
    """What is kept outside the pickle: a storage, or (in files of torch < 1.6) a module's class with its source, which is not
    looked at."""
    match parts:
        case ("module", Name() as cls, *_) if CLASSES.fullmatch(cls.full):
            return cls
        case ("storage", Name() as kind, str() as key, str(), int() as count, *view) if (
            kind.full in TYPES and count >= 0 and view in ([], [None])
        ):
            storage = Storage(key, TYPES[kind.full], count)
            if storages.setdefault(key, storage) != storage:
                raise _refused(f"has the storage {_short(key)} twice, with different sizes")
            return storage
    raise _refused(f"points outside its pickle to ({', '.join(map(_short, parts))[:120]})")
