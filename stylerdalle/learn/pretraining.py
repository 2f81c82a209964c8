"""How a translator is learnt from pictures alone (StylerDALLE, arXiv 2303.09268, section 3.2; and masked-token modelling).

- upscale 2, the paper's: predict the full-resolution tokens of a picture from its half-resolution tokens.
- upscale 1: start as the identity over the codebook, then predict a hidden share of the picture's own tokens from the rest
  (masked-token modelling, MaskGIT, arXiv 2202.04200); a hidden token's embedding is zero. Places that are not hidden keep
  a small weight, so that the translator stays the identity where it sees everything.

Targets are softened over a token's nearest codes: a neighbour looks nearly the same, and an error there is a small one.

    stylerdalle pretrain --images SHARDS --output translator.safetensors
    stylerdalle pretrain --preset paper-1 --tokens FOLDER --tokenizer FILE --output translator.safetensors

Several processes (distributed.py), or a batch in parts, end with the weights of one process and whole batches, to rounding, where
dropout is 0. Else each process and each part draws a dropout of its own, as good as another seed's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..distributed import Processes, processes
from ..settings import setting
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.model import Translator, TranslatorConfig, start_as_identity
from .crops import aligned_crop, centre_crop, random_crop, to_tensor
from .pictures import Picture
from .prepared import PreparedTokens
from .run import Run
from .schedule import DECAYS, batches, chosen, in_steps, schedule
from .targets import soft_cross_entropy, soft_targets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PretrainConfig:
    """Defaults are the recipe of the shipped same-grid translator."""

    upscale: int = setting(1, "1: masked-token modelling in place; 2: the paper's half-resolution task")
    width: int = 256
    heads: int = 8
    encoder_layers: int = 2
    decoder_blocks: int = 2
    grid: int = setting(16, "source tokens a side; a training crop has downsample (8) * grid * upscale px")
    dropout: float = 0.1
    texture: bool = setting(True, "room for styles with a texture, which changes nothing yet; never with upscale 2, the paper's")
    identity: bool = setting(True, "start as the identity over the codebook; no starts from random weights, as the paper does")
    augment: bool = setting(True, "pictures at random places, zooms and mirrored; no is the centre crop, the paper's")
    steps: int = 260
    epochs: float = setting(0, "passes over all pictures, instead of --steps; 0 is as many steps as said, of pictures drawn")
    batch: int = 16
    accumulate: int = setting(1, "parts that a process works through its share of a batch in: less memory, the same result")
    lr: float = setting(3e-4, "AdamW (weight decay 0.01), after --warm")
    warm: int = setting(50, "first steps, in which the learning rate rises")
    decay: str = setting("cosine", "of the learning rate: cosine to 2 %, or linear to 0")
    kept_weight: float = setting(
        1.0, "weight of places that are not hidden: less of it, and the translator forgets to be the identity"
    )
    whole: float = setting(0.25, "share of pictures of which nothing is hidden, as in use")
    neighbours: int = setting(16, "codes that share a soft target")
    softness: float = setting(0.25, "their spread, in mean squared distances to the nearest code; 0 is hard targets")
    seed: int = 0

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} is not known: {', '.join(DECAYS)}")


def train(
    tokenizer: ImageTokenizer,
    pictures: Sequence[Picture] | PreparedTokens,
    config: PretrainConfig,
    run: Run,
    valid: Sequence[Picture] = (),
    minutes_between_saves: float = 4,
) -> Translator:
    """Train from `run`'s state (or anew) to config.steps -> the translator.

    Args:
        tokenizer: frozen; sources and targets are its tokens.
        pictures: or their tokens, prepared.

    Raises:
        ValueError: accumulate is under 1; `run` has a state of other options.
    """
    if config.accumulate < 1:
        raise ValueError(f"accumulate {config.accumulate} is not possible: 1 is whole batches, 2 is halves")
    team = processes()
    config = in_steps(config, len(pictures))
    embeddings = all_embeddings(tokenizer)
    torch.manual_seed(config.seed)  # nn.Linear draws its initial weights from the global generator
    translator = Translator(
        TranslatorConfig(
            embed_dim=tokenizer.embed_dim,
            vocab_size=tokenizer.vocab_size,
            width=config.width,
            heads=config.heads,
            encoder_layers=config.encoder_layers,
            decoder_blocks=config.decoder_blocks,
            grid=config.grid,
            upscale=config.upscale,
            dropout=config.dropout,
            texture=config.texture and config.upscale == 1,
        )
    )
    device = embeddings.device
    translator.to(device)
    if config.identity:
        start_as_identity(translator, embeddings)
    optimizer = torch.optim.AdamW(translator.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)
    first = 0
    if state := run.load({**asdict(config), "tokens": pictures.sha256 if isinstance(pictures, PreparedTokens) else ""}):
        translator.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)
    team.share(translator.parameters())
    index, shares = soft_targets(embeddings, config.neighbours, config.softness)
    side = tokenizer.downsample * config.grid * config.upscale

    def make(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """What a step sees, pictures (B, 3, S, S) or their tokens (see `token_batch`), and which source tokens it does not."""
        if isinstance(pictures, PreparedTokens):
            seen = token_batch(pictures, config, step, rng)
        else:
            seen = picture_batch(pictures, config, side, step, rng)
        share = np.cos(rng.uniform(0, np.pi / 2, (config.batch, 1)))  # of hidden tokens, MaskGIT's cosine schedule
        share = share * (rng.random((config.batch, 1)) >= config.whole)
        hidden = rng.random((config.batch, config.grid**2)) < share
        return seen, torch.from_numpy(hidden)

    mean = {"loss": 0.0, "kept": 0.0}
    started = saved = time.monotonic()
    for step, batch in enumerate(batches(make, config.seed, first, config.steps), first):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps, config.warm, decay=config.decay)
        # dropout draws from the global generator; so resuming is exact
        torch.manual_seed(config.seed * 1_000_003 + step + (team.rank << 40))
        places = max(1, int(batch[1].sum())), max(1, int((~batch[1]).sum()))  # of the whole batch: hidden, and not
        totals = torch.zeros(2, device=device)
        for seen, hidden in parts(batch, team, config.accumulate):
            seen, hidden = seen.to(device), hidden.to(device)
            with torch.no_grad():
                source, target = tokens_of(tokenizer, seen, config)
                read = tokenizer.embed(source)
                if config.upscale == 1:
                    read = read * ~hidden[..., None]
            with torch.autocast(device.type, torch.bfloat16):
                logits = translator.train()(read)
            loss = soft_cross_entropy(logits, target, index, shares)
            kept = loss.new_zeros(()) if config.upscale == 2 else loss[~hidden].sum() / places[1]
            main = loss.sum() / (len(batch[0]) * loss.shape[1]) if config.upscale == 2 else loss[hidden].sum() / places[0]
            (main + config.kept_weight * kept).backward()
            totals += torch.stack([main, kept]).detach()
        team.sum_gradients(translator.parameters(), totals)
        nn.utils.clip_grad_norm_(translator.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for key, value in zip(mean, totals.tolist(), strict=True):
            mean[key] += 0.05 * (value - mean[key])
        if (step + 1) % 50 == 0 and team.main:
            gap = math.nan if not valid else translation_gap(tokenizer, translator.eval(), valid[:8])[0]
            log.info(
                "step %d %s gap %.2f dB, %.2f s/step", step + 1, mean, gap, (time.monotonic() - started) / (step + 1 - first)
            )
            run.log(step=step + 1, gap=gap, **mean)
        if time.monotonic() - saved > 60 * minutes_between_saves:
            run.save({"model": translator.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
            saved = time.monotonic()
    run.save({"model": translator.state_dict(), "optimizer": optimizer.state_dict(), "step": config.steps})
    return translator.eval()


def parts(batch: Sequence[Tensor], team: Processes, count: int) -> Iterator[list[Tensor]]:
    """This process's rows of a batch's tensors, in `count` parts or, where there are fewer rows, one by one."""
    mine = [team.mine(tensor) for tensor in batch]
    if rows := len(mine[0]):
        yield from map(list, zip(*(tensor.tensor_split(min(count, rows)) for tensor in mine), strict=True))


def picture_batch(pictures: Sequence[Picture], config: PretrainConfig, side: int, step: int, rng: np.random.Generator) -> Tensor:
    """Squares of `side` px of a step's pictures, (B, 3, side, side) in [0, 1]."""
    crops = []
    for picture in (pictures[i] for i in chosen(len(pictures), config.batch, step, config.seed, rng, config.epochs)):
        image = picture.open()
        if not config.augment:
            crops.append(np.asarray(centre_crop(image, side)))
        else:
            crops.append(aligned_crop(image, side, rng) if picture.kind == "made" else random_crop(image, side, rng, (0.8, 1.6)))
    return to_tensor(crops)


