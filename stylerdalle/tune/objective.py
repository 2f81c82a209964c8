"""What a tuning step minimises: a CLIP reward, followed in one of three ways, and cross-entropy on made pairs.

- `direct`: soft or straight-through tokens -> decoder -> CLIP, differentiated end to end (AlignProp, arXiv 2310.03739; DRaFT,
  arXiv 2309.17400).
- `rloo`: k draws a photo share one forward pass, each judged against the mean of the others (arXiv 2402.14740); the
  reward of a crop is credited to the tokens under it.
- `reinforce`: the paper's (arXiv 2303.09268, section 3.3): one draw a photo, one reward for all of its tokens, one running
  baseline that starts at 0.

The models are never changed: the adapter lives beside them (style.py), and without it they are the reference of the KL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..clip import scores as reward
from ..clip.scores import NEUTRAL, crop_boxes, take_crops
from ..distributed import ALONE, Processes
from ..learn.targets import soft_cross_entropy, soft_targets
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.model import Translator
from ..translator.sampling import gumbel
from ..translator.style import Style, translate_with
from ..translator.texture import field_under, texture_field

if TYPE_CHECKING:
    from clip.model import CLIP

    from .config import TuneConfig


@dataclass(frozen=True)
class Outcome:
    """Of one batch: the mean loss, reward and KL (nats a token), and the pictures that were judged here, (B, 3, S, S)."""

    loss: float
    reward: float
    kl: float
    pictures: Tensor


class Objective:
    """The models of a tuning run and what is asked of them.

    Args:
        prompt: of the style.

    Raises:
        ValueError: the config's size does not fit the translator's window.
    """

    def __init__(self, tokenizer: ImageTokenizer, translator: Translator, model: CLIP, prompt: str, config: TuneConfig):
        self.tokenizer, self.translator, self.clip, self.prompt, self.config = tokenizer, translator, model, prompt, config
        self.device = translator.outNet.weight.device
        window = tokenizer.downsample * translator.config.grid * translator.config.upscale
        if config.size % window:
            raise ValueError(f"size {config.size} px is not a multiple of {window} px, the translator's window")
        with torch.no_grad():
            self.style, self.neutral = reward.embed_texts(model, [prompt, NEUTRAL]).unbind()
        self.embeddings = all_embeddings(tokenizer)
        self.index, self.shares = soft_targets(self.embeddings, 16, 0.25)
        self.baseline = 0.0  # of `reinforce`
        self._texts: dict[str, Tensor] = {}

    def text(self, caption: str) -> Tensor:
        """(E): "{style} of {caption}" as the paper has it (lower case, no full stop); the style alone where there is none."""
        caption = caption.strip().rstrip(".").lower()
        if caption not in self._texts:
            with torch.no_grad():
                words = f"{self.prompt} of {caption}" if caption else self.prompt
                self._texts[caption] = reward.embed_texts(self.clip, [words])[0]
        return self._texts[caption]

    @torch.no_grad()
    def content(self, images: Tensor) -> Tensor:
        """Photos (B, 3, S, S) -> the content tokens that the translator reads, (B, S/8u, S/8u)."""
        u = self.translator.config.upscale
        source = images if u == 1 else F.interpolate(images, scale_factor=1 / u, mode="bicubic", antialias=True).clamp(0, 1)
        return self.tokenizer.encode(source)

    def logits(self, content: Tensor, style: Style | None, places: Tensor | None = None) -> Tensor:
        """Content tokens (B, h, w) -> logits (B, u*h, u*w, V), window by window without overlap.

        Args:
            places: (B, 2), (y, x) of each picture's first target token on the style's texture; (0, 0) if not given.
        """
        u, n = self.translator.config.upscale, self.translator.config.grid
        read = self.tokenizer.embed(content)
        windows = rearrange(read, "b (y n) (x m) d -> (b y x) (n m) d", n=n, m=n)
        count = read.shape[1] // n
        out = translate_with(self.translator, windows, [(style, 1.0)] if style else [], self.texture(style, places, count))
        return rearrange(out, "(b y x) (n m) v -> b (y n) (x m) v", b=len(read), x=count, n=u * n)

    def texture(self, style: Style | None, places: Tensor | None, count: int) -> Tensor | None:
        """What lies of the style's texture under windows, `count` a side for each of places (B, 2): (B*count^2, N, D_tok)."""
        shown = texture_field([(style.texture, 1.0)], self.embeddings) if style and style.texture else None
        if shown is None:
            return None
        side = self.translator.config.grid * self.translator.config.upscale
        first = torch.zeros(1, 2, dtype=torch.long) if places is None else places
        steps = side * torch.cartesian_prod(torch.arange(count), torch.arange(count))  # (count^2, 2)
        return field_under(shown, (first[:, None] + steps).flatten(0, 1), side)

    def paint(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, h, w, V) -> pictures (B, 3, 8h, 8w), differentiable.

        With softness the mean embedding of the likely tokens (sampling.py); without, Gumbel samples forwards and their
        softmax backwards, or the likeliest tokens where there is no generator.
        """
        if self.config.softness:
            embedded = (logits / self.config.softness).softmax(-1) @ self.embeddings
        else:
            if generator:
                logits = logits + gumbel(logits, generator)
            soft = logits.softmax(-1) @ self.embeddings
            embedded = self.embeddings[logits.argmax(-1)] + (soft - soft.detach())
        return self.tokenizer.decode_mixture(embedded.permute(0, 3, 1, 2))

    def judge(self, out: Tensor, photo: Tensor, text: Tensor, boxes: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor]:
        """Rewards of k pictures (k, 3, S, S) of one photo (1, 3, S, S): of the whole (k), and of each box (V, k)."""
        c, side = self.config, self.clip.visual.input_resolution
        whole = out.new_zeros(len(out))
        crops = out.new_zeros(len(boxes), len(out))
        if c.caption_weight or c.content_weight:
            seen = self.see(out)
            whole = c.caption_weight * reward.cosine(seen, text)
            if c.content_weight:
                with torch.no_grad():
                    content = self.see(photo)
                whole = whole + c.content_weight * reward.cosine(seen, content)
        if c.patch_weight or c.directional_weight:
            views = torch.cat([take_crops(out, [box] * len(out), side) for box in boxes])  # (V*k, 3, side, side)
            seen = self.see(views)
            crops = c.patch_weight * reward.cosine(seen, self.style)
            if c.directional_weight:
                with torch.no_grad():
                    content = self.see(torch.cat([take_crops(photo, [box], side) for box in boxes]))
                content = content.repeat_interleave(len(out), 0)
                crops = crops + c.directional_weight * reward.directional(seen, content, self.style, self.neutral)
            crops = crops.view(len(boxes), len(out))
        return whole, crops

    def see(self, images: Tensor) -> Tensor:
        """CLIP's unit vectors of pictures, (B, E)."""
        return reward.embed_images(self.clip, images, self.config.normalise)

    def step(
        self,
        photos: Tensor,
        texts: Sequence[Tensor] | Tensor,
        style: Style,
        generators: Sequence[torch.Generator],
        tick: Callable[[], None] = lambda: None,
        team: Processes = ALONE,
        count: int | None = None,
    ) -> Outcome:
        """Adds the gradient of the batch's mean loss to the style's tensors, photo by photo: it takes the memory of one.

        Args:
            photos: (B, 3, S, S) in [0, 1].
            texts: (B, E), from `text`.
            generators: of each photo.
            tick: called between parts of the work; may raise to cancel.
            team: processes that share the batch: what is added is this one's part of the gradient, to be summed.
            count: photos of the batch in all processes.
        """
        count = count or len(photos)
        own = list(style.tensors.values())
        drawn = [torch.zeros_like(tensor) for tensor in own] if self.config.method == "reinforce" else []
        losses, rewards, kls, pictures = [], [], [], []
        for k, (text, generator) in enumerate(zip(texts, generators, strict=True)):
            photo = photos[k : k + 1]
            tick()
            with torch.autocast(self.device.type, torch.bfloat16):
                content = self.content(photo)
                logits = self.logits(content, style, torch.randint(0, 1 << 16, (1, 2), generator=generator)).float()
                kl = self.kl(logits, content)
                tick()
                loss, score, out = getattr(self, self.config.method)(logits, photo, text, generator)
            tick()
            if drawn:  # sum of (r - b) grad log p: b is known only when all photos are judged
                gradients = torch.autograd.grad(loss, own, retain_graph=bool(self.config.kl_weight))
                for tensor, total, gradient in zip(own, drawn, gradients, strict=True):
                    total += gradient
                    tensor.grad = (0 if tensor.grad is None else tensor.grad) + score * gradient / count
                loss = loss * score
                if self.config.kl_weight:
                    (self.config.kl_weight * kl / count).backward()
            else:
                loss = loss + self.config.kl_weight * kl
                (loss / count).backward()
            losses.append(loss.item())
            rewards.append(score)
            kls.append(kl.item())
            pictures.append(out.detach()[:1])
        sums = torch.tensor([sum(losses), sum(rewards), sum(kls)], dtype=torch.float64)
        team.sum([sums])
        loss, mean, kl = (sums / count).tolist()
        if drawn:
            self.baseline = (count * self.baseline + mean) / (count + 1)
            for tensor, total in zip(own, drawn, strict=True):
                assert tensor.grad is not None
                tensor.grad -= self.baseline * total / count
        return Outcome(loss, mean, kl, torch.cat(pictures) if pictures else photos)

    def kl(self, logits: Tensor, content: Tensor) -> Tensor:
        """KL(adapter || base) in nats a token, exact over the vocabulary."""
        with torch.no_grad():
            base = self.logits(content, None).float().log_softmax(-1)
        log_p = logits.log_softmax(-1)
        return (log_p.exp() * (log_p - base)).sum(-1).mean()

    def direct(self, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> tuple[Tensor, float, Tensor]:
        """(loss, reward, pictures): the reward itself is differentiated."""
        out = self.paint(logits, generator)
        whole, crops = self.judge(out, photo, text, crop_boxes(self.config.views, self.config.size, generator))
        score = whole.mean() + crops.mean()
        loss = -score
        if self.config.colour_weight:
            loss = loss + self.config.colour_weight * (F.avg_pool2d(out, 16) - F.avg_pool2d(photo, 16)).abs().mean()
        return loss, score.item(), out

    def rloo(self, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> tuple[Tensor, float, Tensor]:
        """(loss, reward, pictures): log p of each draw, weighted by how much better it was than the other draws."""
        c = self.config
        tokens, log_p = draw(logits, c.samples, generator)  # (k, h, w) each
        boxes = crop_boxes(c.views, c.size, generator)
        with torch.no_grad():
            out = self.tokenizer.decode(tokens)
            whole, crops = self.judge(out, photo, text, boxes)
            credit = whole[:, None, None] + reward.credit(crops, boxes, c.size, tokens.shape[1])  # (k, h, w)
            others = (credit.sum(0) - credit) / (c.samples - 1)
            advantage = credit - others
            if c.normalise_advantage:
                advantage = advantage / (advantage.std() + 1e-6)
        return -(advantage * log_p).mean(), float(whole.mean() + crops.mean()), out

    def reinforce(self, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> tuple[Tensor, float, Tensor]:
        """(-mean log p of one draw, its reward, its picture): `step` weighs them with reward minus baseline."""
        tokens, log_p = draw(logits, 1, generator)
        with torch.no_grad():
            out = self.tokenizer.decode(tokens)
            whole, crops = self.judge(out, photo, text, crop_boxes(self.config.views, self.config.size, generator))
        return -log_p.mean(), float(whole.mean() + crops.mean()), out

    def pairs_loss(self, content: Tensor, target: Tensor, places: Tensor, style: Style | None) -> Tensor:
        """Cross-entropy of the made pictures' tokens (B, u*h, u*w) given the photos' content tokens (B, h, w) and their places
        on the style's texture (B, 2).

        With pairs_colour_weight also the L1 distance of the pictures shown, over 4x4 px: where several tokens are likely, the
        likeliest may be one of a colour that none of the made pictures has.
        """
        logits = self.logits(content, style, places)
        loss = soft_cross_entropy(logits.flatten(1, 2), target.flatten(1), self.index, self.shares).mean()
        if not self.config.pairs_colour_weight:
            return loss
        with torch.no_grad():
            made = self.tokenizer.decode(target)
        shown = self.paint(logits.float())
        return loss + self.config.pairs_colour_weight * (F.avg_pool2d(shown, 4) - F.avg_pool2d(made, 4)).abs().mean()

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


def draw(logits: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` draws from softmax(logits), logits (1, h, w, V) -> tokens and their log p, (count, h, w) each."""
    log_p = logits.log_softmax(-1)
    with torch.no_grad():
        tokens = torch.cat([(logits + gumbel(logits, generator)).argmax(-1) for _ in range(count)])
    return tokens, log_p.expand(count, -1, -1, -1).gather(-1, tokens[..., None])[..., 0]
