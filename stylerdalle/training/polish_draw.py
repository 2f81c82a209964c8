"""What a step of the polish (polish.py) draws by chance: small tensors on the CPU, of equal shapes in every step.

Letters: S styles with works, B pictures of each, P windows of pairs of each; n x n tokens of a window; K planes of noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..images.lines import random_moves
from ..learn.schedule import hidden_places, in_turn
from ..translator.noise import noise_at
from .coded import Coded
from .joint import JointConfig
from .polish_config import PolishConfig


class Windows(NamedTuple):
    """Windows of pairs of some styles."""

    style: Tensor  # which, long (S)
    content: Tensor  # long (S, P, n*n)
    target: Tensor  # the same
    noise: Tensor  # (S, P, n*n, K)
    places: Tensor  # on the style's texture, long (S, P, 2)


class Drawn(NamedTuple):
    """What the pictures of a step need beside its windows of pairs."""

    contents: Tensor  # tokens of crops of photos, long (S*B, side, side)
    photos: Tensor  # which crops: rows of all crops, long (S*B)
    moves: Tensor  # of marks (images/lines.py), (S*B, 2, rows, columns)
    noise: Tensor  # (S*B, side, side, K)
    places: Tensor  # of the pictures on their styles' textures, long (S*B, 2)
    reals: Tensor  # crops of works of the styles, B each, then of photos: rows of all crops, long (S*B + photos)
    cuts: Tensor  # rows and columns of the parts that are seen of made, real and fake pictures, long (3, 2, size)
    shown: Tensor  # which statistics the recogniser sees, (S*B, D)
    base: Tensor  # windows of the base translator, long (C, n*n)
    base_hidden: Tensor  # which of their tokens it does not see, bool (C, n*n)
    hard: Tensor  # 1: every place shows its likeliest token alone, 0: a mixture; a scalar


class PolishBatch(NamedTuple):
    """Of a step."""

    names: list[str]  # styles with works; and last, if `kept`, one without
    windows: Windows
    drawn: Drawn
    kept: Windows | None

    def tensors(self) -> list[Tensor]:
        """All of them; `parts_of` is the way back."""
        return [*self.windows, *self.drawn, *(self.kept or ())]


def parts_of(tensors: Sequence[Tensor]) -> tuple[Windows, Drawn, Windows | None]:
    """What `PolishBatch.tensors` laid in a row."""
    first, last = len(Windows._fields), len(Windows._fields) + len(Drawn._fields)
    return Windows(*tensors[:first]), Drawn(*tensors[first:last]), Windows(*tensors[last:]) if tensors[last:] else None


class Draws:
    """Draws batches.

    Args:
        pairs: by style.
        rows: of each style with works, the first and last of its crops among all; and of photos, under "".
        contents: tokens of the crops of photos, long (N, side, side), on the CPU.
        noise: K.
        statistics: D.
    """

    def __init__(
        self,
        pairs: Mapping[str, Coded],
        rows: Mapping[str, tuple[int, int]],
        contents: Tensor,
        noise: int,
        statistics: int,
        grid: int,
        picture: int,
        config: PolishConfig,
    ):
        self.pairs, self.rows, self.contents, self.config = pairs, rows, contents, config
        self.noise, self.statistics, self.grid, self.picture = noise, statistics, grid, picture
        self.order = list(pairs)
        self.real, self.without = [n for n in pairs if n in rows], [n for n in pairs if n not in rows]
        self.styles = min(config.styles, len(self.real))
        restless = (contents[:, 1:] != contents[:, :-1]).sum((1, 2)) + (contents[:, :, 1:] != contents[:, :, :-1]).sum((1, 2))
        self.plainest = restless.argsort().numpy()[: max(1, len(contents) // 4)]

    def batch(self, step: int, rng: np.random.Generator) -> PolishBatch:
        """The batch of a step."""
        c, names = self.config, in_turn(self.real, step, self.styles, self.config.seed)
        photos = np.concatenate([self.photos(c.batch, rng) for _ in names])
        count, places = len(photos), torch.from_numpy(rng.integers(1 << 16, size=(len(photos), 2)))
        spare = c.side - self.grid + 1
        y, x = (int(rng.integers(spare)) for _ in range(2))
        base = self.contents[self.photos(c.base, rng), y : y + self.grid, x : x + self.grid].flatten(1)
        reals = [rng.integers(*self.rows[name], size=c.batch) for name in names]
        drawn = Drawn(
            self.contents[photos],
            torch.from_numpy(self.rows[""][0] + photos),
            self.moves(count, rng),
            noise_at(places, c.side) if self.noise else torch.zeros(count, c.side, c.side, 0),
            places,
            torch.from_numpy(np.concatenate([*reals, rng.integers(*self.rows[""], size=c.round_trips)])),
            torch.stack([self.cut(rng) for _ in range(3)]),
            torch.from_numpy(rng.random((count, self.statistics), dtype=np.float32)),
            base,
            hidden_places(base.shape, JointConfig.whole, rng) if c.base else torch.zeros(base.shape, dtype=torch.bool),
            torch.tensor(float(rng.random() < c.hard)),
        )
        kept = in_turn(self.without, step, 1, c.seed) if self.without else []
        return PolishBatch([*names, *kept], self.windows(names, rng), drawn, self.windows(kept, rng) if kept else None)

    def moves(self, count: int, rng: np.random.Generator) -> Tensor:
        """How the marks of pictures are bent, (count, 2, rows, columns)."""
        generators = [torch.Generator().manual_seed(int(seed)) for seed in rng.integers(1 << 31, size=count)]
        return torch.cat([random_moves(self.picture, self.picture, generator) for generator in generators])

    def photos(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Which of the crops of photos, (count,)."""
        rows = rng.integers(len(self.contents), size=count)
        plain = round(self.config.plain * count)
        rows[:plain] = self.plainest[rng.integers(len(self.plainest), size=plain)]
        return rows

    def windows(self, names: Sequence[str], rng: np.random.Generator) -> Windows:
        """Windows of pairs of some styles."""
        each = [self.pairs[n].rows(torch.from_numpy(rng.integers(len(self.pairs[n]), size=self.config.pairs))) for n in names]
        style = torch.tensor([self.order.index(name) for name in names])
        parts = zip(*((coded.content, coded.target, self._noise(coded), coded.places) for coded in each), strict=True)
        return Windows(style, *(torch.stack(part) for part in parts))

    def _noise(self, coded: Coded) -> Tensor:
        if not self.noise:
            return torch.zeros(*coded.content.shape, 0)
        return (noise_at(coded.places, self.grid).flatten(1, 2) if coded.noise is None else coded.noise).float()

    def cut(self, rng: np.random.Generator) -> Tensor:
        """Rows and columns of a random part of pictures, mirrored or not: long (2, size)."""
        size = self.config.size
        lines = [int(rng.integers(self.picture - size + 1)) + np.arange(size) for _ in range(2)]
        return torch.from_numpy(np.stack([lines[0], lines[1][:: -1 if rng.random() < 0.5 else 1]]))
