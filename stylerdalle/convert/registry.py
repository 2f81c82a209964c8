"""Converters of foreign weights, by name. They read tensors only: no code of a foreign file is ever run.

A new converter is a file with a function `convert(sources)` and a line in CONVERTERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import storage

if TYPE_CHECKING:
    from torch import Tensor

    StateDict = dict[str, Tensor]  # by state-dict name


@dataclass(frozen=True)
class Converter:
    """One kind of foreign weights.

    Attributes:
        kind: of the model file they become (storage.FILE_KINDS).
        module: beside this one, imported when it is used; its `convert` turns the tensors of each source into (tensors of the
            model file, its `arch`), and raises ValueError for other weights.
    """

    kind: str
    module: str

    def convert(self, sources: list[StateDict]) -> tuple[StateDict, dict[str, Any]]:
        found: tuple[StateDict, dict[str, Any]] = import_module(self.module, __package__).convert(sources)
        return found


CONVERTERS = {
    "dvae": Converter("tokenizer", ".dvae"),
    "clip": Converter("clip", ".clip"),
    "vqgan": Converter("tokenizer", ".vqgan"),
    "translator": Converter("translator", ".translator"),
}


@dataclass(frozen=True)
class Converted:
    """Converted weights: the contents of a model file that is not yet written."""

    kind: str
    tensors: StateDict
    arch: dict[str, Any]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write the model file, in the precision of the sources."""
        from .. import checkpoint

        checkpoint.write(path, self.tensors, self.kind, arch=self.arch, **metadata)


def convert(kind: str, sources: Sequence[str | Path]) -> Converted:
    """Read foreign weights; `kind` is a name in CONVERTERS.

    Raises:
        ValueError: an unknown kind, or a file that is damaged, unsafe, or not of that kind.
    """
    from .archive import read

    if kind not in CONVERTERS:
        raise ValueError(f"kind {kind!r} is not known: {', '.join(CONVERTERS)}")
    converter = CONVERTERS[kind]
    tensors = [read(source) for source in sources]
    try:
        return Converted(converter.kind, *converter.convert(tensors))
    except ValueError as error:
        raise ValueError(f"{', '.join(map(str, sources))} cannot be converted: {error}") from error


def origin(path: str | Path) -> dict[str, Any]:
    """A source file as it is recorded in the metadata of the converted file."""
    path = Path(path)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": storage.sha256(path)}
