"""A tuning run: an adapter is tuned until CLIP sees the style (StylerDALLE, arXiv 2303.09268, section 3.3).

    loss = loss of the method (methods/) + kl_weight KL(adapter || base) + pairs_weight CE on made pairs

Made pairs (a photo, and the same photo in the style, by other means) give a style of structure a warm start: steps of plain
cross-entropy on their tokens before the reward takes over, and a share of the loss afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..clip.protocol import CLIPModel
from ..distributed import processes
from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.loop import Descent, Loop, Stateful, Tensors
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import epochs_to_steps
from ..tokenizers.protocol import ImageTokenizer
from ..translator.model import Translator
from ..translator.style import Style, new_adapter
from ..translator.texture import Texture
from .config import TuneConfig
from .critics import LR
from .exemplars import Exemplars
from .guard import Guard, verdict
from .methods import METHODS
from .objective import Objective
from .tuning import Pairs, TuneState, Tuning

__all__ = ["TuneState", "Tuned", "hold_out", "tune"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """A tuned style, and how its run went."""

    style: Style  # the best by held-out score; the caller sets its base_sha256
    steps: int  # done
    best_step: int
    held_out: tuple[float, float]  # score of the first check and of `style`, cosines in [-1, 1]
    rows: list[dict[str, str]]  # the curve: step, loss, reward, kl, held_out
    warning: str | None  # if the curve shows that the reward is gamed

    def notes(self) -> dict[str, Any]:
        """For the style file's metadata."""
        start, best = self.held_out
        return {"scores": {"held_out_start": round(start, 4), "held_out": round(best, 4), "step": self.best_step}}


def tune(
    tokenizer: ImageTokenizer,
    translator: Translator,
    model: CLIPModel,
    pictures: Sequence[Picture],
    prompt: str,
    config: TuneConfig,
    run: Run,
    pairs: Pairs | None = None,
    callback: Callable[[TuneState], None] | None = None,
    tick: Callable[[], None] = lambda: None,
    minutes_between_saves: float = 0.5,
    start: Style | None = None,
    texture: Texture | None = None,
    exemplars: Exemplars | None = None,
    reduced: bool = True,
) -> Tuned:
    """Tune a style for `prompt` on photos. The models are left as they are. Collective.

    Args:
        pictures: photos, one or more; only the caption reward reads their captions.
        run: keeps the state. A run that was stopped resumes and ends as if it had not been.
        pairs: made pairs; S is a multiple of the translator's window.
        callback, tick: called once a step, and several times. What they raise ends the run after a save, and reaches the caller.
        start, texture: a style of the config's rank to begin with, or None; a texture, if it is not that of `start`.
        exemplars, reduced: as of Objective.

    Raises:
        ValueError: no pictures, missing pairs, a start of another shape, impossible options, a loss that is not finite.
    """
    if not pictures:
        raise ValueError("there are no pictures to tune on: give at least one photo")
    if (config.pairs_steps or config.pairs_weight) and pairs is None:
        raise ValueError("pairs_steps and pairs_weight need made pairs: give them, or set both to 0")
    photos, held_out = hold_out(pictures, config)
    config = epochs_to_steps(config, len(photos))
    style = new_style(translator, prompt, config, start, texture)
    guard = Guard(Objective(tokenizer, translator, model, prompt, config, exemplars, reduced), held_out)
    tuning = Tuning(guard.objective, style, photos, pairs, guard, tick, callback)
    tensors = list(style.tensors.values())
    optimizer = METHODS[config.method].optimizer(tensors, config.lr)
    beside, descents = critics_of(guard.objective)
    loop = Loop(
        run,
        tuning.steps,
        config.seed,
        {"adapter": Tensors(style.tensors), "optimizer": optimizer, "guard": guard, "tuning": tuning, **beside},
        [Descent(optimizer, tuning.rate, tensors, METHODS[config.method].max_norm), *descents],
        minutes_between_saves,
        config.minutes,
        curve_of_steps=True,
        interruptible=True,
    )
    origin = {"start": start.name if start else None, "exemplars": exemplars.sha256 if exemplars else None}
    resumed = loop.resume({**asdict(config), "prompt": prompt, **origin})
    if start and not resumed:
        guard.check(style, 0, 0.0, tick)  # so that the start is kept if nothing better is found
    processes().broadcast(tensors)
    loop.train(tuning.batch, tuning.learn, tuning.after, stop=tuning.stop, callback=tuning.tell)
    return result(style, guard, loop)


def critics_of(objective: Objective) -> tuple[dict[str, Stateful], list[Descent]]:
    """The parts of a run's state that its critics are, and how they step; nothing without critics."""
    if not objective.critics:
        return {}, []
    parameters = list(objective.critics.parameters())
    optimizer = torch.optim.Adam(parameters, lr=LR, betas=(0.0, 0.99))
    return {"critics": objective.critics, "critics optimizer": optimizer}, [Descent(optimizer, lambda step: LR, parameters)]


def new_style(translator: Translator, prompt: str, config: TuneConfig, start: Style | None, texture: Texture | None) -> Style:
    """The style to tune: a copy of `start`, or an adapter that changes nothing yet.

    Raises:
        ValueError: `start` has tensors of other names or shapes, or the texture does not fit the translator.
    """
    texture = texture or (start.texture if start else None)
    tensors = new_adapter(translator, config.rank, torch.Generator().manual_seed(config.seed), texture is not None)
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    if start:
        copy_adapter(start, tensors)
    style = Style(tensors, prompt, texture=texture, blocks=start.blocks if start else 0.0)
    style.check(translator)
    return style


def copy_adapter(start: Style, tensors: dict[str, Tensor]) -> None:
    """Copy a style's tensors into those of a new adapter.

    Raises:
        ValueError: they have other names or shapes.
    """
    had, wanted = ({name: tuple(t.shape) for name, t in some.items()} for some in (start.tensors, tensors))
    if had != wanted:
        raise ValueError(
            f"tuning cannot start from the style {start.name!r}: it has rank {start.rank}, the new one {Style(tensors).rank}, or "
            "it was made for another translator; give its rank, or another style"
        )
    for name, tensor in tensors.items():
        tensor.data.copy_(start.tensors[name])


def hold_out(pictures: Sequence[Picture], config: TuneConfig) -> tuple[Sequence[Picture], Tensor]:
    """Split photos -> (photos to tune on, held-out crops (H, 3, S, S) in [0, 1]).

    At most a fifth is held out. With fewer than 5 photos none is: the guard then sees other views of the photos tuned on.
    """
    rng = np.random.default_rng(config.seed)
    count = min(config.held_out, len(pictures) // 5)
    order = rng.permutation(len(pictures)).tolist()
    kept = [pictures[i] for i in (order[:count] if count else order[: config.held_out])]
    photos = [pictures[i] for i in sorted(order[count:])]
    return photos, to_tensor([random_crop(at_least(p.open(), config.size), config.size, rng, (0.7, 0.7)) for p in kept])


def result(style: Style, guard: Guard, loop: Loop) -> Tuned:
    """What a run ends with: the best style that its guard has kept."""
    if not guard.best:
        guard.check(style, loop.done, 0.0)
    best = guard.best or {name: tensor.detach() for name, tensor in style.tensors.items()}
    rows = loop.run.rows()
    warning = verdict(rows)
    if warning:
        log.warning(warning)
    scores = guard.first_score, guard.best_score
    return Tuned(replace(style, tensors=best), loop.done, guard.best_step, scores, rows, warning)
