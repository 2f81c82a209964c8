"""Prepared tokens (prepare.py) as an endless stream for pretraining, in an order that depends on the seed alone.

In every epoch the shards have a new order. A few of them, a group, are in memory at once, and their samples have a new order too.
So sample p of the stream is a function of (seed, p): of no process, and not of where a run was resumed.

Letters: n and m, tokens a side of a source and of a target.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from bisect import bisect_right
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import numpy as np

from ..settings import shortened
from .prepare import TOKENS_FORMAT
from .shards import members

GROUP = 4  # shards mixed at once: 5000 pictures each at the paper's sizes are 51 MB together; two groups are held
Pair = tuple[np.ndarray, np.ndarray]  # sources and targets, uint16
Plan = tuple[list[np.ndarray], list[int]]  # of an epoch: the shards of each group, and the sample after its last one


class PreparedTokens:
    """The tokens of a folder that `stylerdalle prepare` has written.

    Args:
        sha256: of the tokenizer's file.
        grids: tokens a side that the translator reads and writes. If they differ (upscale 2) they must be those of the two
            sides prepared. If they are the same, the (larger) side may have more tokens, of which windows are taken.

    Raises:
        ValueError: there is no such folder, or it is not finished, belongs to another tokenizer, or has sides that do not fit.
    """

    def __init__(self, folder: str | Path, sha256: str, grids: tuple[int, int]):
        self.folder, self.upscale = Path(folder), grids[1] // grids[0]
        path = self.folder / "index.json"
        if not path.is_file():
            unfinished = next(self.folder.glob("tokens-*.json"), None)
            raise ValueError(
                f"{folder} is not finished: run `stylerdalle prepare` again with the same options"
                if unfinished
                else f"{folder} holds no prepared tokens (no index.json): make them with `stylerdalle prepare`"
            )
        text = path.read_bytes()
        self.sha256 = hashlib.sha256(text).hexdigest()  # identifies the tokens, in a run's options
        try:
            index = json.loads(text)
            if index["format"] != TOKENS_FORMAT:
                raise ValueError(f"format {index['format']!r}, need {TOKENS_FORMAT!r}")
            self.counts = [_whole(shard["count"], 0) for shard in index["shards"]]
            self.names: list[str] = [str(shard["name"]) for shard in index["shards"]]
            sides = [_whole(side) // _whole(index["downsample"]) for side in index["sides"]]  # in tokens
            tokenizer, self.vocab_size = str(index["tokenizer"]), _whole(index["vocab_size"])
            if not (sum(self.counts) and sides) or any(Path(name).name != name for name in self.names):
                raise ValueError("it lists no tokens, or files of another folder")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = shortened(f"{type(error).__name__}: {error}", 200)
            raise ValueError(f"{path} cannot be read ({reason}): prepare the tokens anew") from error
        if tokenizer != sha256:
            raise ValueError(
                f"{folder} holds the tokens of another tokenizer (sha256 {tokenizer[:12]}…), not of the one given "
                f"({sha256[:12]}…): give that one, or prepare the pictures with this one"
            )
        fits = sides == list(grids) if self.upscale == 2 else sides[-1] >= grids[1]
        if not fits:
            pixels = " ".join(str(grid * index["downsample"]) for grid in (grids if self.upscale == 2 else grids[1:]))
            given = " ".join(map(str, index["sides"]))
            raise ValueError(
                f"{folder} has sides {given} px, upscale {self.upscale} and grid {grids[0]} need {pixels}: "
                f"prepare with --sides {pixels}, or give another --grid or --upscale"
            )
        self.sides = (sides[0], sides[-1]) if self.upscale == 2 else (sides[-1], sides[-1])  # of the samples, in tokens
        self._plans: dict[tuple[int, int], Plan] = {}  # by seed and epoch, the last two
        self._held: dict[tuple[int, int, int], Future[Pair]] = {}  # by seed, epoch and group
        self._at: tuple[int, int, int] | None = None
        self._pool = ThreadPoolExecutor(1)

    def __len__(self) -> int:
        return sum(self.counts)

    def batch(self, step: int, size: int, seed: int) -> Pair:
        """Samples step * size to (step + 1) * size of the stream -> sources (size, n, n), targets (size, m, m), uint16.

        With upscale 1 both are the whole (larger) side.
        """
        samples = [self.sample(place, seed) for place in range(step * size, (step + 1) * size)]
        return np.stack([source for source, _ in samples]), np.stack([target for _, target in samples])

    def sample(self, place: int, seed: int) -> Pair:
        """Sample `place` of the stream -> source (n, n), target (m, m)."""
        epoch, place = divmod(place, len(self))
        _, ends = self._plan(seed, epoch)
        number = bisect_right(ends, place)
        sources, targets = self._group(seed, epoch, number, last=ends[number] == len(self))
        place -= ends[number - 1] if number else 0
        return sources[place], targets[place]

    def _plan(self, seed: int, epoch: int) -> Plan:
        plans = self._plans  # one reference: the reading thread may replace it
        if (seed, epoch) not in plans:
            order = np.random.default_rng([seed, epoch]).permutation(len(self.counts))
            groups = [order[i : i + GROUP] for i in range(0, len(order), GROUP)]
            ends = list(accumulate(sum(self.counts[k] for k in group) for group in groups))
            plans = self._plans = {**dict(list(plans.items())[-1:]), (seed, epoch): (groups, ends)}
        return plans[seed, epoch]

    def _group(self, seed: int, epoch: int, number: int, last: bool) -> Pair:
        """The samples of a group, in their order. The next group is read meanwhile; only these two are held."""
        key = (seed, epoch, number)
        if self._at != key:
            wanted = [key, (seed, epoch + 1, 0) if last else (seed, epoch, number + 1)]
            self._held = {k: self._held.get(k) or self._pool.submit(self._read, *k) for k in wanted}
            self._at = key
        return self._held[key].result()

    def _read(self, seed: int, epoch: int, number: int) -> Pair:
        shards = self._plan(seed, epoch)[0][number]
        read = [self._shard(k) for k in shards if self.counts[k]]
        order = np.random.default_rng([seed, epoch, number]).permutation(sum(self.counts[k] for k in shards))
        if not read:
            return np.empty((0, 0, 0)), np.empty((0, 0, 0))
        sources, targets = (np.concatenate([pair[i] for pair in read])[order] for i in (0, 1))
        return sources, targets

    def _shard(self, number: int) -> Pair:
        path = self.folder / self.names[number]
        found: dict[str, list[np.ndarray]] = {"source.npy": [], "target.npy": []}
        sides = dict(zip(found, self.sides, strict=True))
        try:
            with tarfile.open(path) as tar:
                for member in members(tar):
                    _, _, suffix = member.name.partition(".")
                    if suffix in found and (stream := tar.extractfile(member)):
                        found[suffix].append(read_grid(stream.read(), sides[suffix]))
            targets = np.stack(found["target.npy"])
            sources = np.stack(found["source.npy"]) if self.upscale == 2 else targets
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            reason = shortened(error, 200)
            raise ValueError(f"{path} cannot be read ({reason}): delete it and run `stylerdalle prepare` again") from error
        want = tuple((self.counts[number], side, side) for side in self.sides)
        if (sources.shape, targets.shape) != want or max(sources.max(), targets.max()) >= self.vocab_size:
            raise ValueError(f"{path} does not match index.json: delete it and run `stylerdalle prepare` again")
        return sources, targets


def read_grid(data: bytes, side: int) -> np.ndarray:
    """The tokens of an .npy file, uint16 (side, side).

    Raises:
        ValueError: it holds something else. numpy's own reader would first reserve memory for whatever shape it states.
    """
    stream = io.BytesIO(data)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy parses the header as Python, which raises many kinds
        raise ValueError(f"a grid of tokens is damaged ({type(error).__name__})") from error
    if (shape, by_column, dtype) != ((side, side), False, np.dtype(np.uint16)) or len(data) - stream.tell() != 2 * side * side:
        raise ValueError(f"a grid of tokens is {shape} of {dtype}, not ({side}, {side}) of uint16")
    return np.frombuffer(data, np.uint16, offset=stream.tell()).reshape(side, side)


def _whole(value: object, least: int = 1) -> int:
    """A whole number of an index. Raises ValueError for another value."""
    if type(value) is not int or not least <= value < 1 << 62:
        raise ValueError(f"{shortened(value)!r} where a whole number is expected")
    return value
