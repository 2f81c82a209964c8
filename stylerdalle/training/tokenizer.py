"""Training of the mini tokenizer: a VQ-VAE (arXiv 1711.00937) with the layers of OpenAI's dVAE, folded into the dVAE's format.

With codebook e_k and a linear head z = P relu(h) + p, argmin_k |z - e_k|^2 = argmax_k (2 e_k P) relu(h) + 2 e_k p - |e_k|^2,
which is the encoder's last 1x1 convolution. Row k of the decoder's first convolution is W e_k + w, W and w of the linear tail.
Blocks are trained with post_gain 1 (the dVAE has 1/16 for 4 blocks) and scaled when folded: the same function, better
conditioned.

    stylerdalle train-tokenizer --images SHARDS --output weights/mini/tokenizer.safetensors
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dall_e import Decoder, Encoder
from torch import Tensor, nn

from ..device import autocast
from ..learn.crops import aligned_crop, centre_crop, random_crop, to_tensor
from ..learn.loop import Descent, Loop, Numbers, Stateful
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import learning_rate
from ..tokenizers.dvae import DVAE, map_pixels, unclamped_pixels
from ..tokenizers.protocol import ImageTokenizer
from .options import TokenizerConfig
from .quantizer import Quantizer

SHARES = {"photo": 0.4, "wallpaper": 0.1, "art": 0.18, "graphic": 0.07, "made": 0.22, "flat": 0.03}  # of training crops


class VQAutoEncoder(nn.Module):
    """The trainable form: the dVAE's encoder and decoder with a vector quantiser between them."""

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.dvae = new_dvae(config.n_hid, config.vocab_size, config.n_init)
        self.head = nn.Conv2d(8 * config.n_hid, config.dim, 1)
        self.tail = nn.Conv2d(config.dim, config.n_init, 1)
        self.quantizer = Quantizer(config.vocab_size, config.dim)
        for block in residual_blocks(self.dvae):
            block.post_gain = 1
            block.res_path.conv_4.w.data *= 0.25
        for half in (self.dvae.encoder, self.dvae.decoder):
            half.requires_grad_(True)
        self.dvae.encoder.blocks.output.conv.requires_grad_(False)  # both are replaced when folded
        self.dvae.decoder.blocks.input.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> vectors z (B, dim, h, w), not yet quantised."""
        z: Tensor = self.head(self.dvae.features(map_pixels(images)))
        return z

    def decode(self, z: Tensor) -> Tensor:
        """z (B, dim, h, w) -> the decoder's mean channels before the sigmoid, (B, 3, H, W)."""
        return self.dvae.decode_embedded(self.tail(z))

    @torch.no_grad()
    def fold(self) -> DVAE:
        """A plain dVAE, a copy, that computes the same."""
        codes = self.quantizer.codebook  # (V, dim)
        p, b = self.head.weight[:, :, 0, 0], conv_bias(self.head)
        folded = new_dvae(self.dvae.encoder.n_hid, len(codes), self.dvae.decoder.n_init)
        folded.load_state_dict(self.dvae.state_dict())
        for block in residual_blocks(folded):
            block.res_path.conv_4.w.div_(block.post_gain)
            block.res_path.conv_4.b.div_(block.post_gain)
        output, first = folded.encoder.blocks.output.conv, folded.decoder.blocks.input
        output.w.copy_((2 * codes @ p)[:, :, None, None])
        output.b.copy_(2 * codes @ b - codes.square().sum(1))
        first.w.copy_((codes @ self.tail.weight[:, :, 0, 0].t()).t()[:, :, None, None])
        first.b.copy_(conv_bias(self.tail))
        return folded.to(codes.device)


def new_dvae(n_hid: int, vocab_size: int, n_init: int) -> DVAE:
    """An untrained dVAE with one block per group."""
    return DVAE(
        Encoder(n_hid=n_hid, n_blk_per_group=1, vocab_size=vocab_size),
        Decoder(n_hid=n_hid, n_blk_per_group=1, vocab_size=vocab_size, n_init=n_init),
    )


def residual_blocks(module: nn.Module) -> list[Any]:
    """The residual blocks of a dVAE or of one half of it; its package, which has no types, gives each a `post_gain`."""
    return [m for m in module.modules() if hasattr(m, "post_gain")]


