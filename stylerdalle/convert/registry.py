"""Foreign weights to our safetensors: official files as published, and research checkpoints. Nothing in them is ever run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint, storage
from . import clip, dvae, translator, vqgan
from .archive import read

# kind: (the kind of file it becomes, how)
KINDS = {
    "dvae": ("tokenizer", dvae.convert),
    "clip": ("clip", clip.convert),
    "vqgan": ("tokenizer", vqgan.convert),
    "translator": ("translator", translator.convert),
}


@dataclass(frozen=True)
class Converted:
    """What one or more foreign files hold, as one of our files would."""

    kind: str
    tensors: dict[str, Tensor]
    arch: dict[str, Any]

    @property
    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.tensors.values())

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Write it, in the precision it came in."""
        checkpoint.write(path, self.tensors, self.kind, arch=self.arch, **metadata)


def convert(kind: str, sources: Sequence[str | Path]) -> Converted:
    """Read foreign weights of a kind (KINDS).

    Raises:
        ValueError: an unknown kind, a file that is damaged, unsafe, or not of that kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not known: {', '.join(KINDS)}")
    ours, take = KINDS[kind]
    read_in = [read(source) for source in sources]
    try:
        return Converted(ours, *take(read_in))
    except ValueError as error:
        raise ValueError(f"{', '.join(map(str, sources))} cannot be converted: {error}") from error


def origin(path: str | Path) -> dict[str, Any]:
    """What a converted file says of a source."""
    path = Path(path)
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": storage.sha256(path)}
