"""Prepared tokens: shards of pictures' tokens and captions, so that a long pretraining encodes each picture once.

A shard is a WebDataset tar (tokens-00000.tar and so on) of
- KEY.source.npy and KEY.target.npy: uint16 tokens of the smaller and the larger side, 16 x 16 and 32 x 32 at the paper's 128 and
  256 px; with one side, KEY.target.npy alone;
- KEY.webp: the larger crop, for tuning;
- KEY.json: captions, and what else is known of the picture.
KEY is the picture's number in the inputs. Beside a shard, tokens-00000.json holds its options and a hash of its inputs. When all
shards are written, index.json lists them.

Several processes share the work: shard i belongs to process i % world. In memory are one shard's names and one batch.

    torchrun --nproc-per-node 8 -m stylerdalle prepare --bundle dalle --images train2014/ --captions FILE --output tokens/
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..images.decode import decode
from ..settings import shortened
from ..storage import Lock, composed, replacing, same_file, temporary_name
from ..tokenizers.protocol import ImageTokenizer
from .crops import centre_crop, to_tensor
from .shards import encoded, write_shard
from .sources import Entry, entries, note_of, read

TOKENS_FORMAT = "stylerdalle/tokens/1"
CARRIED = ("style", "content", "kind", "source", "licence")  # of an input's KEY.json
Crops = tuple[dict[str, Any], list[Image.Image]]  # a picture's note, and its crops, one a side
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareConfig:
    """Options of prepared tokens."""

    sides: tuple[int, ...] = (128, 256)  # of the crops, px: source and target (paper), or one side for a same-grid translator
    per_shard: int = 5000  # pictures
    pictures: bool = True  # keep the larger crop, which tuning needs

    def check(self, tokenizer: ImageTokenizer) -> None:
        """Check that a translator of this tokenizer can use the sides.

        Raises:
            ValueError: it cannot, or the vocabulary does not fit into 16 bits.
        """
        unit, given = tokenizer.downsample, " ".join(map(str, self.sides))
        if len(self.sides) not in (1, 2) or min(self.sides) < unit or any(side % unit for side in self.sides):
            raise ValueError(f"sides {given}: give one side or two, multiples of {unit} px, one token of this tokenizer")
        if len(self.sides) == 2 and self.sides[1] != 2 * self.sides[0]:
            raise ValueError(f"sides {given}: the second must be twice the first, as in 128 256; or give one side")
        if tokenizer.vocab_size > 1 << 16:
            raise ValueError(f"a vocabulary of {tokenizer.vocab_size} tokens does not fit into 16 bits: at most {1 << 16} do")


def prepare(
    tokenizer: ImageTokenizer,
    sha256: str,
    paths: Sequence[str | Path],
    output: Path,
    config: PrepareConfig,
    captions: Path | None = None,
    batch: int = 8,
    share: tuple[int, int] = (0, 1),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the shards of this process that are missing -> the content of index.json, and "missing": how many shards other
    processes have not yet written.

    Args:
        sha256: of the tokenizer's file.
        paths: pictures, folders of them, or shards.
        captions: an annotation file in COCO's form; its pictures are matched by file name.
        batch: pictures that the tokenizer encodes at once.
        share: (rank of this process, number of processes).
        progress: called with (pictures done, all pictures) of the current shard; may raise to cancel.

    Raises:
        ValueError: impossible sides, unreadable inputs, existing shards of other pictures or options, or no readable picture.
    """
    config.check(tokenizer)
    options = {
        "tokenizer": sha256,
        "vocab_size": tokenizer.vocab_size,
        "downsample": tokenizer.downsample,
        **asdict(config),
        "sides": list(config.sides),
        "dtype": str(tokenizer.dtype).removeprefix("torch."),
        "captions": hashlib.sha256(captions.read_bytes()).hexdigest() if captions else None,
    }
    annotated = read_captions(captions) if captions else {}
    rank, world = share
    with held(output, paths, rank):
        total, stream, first = 0, entries(paths), True
        while group := list(islice(stream, config.per_shard)):
            path = shard_path(output, total)
            made = {**options, "inputs": fingerprint(group)}
            if not finished(path, made, group) and total % world == rank:
                for left in output.glob(temporary_name(path.name, "*")):  # temporary files of a process that was killed
                    left.unlink(missing_ok=True)
                numbers = _write_tokens(tokenizer, group, path, config, annotated, batch, total * config.per_shard, progress)
                if annotated and first and not numbers["matched"]:
                    path.unlink()
                    raise ValueError(
                        f"none of the {len(group)} pictures of {path.name} is named in {captions}: give the right file"
                    )
                _write_json(path.with_suffix(".json"), {**made, **numbers})
                first = False
            total += 1
        if more := [p for p in output.glob("tokens-*.json") if int(p.stem.split("-")[1]) >= total]:
            raise ValueError(f"{output} has {total + len(more)} shards, and these pictures make {total}: give another --output")
        return _write_index(output, total, options)


