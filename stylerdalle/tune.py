"""How a style is learnt: an adapter is tuned until CLIP sees the style (StylerDALLE, arXiv 2303.09268, section 3.3).

Method `direct` differentiates the reward itself instead of estimating its gradient from samples (AlignProp, arXiv
2310.03739; DRaFT, arXiv 2309.17400): soft or straight-through tokens -> dVAE decoder -> CLIP on random crops.

    reward = cos(out, style) + directional cosine from the photo        (reward.py)
    loss   = -reward + kl_weight KL(adapter || base) + colour_weight L1 of 16x16 averages + pairs_weight CE on made pairs

Made pairs (photo, the photo in the style by other means) give styles of structure a warm start: some steps of plain
cross-entropy on their tokens before the reward takes over, and a share of the loss afterwards.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import reward
from .pretrain import all_embeddings, soft_cross_entropy, soft_targets
from .style import Style, new_adapter, translate_with
from .tokenizers.dvae import DVAE, to_pixels
from .training.data import Picture, at_least, batches, random_crop, to_tensor
from .training.run import Run
from .training.tokenizer import schedule
from .translator import Translator

if TYPE_CHECKING:
    from clip.model import CLIP

log = logging.getLogger(__name__)
NEUTRAL = "a photo"


@dataclass(frozen=True)
class TuneConfig:
    """Options of a tuning run."""

    method: str = "direct"  # straight-through tokens, decoder and CLIP differentiated end to end
    steps: int = 80  # of reward; 0 leaves the warm start alone
    minutes: float = 0  # stop after so long; 0 is no limit
    pairs_steps: int = 0  # of cross-entropy on made pairs before the reward
    lr: float = 1e-3  # Adam on the adapter; cosine to 2 %
    pairs_lr: float = 3e-3  # the same for the warm start
    rank: int = 8  # of the adapter; size of the style file grows with it
    batch: int = 4  # photos a step
    pairs_batch: int = 16  # made pairs a step
    size: int = 256  # px of a photo crop; a multiple of the translator's window
    views: int = 4  # random crops of each output that CLIP sees
    directional_weight: float = 1.0
    kl_weight: float = 0.02  # pull to the base translator: content and image quality
    colour_weight: float = 0.0  # keeps the photo's colours; 0 for styles that have their own palette
    pairs_weight: float = 0.0  # cross-entropy on made pairs beside the reward
    softness: float = 0.5  # of the pictures CLIP sees, as when stylising; 0 is straight-through samples, one token a place
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method != "direct":
            raise ValueError(f"method {self.method!r} is not known: direct")
        if self.steps < 0 or self.pairs_steps < 0 or not 1 <= self.steps + self.pairs_steps <= 1_000_000:
            raise ValueError(f"steps {self.steps} (and {self.pairs_steps} on pairs): need 1 to 1,000,000 together")
        if self.batch < 1 or self.views < 1:
            raise ValueError(f"batch {self.batch} and views {self.views} must be 1 or more")


@dataclass(frozen=True)
class TuneState:
    """What a callback sees once a step; raise in it to stop, the run can be resumed."""

    step: int
    steps: int
    reward: float
    kl: float
    loss: float
    preview: Tensor | None = None  # (3, H, W) in [0, 1]


class Tuner:
    """The models of a tuning run and its losses. The models are never changed: the adapter lives beside them."""

    def __init__(self, tokenizer: DVAE, translator: Translator, model: CLIP, prompt: str, config: TuneConfig):
        self.tokenizer, self.translator, self.clip, self.config = tokenizer, translator, model, config
        self.device = translator.outNet.weight.device
        window = tokenizer.downsample * translator.config.grid * translator.config.upscale
        if config.size % window:
            raise ValueError(f"size {config.size} px is not a multiple of {window} px, the translator's window")
        with torch.no_grad():
            self.style, self.neutral = reward.embed_texts(model, [prompt, NEUTRAL]).unbind()
        self.embeddings = all_embeddings(tokenizer)
        self.index, self.shares = soft_targets(self.embeddings, 16, 0.25)

    @torch.no_grad()
    def content(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) -> the content tokens that the translator reads, (B, S/8u, S/8u)."""
        u = self.translator.config.upscale
        source = images if u == 1 else F.interpolate(images, scale_factor=1 / u, mode="bicubic", antialias=True).clamp(0, 1)
        return self.tokenizer.encode(source)

    def logits(self, content: Tensor, style: Style | None) -> Tensor:
        """Content tokens (B, h, w) -> logits (B, u*h, u*w, V), window by window without overlap."""
        u, n = self.translator.config.upscale, self.translator.config.grid
        read = self.tokenizer.embed(content)
        windows = rearrange(read, "b (y n) (x m) d -> (b y x) (n m) d", n=n, m=n)
        out = translate_with(self.translator, windows, [(style, 1.0)] if style else [])
        count = read.shape[1] // n
        return rearrange(out, "(b y x) (n m) v -> b (y n) (x m) v", y=count, x=count, n=u * n)

    def paint(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Logits (B, h, w, V) -> pictures (B, 3, 8h, 8w), differentiable.

        With softness the mean embedding of the likely tokens (sampling.py); without, Gumbel samples forwards and their
        softmax backwards.
        """
        if self.config.softness:
            embedded = (logits / self.config.softness).softmax(-1) @ self.embeddings
        else:
            # drawn on the CPU, so that a seed means the same on every device
            noise = torch.rand(logits.shape, generator=generator).clamp_(min=1e-9).log_().neg_().log_().neg_()
            logits = logits + noise.to(logits.device)
            soft = logits.softmax(-1) @ self.embeddings
            embedded = self.embeddings[logits.argmax(-1)] + (soft - soft.detach())
        return to_pixels(self.tokenizer.decode_embedded(embedded.permute(0, 3, 1, 2)))

    def reward_loss(self, images: Tensor, style: Style, generator: torch.Generator) -> tuple[Tensor, float, float, Tensor]:
        """(loss, mean reward, KL, painted pictures) of one batch of photos (B, 3, S, S)."""
        c = self.config
        tokens = self.content(images)
        logits = self.logits(tokens, style).float()
        with torch.no_grad():
            base = self.logits(tokens, None).float().log_softmax(-1)
        log_p = logits.log_softmax(-1)
        kl = (log_p.exp() * (log_p - base)).sum(-1).mean()
        out = self.paint(logits, generator)
        boxes = crop_boxes(c.views * len(images), c.size, generator)
        seen = reward.embed_images(self.clip, take_crops(out.repeat(c.views, 1, 1, 1), boxes, self.clip.visual.input_resolution))
        with torch.no_grad():
            views = take_crops(images.repeat(c.views, 1, 1, 1), boxes, self.clip.visual.input_resolution)
            content = reward.embed_images(self.clip, views)
        score = reward.cosine(seen, self.style).mean()
        gain = score + c.directional_weight * reward.directional(seen, content, self.style, self.neutral).mean()
        loss = -gain + c.kl_weight * kl
        if c.colour_weight:
            loss = loss + c.colour_weight * (F.avg_pool2d(out, 16) - F.avg_pool2d(images, 16)).abs().mean()
        return loss, score.item(), kl.item(), out.detach()

    def pairs_loss(self, content: Tensor, target: Tensor, style: Style | None) -> Tensor:
        """Cross-entropy of the made pictures' tokens (B, u*h, u*w) given the photos' content tokens (B, h, w)."""
        return soft_cross_entropy(self.logits(content, style).flatten(1, 2), target.flatten(1), self.index, self.shares).mean()

    def encode_pairs(self, photos: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, 3, S, S) each -> content tokens of the photos, tokens of the made pictures."""
        parts = zip(photos.split(32), made.split(32), strict=True)
        with torch.no_grad():
            coded = [
                (self.content(a.to(self.device).float() / 255), self.tokenizer.encode(b.to(self.device).float() / 255))
                for a, b in parts
            ]
        left, right = zip(*coded, strict=True)
        return torch.cat(left), torch.cat(right)


def crop_boxes(count: int, side: int, generator: torch.Generator) -> list[tuple[int, int, int]]:
    """`count` random squares (top, left, side) of between half and all of a picture of `side` px."""
    u = torch.rand(count, 3, generator=generator).tolist()
    sides = [int(side * (0.5 + 0.5 * a)) for a, _, _ in u]
    return [(int((side - s) * b), int((side - s) * c), s) for s, (_, b, c) in zip(sides, u, strict=True)]


def take_crops(images: Tensor, boxes: Sequence[tuple[int, int, int]], side: int) -> Tensor:
    """Box i of picture i, resized: (N, 3, side, side)."""
    return torch.cat(
        [
            F.interpolate(image[None, :, y : y + s, x : x + s], (side, side), mode="bilinear", antialias=True)
            for image, (y, x, s) in zip(images, boxes, strict=True)
        ]
    )


def tune(
    tokenizer: DVAE,
    translator: Translator,
    model: CLIP,
    pictures: Sequence[Picture],
    prompt: str,
    config: TuneConfig,
    run: Run,
    pairs: tuple[Tensor, Tensor] | None = None,
    callback: Callable[[TuneState], None] | None = None,
    minutes_between_saves: float = 2,
) -> Style:
    """Learn a style for `prompt` from photos -> a Style (its base_sha256 is for the caller to fill in).

    Args:
        pictures: photos; only what they show matters, not their captions.
        pairs: made pairs, uint8 (N, 3, S, S) each: photos, and the same in the style; S a multiple of the window.
        callback: once a step; what it raises stops the run after a save, and goes on to the caller.

    Raises:
        ValueError: no pictures, or pairs asked for and not given.
    """
    if not pictures:
        raise ValueError("there are no pictures to tune on: give at least one photo")
    if (config.pairs_steps or config.pairs_weight) and pairs is None:
        raise ValueError("pairs_steps and pairs_weight need made pairs: give them, or set both to 0")
    tuner = Tuner(tokenizer, translator, model, prompt, config)
    tensors = new_adapter(translator, config.rank, torch.Generator().manual_seed(config.seed))
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    style = Style(tensors, prompt)
    optimizer = torch.optim.Adam(tensors.values(), lr=config.lr, betas=(0.9, 0.99))
    first = 0
    if state := run.load():
        for name, tensor in state["adapter"].items():
            tensors[name].data.copy_(tensor)
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)

    def save(step: int) -> None:
        adapter = {name: tensor.detach() for name, tensor in tensors.items()}
        run.save({"adapter": adapter, "optimizer": optimizer.state_dict(), "step": step})

    coded = tuner.encode_pairs(*pairs) if pairs else (torch.empty(0), torch.empty(0))

    def make(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Photos for the reward (B, 3, S, S), none while the warm start lasts; and which made pairs to take."""
        some = [pictures[i].open() for i in rng.integers(len(pictures), size=config.batch if step >= config.pairs_steps else 0)]
        crops = [random_crop(at_least(image, config.size), config.size, rng, (0.5, 1.5)) for image in some]
        chosen = rng.integers(max(1, len(coded[0])), size=config.pairs_batch)
        return to_tensor(crops) if crops else torch.empty(0), torch.from_numpy(chosen)

    steps = config.pairs_steps + config.steps
    started = saved = time.monotonic()
    for step, (photos, chosen) in enumerate(batches(make, config.seed, first, steps), first):
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        warm = step < config.pairs_steps
        k, total, peak = (
            (step, config.pairs_steps, config.pairs_lr) if warm else (step - config.pairs_steps, config.steps, config.lr)
        )
        for group in optimizer.param_groups:
            group["lr"] = peak * schedule(k, total, warm=10, floor=0.1 if warm else 0.02)
        score = kl = math.nan
        preview = None
        photos = photos.to(tuner.device)
        with torch.autocast(tuner.device.type, torch.bfloat16):
            if warm:
                loss = tuner.pairs_loss(coded[0][chosen], coded[1][chosen], style)
            else:
                loss, score, kl, out = tuner.reward_loss(photos, style, generator)
                preview = out[0].cpu()
                if config.pairs_weight:
                    loss = loss + config.pairs_weight * tuner.pairs_loss(coded[0][chosen], coded[1][chosen], style)
        if not torch.isfinite(loss):
            raise ValueError(f"the loss became {loss.item()} at step {step + 1}: lower the learning rate ({config.lr})")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.log(step=step + 1, loss=loss.item(), reward=score, kl=kl)
        late = config.minutes and time.monotonic() - started > 60 * config.minutes
        if step + 1 == steps or late or time.monotonic() - saved > 60 * minutes_between_saves:
            save(step + 1)
            saved = time.monotonic()
        if callback:
            try:
                callback(TuneState(step + 1, steps, score, kl, loss.item(), preview))
            except BaseException:
                save(step + 1)
                raise
        if late:
            break
    return Style({name: tensor.detach() for name, tensor in tensors.items()}, prompt)


@torch.inference_mode()
def score_pictures(model: CLIP, images: Tensor, prompt: str) -> Tensor:
    """Paper's metric / 100: cos(CLIP(picture), CLIP(prompt)) for pictures (B, 3, H, W), over 5 views each -> (B)."""
    generator = torch.Generator().manual_seed(0)
    side = min(images.shape[-2:])
    text = reward.embed_texts(model, [prompt])[0]
    whole = reward.cosine(reward.embed_images(model, images), text)
    boxes = crop_boxes(4, side, generator)
    parts = [
        reward.cosine(reward.embed_images(model, take_crops(images, [box] * len(images), model.visual.input_resolution)), text)
        for box in boxes
    ]
    return torch.stack([whole, *parts]).mean(0)
