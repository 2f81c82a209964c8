"""How the mini tokenizer was made: a vector-quantised auto-encoder in the dVAE's own architecture, folded into its format.

With codebook e_k and a linear head z = P relu(h) + p, argmin_k |z - e_k|^2 = argmax_k (2 e_k P) relu(h) + 2 e_k p - |e_k|^2:
exactly the encoder's last 1x1 convolution. The decoder's first one has row k = W e_k + w.
Blocks are trained with post_gain 1 (the dVAE has 1/16 for 4 blocks) and scaled when folded: same function, better conditioned.

    stylerdalle train-tokenizer --images SHARDS --output weights/mini/tokenizer.safetensors
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from dall_e import Decoder, Encoder
from torch import Tensor, nn

from ..learn.crops import aligned_crop, centre_crop, random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import batches, schedule
from ..settings import setting
from ..tokenizers.dvae import DVAE, map_pixels
from ..tokenizers.protocol import ImageTokenizer
from .quantizer import Quantizer

log = logging.getLogger(__name__)
SHARES = {"photo": 0.4, "wallpaper": 0.1, "art": 0.18, "graphic": 0.07, "made": 0.22, "flat": 0.03}  # of training crops


@dataclass(frozen=True)
class TokenizerConfig:
    """Defaults are the recipe of the shipped file."""

    n_hid: int = setting(64, "width of the dVAE; its package allows no less")
    n_init: int = setting(128, "numbers a token at the decoder's input")
    vocab_size: int = 4096
    dim: int = setting(32, "numbers a code while training; gone after folding")
    steps: int = 2750
    batch: int = 32
    size: int = setting(96, "px of a training crop")
    lr: float = setting(1.5e-3, "AdamW, cosine to 2 %")
    free_steps: int = setting(200, "steps without quantisation before the codebook is placed")
    commitment: float = 0.25
    zoom: tuple[float, float] = (0.8, 1.8)  # output px per source px: users' photos are smoother than small thumbnails
    seed: int = 0
    compile: bool = setting(False, "torch.compile: a third faster, needs a C++ compiler")


class VQAutoEncoder(nn.Module):
    """The trainable form: the dVAE's two halves with a vector quantiser between them."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.dvae = DVAE(
            Encoder(n_hid=config.n_hid, n_blk_per_group=1, vocab_size=config.vocab_size),
            Decoder(n_hid=config.n_hid, n_blk_per_group=1, vocab_size=config.vocab_size, n_init=config.n_init),
        )
        self.head = nn.Conv2d(8 * config.n_hid, config.dim, 1)
        self.tail = nn.Conv2d(config.dim, config.n_init, 1)
        self.quantizer = Quantizer(config.vocab_size, config.dim)
        self.gain = 1.0
        for block in self.blocks():
            self.gain, block.post_gain = block.post_gain, 1
            block.res_path.conv_4.w.data *= 0.25
        for half in (self.dvae.encoder, self.dvae.decoder):
            half.requires_grad_(True)
        self.dvae.encoder.blocks.output.conv.requires_grad_(False)  # both replaced when folded
        self.dvae.decoder.blocks.input.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def blocks(self) -> list[nn.Module]:
        return [m for m in self.dvae.modules() if hasattr(m, "post_gain")]

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> z (B, dim, h, w)."""
        return self.head(self.dvae.features(map_pixels(images)))

    def decode(self, z: Tensor) -> Tensor:
        """z (B, dim, h, w) -> the decoder's mean channels before the sigmoid, (B, 3, H, W)."""
        return self.dvae.decode_embedded(self.tail(z))

    @torch.no_grad()
    def fold(self) -> DVAE:
        """The same function as a plain dVAE (a copy)."""
        codes = self.quantizer.codebook  # (V, dim)
        p, b = self.head.weight[:, :, 0, 0], self.head.bias
        folded = DVAE(
            Encoder(n_hid=self.dvae.encoder.n_hid, n_blk_per_group=1, vocab_size=len(codes)),
            Decoder(
                n_hid=self.dvae.decoder.n_hid,
                n_blk_per_group=1,
                vocab_size=len(codes),
                n_init=self.dvae.decoder.n_init,
            ),
        )
        folded.load_state_dict(self.dvae.state_dict())
        for block in (m for m in folded.modules() if hasattr(m, "post_gain")):
            block.res_path.conv_4.w.div_(block.post_gain)
            block.res_path.conv_4.b.div_(block.post_gain)
        output, first = folded.encoder.blocks.output.conv, folded.decoder.blocks.input
        output.w.copy_((2 * codes @ p)[:, :, None, None])
        output.b.copy_(2 * codes @ b - codes.square().sum(1))
        first.w.copy_((codes @ self.tail.weight[:, :, 0, 0].t()).t()[:, :, None, None])
        first.b.copy_(self.tail.bias)
        return folded