@contextmanager
def held(output: Path, paths: Sequence[str | Path], rank: int) -> Iterator[None]:
    """Keep other processes of this rank out of the output folder.

    Raises:
        ValueError: one works there, or the shards would lie among the inputs.
    """
    if same_file(output, paths) or any(same_file(path, output.glob("tokens-*.tar")) for path in paths):
        raise ValueError(f"{output} is one of the inputs: its shards would be taken for pictures, give another --output")
    output.mkdir(parents=True, exist_ok=True)
    lock = Lock(output / f".prepare-{rank}.lock")
    if not lock.take():
        raise ValueError(f"another stylerdalle prepare writes to {output}: wait for it, or give another --output")
    try:
        yield
    finally:
        lock.release()


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard."""
    return folder / f"tokens-{number:05d}.tar"


def fingerprint(group: Sequence[Entry]) -> str:
    """SHA-256 of the names and sizes of a shard's inputs."""
    digest = hashlib.sha256()
    for entry in group:
        digest.update(f"{entry.path.name if entry.start >= 0 else ''}\t{entry.name}\t{entry.size}\n".encode())
    return digest.hexdigest()


def times(group: Sequence[Entry]) -> str:
    """SHA-256 of when the files of a shard's inputs were changed."""
    stamps = {entry.path: entry.path.stat().st_mtime_ns for entry in group}
    return hashlib.sha256(" ".join(map(str, stamps.values())).encode()).hexdigest()


def contents(group: Sequence[Entry]) -> str:
    """SHA-256 of a shard's inputs themselves, which are read for it."""
    digest = hashlib.sha256()
    for _, data, _ in read(group):
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def finished(path: Path, made: Mapping[str, Any], group: Sequence[Entry]) -> bool:
    """Whether a shard is written.

    Names and sizes of its inputs are compared. Where their files have been changed since, their contents are, too: a copied
    folder is the same, a picture that was edited is not.

    Args:
        made: its options and the fingerprint of its inputs.
        group: its inputs.

    Raises:
        ValueError: it was made with other options or of other pictures.
    """
    note = path.with_suffix(".json")
    if not (path.is_file() and note.is_file()):
        return False
    before = json.loads(note.read_bytes())
    differ = [key for key in made if before.get(key) != made[key]]
    if differ == ["inputs"]:
        raise ValueError(f"{path} was made of other pictures: give the same --images, or another --output")
    if differ:
        was = ", ".join(f"{key} {before.get(key)} (now {made[key]})" for key in differ if key != "inputs")
        raise ValueError(f"{path} was made with {was}: give the same options, or another --output")
    now = times(group)
    if "contents" in before and before.get("times") != now:  # shards of earlier versions do not tell
        if contents(group) != before["contents"]:
            raise ValueError(f"{path} was made of pictures that have changed since: give another --output, or delete it")
        _write_json(note, {**before, "times": now})
    return True


