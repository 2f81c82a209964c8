"""How a style is learnt: an adapter is tuned until CLIP sees the style (StylerDALLE, arXiv 2303.09268, section 3.3).

What a step minimises is objective.py's, when to stop guard.py's; this is the loop around them.

    loss = -reward + kl_weight KL(adapter || base) + pairs_weight CE on made pairs

Made pairs (photo, the photo in the style by other means) give styles of structure a warm start: some steps of plain
cross-entropy on their tokens before the reward takes over, and a share of the loss afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..distributed import processes
from ..learn.crops import at_least, centre_crop, random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import batches, chosen, generator, in_steps, schedule
from ..tokenizers.protocol import ImageTokenizer
from ..translator.model import Translator
from ..translator.style import Style, new_adapter
from ..translator.texture import Texture
from .guard import Guard, verdict
from .objective import Objective

if TYPE_CHECKING:
    from clip.model import CLIP
from .config import TuneConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneState:
    """What a callback sees once a step."""

    step: int
    steps: int
    reward: float | None  # mean of the batch; None in the warm start
    held_out: float | None  # where this step was followed by a check
    kl: float | None
    loss: float
    preview: Tensor | None = None  # (3, S, S) in [0, 1], of the first photo


@dataclass(frozen=True)
class Tuned:
    """A learnt style and how it went."""

    style: Style  # the best by held-out score; its base_sha256 is for the caller to fill in
    steps: int  # done
    best_step: int
    held_out: tuple[float, float]  # score at the first check and of `style`, cosines in [-1, 1]
    rows: list[dict[str, str]]  # the curve: step, loss, reward, kl, held_out
    warning: str | None  # where the curve says that the reward is being gamed

    def notes(self) -> dict[str, Any]:
        """For the style file's metadata."""
        start, best = self.held_out
        return {"scores": {"held_out_start": round(start, 4), "held_out": round(best, 4), "step": self.best_step}}


