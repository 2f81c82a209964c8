"""The models of the polish (polish.py), and what a step adds to their gradients.

A step is written for CUDA graphs (learn/recorded.py): equal shapes, all chance from outside (polish_draw.py), nothing read back.

Letters: S styles with works, B pictures of each, P windows of pairs of each; n x n tokens of a window; K planes of noise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from ..clip.protocol import CLIPModel
from ..clip.scores import cosine, embed_images, embed_texts
from ..clip.statistics import StatisticsTower, channel_statistics
from ..device import autocast
from ..features.recogniser import Recogniser
from ..images.lines import with_lines
from ..images.tiling import starts
from ..learn.loop import Numbers
from ..learn.recorded import Recorded
from ..learn.targets import soft_cross_entropy, soft_targets
from ..settings import LINES
from ..tokenizers.dvae import DVAE, unclamped_pixels
from ..tokenizers.protocol import all_embeddings
from ..tokenizers.weave import without_weave
from ..translator.model import Translator
from ..translator.style import Style, translate_with
from ..translator.texture import field_under, laid_under, texture_field
from ..translator.windows import falloff
from .coded import Coded
from .critic import Critic, Depths
from .faults import calm, calm_loss, hue_loss, plain_places, repetition_loss
from .joint import JointConfig
from .perceptual import CONTENT_DEPTH, Features, Statistics, content_loss, layout_distance, statistics, style_loss
from .polish_config import PolishConfig
from .polish_data import GRAPHICS, NATURAL, Bank
from .polish_draw import Drawn, Draws, PolishBatch, Windows, parts_of
from .registry import STYLES
from .teacher_styles import MANNERS
from .tokenizer import reconstruction_loss


class Polish:
    """The models and their losses.

    Args:
        pairs: by style, at least one window each.
        works: crops of the works of each style that has some.
        labelled: crops of more pictures of some of these styles, small ones, which only the critics see.
        classes: crops of these styles, of others and of photos, by name, from which the recogniser learns; none: no such loss.
        photos: crops of photos, of `config.side` tokens a side.
    """

    def __init__(
        self,
        tokenizer: DVAE,
        translator: Translator,
        styles: Mapping[str, Style],
        model: CLIPModel,
        features: Features,
        pairs: Mapping[str, Coded],
        works: Mapping[str, Bank],
        photos: Bank,
        config: PolishConfig,
        labelled: Mapping[str, Bank] | None = None,
        classes: Iterable[tuple[str, Bank]] = (),
    ):
        self.tokenizer, self.translator, self.styles, self.clip, self.features = tokenizer, translator, styles, model, features
        self.config, self.works = config, list(works)
        self.shown = copy.deepcopy(tokenizer).requires_grad_(False)  # the decoder as it was
        self.embeddings = all_embeddings(tokenizer)
        self.device = self.embeddings.device
        self.soft = soft_targets(self.embeddings, config.neighbours, config.target_softness)
        more = labelled or {}
        every = [bank for name, own in works.items() for bank in (own, *([more[name]] if name in more else []))]
        self.crops = torch.cat([bank.crops for bank in (*every, photos)])  # uint8 (all, 3, side, side)
        rows, first = {}, 0
        for name, own in works.items():
            count = len(own.crops) + (len(more[name].crops) if name in more else 0)
            rows[name], first = (first, first + count), first + count
        rows[""] = (first, len(self.crops))
        depths = critic_depths(model).to(self.device)
        depths.measure(torch.cat([own.draw(4, np.random.default_rng(0)) for own in works.values()]))
        self.critic = Critic(depths, 1 + len(works)).to(self.device)  # the first class is that of photos
        self.recogniser, seen = self._recogniser(depths, classes), 2 * sum(depths.widths)
        n, side, noise = translator.config.grid, config.side, translator.config.noise
        known = {name: pairs[name] for name in styles}
        with torch.no_grad(), autocast(self.device):
            contents = torch.cat([tokenizer.encode(some.float() / 255).cpu() for some in photos.crops.split(32)])
        self.draws = Draws(known, rows, contents, noise, seen, n, tokenizer.downsample * side, config)
        self.batch = self.draws.batch
        made = self.draws.styles * config.batch  # pictures of a step; the reals of a step are as many works, then photos
        works_again = np.linspace(0, made, config.round_trips, endpoint=False).astype(int)
        self.again = torch.tensor([*works_again, *range(made, made + config.round_trips)], device=self.device)
        self._know(works)
        self.corners = [(y, x) for y in starts(side, n, n // 4) for x in starts(side, n, n // 4)]
        self.weight = falloff(n).to(self.device)
        self._recorded: dict[bool, Recorded] = {}
        self._slots: list[Style] = []

    @torch.no_grad()
    def _know(self, works: Mapping[str, Bank]) -> None:
        """What is known of each style, in the order of the works or of `draws.order`."""
        c, each, limits = self.config, [], []
        for bank in works.values():
            some = bank.draw(24, np.random.default_rng(1))
            each.append([statistics(depth) for depth in self.features(some)])
            limits.append(calm(some))
        self.targets = [
            Statistics(torch.stack([s.mean.mean(0) for s in depth]), torch.stack([s.covariance.mean(0) for s in depth]))
            for depth in zip(*each, strict=True)
        ]
        self.limits = torch.stack(limits)
        self.prompts = embed_texts(self.clip, [STYLES[name].prompt for name in works])
        own = [MANNERS[name].content if name in MANNERS else 1.0 for name in works]
        self.content_weights = torch.tensor(own, device=self.device)
        self.natural = torch.tensor([float(name in NATURAL) for name in works], device=self.device)
        self.marks_weights = torch.tensor([c.kept if n in GRAPHICS else c.marks for n in works], device=self.device)
        asked = [self.recogniser.classes.index(name) for name in works] if self.recogniser else []
        self.asked = torch.tensor(asked, device=self.device)
        fields = [texture_field([(self.styles[name].texture, 1.0)], self.embeddings) for name in self.draws.order]
        some = next((field for field in fields if field is not None), self.embeddings.new_zeros(1, 1, self.embeddings.shape[1]))
        self.fields = torch.stack([some.new_zeros(some.shape), *(field for field in fields if field is not None)])
        places = iter(range(1, len(self.fields)))
        self.field_of = torch.tensor([0 if field is None else next(places) for field in fields], device=self.device)
        self.work_of = torch.tensor(
            [self.works.index(n) if n in self.works else -1 for n in self.draws.order], device=self.device
        )

    @torch.no_grad()
    def _seen(self, depths: Depths, found: Bank) -> Tensor:
        rng, size = np.random.default_rng(2), self.config.size
        spare = found.crops.shape[-1] - size + 1
        parts = []
        for some in found.crops.split(32):
            y, x = rng.integers(spare, size=2)
            parts.append(channel_statistics(depths(some[..., y : y + size, x : x + size].float() / 255)))
        return torch.cat(parts)

    def _recogniser(self, depths: Depths, classes: Iterable[tuple[str, Bank]]) -> Recogniser | None:
        with autocast(self.device):
            seen = {name: self._seen(depths, found) for name, found in classes}
        if not seen:
            return None
        recogniser = Recogniser(list(seen), depths.widths)
        recogniser.fit(list(seen.values()), self.config.seed)
        return recogniser

    # steps

    def learn(self, step: int, batch: PolishBatch) -> Numbers:
        """Add a step's gradients -> the parts of the loss."""
        painting, own = step >= self.config.alone, [self.styles[name] for name in batch.names]
        if self.device.type == "cuda":
            found = self._replayed(own, painting, batch.tensors())
        else:
            found = self.add_gradients(own, painting, *(x.to(self.device) for x in batch.tensors()))
        values = torch.stack([value.float() for value in found.values()]).tolist()
        return dict(zip(found, values, strict=True))

    def _replayed(self, own: Sequence[Style], painting: bool, inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """`add_gradients`, recorded as a CUDA graph, which reads the adapters where copies of them lie."""
        if not self._slots:
            self._slots = [replace(style, tensors={k: t.detach().clone() for k, t in style.tensors.items()}) for style in own]
        slots, leaves = self._slots, [tensor.requires_grad_(True) for slot in self._slots for tensor in slot.tensors.values()]
        with torch.no_grad():
            torch._foreach_copy_(leaves, [style.tensors[k] for slot, style in zip(slots, own, strict=True) for k in slot.tensors])
        if painting not in self._recorded:
            modules = (self.translator, self.tokenizer.decoder, self.critic)
            shared = [p for module in modules for p in module.parameters() if p.requires_grad]

            def work(*tensors: Tensor) -> Mapping[str, Tensor]:
                return self.add_gradients(slots, painting, *tensors)

            self._recorded[painting] = Recorded(work, [*shared, *leaves], self.device)
        found = self._recorded[painting](*inputs)
        for slot, style in zip(slots, own, strict=True):
            for key, copied in slot.tensors.items():
                style.tensors[key].grad, copied.grad = copied.grad, None
        return found

    def add_gradients(self, styles: Sequence[Style], painting: bool, *tensors: Tensor) -> dict[str, Tensor]:
        """The gradients of a step -> the parts of the loss, scalars.

        Args:
            styles: S with works; and last, if the batch has windows of it, one without.
            painting: whether critics judge the pictures: not in the first steps.
            tensors: of PolishBatch, on the device.
        """
        c, (windows, drawn, kept) = self.config, parts_of(tensors)
        work = self.work_of[windows.style][:, None].expand(-1, c.batch).flatten()  # of each picture its style
        self.critic.requires_grad_(False)
        with autocast(self.device):
            logits, paired = self.translate(styles, windows, drawn)
            target = windows.target.flatten(0, 1)
            marks = soft_cross_entropy(paired, target, *self.soft).mean(1)  # of each window
            parts = {"marks": (self.marks_weights[work[:: c.batch]][:, None] * marks.unflatten(0, (-1, c.pairs))).mean()}
            photo = self.crops[drawn.photos].float() / 255
            made = self.paint(logits, drawn.hard, photo, drawn.moves)
            if painting:
                parts |= self.judged(work, made, photo, drawn)
            weights = {**asdict(c), "marks": 1.0}
            add(torch.stack([weights[key] * value for key, value in parts.items()]).sum())
            if kept is not None:
                parts["kept"] = self.kept_loss(styles[-1], kept)
                add(c.kept / len(windows.style) * parts["kept"])
            if c.base:
                parts["base"] = self.base_loss(drawn)
                add(c.base_weight * parts["base"])
            real = self.crops[drawn.reals].float() / 255
            real_style = torch.cat([work + 1, work.new_zeros(c.round_trips)])
            fake, fake_style = made.detach().clamp(0, 1), work + 1
            if c.round_trips:
                some = real[self.again], real_style[self.again]
                again, parts["fidelity"] = self.round_trip(*some, painting)
                fake, fake_style = torch.cat([fake, again]), torch.cat([fake_style, some[1]])
            self.critic.requires_grad_(True)
            with torch.no_grad():
                seen = [self.critic.look(cut(x, at)) for x, at in ((real, drawn.cuts[1]), (fake, drawn.cuts[2]))]
            parts["critic"] = self.critic.hinge(seen[0], real_style, seen[1], fake_style)
        parts["critic"].backward()
        return {name: value.detach() for name, value in parts.items()}  # what holds a gradient's graph would bind its streams

    # pictures

    def translate(self, styles: Sequence[Style], windows: Windows, drawn: Drawn) -> tuple[Tensor, Tensor]:
        """Pictures' contents and windows of pairs, in one pass of each style -> logits (S*B, side, side, V), (S*P, n*n, V)."""
        c, n = self.config, self.translator.config.grid
        corners, pictures, pairs = len(self.corners), [], []
        for k, style in enumerate(styles[: len(windows.style)]):
            own = slice(k * c.batch, (k + 1) * c.batch)
            tokens = [drawn.contents[own, y : y + n, x : x + n].flatten(1) for y, x in self.corners]
            noise = [drawn.noise[own, y : y + n, x : x + n].flatten(1, 2) for y, x in self.corners]
            places = [torch.stack([drawn.places[own, 0] + y, drawn.places[own, 1] + x], 1) for y, x in self.corners]
            under = self.under(
                windows.style[k : k + 1], torch.cat([*places, windows.places[k]]), torch.cat([*noise, windows.noise[k]])
            )
            read = self.embeddings[torch.cat([*tokens, windows.content[k]])]
            logits = translate_with(self.translator, read, [(style, 1.0)], under)
            pictures.append(self.joined(logits[: corners * c.batch].unflatten(0, (corners, c.batch))))
            pairs.append(logits[corners * c.batch :])
        return torch.cat(pictures), torch.cat(pairs)

    def under(self, style: Tensor, places: Tensor, noise: Tensor) -> Tensor | None:
        """The texture and the noise under windows of one style, long (1,): places (N, 2), noise (N, n*n, K)."""
        config = self.translator.config
        if not config.texture:
            return None
        field = self.fields.index_select(0, self.field_of[style])[0]
        return laid_under(field_under(field, places, config.grid), noise, config.embed_dim)

    def joined(self, windows: Tensor) -> Tensor:
        """Logits of windows (corners, B, n*n, V), blended as in use -> (B, side, side, V)."""
        n, side = self.translator.config.grid, self.config.side
        total = windows.new_zeros(windows.shape[1], side, side, windows.shape[-1], dtype=torch.float32)
        weights = torch.zeros(side, side, 1, device=windows.device)
        for (y, x), window in zip(self.corners, windows, strict=True):
            place = (slice(None), slice(y, y + n), slice(x, x + n))
            total[place] = total[place] + window.float().unflatten(1, (n, n)) * self.weight[..., None]
            weights[place[1:]] += self.weight[..., None]
        return total / weights

    def paint(self, logits: Tensor, hard: Tensor, photos: Tensor, moves: Tensor) -> Tensor:
        """Logits (B, h, w, V) -> pictures (B, 3, H, W): with `hard` 1 of the likeliest tokens, with 0 of mixtures, as in use.

        As in use they have the lines of the photos, and marks bent by `moves` (images/lines.py).
        """
        soft = (logits / self.config.softness).softmax(-1) @ self.embeddings
        embedded = soft + hard * (self.embeddings[logits.argmax(-1)] - soft).detach()
        made = leaky(self.tokenizer.decode_embedded(embedded.permute(0, 3, 1, 2)))
        made = made + (1 - hard) * (without_weave(made) - made.clamp(0, 1))
        with torch.autocast(self.device.type, enabled=False):
            return with_lines(made.float(), photos, LINES, moves)

    # losses

    def judged(self, work: Tensor, made: Tensor, photo: Tensor, drawn: Drawn) -> dict[str, Tensor]:
        """The parts of the loss that see the pictures (S*B, 3, H, W), of styles `work` (S*B)."""
        c = self.config
        with torch.no_grad():
            wanted = self.features(photo, CONTENT_DEPTH)[CONTENT_DEPTH]
            subject = self.critic.look(cut(photo, drawn.cuts[0]))[-2]
        found, own = self.features(made), self.content_weights[work]
        targets = [Statistics(s.mean[work], s.covariance[work]) for s in self.targets]
        with torch.autocast(self.device.type, enabled=False):
            layout = layout_distance(made, photo).mean()
            plain = plain_places(photo)
            calmer = calm_loss(made, plain, self.limits[work]).mean()
            hue = (self.natural[work] * hue_loss(made, photo)).mean()
            both = zip(made.split(c.batch), plain.split(c.batch), strict=True)
            repeats = torch.stack([repetition_loss(*of_a_style) for of_a_style in both]).mean()
        seen = self.critic.look(cut(made, drawn.cuts[0]))
        asked = {} if self.recogniser is None else {"recognised": self.recogniser(seen[:-1], self.asked[work], drawn.shown)}
        return asked | {
            "critics": -self.critic(seen, work + 1).mean(),
            "style": style_loss(found, targets).mean(),
            "text": 1 - cosine(embed_images(self.clip, made, True), self.prompts[work]).mean(),
            "content": (own * content_loss(found[CONTENT_DEPTH], wanted)).mean(),
            "subject": content_loss(seen[-2], subject).mean(),
            "layout": layout,
            "calm": calmer,
            "repetition": repeats,
            "hue": hue,
        }

    def kept_loss(self, style: Style, windows: Windows) -> Tensor:
        """Cross-entropy of the pairs of a style without works."""
        under = self.under(windows.style, windows.places[0], windows.noise[0])
        logits = translate_with(self.translator, self.embeddings[windows.content[0]], [(style, 1.0)], under)
        return soft_cross_entropy(logits, windows.target[0], *self.soft).mean()

    def base_loss(self, drawn: Drawn) -> Tensor:
        """Cross-entropy of photos' tokens by the base translator, some of which it does not see."""
        hidden = drawn.base_hidden
        logits = self.translator(self.embeddings[drawn.base] * ~hidden[..., None])
        loss = soft_cross_entropy(logits, drawn.base, *self.soft)
        return (loss * (JointConfig.hidden_weight * hidden + 1.0 * ~hidden)).mean()

    def round_trip(self, images: Tensor, style: Tensor, judged: bool) -> tuple[Tensor, Tensor]:
        """Add the gradients of round trips to the decoder -> (the pictures, how far they are from what they were)."""
        c = self.config
        with torch.no_grad():
            embedded = self.shown.embed(self.shown.encode(images))
            wanted = self.features(images, CONTENT_DEPTH)
        output = self.tokenizer.decode_embedded(embedded.permute(0, 3, 1, 2))
        made = leaky(output)
        found = self.features(made, CONTENT_DEPTH)
        pairs = [(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
        near = torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs])
        fidelity = 0.25 * reconstruction_loss(output, images) + near.mean()
        loss = c.fidelity * fidelity
        if judged:
            loss = loss - c.critics * self.critic(self.critic.look(made), style).mean()
        loss.backward()
        return made.detach().clamp(0, 1), fidelity.detach()


def add(loss: Tensor) -> None:
    """Add a loss's gradients, where anything that it depends on learns."""
    if loss.requires_grad:
        loss.backward()


def cut(images: Tensor, at: Tensor) -> Tensor:
    """A part of pictures: (B, 3, H, W), rows and columns long (2, size) -> (B, 3, size, size)."""
    return images.index_select(2, at[0]).index_select(3, at[1])


def critic_depths(model: CLIPModel) -> Depths:
    """The frozen layers for the critics: those of the bundle's CLIP if it has them, else the public ones."""
    return Depths(copy.deepcopy(model.visual)) if isinstance(model.visual, StatisticsTower) else Depths.public()


def leaky(output: Tensor) -> Tensor:
    """The decoder's means before the sigmoid -> pixels in [0, 1], and a little beyond, so that every colour has a gradient."""
    pixels = unclamped_pixels(output)
    inside = pixels.clamp(0, 1)
    return inside + 0.1 * (pixels - inside)
