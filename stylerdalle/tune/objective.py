"""What a tuning step minimises: the loss of a method (methods/) on a CLIP reward, the KL to the base translator, and
cross-entropy on made pairs.

The models are never changed. The adapter is kept beside the translator (translator/style.py), which without it is the reference
of the KL.

Letters: B photos; S px a side; h x w content tokens, H x W = u*h x u*w stylised ones, u the translator's upscale, n its grid;
V tokens in the vocabulary; E the size of CLIP's embeddings; k pictures painted of one photo; C crops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..clip import scores as reward
from ..clip.protocol import CLIPModel
from ..clip.scores import NEUTRAL, Box, crop_boxes, take_crops
from ..device import autocast
from ..distributed import ALONE, Processes
from ..images.lines import random_moves, with_lines
from ..learn.pretraining import half_size
from ..learn.targets import soft_cross_entropy, soft_targets
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.model import Translator
from ..translator.noise import noise_at
from ..translator.sampling import gumbel
from ..translator.style import Style, translate_with
from ..translator.texture import field_under, laid_under, texture_field
from .config import TuneConfig
from .critics import Critics
from .exemplars import Exemplars
from .methods import METHODS


@dataclass(frozen=True)
class Outcome:
    """The result of one batch."""

    loss: float  # means over the photos of all processes
    reward: float
    kl: float  # nats a token
    pictures: Tensor  # one of each photo of this process, (B, 3, S, S) in [0, 1]
    baseline: float  # for the next step


class Objective:
    """The models of a tuning run, and its losses.

    Args:
        prompt: of the style.
        exemplars: pictures of the style; None: the reward is CLIP's alone.
        reduced: multiply in bfloat16 where the device can; off: all in float32.

    Raises:
        ValueError: the config's size is not a multiple of the translator's window, or all weights of the reward are 0.
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        translator: Translator,
        model: CLIPModel,
        prompt: str,
        config: TuneConfig,
        exemplars: Exemplars | None = None,
        reduced: bool = True,
    ):
        self.tokenizer, self.translator, self.clip, self.prompt, self.config = tokenizer, translator, model, prompt, config
        self.exemplars, self.reduced = exemplars, reduced
        self.critics = Critics(exemplars, config.size, config.seed) if exemplars and config.critics_weight else None
        config.check_reward(exemplars is not None)
        self.device = translator.outNet.weight.device
        window = tokenizer.downsample * translator.config.grid * translator.config.upscale
        if config.size % window:
            raise ValueError(f"size {config.size} px is not a multiple of {window} px, the translator's window")
        with torch.no_grad():
            self.style, self.neutral = reward.embed_texts(model, [prompt, NEUTRAL]).unbind()
        self.embeddings = all_embeddings(tokenizer)
        self.targets = soft_targets(self.embeddings, 16, 0.25)
        self._texts: dict[str, Tensor] = {}

    def autocast(self) -> AbstractContextManager[object]:
        """A block in the precision of this run."""
        return autocast(self.device) if self.reduced else nullcontext()

    def aimed_at(self, style: Tensor) -> Objective:
        """The same with another embedding (E) in place of the style prompt's."""
        other = copy.copy(self)
        other.style = style
        return other

    def text(self, caption: str) -> Tensor:
        """(E): the embedding of "{style} of {caption}", in lower case and without a full stop as in the paper; without a caption,
        of the style."""
        caption = caption.strip().rstrip(".").lower()
        if caption not in self._texts:
            with torch.no_grad():
                words = f"{self.prompt} of {caption}" if caption else self.prompt
                self._texts[caption] = reward.embed_texts(self.clip, [words])[0]
        return self._texts[caption]

    # from a photo to the logits of its stylised tokens

    @torch.no_grad()
    def content(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) -> the content tokens that the translator reads, (B, h, w)."""
        return self.tokenizer.encode(images if self.translator.config.upscale == 1 else half_size(images))

    def logits(self, content: Tensor, style: Style | None, places: Tensor | None = None) -> Tensor:
        """Content tokens (B, h, w) -> logits (B, H, W, V), in windows that do not overlap.

        Args:
            places: (B, 2), where the first token of each picture lies on the style's texture and on a plane of noise, (y, x);
                None: at (0, 0).
        """
        u, n = self.translator.config.upscale, self.translator.config.grid
        read = self.tokenizer.embed(content)
        windows = rearrange(read, "b (y n) (x m) d -> (b y x) (n m) d", n=n, m=n)
        count = read.shape[1] // n
        first = torch.zeros(len(read), 2, dtype=torch.long) if places is None else places
        shown = self.under_windows(style, first, count) if style else None
        out = translate_with(self.translator, windows, [(style, 1.0)] if style else [], shown)
        return rearrange(out, "(b y x) (n m) v -> b (y n) (x m) v", b=len(read), x=count, n=u * n)

    def under_windows(self, style: Style, places: Tensor, count: int) -> Tensor | None:
        """The part of the style's texture that lies under each window, and noise; None without either.

        Args:
            places: (B, 2), as in `logits`.
            count: windows a side of a picture.

        Returns:
            (B*count^2, N, D_tok + K), N = (u*n)^2.
        """
        config = self.translator.config
        side = config.grid * config.upscale
        texture, noise = texture_field([(style.texture, 1.0)], self.embeddings), None
        if texture is not None:
            steps = side * torch.cartesian_prod(torch.arange(count), torch.arange(count))  # (count^2, 2)
            texture = field_under(texture, (places[:, None] + steps).flatten(0, 1), side)
        if config.noise:
            whole = noise_at(places, count * side).to(self.embeddings)
            noise = rearrange(whole, "b (y n) (x m) k -> (b y x) (n m) k", n=side, m=side)
        return laid_under(texture, noise, config.embed_dim)

    def kl(self, logits: Tensor, content: Tensor) -> Tensor:
        """KL(adapter || base) of logits (B, H, W, V) for content tokens (B, h, w): nats a token, exact over the vocabulary."""
        with torch.no_grad():
            base = self.logits(content, None).float().log_softmax(-1)
        log_p = logits.log_softmax(-1)
        return (log_p.exp() * (log_p - base)).sum(-1).mean()

    # from logits to pictures and their rewards: what methods use

    def paint(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, H, W, V) -> pictures (B, 3, S, S) in [0, 1], differentiable.

        With softness, each place is the mixture of its likely tokens (translator/sampling.py). Without, it is one token with a
        straight-through gradient, that of the softmax: a Gumbel sample, or the likeliest token if there is no generator.
        """
        if self.config.softness:
            embedded = (logits / self.config.softness).softmax(-1) @ self.embeddings
        else:
            if generator:
                logits = logits + gumbel(logits, generator)
            soft = logits.softmax(-1) @ self.embeddings
            embedded = self.embeddings[logits.argmax(-1)] + (soft - soft.detach())
        return self.tokenizer.decode_mixture(embedded.permute(0, 3, 1, 2), self.config.recompute)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (k, H, W) -> pictures (k, 3, S, S) in [0, 1]."""
        return self.tokenizer.decode(tokens)

    def drawn(self, pictures: Tensor, photo: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (k, 3, S, S) with the lines of their photo (1, 3, S, S), and with marks bent at random by the generator
        (images/lines.py), as `stylize` shows them: what is learnt, such as outlines, stands beside these."""
        amount = self.config.keep_lines
        if not amount:
            return pictures
        moves = None
        if generator:
            moves = random_moves(photo.shape[-2], photo.shape[-1], generator).to(photo)
        with torch.autocast(photo.device.type, enabled=False):
            return with_lines(pictures.float(), photo, amount, moves).clamp(0, 1)

    def crops(self, generator: torch.Generator) -> list[Box]:
        """Random boxes of a picture for CLIP to see, `views` of them."""
        return crop_boxes(self.config.views, self.config.size, generator)

    def judge(self, pictures: Tensor, photo: Tensor, text: Tensor, boxes: list[Box]) -> tuple[Tensor, Tensor]:
        """Pictures (k, 3, S, S) of one photo (1, 3, S, S), text (E) -> their rewards as a whole (k) and of each box (C, k)."""
        c, side = self.config, self.clip.visual.input_resolution
        whole = pictures.new_zeros(len(pictures))
        crops = pictures.new_zeros(len(boxes), len(pictures))
        if c.caption_weight or c.content_weight:
            seen = self.see(pictures)
            whole = c.caption_weight * reward.cosine(seen, text)
            if c.content_weight:
                with torch.no_grad():
                    content = self.see(photo)
                whole = whole + c.content_weight * reward.cosine(seen, content)
        if c.patch_weight or c.directional_weight:
            views = torch.cat([take_crops(pictures, [box] * len(pictures), side) for box in boxes])  # (C*k, 3, side, side)
            seen = self.see(views)
            crops = c.patch_weight * reward.cosine(seen, self.style)
            if c.directional_weight:
                with torch.no_grad():
                    content = self.see(torch.cat([take_crops(photo, [box], side) for box in boxes]))
                content = content.repeat_interleave(len(pictures), 0)
                crops = crops + c.directional_weight * reward.directional(seen, content, self.style, self.neutral)
            crops = crops.view(len(boxes), len(pictures))
        if self.exemplars:
            activations = self.exemplars.network(pictures)
            style, layout = self.exemplars.distances(activations, photo)
            whole = whole - c.style_weight * style - c.layout_weight * layout
            if c.recognised_weight:
                whole = whole - c.recognised_weight * self.exemplars.surprise(activations)
            if self.critics:
                whole = whole + c.critics_weight * self.critics(activations)
        return whole, crops

    def see(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) -> CLIP's embeddings of them, unit vectors (B, E)."""
        return reward.embed_images(self.clip, images, self.config.normalise)

    # the gradient of a batch

    def step(
        self,
        photos: Tensor,
        texts: Sequence[Tensor] | Tensor,
        style: Style,
        generators: Sequence[torch.Generator],
        baseline: float = 0.0,
        tick: Callable[[], None] = lambda: None,
        team: Processes = ALONE,
        count: int | None = None,
    ) -> Outcome:
        """Add the gradient of a batch's mean loss to the style's tensors, photo by photo: it needs the memory of one. Collective.

        Args:
            photos: of this process, (B, 3, S, S) in [0, 1].
            texts: (B, E), from `text`.
            generators: one per photo.
            baseline: of the step before.
            tick: called between parts of the work; may raise to cancel.
            team: the processes that share the batch. The gradient is not summed over them here.
            count: photos of the batch in all processes; None: those given.
        """
        c, method, count = self.config, METHODS[self.config.method], count or len(photos)
        gradient = method.gradient(list(style.tensors.values()), count, c.kl_weight, baseline)
        numbers, pictures = [], []  # numbers stay on the device: reading one would wait for it
        for k, (text, generator) in enumerate(zip(texts, generators, strict=True)):
            photo = photos[k : k + 1]
            tick()
            with self.autocast():
                content = self.content(photo)
                logits = self.logits(content, style, torch.randint(0, 1 << 16, (1, 2), generator=generator)).float()
                kl = self.kl(logits, content)
                tick()
                judged = method.loss(self, logits, photo, text, generator)
            tick()
            numbers.append(torch.stack([gradient.add(judged, kl), judged.reward, kl.detach()]))
            pictures.append(judged.pictures.detach()[:1])
        sums = torch.stack(numbers).cpu().double().sum(0) if numbers else torch.zeros(3, dtype=torch.float64)
        team.all_reduce([sums])
        loss, mean, kl_mean = (sums / count).tolist()
        return Outcome(loss, mean, kl_mean, torch.cat(pictures) if pictures else photos, gradient.finish(mean))

    # made pairs

    def pairs_loss(self, content: Tensor, target: Tensor, places: Tensor, style: Style | None) -> Tensor:
        """Cross-entropy of the made pictures' tokens, given the photos' content tokens: a scalar.

        With pairs_colour_weight it includes the L1 distance of the pictures shown, over 4 x 4 px. Without it, where several
        tokens are likely, the likeliest may have a colour that no made picture has.

        Args:
            content: (B, h, w).
            target: (B, H, W).
            places: on the style's texture, (B, 2), as in `logits`.
        """
        logits = self.logits(content, style, places)
        loss = soft_cross_entropy(logits.flatten(1, 2), target.flatten(1), *self.targets).mean()
        if not self.config.pairs_colour_weight:
            return loss
        with torch.no_grad():
            made = self.tokenizer.decode(target)
        shown = self.paint(logits.float())
        return loss + self.config.pairs_colour_weight * (F.avg_pool2d(shown, 4) - F.avg_pool2d(made, 4)).abs().mean()

    def encode_pairs(self, photos: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """Photos and made pictures, uint8 (N, 3, S, S) each -> their tokens (N, h, w) and (N, H, W)."""
        parts = zip(photos.split(32), made.split(32), strict=True)
        with torch.no_grad():
            coded = [
                (self.content(a.to(self.device).float() / 255), self.tokenizer.encode(b.to(self.device).float() / 255))
                for a, b in parts
            ]
        left, right = zip(*coded, strict=True)
        return torch.cat(left), torch.cat(right)
