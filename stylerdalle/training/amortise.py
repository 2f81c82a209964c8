"""One network for all prompts (hypernetwork.py), learnt on a list of them: amortised tuning.

A step takes a few prompts of the list that have a filter or a tone and learns from made pairs (cross-entropy on the tokens of
the made picture), and another prompt for CLIP's reward as in tune.py, method `direct`: every second time one that has no pairs.
For these the text is thin: what is asked of the picture leans towards the pictures of art whose captions are nearest to the
prompt. Held-out families are only scored.

The same is behind `stylerdalle tune --styles FILE`; the file of the box is made by

    stylerdalle tune --styles stylerdalle/training/prompts.txt --images SHARDS --output prompts.safetensors
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip import scores as reward
from ..distributed import processes
from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import batches, schedule
from ..learn.schedule import generator as generator_of
from ..learn.targets import soft_cross_entropy
from ..settings import setting
from ..storage import replacing
from ..tokenizers.protocol import ImageTokenizer
from ..translator.hypernetwork import HyperConfig, HyperNetwork, changed
from ..translator.model import Translator
from ..translator.style import Style, translate_with
from ..translator.texture import field_under, texture_field
from ..tune.config import TuneConfig
from ..tune.objective import Objective
from .filters.tones import tone
from .joint import Coded, coded_pairs
from .prompts import Prompt

if TYPE_CHECKING:
    from clip.model import CLIP


log = logging.getLogger(__name__)
NEAREST = 24  # pictures of art whose mean stands for a prompt


@dataclass(frozen=True)
class AmortiseConfig:
    """Defaults are the recipe of the shipped file."""

    steps: int = 1200
    prompts: int = setting(6, "of each step, with pairs")
    batch: int = setting(4, "windows of each of them")
    rewarded: int = setting(1, "prompts of each step for the reward, one photo each")
    lr: float = setting(1e-3, "Adam; cosine to 2 %")
    reward_weight: float = setting(0.05, "of the reward's loss beside the cross-entropy")
    art_weight: float = setting(0.5, "how far a rewarded prompt's embedding leans to that of art")
    per_filter: int = setting(600, "made pairs a filter")
    per_tone: int = setting(120, "of them, taken for a filter under a tone")
    seed: int = 0


Pairs = dict[str, Coded]


@torch.no_grad()
def make_pairs(
    tokenizer: ImageTokenizer,
    photos: Sequence[Picture],
    prompts: Sequence[Prompt],
    window: int,
    config: AmortiseConfig,
    folder: Path,
) -> Pairs:
    """Made pairs of every prompt; kept in `folder` for the next time.

    A tone is laid over the made picture as the tokenizer shows it; a prompt without a filter has it laid over the photo.
    """
    filters = sorted({p.filter for p in prompts if p.filter})
    plain: Pairs = {}
    for i, name in enumerate(filters):
        first = i * len(photos) // len(filters)  # other photos for every filter
        plain[name] = coded_pairs(tokenizer, [*photos[first:], *photos[:first]], name, window, config.per_filter, folder)
        log.info("pairs of %s", name)
    contents = torch.cat([c.content for c in plain.values()]) if plain else coded_photos(tokenizer, photos, window, config)
    photo = Coded(contents, contents, torch.zeros(len(contents), 2, dtype=torch.long), None)
    path = folder / f"toned-{config.per_filter}-{config.per_tone}.pt"
    toned: dict[str, Tensor] = torch.load(path, weights_only=True) if path.is_file() else {}
    side = window // tokenizer.downsample
    made: Pairs = {}
    for i, p in enumerate(prompts):
        coded = plain[p.filter] if p.filter else photo
        if not p.tone:
            made[p.text] = coded
            continue
        rows = torch.from_numpy(np.random.default_rng([config.seed, i]).permutation(len(coded))[: config.per_tone])
        key = f"{i} {p.text} {p.filter} {p.tone}"
        if key not in toned:
            parts = coded.target[rows].unflatten(1, (side, side)).split(30)
            tokens = [tokenizer.encode(tone(p.tone, tokenizer.decode(part).float())) for part in parts]
            toned[key] = torch.cat(tokens).flatten(1).to(torch.int32)
            with replacing(path) as stream:
                torch.save(toned, stream)
        made[p.text] = Coded(coded.content[rows], toned[key].long(), coded.places[rows], coded.texture)
    return made


def coded_photos(tokenizer: ImageTokenizer, photos: Sequence[Picture], window: int, config: AmortiseConfig) -> Tensor:
    """Tokens (N, n*n) of photo crops, where no filter makes any."""
    rng = np.random.default_rng(config.seed)
    some = [photos[i] for i in rng.integers(len(photos), size=config.per_tone)]
    crops = to_tensor([random_crop(at_least(p.open(), window), window, rng, (0.4, 1.3)) for p in some])
    return torch.cat([tokenizer.encode(part) for part in crops.split(30)]).flatten(1)


@torch.inference_mode()
def art_targets(model: CLIP, pictures: Sequence[Picture], texts: Tensor, most: int = 6000, seed: int = 0) -> Tensor | None:
    """What pictures of art have in common whose captions are nearest to each text (P, E): unit vectors (P, E), or None
    where there is no art. Image embeddings are taken without the mean of them all, for it is far from any text."""
    art = [p for p in pictures if p.kind != "photo" and p.captions]
    if not art:
        return None
    chosen = np.random.default_rng(seed).permutation(len(art))[:most]
    captions, images = [], []
    for part in np.array_split(chosen, max(1, len(chosen) // 64)):
        some = [art[i] for i in part]
        captions.append(reward.embed_texts(model, [p.captions[0] for p in some]))
        size = model.visual.input_resolution
        crops = to_tensor([np.asarray(at_least(p.open(), size).resize((size, size))) for p in some])
        images.append(reward.embed_images(model, crops))
    seen = torch.cat(images)
    nearest = (texts @ torch.cat(captions).T).topk(min(NEAREST, len(seen)), -1).indices  # (P, NEAREST)
    return F.normalize(seen[nearest].mean(1) - seen.mean(0), dim=-1)


def kept_art_targets(model: CLIP, art: Sequence[Picture], prompts: list[str], texts: Tensor, run: Run) -> Tensor | None:
    """art_targets, which take minutes, kept in the run's folder for the next time."""
    path = run.folder / "art.pt"
    kept = torch.load(path, weights_only=True) if path.is_file() and run.resume else {}
    if kept.get("prompts") != prompts:
        kept = {"prompts": prompts, "targets": art_targets(model, art, texts)}
        torch.save(kept, path)
    found: Tensor | None = kept["targets"]
    return found


