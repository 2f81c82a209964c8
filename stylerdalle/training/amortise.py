"""Amortised tuning: one network for all prompts (translator/hypernetwork.py), learnt on a list of them (prompts.py).

In a step, some prompts that have a filter or a tone learn from made pairs: cross-entropy on the tokens of the made picture. One
other prompt learns from CLIP's reward, as in tuning by the method `direct`; in every second step it is one that has no pairs. For
such a prompt the target is not the text alone: it is moved towards the pictures of art with the nearest captions (art.py).
Prompts of held-out families are only scored.

`stylerdalle tune --styles FILE` does this; the bundled file is made by

    stylerdalle tune --styles stylerdalle/training/prompts.txt --images SHARDS --output prompts.safetensors
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip import scores as reward
from ..clip.protocol import CLIPModel
from ..distributed import Processes, processes
from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.loop import Descent, Loop, Numbers, Stateful
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import generator, in_rounds, learning_rate
from ..learn.targets import soft_cross_entropy
from ..tokenizers.protocol import ImageTokenizer
from ..translator.hypernetwork import HyperNetwork, changed
from ..translator.model import Translator
from ..translator.sizes import HyperConfig
from ..translator.style import Style, translate_with
from ..translator.texture import texture_field
from ..tune.config import TuneConfig
from ..tune.methods import METHODS
from ..tune.objective import Objective
from .art import stored_art_targets
from .options import AmortiseConfig
from .prompt_pairs import pairs_of_prompts
from .prompts import Prompt
from .teacher_pairs import Pairs

log = logging.getLogger(__name__)


class Lessons(NamedTuple):
    """The prompts of one step."""

    pairs: list[tuple[Prompt, Tensor]]  # and which of its pairs, long (B)
    photos: list[tuple[Prompt, Tensor]]  # and a photo for the reward, (1, 3, S, S) in [0, 1]


class Course:
    """The prompts of a run and what they are to learn.

    Args:
        prompts: those that are not held out.
        photos: to learn on.
        art: pictures with captions.
        painted: pairs that the teacher painted; filters make what they lack.
    """

    def __init__(
        self,
        objective: Objective,
        photos: Sequence[Picture],
        art: Sequence[Picture],
        prompts: Sequence[Prompt],
        config: AmortiseConfig,
        run: Run,
        painted: Pairs | None = None,
    ):
        self.objective, self.photos, self.prompts, self.config = objective, photos, prompts, config
        self.paired = [p for p in prompts if p.paired]
        self.alone = [p for p in prompts if not p.paired]
        with torch.no_grad():
            self.texts = reward.embed_texts(objective.clip, [p.text for p in prompts])  # (P, E)
        self.text = dict(zip((p.text for p in prompts), self.texts, strict=True))  # embedding (E) of each prompt
        tokenizer, c = objective.tokenizer, config
        with processes().main_first():
            window = tokenizer.downsample * objective.translator.config.grid
            self.pairs = pairs_of_prompts(
                tokenizer, photos, self.paired, window, c.per_filter, c.per_tone, c.seed, run.folder, painted
            )
        self.aim = {**self.text, **self._leaning(art, run)}  # embedding (E) that the reward of each prompt is measured by
        textures = {p.filter: coded.texture for p in self.paired if (coded := self.pairs[p.text]).texture}
        self.fields: dict[str, Tensor] = {}  # by filter, what the translator reads of its texture
        for name, texture in textures.items():
            read = texture_field([(texture, 1.0)], objective.embeddings)
            if read is not None:
                self.fields[name] = read
        self.number = {name: k for k, name in enumerate(textures)}  # of each filter's texture in the network
        self.tiles = torch.cat([texture.tokens for texture in textures.values() if texture]) if textures else None

    def _leaning(self, art: Sequence[Picture], run: Run) -> dict[str, Tensor]:
        """Targets of the prompts without pairs, by their texts; none without art. Collective."""
        weight, texts = self.config.art_weight, [p.text for p in self.alone]
        if not texts or not weight:
            return {}
        with processes().main_first():
            found = stored_art_targets(self.objective.clip, art, texts, torch.stack([self.text[t] for t in texts]), run)
        if found is None:
            return {}
        return {text: F.normalize(self.text[text] + weight * a, dim=-1) for text, a in zip(texts, found, strict=True)}

    def batch(self, step: int, rng: np.random.Generator) -> Lessons:
        """The prompts of a step, each with what it learns from."""
        c, size = self.config, self.objective.config.size
        pairs = [
            (p, torch.from_numpy(rng.integers(len(self.pairs[p.text]), size=c.batch)))
            for p in self._turn(self.paired, step, c.prompts)
        ]
        photos = []
        for p in self._turn((self.alone or self.prompts) if step % 2 else self.prompts, step // 2, c.rewarded):
            photo = self.photos[int(rng.integers(len(self.photos)))]
            photos.append((p, to_tensor([random_crop(at_least(photo.open(), size), size, rng, (0.5, 1.5))])))
        return Lessons(pairs, photos)

    def _turn(self, prompts: Sequence[Prompt], step: int, count: int) -> list[Prompt]:
        """The next `count` prompts, in rounds."""
        return [prompts[i] for i in in_rounds(len(prompts), count, step, self.config.seed)]

    def pairs_loss(self, network: HyperNetwork, p: Prompt, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy of a prompt's made pictures under their texture, plus that of choosing this texture: a scalar."""
        coded, o = self.pairs[p.text].rows(rows), self.objective
        style = Style(network(self.text[p.text], generator))
        shown = coded.under(self.fields.get(p.filter), o.translator.config, o.device)
        with o.autocast():
            logits = translate_with(o.translator, o.embeddings[coded.content.to(o.device)], [(style, 1.0)], shown)
        chosen = network.choose(self.text[p.text], generator)[self.number.get(p.filter, -1)]
        return soft_cross_entropy(logits, coded.target.to(o.device), *o.targets).mean() - chosen

    def reward_loss(self, network: HyperNetwork, p: Prompt, photo: Tensor, generator: torch.Generator) -> Tensor:
        """The loss of the method `direct` on a photo (1, 3, S, S), plus the KL to the base translator: a scalar."""
        o = self.objective.aimed_at(self.aim[p.text])
        with torch.no_grad():
            texture = network.textures_for(self.text[p.text])
        style = Style(network(self.text[p.text], generator), texture=texture)
        with o.autocast():
            photo = photo.to(o.device)
            content = o.content(photo)
            logits = o.logits(content, style).float()
            kl = o.kl(logits, content)
            judged = METHODS["direct"].loss(o, logits, photo, o.style, generator)
        return judged.loss + o.config.kl_weight * kl

    def learn(self, network: HyperNetwork, step: int, lessons: Lessons, team: Processes) -> Numbers:
        """Add the gradient of a step, summed over the processes -> loss of pairs, -loss of the reward. Collective."""
        pairs, photos = lessons
        sums = torch.zeros(2, dtype=torch.float64)
        for k in team.shard(range(len(pairs) + len(photos))):
            own = generator(self.config.seed, step, k)
            if k < len(pairs):
                loss = self.pairs_loss(network, *pairs[k], own) / len(pairs)
                loss.backward()
                sums[0] += loss.item()
            else:
                loss = self.reward_loss(network, *photos[k - len(pairs)], own) / len(photos)
                (self.config.reward_weight * loss).backward()
                sums[1] -= loss.item()
        team.all_reduce_gradients(network.parameters(), sums)
        return dict(zip(("pairs", "reward"), sums.tolist(), strict=True))


