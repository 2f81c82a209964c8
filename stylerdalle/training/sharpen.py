"""Crisper pictures from the same tokens: the tokenizer's decoder alone is tuned against a patch discriminator.

As in VQGAN (Esser et al. 2021, arXiv 2012.09841): hinge loss, the adversarial term weighted by the ratio of the two
gradients at the decoder's last layer. The encoder and the codebook stay, so tokens and everything learnt on them stay.

    python -m stylerdalle.training.sharpen --images SHARDS --tokenizer weights/mini/tokenizer.safetensors --output FILE
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, storage
from ..learn.crops import to_tensor
from ..learn.pictures import Picture, split
from ..learn.run import Run
from ..learn.schedule import batches, schedule
from ..learn.sources import read_pictures
from ..tokenizers.dvae import DVAE
from .tokenizer import SHARES, mixture, reconstruction_loss, reconstruction_psnr

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharpenConfig:
    """Defaults are the recipe of the shipped file."""

    steps: int = 350
    batch: int = 24
    size: int = 96  # px of a training crop
    lr: float = 4e-4  # Adam on the decoder
    critic_lr: float = 5e-4
    critic_width: int = 32
    alone: int = 50  # first steps, in which only the critic learns
    weight: float = 0.35  # of the adversarial gradient against the reconstruction's
    zoom: tuple[float, float] = (0.8, 1.8)
    seed: int = 0


def critic(width: int) -> nn.Sequential:
    """Patch discriminator: (B, 3, H, W) -> (B, 1, H/8, W/8), each value sees 40 px."""

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
    """Give the decoder's blocks another post_gain, their last convolution scaled to keep the function."""
    with torch.no_grad():
        for block in (m for m in tokenizer.decoder.modules() if hasattr(m, "post_gain")):
            for parameter in (block.res_path.conv_4.w, block.res_path.conv_4.b):
                parameter.mul_(block.post_gain / gain)
            block.post_gain = gain


def sharpen(tokenizer: DVAE, pictures: Sequence[Picture], valid: Sequence[Picture], config: SharpenConfig, run: Run) -> DVAE:
    """Tune the decoder in place, from `run`'s state or anew -> the tokenizer."""
    torch.manual_seed(config.seed)  # the critic's initial weights
    judge = critic(config.critic_width).to(memory_format=torch.channels_last)
    before = next(m.post_gain for m in tokenizer.decoder.modules() if hasattr(m, "post_gain"))
    set_gain(tokenizer, 1.0)
    tokenizer.decoder.requires_grad_(True)
    tokenizer.decoder.blocks.input.requires_grad_(False)  # the translator reads these rows
    own = [p for p in tokenizer.decoder.parameters() if p.requires_grad]
    last = tokenizer.decoder.blocks.output.conv.w
    optimizer = torch.optim.Adam(own, lr=config.lr, betas=(0.5, 0.9))
    critic_optimizer = torch.optim.Adam(judge.parameters(), lr=config.critic_lr, betas=(0.5, 0.9))
    first = 0
    if state := run.load(asdict(config)):
        tokenizer.decoder.load_state_dict(state["decoder"])
        judge.load_state_dict(state["critic"])
        optimizer.load_state_dict(state["optimizer"])
        critic_optimizer.load_state_dict(state["critic_optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)

    def save(step: int) -> None:
        run.save(
            {
                "decoder": tokenizer.decoder.state_dict(),
                "critic": judge.state_dict(),
                "optimizer": optimizer.state_dict(),
                "critic_optimizer": critic_optimizer.state_dict(),
                "step": step,
            }
        )

    draw = mixture(pictures, config.size, config.zoom, SHARES)

    def make(step: int, rng: np.random.Generator) -> Tensor:
        return to_tensor([draw(rng) for _ in range(config.batch)])

    started = time.monotonic()
    mean = {"reconstruction": 0.0, "critic": 0.0, "balance": 0.0}
    for step, images in enumerate(batches(make, config.seed + 1, first, config.steps), first):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(max(0, step - config.alone), config.steps - config.alone, warm=20)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                embedded = tokenizer.embed(tokenizer.encode(images)).permute(0, 3, 1, 2)
            output = tokenizer.decode_embedded(embedded).float()
            made = ((torch.sigmoid(output) - 0.1) / 0.8) * 2 - 1
            balance = 0.0
            reconstruction = reconstruction_loss(output, images)
            if step >= config.alone:
                fooling = -judge(made).float().mean()
        if step >= config.alone:
            a, b = (torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (reconstruction, fooling))
            balance = (config.weight * a / (b + 1e-6)).clamp(max=100).item()
            (reconstruction + balance * fooling).backward()
            nn.utils.clip_grad_norm_(own, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        critic_optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            real, fake = judge(images * 2 - 1).float(), judge(made.detach()).float()
        hinge = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        hinge.backward()
        critic_optimizer.step()
        for key, value in (("reconstruction", reconstruction.item()), ("critic", hinge.item()), ("balance", balance)):
            mean[key] += 0.05 * (value - mean[key])
        if (step + 1) % 50 == 0:
            psnr = reconstruction_psnr(tokenizer, valid[:24])
            log.info("step %d %s psnr %.2f, %.2f s/step", step + 1, mean, psnr, (time.monotonic() - started) / (step + 1 - first))
            run.log(step=step + 1, psnr=psnr, **mean)
            save(step + 1)
    set_gain(tokenizer, before)
    tokenizer.requires_grad_(False)
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "sharpen")
    parser.add_argument("--steps", type=int, default=SharpenConfig.steps)
    parser.add_argument("--no-resume", action="store_true")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = SharpenConfig(steps=args.steps)
    train, valid = split(read_pictures(args.images))
    tokenizer = checkpoint.load_tokenizer(args.tokenizer)
    if not isinstance(tokenizer, DVAE):
        parser.error(f"{args.tokenizer} is no dVAE, and only the decoder of one can be sharpened: choose a dVAE's file")
    metadata = storage.read_metadata(args.tokenizer)
    recipe = {**json.loads(metadata.get("recipe", "{}")), "sharpen": asdict(config)}
    sharpen(tokenizer, train, [p for p in valid if p.kind == "photo"], config, Run(args.run_dir, not args.no_resume))
    notes = {key: metadata[key] for key in ("name", "licence") if key in metadata}
    checkpoint.save_tokenizer(args.output, tokenizer, recipe=recipe, **notes)


if __name__ == "__main__":
    main()