def start_as_tuned(
    network: HyperNetwork, styles: Sequence[Style], prompts: Sequence[tuple[Prompt, Tensor]], which: Mapping[str, int]
) -> None:
    """Make a new network give every prompt with a filter (and its embedding) the tuned style of that filter, and a tone alone
    none of them; training then begins where tuning ended. `which` has the number of each filter's texture."""
    said = network.start_from(styles)
    filters = {p.text: p.filter for p, _ in prompts}
    of = {filters[style.prompt]: k for k, style in enumerate(styles) if style.prompt in filters}
    rows = [(text, of.get(p.filter), which.get(p.filter, len(which))) for p, text in prompts if not p.filter or p.filter in of]
    if not rows:
        return
    nothing = torch.zeros_like(said[0])
    loss = network.imitate(
        torch.stack([text for text, _, _ in rows]),
        torch.stack([nothing if k is None else said[k] for _, k, _ in rows]),
        torch.tensor([texture for _, _, texture in rows]),
    )
    log.info("began with %d tuned styles on %d prompts, loss %.3f", len(of), len(rows), loss)


def amortise(
    tokenizer: ImageTokenizer,
    translator: Translator,
    model: CLIP,
    photos: Sequence[Picture],
    art: Sequence[Picture],
    prompts: Sequence[Prompt],
    config: AmortiseConfig,
    hyper: HyperConfig,
    run: Run,
    styles: Sequence[Style] = (),
    callback: Callable[[int, float], None] | None = None,
    minutes_between_saves: float = 3,
) -> HyperNetwork:
    """Train a network on the prompts that are not held out, from `run`'s state where there is one. The models are left as
    they are.

    Args:
        photos: to learn on.
        art: pictures with captions, for prompts without pairs.
        styles: tuned styles whose changes fill the basis at first; prompts with their filters begin as these.
        callback: (steps done, loss), once a step; what it raises stops the run.

    Raises:
        ValueError: no prompts or photos, or options that do not fit.
    """
    seen = [p for p in prompts if not p.held_out]
    if not seen or not photos:
        raise ValueError("there is nothing to train on: need prompts that are not held out, and photos")
    objective = Objective(tokenizer, translator, model, "", TuneConfig())
    with torch.no_grad():
        texts = reward.embed_texts(model, [p.text for p in seen])
    at = dict(zip((p.text for p in seen), texts, strict=True))
    paired = [p for p in seen if p.paired]
    alone = [p for p in seen if not p.paired]
    team = processes()
    with team.main_first():
        pairs = make_pairs(tokenizer, photos, paired, tokenizer.downsample * translator.config.grid, config, run.folder)
    aims = dict(at)
    if alone and config.art_weight:
        with team.main_first():
            leaning = kept_art_targets(model, art, [p.text for p in alone], torch.stack([at[p.text] for p in alone]), run)
        if leaning is not None:
            aims |= {p.text: F.normalize(at[p.text] + config.art_weight * a, dim=-1) for p, a in zip(alone, leaning, strict=True)}
    shown = {p.filter: coded.texture for p in paired if (coded := pairs[p.text]).texture}
    fields = {name: texture_field([(texture, 1.0)], objective.embeddings) for name, texture in shown.items()}
    which = {name: k for k, name in enumerate(shown)}
    tiles = torch.cat([texture.tokens for texture in shown.values()]) if shown else None
    torch.manual_seed(config.seed)
    network = HyperNetwork(hyper, changed(translator, hyper.kind), [p.text for p in seen], tiles)
    network.learn_scale(texts)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, betas=(0.9, 0.98))
    first = 0
    if state := run.load({**asdict(config), **{f"hyper_{k}": v for k, v in asdict(hyper).items()}, "count": len(seen)}):
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)
    elif styles:
        start_as_tuned(network, styles, [(p, at[p.text]) for p in paired], which)

    team.share(network.state_dict().values())

    def turn(things: Sequence[Prompt], step: int, count: int) -> list[Prompt]:
        """The prompts of a step: all of them by turns, in an order of their own each round."""
        places = range(step * count, (step + 1) * count) if things else range(0)
        orders = {i // len(things): np.random.default_rng([config.seed, i // len(things)]) for i in places}
        mixed = {key: rng.permutation(len(things)) for key, rng in orders.items()}
        return [things[mixed[i // len(things)][i % len(things)]] for i in places]

    def make(step: int, rng: np.random.Generator) -> tuple[list[tuple[Prompt, Tensor]], list[tuple[Prompt, Tensor]]]:
        rows = [
            (p, torch.from_numpy(rng.integers(len(pairs[p.text]), size=config.batch))) for p in turn(paired, step, config.prompts)
        ]
        size = objective.config.size
        crops = []
        for p in turn(alone or seen, step // 2, config.rewarded) if step % 2 else turn(seen, step // 2, config.rewarded):
            photo = photos[rng.integers(len(photos))]
            crops.append((p, to_tensor([random_crop(at_least(photo.open(), size), size, rng, (0.5, 1.5))])))
        return rows, crops

    def cross(p: Prompt, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Of the pairs' tokens, under the texture they were made with, and of the choice of that texture."""
        coded = pairs[p.text]
        style = Style(network(at[p.text], generator))
        read = field_under(fields[p.filter], coded.places[rows], translator.config.grid) if p.filter in fields else None
        with torch.autocast(objective.device.type, torch.bfloat16):
            logits = translate_with(translator, objective.embeddings[coded.content[rows]], [(style, 1.0)], read)
        chosen = network.choose(at[p.text], generator)[which.get(p.filter, -1)]
        return soft_cross_entropy(logits, coded.target[rows], objective.index, objective.shares).mean() - chosen

    def rewarded(p: Prompt, photo: Tensor, generator: torch.Generator) -> Tensor:
        objective.style = aims[p.text]
        with torch.no_grad():
            texture = network.textures_for(at[p.text])
        style = Style(network(at[p.text], generator), texture=texture)
        with torch.autocast(objective.device.type, torch.bfloat16):
            content = objective.content(photo)
            logits = objective.logits(content, style).float()
            kl = objective.kl(logits, content)
            loss, _, _ = objective.direct(logits, photo, objective.style, generator)
        return loss + objective.config.kl_weight * kl

    def save(step: int) -> None:
        run.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step})

    mean = {"pairs": 0.0, "reward": 0.0}
    started = saved = time.monotonic()
    for step, (rows, crops) in enumerate(batches(make, config.seed, first, config.steps), first):
        sums = torch.zeros(2, dtype=torch.float64)
        for k in team.mine(range(len(rows) + len(crops))):
            generator = generator_of(config.seed, step, k)
            if k < len(rows):
                loss = cross(*rows[k], generator) / len(rows)
                loss.backward()
                sums[0] += loss.item()
            else:
                loss = rewarded(*crops[k - len(rows)], generator) / len(crops)
                (config.reward_weight * loss).backward()
                sums[1] -= loss.item()
        team.sum_gradients(network.parameters(), sums)
        totals = dict(zip(("pairs", "reward"), sums.tolist(), strict=True))
        if not np.isfinite(sum(totals.values())):
            raise ValueError(
                f"the loss became {totals} at step {step + 1}: lower the learning rate ({config.lr:g}) and try again"
            )
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, warm=30, floor=0.02)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for key, value in totals.items():
            mean[key] += min(1.0, 0.02 + 1 / (step + 1 - first)) * (value - mean[key])
        run.log(step=step + 1, **totals)
        if (step + 1) % 50 == 0:
            pace = (time.monotonic() - started) / (step + 1 - first)
            log.info("step %d %s, %.2f s/step", step + 1, {k: round(v, 3) for k, v in mean.items()}, pace)
        if step + 1 == config.steps or time.monotonic() - saved > 60 * minutes_between_saves:
            save(step + 1)
            saved = time.monotonic()
        if callback:
            callback(step + 1, sum(totals.values()))
    return network.eval().requires_grad_(False)