def token_batch(tokens: PreparedTokens, config: PretrainConfig, step: int, rng: np.random.Generator) -> Tensor:
    """Source and target tokens of a step side by side, long (B, n*n + (u*n)^2).

    With upscale 1 both are the same window of n x n, anywhere in the picture.
    """
    sources, targets = tokens.batch(step, config.batch, config.seed)
    if config.upscale == 1:
        n, m = config.grid, targets.shape[1]
        places = rng.integers(m - n + 1, size=(len(targets), 2))
        sources = targets = np.stack([grid[y : y + n, x : x + n] for grid, (y, x) in zip(targets, places, strict=True)])
    both = np.concatenate([some.reshape(len(some), -1) for some in (sources, targets)], 1)
    return torch.from_numpy(both.astype(np.int64))


def tokens_of(tokenizer: ImageTokenizer, seen: Tensor, config: PretrainConfig) -> tuple[Tensor, Tensor]:
    """(source (B, n*n), target (B, (u*n)^2)) of pictures (B, 3, S, S), or of tokens as `token_batch` has them."""
    if seen.ndim == 2:
        return seen[:, : config.grid**2], seen[:, config.grid**2 :]
    target = tokenizer.encode(seen).flatten(1)
    return tokenizer.encode(half_size(seen)).flatten(1) if config.upscale == 2 else target, target


def half_size(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H/2, W/2), the paper's half-resolution source."""
    return F.interpolate(images, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


@torch.inference_mode()
def translation_gap(
    tokenizer: ImageTokenizer, translator: Translator, pictures: Sequence[Picture], size: int = 256
) -> tuple[float, float, float]:
    """(gap, round trip, translated) in dB: mean PSNR lost by unmasked greedy translation against encode + decode alone."""
    from ..tokenizers.codec import decode, encode
    from ..translator.options import TranslateOptions
    from ..translator.sampling import Sampling
    from ..translator.translate import translate

    trips, outs = [], []
    for picture in pictures:
        image = to_tensor([np.asarray(centre_crop(picture.open(), size))]).to(translator.outNet.weight.device)
        plain = encode(tokenizer, image)
        content = encode(tokenizer, image, upscale=translator.config.upscale)
        translated = translate(translator, tokenizer, content, [], TranslateOptions(sampling=Sampling(softness=0)))
        for values, tokens in ((trips, plain), (outs, translated)):
            values.append(-10 * math.log10(F.mse_loss(decode(tokenizer, tokens), image).item()))
    trip, out = sum(trips) / len(trips), sum(outs) / len(outs)
    return trip - out, trip, out
