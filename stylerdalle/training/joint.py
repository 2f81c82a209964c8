"""The translator of the box and the styles of the box, learnt together on made pairs.

A small translator that was only ever the identity has nothing in it that sees edges, directions or shapes, and a low-rank
adapter cannot bring that along. Here the whole translator learns beside the adapters: without an adapter it stays the
identity (and fills in hidden tokens, as in pretrain.py), with one it paints. What all styles need ends in the translator,
and what is special to one in its adapter; a new style then has more to build on too.

    python -m stylerdalle.training.joint --images SHARDS --translator pretrained.safetensors --output FOLDER
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import checkpoint, storage
from ..bundle import WEIGHTS
from ..device import choose_device, choose_dtype
from ..learn.pictures import Picture, split
from ..learn.run import Run
from ..learn.schedule import batches, schedule
from ..learn.sources import read_pictures
from ..learn.targets import soft_cross_entropy, soft_targets
from ..storage import replacing
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.model import Translator
from ..translator.style import Style, new_adapter, translate_with
from ..translator.texture import Texture, field_under, texture_field
from .pairs import coded_texture, make_pairs
from .registry import BUNDLED, STYLES
from .styles import LICENCE, large_photos

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JointConfig:
    """Defaults are the recipe of the shipped files."""

    steps: int = 3000
    styles: int = 4  # of each step, by turns
    batch: int = 5  # windows of each of them, and of the translator alone
    lr: float = 4e-4  # AdamW on the translator, cosine to 2 %
    adapter_lr: float = 3e-3  # Adam on the adapters, the same
    rank: int = 8
    pairs: int = 600  # made pairs a style
    whole: float = 0.5  # share of the translator's own windows in which nothing is hidden
    hidden_weight: float = 0.2  # of hidden places in the translator's own loss; those that are seen, and a style's, have 1
    neighbours: int = 16  # codes that share a soft target
    softness: float = 0.25  # their spread, as in pretrain.py
    seed: int = 0


@dataclass(frozen=True)
class Coded:
    """Made pairs as tokens: of photos and of made pictures (N, n*n) each, their places on the texture (N, 2), and the texture."""

    content: Tensor
    target: Tensor
    places: Tensor
    texture: Texture | None

    def __len__(self) -> int:
        return len(self.content)


@torch.no_grad()
def coded_pairs(
    tokenizer: ImageTokenizer, photos: Sequence[Picture], made_by: str, window: int, count: int, folder: Path
) -> Coded:
    """`count` made pairs of a filter; kept in `folder` for the next time."""
    path = folder / f"pairs-{made_by}-{count}.pt"
    if not path.is_file():
        *sides, places = make_pairs(photos, made_by, window, count, unit=tokenizer.downsample)
        coded = [torch.cat([tokenizer.encode(part.float() / 255) for part in side.split(32)]) for side in sides]
        with replacing(path) as stream:
            torch.save([*(tokens.flatten(1).to(torch.int32) for tokens in coded), places], stream)
    content, target, places = torch.load(path, weights_only=True)
    return Coded(content.long(), target.long(), places, coded_texture(tokenizer, made_by))


def train(
    tokenizer: ImageTokenizer,
    translator: Translator,
    pairs: dict[str, Coded],
    config: JointConfig,
    run: Run,
    minutes_between_saves: float = 4,
    start: Mapping[str, Style] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Train `translator` in place, from `run`'s state where there is one -> the adapter of every style.

    Args:
        pairs: by style name; one in twenty is kept for validation.
        start: styles to begin with, by name, as far as they have the tensors that these get.
    """
    embeddings = all_embeddings(tokenizer)
    index, shares = soft_targets(embeddings, config.neighbours, config.softness)
    names = list(pairs)
    adapters = {
        name: new_adapter(translator, config.rank, torch.Generator().manual_seed(config.seed), coded.texture is not None)
        for name, coded in pairs.items()
    }
    for name, style in (start or {}).items():
        begun = {key: t for key, t in style.tensors.items() if key in adapters[name] and t.shape == adapters[name][key].shape}
        adapters[name] |= {key: t.clone() for key, t in begun.items()}
    own = torch.optim.AdamW(translator.requires_grad_(True).parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    each = {
        name: torch.optim.Adam([t.requires_grad_(True) for t in adapter.values()], lr=config.adapter_lr, betas=(0.9, 0.98))
        for name, adapter in adapters.items()
    }
    first = 0
    if state := run.load({**asdict(config), "names": names}):
        translator.load_state_dict(state["model"])
        own.load_state_dict(state["optimizer"])
        for name in names:
            for key, tensor in state["adapters"][name].items():
                adapters[name][key].data.copy_(tensor)
            each[name].load_state_dict(state["optimizers"][name])
        first = state["step"]
        log.info("resumed at step %d", first)
    kept = {name: len(coded) // 20 for name, coded in pairs.items()}
    textures = {name: texture_field([(coded.texture, 1.0)], embeddings) for name, coded in pairs.items()}

    def loss_of(name: str, rows: Tensor) -> Tensor:
        coded, texture = pairs[name], textures[name]
        read = None if texture is None else field_under(texture, coded.places[rows], translator.config.grid)
        with torch.autocast("cpu", torch.bfloat16):
            logits = translate_with(translator, embeddings[coded.content[rows]], [(Style(adapters[name]), 1.0)], read)
        return soft_cross_entropy(logits, coded.target[rows], index, shares).mean()

    def own_loss(tokens: Tensor, hidden: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = translator(embeddings[tokens] * ~hidden[..., None])
        loss = soft_cross_entropy(logits, tokens, index, shares)
        parts = ((config.hidden_weight, hidden), (1.0, ~hidden))
        return torch.stack([weight * loss[place].mean() for weight, place in parts if place.any()]).sum()

    def make(step: int, rng: np.random.Generator) -> tuple[list[str], list[Tensor], Tensor, Tensor]:
        order = np.random.default_rng([config.seed, step * config.styles // len(names)]).permutation(len(names))
        chosen = [names[order[(step * config.styles + i) % len(names)]] for i in range(config.styles)]
        rows = [torch.from_numpy(rng.integers(kept[name], len(pairs[name]), config.batch)) for name in chosen]
        some = names[rng.integers(len(names))]  # the translator's own: photos, and made pictures of one style
        half = torch.from_numpy(rng.integers(kept[some], len(pairs[some]), config.batch))
        tokens = torch.cat([pairs[some].content[half[::2]], pairs[some].target[half[1::2]]])
        share = np.cos(rng.uniform(0, np.pi / 2, (len(tokens), 1))) * (rng.random((len(tokens), 1)) >= config.whole)
        return chosen, rows, tokens, torch.from_numpy(rng.random(tuple(tokens.shape)) < share)

    def save(step: int) -> None:
        states = {name: optimizer.state_dict() for name, optimizer in each.items()}
        tensors = {name: {key: t.detach() for key, t in adapter.items()} for name, adapter in adapters.items()}
        run.save(
            {
                "model": translator.state_dict(),
                "optimizer": own.state_dict(),
                "adapters": tensors,
                "optimizers": states,
                "step": step,
            }
        )

    mean = {"own": 0.0, "styles": 0.0}
    started = saved = time.monotonic()
    for step, (chosen, rows, tokens, hidden) in enumerate(batches(make, config.seed, first, config.steps), first):
        factor = schedule(step, config.steps, warm=30)
        alone = own_loss(tokens, hidden)
        alone.backward()
        total = 0.0
        for name, places in zip(chosen, rows, strict=True):
            loss = loss_of(name, places)
            loss.backward()
            total += loss.item() / len(chosen)
        for optimizer, peak in ((own, config.lr), *((each[name], config.adapter_lr) for name in set(chosen))):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for key, value in (("own", alone.item()), ("styles", total)):
            mean[key] += min(1.0, 0.02 + 1 / (step + 1 - first)) * (value - mean[key])
        if (step + 1) % 100 == 0 or step + 1 == config.steps:
            with torch.no_grad():
                valid = {name: loss_of(name, torch.arange(kept[name])).item() for name in names}
            log.info(
                "step %d %s valid %s, %.2f s/step",
                step + 1,
                {k: round(v, 3) for k, v in mean.items()},
                {k: round(v, 2) for k, v in valid.items()},
                (time.monotonic() - started) / (step + 1 - first),
            )
            run.log(step=step + 1, **mean, valid=sum(valid.values()) / len(valid))
        if time.monotonic() - saved > 60 * minutes_between_saves:
            save(step + 1)
            saved = time.monotonic()
    save(config.steps)
    translator.eval().requires_grad_(False)
    return {name: {key: t.detach() for key, t in adapter.items()} for name, adapter in adapters.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BUNDLED)}; default all")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--translator", type=Path, required=True, help="what `stylerdalle pretrain` made")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="of styles to begin with, NAME.safetensors each")
    parser.add_argument("--output", type=Path, required=True, help="folder for translator.safetensors and styles/")
    parser.add_argument("--steps", type=int, default=JointConfig.steps, help="0 only makes the pairs")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "joint")
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in BUNDLED]:
        parser.error(f"no recipe for {', '.join(unknown)}: choose from {', '.join(BUNDLED)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = JointConfig(steps=args.steps)
    run = Run(args.run_dir, resume=not args.no_resume)
    tokenizer = checkpoint.load_tokenizer(args.tokenizer, dtype=choose_dtype(choose_device("cpu")))
    translator = checkpoint.load_translator(args.translator)
    window = tokenizer.downsample * translator.config.grid
    photos = split(read_pictures(args.images))[0]
    photos = large_photos(photos) + [p for p in photos if p.kind == "photo"][::20]
    names, pairs = args.names or list(BUNDLED), {}
    for i, name in enumerate(names):
        first = i * len(photos) // len(names)  # other photos for every style
        some = photos[first:] + photos[:first]
        pairs[name] = coded_pairs(tokenizer, some, name, window, config.pairs, run.folder)
        log.info("pairs of %s", name)
    if not args.steps:
        return
    begun = {name: checkpoint.load_style(args.start / f"{name}.safetensors") for name in names} if args.start else None
    adapters = train(tokenizer, translator, pairs, config, run, start=begun)
    base = args.output / "translator.safetensors"
    checkpoint.save_translator(base, translator, recipe={"command": "joint", **asdict(config)})
    for name, tensors in adapters.items():
        how = {"command": "joint", **asdict(config), "warm_start": f"{config.pairs} pairs made by {STYLES[name].key!r}"}
        style = Style(tensors, STYLES[name].prompt, name, storage.sha256(base), texture=pairs[name].texture)
        checkpoint.save_style(args.output / "styles" / f"{name}.safetensors", style, recipe=how, licence=LICENCE)


if __name__ == "__main__":
    main()