def start_as_tuned(
    network: HyperNetwork, styles: Sequence[Style], prompts: Sequence[tuple[Prompt, Tensor]], number: Mapping[str, int]
) -> None:
    """Make a new network give tuned styles: training then begins where tuning ended.

    A prompt with a filter gives the tuned style of that filter, one with a tone alone gives none.

    Args:
        styles: tuned; the filter of each is that of the prompt with its text.
        prompts: each with its embedding (E).
        number: of each filter's texture in the network.
    """
    changes = network.start_from(styles)
    filters = {p.text: p.filter for p, _ in prompts}
    style_of = {filters[style.prompt]: k for k, style in enumerate(styles) if style.prompt in filters}
    rows = [
        (text, style_of.get(p.filter), number.get(p.filter, len(number)))
        for p, text in prompts
        if not p.filter or p.filter in style_of
    ]
    if not rows:
        return
    nothing = torch.zeros_like(changes[0])
    loss = network.imitate(
        torch.stack([text for text, _, _ in rows]),
        torch.stack([nothing if k is None else changes[k] for _, k, _ in rows]),
        torch.tensor([texture for _, _, texture in rows], device=nothing.device),
    )
    log.info("started with %d tuned styles on %d prompts, loss %.3f", len(style_of), len(rows), loss)


def amortise(
    tokenizer: ImageTokenizer,
    translator: Translator,
    model: CLIPModel,
    photos: Sequence[Picture],
    art: Sequence[Picture],
    prompts: Sequence[Prompt],
    config: AmortiseConfig,
    hyper: HyperConfig,
    run: Run,
    styles: Sequence[Style] = (),
    callback: Callable[[int, float], None] | None = None,
    minutes_between_saves: float = 3,
    painted: Pairs | None = None,
) -> HyperNetwork:
    """Train a network on the prompts that are not held out, from `run`'s state if it has one -> the network. Collective.

    The models are left as they are.

    Args:
        photos: to learn on.
        art: pictures with captions, for prompts without pairs.
        styles: tuned styles to start with: their changes fill the basis, and prompts with their filters give them.
        callback: (steps done, loss), called once a step. What it raises ends the run.
        painted: pairs that the teacher painted; filters make what they lack.

    Raises:
        ValueError: no prompts or photos, options that do not fit, or a loss that is not finite.
    """
    seen = [p for p in prompts if not p.held_out]
    if not seen or not photos:
        raise ValueError("there is nothing to train on: need prompts that are not held out, and photos")
    course = Course(Objective(tokenizer, translator, model, "", TuneConfig()), photos, art, seen, config, run, painted)
    torch.manual_seed(config.seed)  # for the network's initial weights
    network = HyperNetwork(hyper, changed(translator, hyper.kind), [p.text for p in seen], course.tiles)
    network.to(course.objective.device)
    network.learn_scale(course.texts)
    parameters, team = list(network.parameters()), processes()
    optimizer = torch.optim.Adam(parameters, lr=config.lr, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        return config.lr * learning_rate(step, config.steps, warm=30)

    def tell(done: int, numbers: Numbers) -> None:
        if callback:
            callback(done, sum(value or 0.0 for value in numbers.values()))

    state: dict[str, Stateful] = {"network": network, "optimizer": optimizer}
    descents = [Descent(optimizer, rate, parameters)]
    loop = Loop(run, config.steps, config.seed, state, descents, minutes_between_saves, report_every=50, curve_of_steps=True)
    options = {**asdict(config), **{f"hyper_{k}": v for k, v in asdict(hyper).items()}, "count": len(seen)}
    if not loop.resume(options) and styles:
        start_as_tuned(network, styles, [(p, course.text[p.text]) for p in course.paired], course.number)
    team.broadcast(network.state_dict().values())
    loop.train(course.batch, lambda step, lessons: course.learn(network, step, lessons, team), callback=tell)
    return network.eval().requires_grad_(False)