def read_captions(path: Path) -> dict[str, list[str]]:
    """{file name: captions} of an annotation file such as COCO's captions_train2014.json.

    Raises:
        ValueError: it is not such a file.
    """
    try:
        notes = json.loads(path.read_bytes())
        names = {image["id"]: composed(image["file_name"]) for image in notes["images"]}
        found: dict[str, list[str]] = {name: [] for name in names.values()}
        for note in notes["annotations"]:
            if not isinstance(note["caption"], str):
                raise TypeError(f"the caption {shortened(note['caption'])!r} is no text")
            found[names[note["image_id"]]].append(note["caption"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not an annotation file in COCO's form ({type(error).__name__}: {shortened(error)}): it needs "
            "images [{id, file_name}] and annotations [{image_id, caption}]"
        ) from error
    return found


def plain(caption: str) -> str:
    """A caption as the paper writes it: in lower case, without a full stop."""
    return " ".join(caption.split()).rstrip(".").rstrip().lower()


def _write_tokens(
    tokenizer: ImageTokenizer,
    group: Sequence[Entry],
    path: Path,
    config: PrepareConfig,
    captions: Mapping[str, list[str]],
    batch: int,
    start: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Write one shard -> its numbers: count, damaged (names), captioned, matched (pictures that `captions` names).

    Args:
        start: number of the shard's first picture.
    """
    numbers: dict[str, Any] = {"count": 0, "damaged": [], "captioned": 0, "matched": 0, "times": times(group)}
    digest, started = hashlib.sha256(), time.monotonic()

    def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
        todo: list[tuple[str, dict[str, Any], list[Image.Image]]] = []
        for place, (entry, result) in enumerate(_crops(group, config.sides, digest)):
            try:
                note, crops = result.result()
            except (ValueError, TypeError) as error:
                log.warning("%s is left out: %s", _name(entry), error)
                numbers["damaged"].append(_name(entry))
            else:
                given = captions.get(composed(Path(entry.name).name))
                numbers["matched"] += given is not None
                note = {**note, "caption": [plain(text) for text in given or note["caption"]], "file": _name(entry)}
                numbers["captioned"] += bool(note["caption"])
                todo.append((f"{start + place:09d}", note, crops))
            if len(todo) == batch:
                yield from _encoded(tokenizer, todo, config)
                todo = []
            progress(place + 1, len(group))
        if todo:
            yield from _encoded(tokenizer, todo, config)

    numbers["count"] = write_shard(path, samples())
    numbers["contents"] = digest.hexdigest()
    log.info("%s: %d pictures, %.1f a second", path, numbers["count"], len(group) / (time.monotonic() - started))
    return numbers


def _name(entry: Entry) -> str:
    """The picture's name, for messages."""
    return f"{entry.path.name}/{entry.name}" if entry.start >= 0 else entry.name


def _crops(group: Sequence[Entry], sides: Sequence[int], digest: Any, ahead: int = 32) -> Iterator[tuple[Entry, Future[Crops]]]:
    """The note and the crops of each picture, decoded in threads, up to `ahead` pictures before they are needed. `digest` is
    updated as in `contents`."""

    def cut(name: str, data: bytes, text: bytes) -> Crops:
        decoded = decode(data, name)
        for remark in decoded.remarks:
            log.warning("%s: %s", name, remark)
        image = decoded.over_white()
        note = note_of(text)
        return {k: note[k] for k in ("caption", *CARRIED) if k in note}, [centre_crop(image, side) for side in sides]

    with ThreadPoolExecutor(4) as pool:
        waiting: deque[tuple[Entry, Future[Crops]]] = deque()
        for entry, data, text in read(group):
            digest.update(hashlib.sha256(data).digest())
            waiting.append((entry, pool.submit(cut, _name(entry), data, text)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        yield from waiting


@torch.inference_mode()
def _encoded(
    tokenizer: ImageTokenizer, todo: Sequence[tuple[str, dict[str, Any], list[Image.Image]]], config: PrepareConfig
) -> list[tuple[str, dict[str, bytes]]]:
    """The samples (key, {suffix: bytes}) of a batch: pictures with their key, note and crops."""
    device = next(tokenizer.parameters()).device
    names = ("source.npy", "target.npy")[-len(config.sides) :]
    tokens = [
        tokenizer.encode(to_tensor([np.asarray(crops[k]) for _, _, crops in todo]).to(device)).cpu().numpy().astype(np.uint16)
        for k in range(len(config.sides))
    ]
    out = []
    for i, (key, note, crops) in enumerate(todo):
        files = {name: _npy(grid[i]) for name, grid in zip(names, tokens, strict=True)}
        if config.pictures:
            files["webp"] = encoded(crops[-1])
        out.append((key, {**files, "json": json.dumps(note).encode()}))
    return out


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as stream:
        stream.write(json.dumps(value, indent=1).encode())


def _write_index(output: Path, total: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write index.json if all shards are there -> its content, and how many shards are missing."""
    shards, captioned = [], 0
    for number in range(total):
        path = shard_path(output, number)
        note = path.with_suffix(".json")
        if path.is_file() and note.is_file():
            made = json.loads(note.read_bytes())
            captioned += made["captioned"]
            shards.append({"name": path.name, "count": made["count"], "damaged": len(made["damaged"]), "inputs": made["inputs"]})
    index = {
        "format": TOKENS_FORMAT,
        **options,
        "count": sum(shard["count"] for shard in shards),
        "damaged": sum(shard["damaged"] for shard in shards),
        "captioned": captioned,
        "shards": shards,
    }
    if len(shards) == total:
        if not index["count"]:
            raise ValueError(f"none of the {index['damaged']} pictures can be read: give undamaged pictures")
        _write_json(output / "index.json", index)
    return {**index, "missing": total - len(shards)}