def reconstruction_loss(output: Tensor, images: Tensor) -> Tensor:
    """L1 over a 3-level pyramid, L1 of the gradients, and a squared error for PSNR; scaled to about 1 at 20 dB."""
    got = (torch.sigmoid(output.float()) - 0.1) / 0.8  # unclamped, so that saturated colours keep a gradient
    error = got - images
    loss = error.abs().mean() + 4 * error.square().mean()
    loss = loss + 0.25 * ((error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean())
    for scale in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, scale).abs().mean()
    return 8 * loss


class Mix(Protocol):
    """Draws one training crop, uint8 (size, size, 3)."""

    def __call__(self, rng: np.random.Generator) -> np.ndarray: ...


def mixture(pictures: Sequence[Picture], size: int, zoom: tuple[float, float], shares: dict[str, float]) -> Mix:
    """Crops of `pictures` by kind in the given shares; the share of "flat" draws saturated flat areas and gradients."""
    by_kind = {kind: [p for p in pictures if p.kind == kind] for kind in shares if kind != "flat"}
    kinds = [kind for kind in shares if kind == "flat" or by_kind[kind]]
    weights = np.array([shares[kind] for kind in kinds])

    def draw(rng: np.random.Generator) -> np.ndarray:
        kind = rng.choice(kinds, p=weights / weights.sum())
        if kind == "flat":
            return flat_colours(size, rng)
        pool = by_kind[kind]
        picture = pool[rng.integers(len(pool))]
        if kind == "made":  # blocks, hatching and dots lie on the grid of tokens, where a code can be found for them
            return aligned_crop(picture.open(), size, rng)
        return random_crop(picture.open(), size, rng, zoom)

    return draw


def flat_colours(size: int, rng: np.random.Generator) -> np.ndarray:
    """Two saturated colours (or black, white, grey) parted by a straight edge or blended into each other."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    t = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-0.3, 0.3)
    t = np.clip(t * (200.0 if rng.random() < 0.6 else 1.0) + 0.5, 0, 1)[..., None]
    colours = rng.random((2, 3))
    corner = rng.random((2, 1)) < 0.7
    colours = np.where(corner, np.round(colours), colours)
    return ((colours[0] * (1 - t) + colours[1] * t) * 255).round().astype(np.uint8)


def train(
    pictures: Sequence[Picture], valid: Sequence[Picture], config: TokenizerConfig, run: Run, minutes_between_saves: float = 5
) -> DVAE:
    """Train from `run`'s state (or anew) to config.steps -> the folded tokenizer."""
    torch.manual_seed(config.seed)  # the package's modules draw their initial weights from the global generator
    model = VQAutoEncoder(config)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    first = 0
    if state := run.load(asdict(config)):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)
    encode, decode = (torch.compile(f) if config.compile else f for f in (model.encode, model.decode))
    draw = mixture(pictures, config.size, config.zoom, SHARES)

    def make(step: int, rng: np.random.Generator) -> Tensor:
        return to_tensor([draw(rng) for _ in range(config.batch)])

    def save(step: int) -> None:
        run.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step})

    seen: list[Tensor] = []
    mean = {"loss": 0.0, "commitment": 0.0}
    started = saved = time.monotonic()
    for step, images in enumerate(batches(make, config.seed, first, config.steps), first):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps)
        with torch.autocast("cpu", torch.bfloat16):
            z = encode(images).float()
            if step < config.free_steps:
                commitment = z.new_zeros(())
                seen = [*seen[-15:], z.detach().permute(0, 2, 3, 1).reshape(-1, config.dim)]
            else:
                if step == config.free_steps:
                    model.quantizer.start(torch.cat(seen), torch.Generator().manual_seed(config.seed))
                z, _, commitment = model.quantizer(z)
            output = decode(z)
        loss = reconstruction_loss(output, images)
        (loss + config.commitment * commitment).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for key, value in (("loss", loss), ("commitment", commitment)):
            mean[key] += 0.05 * (value.item() - mean[key])
        if (step + 1) % 100 == 0:
            psnr = reconstruction_psnr(model.eval().fold(), valid[:24]) if step >= config.free_steps else math.nan
            model.train()
            used = (model.quantizer.count > 0.2).float().mean().item()
            speed = (step + 1 - first) / (time.monotonic() - started)
            log.info("step %d loss %.4f psnr %.2f used %.2f, %.2f steps/s", step + 1, mean["loss"], psnr, used, speed)
            run.log(step=step + 1, psnr=psnr, codes_used=used, **mean)
        if time.monotonic() - saved > 60 * minutes_between_saves:
            save(step + 1)
            saved = time.monotonic()
    save(config.steps)
    return model.eval().fold()


@torch.inference_mode()
def reconstruction_psnr(tokenizer: ImageTokenizer, pictures: Sequence[Picture], size: int = 256) -> float:
    """Mean PSNR in dB of encode + decode over centre crops (paper's: shortest side resized to `size`)."""
    values = []
    for picture in pictures:
        image = to_tensor([np.asarray(centre_crop(picture.open(), size))])
        got = tokenizer.decode(tokenizer.encode(image))
        values.append(-10 * math.log10(F.mse_loss(got, image).item()))
    return sum(values) / len(values)