def tune(
    tokenizer: ImageTokenizer,
    translator: Translator,
    model: CLIP,
    pictures: Sequence[Picture],
    prompt: str,
    config: TuneConfig,
    run: Run,
    pairs: tuple[Tensor, Tensor, Tensor] | None = None,
    callback: Callable[[TuneState], None] | None = None,
    tick: Callable[[], None] = lambda: None,
    minutes_between_saves: float = 0.5,
    start: Style | None = None,
    texture: Texture | None = None,
) -> Tuned:
    """Learn a style for `prompt` from photos, by any method. The models are left as they are.

    Args:
        pictures: photos; captions matter to the caption reward alone. One of them is enough.
        run: where its state is kept: a run that was stopped goes on from there, as if it had not been.
        pairs: made pairs: photos, and the same in the style, uint8 (N, 3, S, S) each, S a multiple of the window; and where they
            lie on the texture, long (N, 2) in tokens.
        callback: once a step; what it raises stops the run after a save, and goes on to the caller.
        tick: several times a step; the same.
        start: a style of the config's rank to begin with; without it the adapter changes nothing at first.
        texture: of the style, for marks that the content does not tell; `start`'s own if not given.

    Raises:
        ValueError: no pictures, pairs asked for and not given, a start of another shape, impossible options, a loss that is not
            a number.
    """
    if not pictures:
        raise ValueError("there are no pictures to tune on: give at least one photo")
    if (config.pairs_steps or config.pairs_weight) and pairs is None:
        raise ValueError("pairs_steps and pairs_weight need made pairs: give them, or set both to 0")
    train_on, kept = hold_out(pictures, config)
    config = in_steps(config, len(train_on))
    objective = Objective(tokenizer, translator, model, prompt, config)
    texture = texture or (start.texture if start else None)
    fresh = new_adapter(translator, config.rank, torch.Generator().manual_seed(config.seed), texture is not None)
    tensors = {name: tensor.requires_grad_(True) for name, tensor in fresh.items()}
    if start:
        begin_with(start, tensors)
    style = Style(tensors, prompt, texture=texture)
    style.check(translator)
    paper = config.method == "reinforce"
    betas, eps, clip = ((0.9, 0.98), 1e-9, 3.0) if paper else ((0.9, 0.99), 1e-8, 1.0)
    optimizer = torch.optim.Adam(tensors.values(), lr=config.lr, betas=betas, eps=eps)
    guard = Guard(objective, kept)
    first, before = 0, 0.0
    if state := run.load({**asdict(config), "prompt": prompt, "start": start.name if start else None}):
        for name, tensor in state["adapter"].items():
            tensors[name].data.copy_(tensor)
        optimizer.load_state_dict(state["optimizer"])
        guard.restore(state["guard"])
        first, before, objective.baseline = state["step"], state["seconds"], state["baseline"]
        log.info("resumed at step %d", first)
    elif start:
        guard.check(style, 0, 0.0, tick)  # it is kept where nothing better comes of it

    team = processes()
    team.share(tensors.values())
    started = saved = time.monotonic()

    def save(step: int) -> None:
        run.save(
            {
                "adapter": {name: tensor.detach() for name, tensor in tensors.items()},
                "optimizer": optimizer.state_dict(),
                "guard": guard.state(),
                "baseline": objective.baseline,
                "seconds": before + time.monotonic() - started,
                "step": step,
            }
        )

    empty = torch.empty(0)
    contents, targets, places = (*objective.encode_pairs(*pairs[:2]), pairs[2]) if pairs else (empty, empty, empty)

    def cut(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        if not config.augment:
            return np.asarray(centre_crop(image, config.size))
        return random_crop(at_least(image, config.size), config.size, rng, (0.5, 1.5))

    def make(step: int, rng: np.random.Generator) -> tuple[Tensor, list[str], Tensor]:
        """Photos for the reward (B, 3, S, S) and their captions, none while the warm start lasts; which pairs to take."""
        taken = config.batch if step >= config.pairs_steps else 0
        some = [train_on[i] for i in chosen(len(train_on), taken, step - config.pairs_steps, config.seed, rng, config.epochs)]
        crops = [cut(p.open(), rng) for p in some]
        captions = [p.captions[rng.integers(len(p.captions))] if p.captions else "" for p in some]
        which = rng.integers(max(1, len(contents)), size=config.pairs_batch)
        return to_tensor(crops) if crops else torch.empty(0), captions, torch.from_numpy(which)

    def rate(k: int, total: int, warm: bool) -> float:
        """The learning rate's share at step k of `total`, of the warm start or of the reward."""
        if warm:
            return schedule(k, total, warm=10, floor=0.1)
        return 1.0 if paper else schedule(k, total, config.warm, 0.02, config.decay)

    def learn(step: int, photos: Tensor, captions: list[str], chosen: Tensor) -> TuneState:
        """The gradient of one step, each process's share of it summed -> what it was."""
        warm = step < config.pairs_steps
        loss, outcome, cross = 0.0, None, torch.zeros(1)
        if not warm:
            generators = [generator(config.seed, step, k) for k in team.mine(range(len(photos)))]
            texts = [objective.text(caption) for caption in team.mine(captions)]
            own = team.mine(photos).to(objective.device)
            outcome = objective.step(own, texts, style, generators, tick, team, len(photos))
            loss = outcome.loss
        if (warm or config.pairs_weight) and len(mine := team.mine(chosen)):
            tick()
            with torch.autocast(objective.device.type, torch.bfloat16):
                value = objective.pairs_loss(contents[mine], targets[mine], places[mine], style)
            weighed = (1 if warm else config.pairs_weight) * len(mine) / len(chosen) * value
            weighed.backward()
            cross += weighed.item()
        team.sum_gradients(tensors.values(), cross)
        loss += cross.item()
        if outcome is None:
            return TuneState(step + 1, steps, None, None, None, loss)
        preview = outcome.pictures[0].cpu() if len(outcome.pictures) else None
        return TuneState(step + 1, steps, outcome.reward, None, outcome.kl, loss, preview)

    steps, done = config.pairs_steps + config.steps, first
    ended = bool(config.patience) and guard.stale >= config.patience  # a run that had stopped by itself
    for step, batch in enumerate(batches(make, config.seed, first, first if ended else steps), first):
        warm = step < config.pairs_steps
        k, total, peak = (
            (step, config.pairs_steps, config.pairs_lr) if warm else (step - config.pairs_steps, config.steps, config.lr)
        )
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(k, total, warm)
        settled, baseline = True, objective.baseline
        try:
            now = learn(step, *batch)
            if not np.isfinite(now.loss):
                raise ValueError(
                    f"the loss became {now.loss} at step {step + 1}: lower the learning rate ({config.lr:g}) and try again"
                )
            settled = False  # from here to the log a save would not be a state that an unbroken run passes
            torch.nn.utils.clip_grad_norm_(list(tensors.values()), clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done, held_out = step + 1, None
            if done == config.pairs_steps or (not warm and ((k + 1) % config.check_every == 0 or done == steps)):
                held_out = guard.check(style, done, now.kl or 0.0, tick)
            run.log(step=done, loss=now.loss, reward=now.reward, kl=now.kl, held_out=held_out)
            settled = True
            late = bool(config.minutes) and before + time.monotonic() - started > 60 * config.minutes
            spent = bool(config.kl_budget) and (now.kl or 0.0) > config.kl_budget
            tired = bool(config.patience) and guard.stale >= config.patience
            over = bool(team.told(late or spent or tired))
            if done == steps or over or time.monotonic() - saved > 60 * minutes_between_saves:
                save(done)
                saved = time.monotonic()
            if callback:
                callback(replace(now, held_out=held_out))
        except BaseException as error:
            if settled and not isinstance(error, ValueError):
                objective.baseline = baseline if done == step else objective.baseline
                save(done)
            raise
        if over:
            log.info("stopped at step %d: %s", done, "time" if late else "KL budget" if spent else "no better held-out score")
            break
    if not guard.best:
        guard.check(style, done, 0.0)
    tensors = guard.best or {name: tensor.detach() for name, tensor in tensors.items()}
    rows = run.rows()
    warning = verdict(rows)
    if warning:
        log.warning(warning)
    return Tuned(
        Style(tensors, prompt, texture=texture), done, guard.best_step, (guard.first_score, guard.best_score), rows, warning
    )


def begin_with(start: Style, tensors: dict[str, Tensor]) -> None:
    """Copy a style's tensors into an adapter's. Raises ValueError where they are not of the same names and shapes."""
    had, wanted = ({name: tuple(t.shape) for name, t in some.items()} for some in (start.tensors, tensors))
    if had != wanted:
        ranks = [next((shape[0] for name, shape in s.items() if name.endswith(".lora_a")), 0) for s in (had, wanted)]
        raise ValueError(
            f"the style {start.name!r} cannot be started from: it has rank {ranks[0]}, the new one {ranks[1]}, or it belongs to "
            "another translator; give its rank, or another style"
        )
    for name, tensor in tensors.items():
        tensor.data.copy_(start.tensors[name])


def hold_out(pictures: Sequence[Picture], config: TuneConfig) -> tuple[Sequence[Picture], Tensor]:
    """(photos to tune on, held-out crops (H, 3, S, S)). A fifth is kept at most; where that is none, the guard sees views of
    the same photos that tuning does not."""
    rng = np.random.default_rng(config.seed)
    count = min(config.held_out, len(pictures) // 5)
    order = rng.permutation(len(pictures))
    kept = [pictures[i] for i in (order[:count] if count else order[: config.held_out])]
    train_on = [pictures[i] for i in sorted(order[count:])]
    return train_on, to_tensor([random_crop(at_least(p.open(), config.size), config.size, rng, (0.7, 0.7)) for p in kept])
