"""Joint training of the bundled translator and the bundled styles, on pairs.

The pairs of most styles are painted by the teacher (teacher_pairs.py); filters make those of the others.

A small translator that has only learnt the identity does not see edges, directions or shapes, and a low-rank adapter cannot add
that. So the whole translator learns together with the adapters. Without an adapter it stays the identity and fills in hidden
tokens, as in pretraining; with one it paints. What all styles need goes into the translator, what one style needs into its
adapter, and a new style can build on both.

    python -m stylerdalle.training.joint --images SHARDS --painted pairs.safetensors --translator pretrained.safetensors \\
        --output FOLDER

With --minutes the run ends after them, and the learning rate falls in time for that.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .. import checkpoint, storage
from ..bundle import WEIGHTS
from ..device import autocast, choose_device, choose_dtype
from ..learn.loop import Descent, Loop, Numbers, Stateful, Tensors
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.schedule import hidden_places, in_turn, learning_rate
from ..learn.sources import read_pictures
from ..learn.targets import soft_cross_entropy, soft_targets
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.model import Translator
from ..translator.noise import SPACINGS
from ..translator.style import Style, new_adapter, translate_with
from ..translator.texture import texture_field
from .coded import Coded, coded_pairs, painted_pairs
from .registry import BUNDLED, STYLES
from .styles import LICENCE, large_photos
from .teacher_pairs import Pairs, read_painted

log = logging.getLogger(__name__)
MEASURED = 8  # windows of a style


@dataclass(frozen=True)
class JointConfig:
    """Options of joint training; the defaults are the recipe of the bundled files."""

    steps: int = 2600
    minutes: float = 0  # the run ends after so long, if its steps are not done before; 0: no limit
    styles: int = 3  # of a step, taken in turn
    batch: int = 8  # windows of each of these styles
    base: int = 4  # windows of the base translator
    lr: float = 6e-4  # peak learning rate of AdamW on the translator; falls on a cosine to 2 %
    adapter_lr: float = 5e-3  # the same of Adam on the adapters
    rank: int = 8  # of the adapters
    pairs: int = 600  # made pairs of a style that is not painted
    whole: float = 0.5  # share of the base translator's windows in which no token is hidden
    hidden_weight: float = 0.2  # of hidden tokens in the base translator's loss; visible tokens, and styles, have 1
    neighbours: int = 16  # codes that share a soft target
    softness: float = 0.25  # spread of a soft target, as in pretraining
    gain: float = 2.0  # of all logits, after training: mixtures of the likely tokens (sampling.py) get crisper marks
    seed: int = 0


class JointBatch(NamedTuple):
    """What a step learns from. B = config.batch, C = config.base."""

    rows: list[tuple[str, Tensor]]  # styles, and which of their pairs, long (B) each
    tokens: Tensor  # the base translator's windows, long (C, n*n)
    hidden: Tensor  # which of their tokens it does not see, bool (C, n*n)


class Joint:
    """The translator and the adapters, and their losses on made pairs.

    Args:
        pairs: by style; the first of every twenty are kept for validation.
        start: styles to start from, by name; their tensors of another shape are left out.
    """

    def __init__(
        self,
        tokenizer: ImageTokenizer,
        translator: Translator,
        pairs: Mapping[str, Coded],
        config: JointConfig,
        start: Mapping[str, Style],
    ):
        self.translator, self.pairs, self.config, self.names = translator, pairs, config, list(pairs)
        self.embeddings = all_embeddings(tokenizer)
        self.device = self.embeddings.device
        self.targets = soft_targets(self.embeddings, config.neighbours, config.softness)
        self.validation = {name: len(coded) // 20 for name, coded in pairs.items()}  # pairs kept
        self.fields = {name: texture_field([(c.texture, 1.0)], self.embeddings) for name, c in pairs.items()}
        self.adapters = {
            name: new_adapter(translator, config.rank, torch.Generator().manual_seed(config.seed), coded.texture is not None)
            for name, coded in pairs.items()
        }
        for name, style in start.items():
            own = self.adapters[name]
            own |= {key: t.clone().to(own[key]) for key, t in style.tensors.items() if key in own and t.shape == own[key].shape}

    def batch(self, step: int, rng: np.random.Generator) -> JointBatch:
        """The batch of a step."""
        c, names = self.config, self.names
        chosen = in_turn(names, step, c.styles, c.seed)
        rows = [self._rows(name, rng, c.batch) for name in chosen]
        name = names[rng.integers(len(names))]  # the base translator learns from photos and from made pictures of one style
        half = self._rows(name, rng, c.base)
        tokens = torch.cat([self.pairs[name].content[half[::2]], self.pairs[name].target[half[1::2]]])
        hidden = hidden_places(tokens.shape, c.whole, rng)
        return JointBatch(list(zip(chosen, rows, strict=True)), tokens, hidden)

    def _rows(self, name: str, rng: np.random.Generator, count: int) -> Tensor:
        return torch.from_numpy(rng.integers(self.validation[name], len(self.pairs[name]), count))

    def style_loss(self, name: str, rows: Tensor) -> Tensor:
        """Cross-entropy of a style's made pictures, given their photos; rows long (B) -> a scalar."""
        coded = self.pairs[name].rows(rows)
        content, target = (part.to(self.device, non_blocking=True) for part in (coded.content, coded.target))
        shown = coded.under(self.fields[name], self.translator.config, self.device)
        with autocast(self.device):
            read = self.embeddings[content]  # (B, n*n, D_tok)
            logits = translate_with(self.translator, read, [(Style(self.adapters[name]), 1.0)], shown)
        return soft_cross_entropy(logits, target, *self.targets).mean()

    def base_loss(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Cross-entropy of tokens (B, n*n) by the translator alone, which does not see those `hidden` (B, n*n) -> a scalar."""
        tokens, hidden = (part.to(self.device, non_blocking=True) for part in (tokens, hidden))
        with autocast(self.device):
            logits = self.translator(self.embeddings[tokens] * ~hidden[..., None])
        loss = soft_cross_entropy(logits, tokens, *self.targets)
        parts = ((self.config.hidden_weight, hidden), (1.0, ~hidden))  # the mean over each; 0 where there is none
        return torch.stack([weight * (loss * place).sum() / place.sum().clamp(min=1) for weight, place in parts]).sum()

    def learn(self, step: int, batch: JointBatch) -> Numbers:
        """Add a step's gradients -> the losses of the base translator and of the styles."""
        base = self.base_loss(batch.tokens, batch.hidden)
        base.backward()
        losses = []
        for name, rows in batch.rows:
            loss = self.style_loss(name, rows)
            loss.backward()
            losses.append(loss.detach())
        own, styles = torch.stack([base.detach(), torch.stack(losses).mean()]).tolist()  # the GPU is waited for once a step
        return {"own": own, "styles": styles}

    @torch.no_grad()
    def measure(self) -> Numbers:
        """The mean loss of the styles on windows kept for validation, MEASURED of each."""
        rows = {name: torch.arange(0, kept, max(1, kept // MEASURED)) for name, kept in self.validation.items()}
        found = torch.stack([self.style_loss(name, some[:MEASURED]) for name, some in rows.items()])
        losses = dict(zip(rows, found.tolist(), strict=True))
        log.info("validation %s", {name: round(loss, 2) for name, loss in losses.items()})
        return {"valid": sum(losses.values()) / len(losses)}


def train(
    tokenizer: ImageTokenizer,
    translator: Translator,
    pairs: Mapping[str, Coded],
    config: JointConfig,
    run: Run,
    minutes_between_saves: float = 4,
    start: Mapping[str, Style] | None = None,
) -> dict[str, dict[str, Tensor]]:
    """Train `translator` in place, from `run`'s state if it has one -> the adapter of every style.

    Args:
        pairs: by style; one in twenty is kept for validation.
        start: styles to start from, by name; their tensors of another shape are left out.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    joint = Joint(tokenizer, translator, pairs, config, start or {})
    own = list(translator.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(own, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)

    def falling(peak: float) -> Callable[[int], float]:
        return lambda step: peak * learning_rate(step, config.steps, warm=30, passed=loop.passed)

    state: dict[str, Stateful] = {"model": translator, "optimizer": optimizer}
    descents = [Descent(optimizer, falling(config.lr), own)]
    for name, adapter in joint.adapters.items():
        tensors = [tensor.requires_grad_(True) for tensor in adapter.values()]
        adapter_optimizer = torch.optim.Adam(tensors, lr=config.adapter_lr, betas=(0.9, 0.98))
        state |= {f"adapter {name}": Tensors(adapter), f"optimizer {name}": adapter_optimizer}
        descents.append(Descent(adapter_optimizer, falling(config.adapter_lr), tensors))
    loop = Loop(run, config.steps, config.seed, state, descents, minutes_between_saves, config.minutes, report_every=100)
    loop.resume({**asdict(config), "names": joint.names})
    loop.train(joint.batch, joint.learn, measure=joint.measure)
    translator.eval().requires_grad_(False)
    adapters = {name: {key: t.detach() for key, t in adapter.items()} for name, adapter in joint.adapters.items()}
    scale_logits(translator, adapters.values(), config.gain)
    return adapters


@torch.no_grad()
def scale_logits(translator: Translator, adapters: Iterable[dict[str, Tensor]], gain: float) -> None:
    """Multiply the logits of a translator, and of its adapters, by `gain`."""
    for parameter in translator.outNet.parameters():
        parameter.mul_(gain)
    for adapter in adapters:
        for key in ("outNet.weight.lora_b", "outNet.bias.delta"):
            adapter[key] = gain * adapter[key]


@torch.no_grad()
def reading_noise(translator: Translator) -> Translator:
    """The same translator with room for noise, which changes nothing yet."""
    if translator.config.noise:
        return translator
    new = Translator(replace(translator.config, texture=True, noise=len(SPACINGS))).to(translator.outNet.weight)
    tensors = translator.state_dict()
    room = torch.zeros_like(new.nat_dec.texture.weight)  # (D, D_tok + K)
    if translator.config.texture:
        room[:, : translator.config.embed_dim] = tensors["nat_dec.texture.weight"]
    new.load_state_dict(tensors | {"nat_dec.texture.weight": room})
    return new.train(translator.training)


def all_pairs(
    tokenizer: ImageTokenizer,
    grid: int,
    photos: Sequence[Picture],
    names: Sequence[str],
    painted: Pairs | None,
    count: int,
    folder: Path,
) -> dict[str, Coded]:
    """The pairs of styles by name: painted ones, and `count` made ones of a style that is not painted, kept in `folder`."""
    pairs = {}
    for i, name in enumerate(names):
        if painted and name in painted.styles:
            pairs[name] = painted_pairs(painted, name, grid)
        else:
            first = i * len(photos) // len(names)  # other photos for every style
            some = [*photos[first:], *photos[:first]]
            pairs[name] = coded_pairs(tokenizer, some, name, tokenizer.downsample * grid, count, folder)
        log.info("%d windows of %s", len(pairs[name]), name)
    return pairs


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BUNDLED)}; default all")
    parser.add_argument("--images", nargs="+", default=[], help="shards or folders with photos, for filters")
    painted = "that teacher_pairs wrote; a style that several have takes the last's pairs, filters make what they lack"
    parser.add_argument("--painted", nargs="+", type=Path, default=[], metavar="FILE", help=painted)
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--translator", type=Path, required=True, help="the file that `stylerdalle pretrain` wrote")
    parser.add_argument(
        "--start", type=Path, metavar="FOLDER", help="of styles to start from, NAME.safetensors; others begin anew"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for translator.safetensors and styles/")
    parser.add_argument("--steps", type=int, default=JointConfig.steps, help="0: only make the pairs")
    parser.add_argument("--minutes", type=float, default=JointConfig.minutes, help="end after so long at the latest; 0: no limit")
    parser.add_argument("--styles", type=int, default=JointConfig.styles, help="of a step")
    parser.add_argument("--batch", type=int, default=JointConfig.batch, help="windows of each of them")
    parser.add_argument("--base", type=int, default=JointConfig.base, help="windows of the base translator")
    parser.add_argument("--pairs", type=int, default=JointConfig.pairs, help="that a filter makes for a style")
    parser.add_argument("--lr", type=float, default=JointConfig.lr, help="peak learning rate of the translator")
    parser.add_argument("--adapter-lr", type=float, default=JointConfig.adapter_lr, help="peak learning rate of the adapters")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "joint")
    parser.add_argument("--no-resume", action="store_true")
    return parser


def run_joint(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Train as the command line says. Raises ValueError with one sentence for what is wrong with it."""
    given = ("steps", "minutes", "styles", "batch", "base", "pairs", "lr", "adapter_lr")
    config = JointConfig(**{name: getattr(args, name) for name in given})
    device = choose_device(args.device)
    run = Run(args.run_dir, resume=not args.no_resume)
    tokenizer = checkpoint.load_tokenizer(args.tokenizer, device=device, dtype=choose_dtype(device))
    translator = reading_noise(checkpoint.load_translator(args.translator, device))
    painted = read_painted(args.painted)
    unpainted = [name for name in names if not (painted and name in painted.styles)]
    photos = split_validation(read_pictures(args.images))[0] if args.images and unpainted else []
    photos = large_photos(photos) + [p for p in photos if p.kind == "photo"][::20]
    pairs = all_pairs(tokenizer, translator.config.grid, photos, names, painted, config.pairs, run.folder)
    if not args.steps:
        return
    files = {name: args.start / f"{name}.safetensors" for name in names} if args.start else {}
    begun = {name: checkpoint.load_style(path) for name, path in files.items() if path.is_file()}
    adapters = train(tokenizer, translator, pairs, config, run, start=begun)
    base = args.output / "translator.safetensors"
    checkpoint.save_translator(base, translator, recipe={"command": "joint", **asdict(config)})
    for name, tensors in adapters.items():
        maker = f"the filter {STYLES[name].key!r}" if name in unpainted else "the teacher"
        how = {"command": "joint", **asdict(config), "warm_start": f"{len(pairs[name])} windows of pairs made by {maker}"}
        style = Style(tensors, STYLES[name].prompt, name, storage.sha256(base), {}, pairs[name].texture, STYLES[name].blocks)
        checkpoint.save_style(args.output / "styles" / f"{name}.safetensors", style, recipe=how, licence=LICENCE)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    names = args.names or list(BUNDLED)
    try:
        if unknown := [name for name in names if name not in BUNDLED]:
            raise ValueError(f"no recipe for {', '.join(unknown)}: choose from {', '.join(BUNDLED)}")
        run_joint(args, names)
    except ValueError as error:
        print(f"joint: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
