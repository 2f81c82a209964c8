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

from . import reward
from .guard import Guard, verdict
from .objective import Objective
from .pretrain import in_steps
from .processes import processes
from .style import Style, new_adapter
from .texture import Texture
from .tokenizers import ImageTokenizer
from .training.data import Picture, at_least, batches, centre_crop, chosen, generator, random_crop, to_tensor
from .training.run import Run
from .training.tokenizer import DECAYS, schedule
from .translator import Translator

if TYPE_CHECKING:
    from clip.model import CLIP

log = logging.getLogger(__name__)
# what a method's options are where they are not given; those of `reinforce` are the paper's (4 epochs of COCO: 10^5 steps)
METHODS: dict[str, dict[str, Any]] = {
    "direct": {},
    "rloo": {"softness": 0.0, "batch": 2, "normalise_advantage": True},
    "reinforce": {
        "softness": 0.0,
        "lr": 1e-6,
        "rank": 0,
        "batch": 16,
        "kl_weight": 0.0,
        "caption_weight": 1.0,
        "patch_weight": 0.0,
        "directional_weight": 0.0,
    },
}


@dataclass(frozen=True)
class TuneConfig:
    """Options of a tuning run; `TuneConfig.of` takes those of a method."""

    method: str = "direct"  # direct, rloo or reinforce (the paper's)
    steps: int = 80  # of reward; 0 leaves the warm start alone
    epochs: float = 0  # passes over all photos, instead of --steps; 0 is as many steps as said, of photos drawn
    minutes: float = 0  # stop after so long; 0 is no limit
    pairs_steps: int = 0  # of cross-entropy on made pairs before the reward
    lr: float = 1e-3  # Adam on the adapter; after --warm it falls, and is constant for reinforce
    warm: int = 10  # first steps, in which the learning rate rises; none for reinforce
    decay: str = "cosine"  # of the learning rate: cosine to 2 %, or linear to 0
    pairs_lr: float = 3e-3  # the same for the warm start
    rank: int = 8  # of the adapter, the style file grows with it; 0 tunes the decoder and output layer whole
    batch: int = 4  # photos a step
    samples: int = 4  # draws a photo, for rloo
    pairs_batch: int = 16  # made pairs a step
    size: int = 256  # px of a photo crop; a multiple of the translator's window
    augment: bool = True  # photos at random places, zooms and mirrored; no is the centre crop, the paper's
    views: int = 4  # random crops of each output that CLIP sees
    caption_weight: float = 0.0  # of the paper's reward: whole picture to "{style} of {caption}"
    patch_weight: float = 1.0  # of the crops' cosine to the style prompt
    directional_weight: float = 1.0  # of the crops' direction from the photo, to the text's from "a photo"
    content_weight: float = 0.0  # of the cosine of output and photo
    kl_weight: float = 0.02  # pull to the base translator: content and image quality
    kl_budget: float = 0.0  # nats a token; adapters beyond it are not kept, and the run stops. 0 is no limit
    colour_weight: float = 0.0  # keeps the photo's colours (direct); 0 for styles that have their own palette
    pairs_colour_weight: float = 0.0  # of the colours shown beside the cross-entropy on made pairs
    pairs_weight: float = 0.0  # cross-entropy on made pairs beside the reward
    softness: float = 0.5  # of the pictures CLIP sees, as when stylising; 0 is straight-through samples, one token a place
    normalise_advantage: bool = False  # rloo: advantages of a photo to standard deviation 1
    normalise: bool = True  # pixels for CLIP by its mean and deviation; no is as the paper's authors did
    check_every: int = 10  # steps between scores on the held-out photos
    held_out: int = 4  # photos kept for them, at most a fifth of those given
    patience: int = 6  # checks without a better score after which the run stops; 0 goes on to the end
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is not known: {', '.join(METHODS)}")
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} is not known: {', '.join(DECAYS)}")
        if self.steps < 0 or self.pairs_steps < 0 or not 1 <= self.steps + self.pairs_steps <= 1_000_000:
            raise ValueError(f"steps {self.steps} (and {self.pairs_steps} on pairs): need 1 to 1,000,000 together")
        if min(self.batch, self.pairs_batch, self.views, self.check_every, self.held_out) < 1:
            raise ValueError("batch, pairs_batch, views, check_every and held_out must be 1 or more")
        if self.samples < 2:
            raise ValueError(f"samples {self.samples}: rloo judges a draw against the others, so it needs 2 or more")
        if not 0 < self.lr <= 1 or not 0 < self.pairs_lr <= 1:
            raise ValueError(f"learning rates {self.lr} and {self.pairs_lr} must lie between 0 and 1")
        if not any((self.caption_weight, self.patch_weight, self.directional_weight, self.content_weight)) and self.steps:
            raise ValueError("all weights of the reward are 0: nothing would be learnt; set one, or steps to 0")

    @classmethod
    def of(cls, method: str, **options: Any) -> TuneConfig:
        """The options of a method, and these on top. Raises ValueError for an unknown method or impossible options."""
        return cls(method=method, **{**METHODS.get(method, {}), **options})


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


@torch.inference_mode()
def score_pictures(model: CLIP, images: Tensor, prompt: str) -> Tensor:
    """Paper's metric / 100: cos(CLIP(picture), CLIP(prompt)) for pictures (B, 3, H, W), over 5 views each -> (B)."""
    generator = torch.Generator().manual_seed(0)
    text = reward.embed_texts(model, [prompt])[0]
    whole = reward.cosine(reward.embed_images(model, images), text)
    side = model.visual.input_resolution
    parts = [
        reward.cosine(reward.embed_images(model, reward.take_crops(images, [box] * len(images), side)), text)
        for box in reward.crop_boxes(4, min(images.shape[-2:]), generator)
    ]
    return torch.stack([whole, *parts]).mean(0)