def conv_bias(conv: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one, (C)."""
    assert conv.bias is not None
    return conv.bias


def reconstruction_loss(output: Tensor, images: Tensor) -> Tensor:
    """L1 over a pyramid of 3 levels, L1 of the pixel gradients, and squared error; about 1 at a PSNR of 20 dB.

    Args:
        output: of the decoder before the sigmoid, (B, 3, H, W).
        images: (B, 3, H, W) in [0, 1].

    Returns:
        A scalar.
    """
    got = unclamped_pixels(output)  # so that saturated colours keep a gradient
    error = got - images
    loss = error.abs().mean() + 4 * error.square().mean()
    loss = loss + 0.25 * ((error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean())
    for scale in (2, 4):
        loss = loss + 0.5 * F.avg_pool2d(error, scale).abs().mean()
    return 8 * loss


def mixture(
    pictures: Sequence[Picture], size: int, zoom: tuple[float, float], shares: dict[str, float]
) -> Callable[[np.random.Generator], np.ndarray]:
    """A function that draws a random training crop, uint8 (size, size, 3), the kinds of pictures in the given shares.

    Kinds without a picture are left out. The kind "flat" needs none: saturated flat areas and gradients.
    """
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
    """Two colours, often saturated, with a straight edge or a gradient between them -> uint8 (size, size, 3)."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    t = np.cos(angle) * x + np.sin(angle) * y + rng.uniform(-0.3, 0.3)
    t = np.clip(t * (200.0 if rng.random() < 0.6 else 1.0) + 0.5, 0, 1)[..., None]
    colours = rng.random((2, 3))
    corner = rng.random((2, 1)) < 0.7
    colours = np.where(corner, np.round(colours), colours)
    return ((colours[0] * (1 - t) + colours[1] * t) * 255).round().astype(np.uint8)


def train(
    pictures: Sequence[Picture],
    valid: Sequence[Picture],
    config: TokenizerConfig,
    run: Run,
    minutes_between_saves: float = 5,
    device: torch.device | str = "cpu",
) -> DVAE:
    """Train to config.steps, from `run`'s state if it has one -> the folded tokenizer.

    Args:
        pictures: to learn from, of the kinds in SHARES.
        valid: to measure PSNR on.

    Raises:
        ValueError: too few vectors to place the codebook, or a loss that is not finite.
    """
    torch.manual_seed(config.seed)  # the package's modules draw their initial weights from the global generator
    model = VQAutoEncoder(config).to(device)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.99), weight_decay=1e-4)
    descent = Descent(optimizer, lambda step: config.lr * learning_rate(step, config.steps), parameters)
    state: dict[str, Stateful] = {"model": model, "optimizer": optimizer}
    loop = Loop(run, config.steps, config.seed, state, [descent], minutes_between_saves, report_every=100)
    loop.resume(asdict(config))
    encode, decode = (torch.compile(f) if config.compile else f for f in (model.encode, model.decode))
    draw = mixture(pictures, config.size, config.zoom, SHARES)
    recent: deque[Tensor] = deque(maxlen=16)  # unquantised vectors (N, dim) of the last steps, to place the codebook on

    def batch(step: int, rng: np.random.Generator) -> Tensor:
        return to_tensor([draw(rng) for _ in range(config.batch)])

    def learn(step: int, images: Tensor) -> Numbers:
        images = images.to(device)
        with autocast(images.device):
            z = encode(images).float()  # (B, dim, h, w)
            if step < config.free_steps:
                commitment = z.new_zeros(())
                recent.append(z.detach().permute(0, 2, 3, 1).reshape(-1, config.dim))
            else:
                if step == config.free_steps:
                    model.quantizer.place_codes(torch.cat([*recent]), torch.Generator().manual_seed(config.seed))
                z, _, commitment = model.quantizer(z)
            output = decode(z)
        loss = reconstruction_loss(output, images)
        (loss + config.commitment * commitment).backward()
        return {"loss": loss.item(), "commitment": commitment.item()}

    def measure() -> Numbers:
        psnr = reconstruction_psnr(model.eval().fold(), valid[:24]) if loop.done > config.free_steps else math.nan
        model.train()
        return {"psnr": psnr, "codes_used": (model.quantizer.count > 0.2).float().mean().item()}

    loop.train(batch, learn, measure=measure)
    return model.eval().fold()


@torch.inference_mode()
def reconstruction_psnr(tokenizer: ImageTokenizer, pictures: Sequence[Picture], size: int = 256) -> float:
    """Mean PSNR in dB of encode + decode on centre crops of `size` px, the shortest side resized to it (as in the paper)."""
    values, device = [], next(tokenizer.parameters()).device
    for picture in pictures:
        image = to_tensor([np.asarray(centre_crop(picture.open(), size))]).to(device)
        got = tokenizer.decode(tokenizer.encode(image))
        values.append(-10 * math.log10(F.mse_loss(got, image).item()))
    return sum(values) / len(values)
