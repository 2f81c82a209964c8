"""Adversarial tuning of a tokenizer's decoder against a patch discriminator: crisper pictures from the same tokens.

As in VQGAN (Esser et al. 2021, arXiv 2012.09841): hinge loss, and the adversarial term weighted by the ratio of the two
gradients at the decoder's last layer. The encoder and the codebook are left as they are, so tokens keep their meaning.

    python -m stylerdalle.training.sharpen --images SHARDS --tokenizer weights/mini/tokenizer.safetensors --output FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, storage
from ..device import autocast, choose_device
from ..learn.crops import to_tensor
from ..learn.loop import Descent, Loop, Numbers
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.schedule import learning_rate
from ..learn.sources import read_pictures
from ..tokenizers.dvae import DVAE, unclamped_pixels
from .tokenizer import SHARES, mixture, reconstruction_loss, reconstruction_psnr, residual_blocks


@dataclass(frozen=True)
class SharpenConfig:
    """Options of sharpening; the defaults are the recipe of the bundled file."""

    steps: int = 350
    batch: int = 24
    size: int = 96  # side of a training crop, px
    lr: float = 4e-4  # peak learning rate of Adam on the decoder; falls on a cosine to 2 %
    critic_lr: float = 5e-4  # constant
    critic_width: int = 32
    alone: int = 50  # first steps, in which only the critic learns
    weight: float = 0.35  # ratio of the adversarial gradient's norm to the reconstruction's
    zoom: tuple[float, float] = (0.8, 1.8)  # of a crop: output px per source px
    seed: int = 0


def critic(width: int) -> nn.Sequential:
    """Patch discriminator: (B, 3, H, W) -> scores (B, 1, H/8, W/8), each of a patch of 40 px a side."""

    def layer(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 4, 2, 1), nn.GroupNorm(8, b), nn.LeakyReLU(0.2)]

    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        *layer(width, 2 * width),
        *layer(2 * width, 4 * width),
        nn.Conv2d(4 * width, 1, 3, 1, 1),
    )


def set_gain(tokenizer: DVAE, gain: float) -> None:
    """Give the decoder's blocks another post_gain and scale their last convolution: the function stays the same."""
    with torch.no_grad():
        for block in residual_blocks(tokenizer.decoder):
            for parameter in (block.res_path.conv_4.w, block.res_path.conv_4.b):
                parameter.mul_(block.post_gain / gain)
            block.post_gain = gain


def sharpen(tokenizer: DVAE, pictures: Sequence[Picture], valid: Sequence[Picture], config: SharpenConfig, run: Run) -> DVAE:
    """Tune the decoder in place, from `run`'s state if it has one -> the tokenizer.

    Args:
        pictures: to learn from.
        valid: to measure PSNR on.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    device = next(tokenizer.parameters()).device
    torch.manual_seed(config.seed)  # for the critic's initial weights
    judge = critic(config.critic_width).to(device).to(memory_format=torch.channels_last)
    gain = residual_blocks(tokenizer.decoder)[0].post_gain
    set_gain(tokenizer, 1.0)
    tokenizer.decoder.requires_grad_(True)
    tokenizer.decoder.blocks.input.requires_grad_(False)  # the translator reads these rows
    own = [p for p in tokenizer.decoder.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(own, lr=config.lr, betas=(0.5, 0.9))
    critic_optimizer = torch.optim.Adam(judge.parameters(), lr=config.critic_lr, betas=(0.5, 0.9))

    def rate(step: int) -> float:
        return config.lr * learning_rate(max(0, step - config.alone), config.steps - config.alone, warm=20)

    state = {
        "decoder": tokenizer.decoder,
        "critic": judge,
        "optimizer": optimizer,
        "critic_optimizer": critic_optimizer,
    }
    descents = [
        Descent(optimizer, rate, own),
        Descent(critic_optimizer, lambda step: config.critic_lr, list(judge.parameters()), max_norm=math.inf),
    ]
    loop = Loop(run, config.steps, config.seed + 1, state, descents, report_every=50)
    loop.resume(asdict(config))
    draw = mixture(pictures, config.size, config.zoom, SHARES)

    def batch(step: int, rng: np.random.Generator) -> Tensor:
        return to_tensor([draw(rng) for _ in range(config.batch)])

    def learn(step: int, images: Tensor) -> Numbers:
        return adversarial_step(tokenizer, judge, images.to(device), own, None if step < config.alone else config.weight)

    loop.train(batch, learn, measure=lambda: {"psnr": reconstruction_psnr(tokenizer, valid[:24])})
    set_gain(tokenizer, gain)
    tokenizer.requires_grad_(False)
    return tokenizer


def adversarial_step(
    tokenizer: DVAE, judge: nn.Module, images: Tensor, parameters: Sequence[Tensor], weight: float | None
) -> dict[str, float]:
    """Add one step's gradients to the decoder's parameters and to the critic's -> reconstruction loss, critic's loss, balance.

    Args:
        images: (B, 3, H, W) in [0, 1].
        parameters: of the decoder, those that learn.
        weight: as `SharpenConfig.weight`; None: only the critic learns.
    """
    with autocast(images.device):
        with torch.no_grad():
            embedded = tokenizer.embed(tokenizer.encode(images)).permute(0, 3, 1, 2)
        output = tokenizer.decode_embedded(embedded).float()
        painted = unclamped_pixels(output) * 2 - 1  # in about [-1, 1]
        balance = 0.0
        reconstruction = reconstruction_loss(output, images)
        fooling = None if weight is None else -judge(painted).float().mean()
    if weight is not None and fooling is not None:
        last = tokenizer.decoder.blocks.output.conv.w
        a, b = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, fooling))
        balance = (weight * a / (b + 1e-6)).clamp(max=100).item()
        torch.autograd.backward(reconstruction + balance * fooling, inputs=list(parameters))  # none into the critic
    with autocast(images.device):
        real, fake = judge(images * 2 - 1).float(), judge(painted.detach()).float()
    hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    hinge.backward()
    return {"reconstruction": reconstruction.item(), "critic": hinge.item(), "balance": balance}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="pictures, folders of them, or .tar shards")
    parser.add_argument("--tokenizer", type=Path, required=True, help="file of a dVAE")
    parser.add_argument("--output", type=Path, required=True, help="the tokenizer file to write")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "sharpen")
    parser.add_argument("--steps", type=int, default=SharpenConfig.steps)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = SharpenConfig(steps=args.steps)
    train, valid = split_validation(read_pictures(args.images))
    tokenizer = checkpoint.load_tokenizer(args.tokenizer, choose_device(args.device))
    if not isinstance(tokenizer, DVAE):
        parser.error(f"{args.tokenizer} is not a dVAE: only the decoder of a dVAE can be sharpened, choose its file")
    metadata = storage.read_metadata(args.tokenizer)
    recipe = {**json.loads(metadata.get("recipe", "{}")), "sharpen": asdict(config)}
    sharpen(tokenizer, train, [p for p in valid if p.kind == "photo"], config, Run(args.run_dir, not args.no_resume))
    notes: dict[str, Any] = {key: metadata[key] for key in ("name", "licence") if key in metadata}
    checkpoint.save_tokenizer(args.output, tokenizer, recipe=recipe, **notes)


if __name__ == "__main__":
    main()
