"""Pretraining of a translator, on pictures alone (StylerDALLE, arXiv 2303.09268, section 3.2; masked-token modelling).

- upscale 2, as in the paper: predict the full-resolution tokens of a picture from its half-resolution tokens.
- upscale 1: start as the identity over the codebook, then predict hidden tokens of a picture from the others (masked-token
  modelling, MaskGIT, arXiv 2202.04200). The embedding of a hidden token is zero. Visible tokens are predicted too, with a
  weight of their own, so that the translator stays the identity where it sees everything.

Unlike the paper, a target shares its probability with its nearest codes (targets.py): they look nearly the same.

    stylerdalle pretrain --images SHARDS --output translator.safetensors
    stylerdalle pretrain --preset paper-1 --tokens FOLDER --tokenizer FILE --output translator.safetensors

Several processes (distributed.py), or a batch in parts, reach the weights of one process with whole batches, up to rounding, if
dropout is 0. With dropout, each process and each part draws its own.

Letters: B pictures; n the translator's grid; u its upscale; N = (u*n)^2 target tokens; V tokens in the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import autocast
from ..distributed import Processes, processes
from ..images.resample import interpolated
from ..tokenizers.codec import decode, encode
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..translator.identity import start_as_identity
from ..translator.model import Translator, TranslatorConfig
from ..translator.options import TranslateOptions
from ..translator.sampling import Sampling
from ..translator.translate import translate
from .crops import aligned_crop, centre_crop, random_crop, to_tensor
from .loop import Descent, Loop, Numbers, Stateful
from .options import PretrainConfig
from .pictures import Picture
from .prepared import PreparedTokens
from .run import Run
from .schedule import epochs_to_steps, hidden_places, learning_rate, sample_indices
from .targets import soft_cross_entropy, soft_targets


def train(
    tokenizer: ImageTokenizer,
    pictures: Sequence[Picture] | PreparedTokens,
    config: PretrainConfig,
    run: Run,
    valid: Sequence[Picture] = (),
    minutes_between_saves: float = 4,
) -> Translator:
    """Train to config.steps, from `run`'s state if it has one -> the translator. Collective.

    Args:
        tokenizer: frozen; sources and targets are its tokens.
        pictures: to learn from, or their prepared tokens.
        valid: to measure the translation gap on.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    team = processes()
    config = epochs_to_steps(config, len(pictures))
    translator = new_translator(tokenizer, config)
    parameters = list(translator.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01)

    def rate(step: int) -> float:
        return config.lr * learning_rate(step, config.steps, config.warm, decay=config.decay)

    descents = [Descent(optimizer, rate, parameters)]
    state: dict[str, Stateful] = {"model": translator, "optimizer": optimizer}
    loop = Loop(run, config.steps, config.seed, state, descents, minutes_between_saves, report_every=50)
    loop.resume({**asdict(config), "tokens": pictures.sha256 if isinstance(pictures, PreparedTokens) else ""})
    team.broadcast(parameters)
    device = parameters[0].device
    targets = soft_targets(all_embeddings(tokenizer), config.neighbours, config.softness)

    def batch(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        return masked_batch(tokenizer, pictures, config, step, rng)

    def learn(step: int, batch: tuple[Tensor, Tensor]) -> Numbers:
        # dropout draws from the global generator: seeded anew in each step, a resumed run draws the same
        torch.manual_seed(config.seed * 1_000_003 + step + (team.rank << 40))
        translator.train()
        hidden = batch[1]
        counts = max(1, int(hidden.sum())), max(1, int((~hidden).sum()))  # of the whole batch
        totals = torch.zeros(2, device=device)
        for part in split_batch(batch, team, config.accumulate):
            loss, kept = losses(tokenizer, translator, [tensor.to(device) for tensor in part], targets, counts, config)
            (loss + config.kept_weight * kept).backward()
            totals += torch.stack([loss, kept]).detach()
        team.all_reduce_gradients(parameters, totals)
        return dict(zip(("loss", "kept"), totals.tolist(), strict=True))

    def measure() -> Numbers:
        return {"gap": translation_gap(tokenizer, translator.eval(), valid[:8])[0] if valid else math.nan}

    loop.train(batch, learn, measure=measure)
    return translator.eval()


def new_translator(tokenizer: ImageTokenizer, config: PretrainConfig) -> Translator:
    """An untrained translator on the tokenizer's device. Seeds torch's global generator, which nn.Linear draws from."""
    embeddings = all_embeddings(tokenizer)
    torch.manual_seed(config.seed)
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
            decoder_input=config.decoder_input,
        )
    )
    translator.to(embeddings.device)
    if config.identity:
        start_as_identity(translator, embeddings)
    return translator


def masked_batch(
    tokenizer: ImageTokenizer,
    pictures: Sequence[Picture] | PreparedTokens,
    config: PretrainConfig,
    step: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """(pictures (B, 3, S, S) or tokens as of `token_batch`, which source tokens are hidden: bool (B, n*n))."""
    if isinstance(pictures, PreparedTokens):
        seen = token_batch(pictures, config, step, rng)
    else:
        side = tokenizer.downsample * config.grid * config.upscale
        seen = picture_batch(pictures, config, side, step, rng)
    return seen, hidden_places((config.batch, config.grid**2), config.whole, rng)


def picture_batch(pictures: Sequence[Picture], config: PretrainConfig, side: int, step: int, rng: np.random.Generator) -> Tensor:
    """Square crops of `side` px of a step's pictures, (B, 3, side, side) in [0, 1]."""
    crops = []
    for index in sample_indices(len(pictures), config.batch, step, config.seed, rng, config.epochs):
        picture = pictures[int(index)]
        image = picture.open()
        if not config.augment:
            crops.append(np.asarray(centre_crop(image, side)))
        else:
            crops.append(aligned_crop(image, side, rng) if picture.kind == "made" else random_crop(image, side, rng, (0.8, 1.6)))
    return to_tensor(crops)


def token_batch(tokens: PreparedTokens, config: PretrainConfig, step: int, rng: np.random.Generator) -> Tensor:
    """Source and target tokens of a step side by side, long (B, n*n + N).

    With upscale 1 both are the same window of n x n tokens, at a random place of the picture.
    """
    sources, targets = tokens.batch(step, config.batch, config.seed)
    if config.upscale == 1:
        n, side = config.grid, targets.shape[1]
        places = rng.integers(side - n + 1, size=(len(targets), 2))
        sources = targets = np.stack([grid[y : y + n, x : x + n] for grid, (y, x) in zip(targets, places, strict=True)])
    both = np.concatenate([grids.reshape(len(grids), -1) for grids in (sources, targets)], 1)
    return torch.from_numpy(both.astype(np.int64))


def split_batch(batch: Sequence[Tensor], team: Processes, count: int) -> Iterator[list[Tensor]]:
    """This process's rows of a batch's tensors, in `count` parts; one by one if there are fewer rows, none if there are none."""
    own = [team.shard(tensor) for tensor in batch]
    if rows := len(own[0]):
        yield from map(list, zip(*(tensor.tensor_split(min(count, rows)) for tensor in own), strict=True))


def losses(
    tokenizer: ImageTokenizer,
    translator: Translator,
    part: Sequence[Tensor],
    targets: tuple[Tensor, Tensor],
    counts: tuple[int, int],
    config: PretrainConfig,
) -> tuple[Tensor, Tensor]:
    """(loss, loss of visible tokens) of a part of a batch, scalars: its share of the whole batch's means.

    With upscale 2 the first is over all target tokens and the second 0; with upscale 1 the first is over hidden tokens.

    Args:
        part: as of `masked_batch`, with the rows of this part only.
        targets: as of `soft_targets`.
        counts: of hidden and of visible tokens in the whole batch.
    """
    seen, hidden = part
    with torch.no_grad():
        source, target = tokens_of(tokenizer, seen, config)
        read = tokenizer.embed(source)  # (B, n*n, D_tok)
        if config.upscale == 1:
            read = read * ~hidden[..., None]
    with autocast(read.device):
        logits = translator(read)
    loss = soft_cross_entropy(logits, target, *targets)  # (B, N)
    if config.upscale == 2:
        return loss.sum() / (config.batch * loss.shape[1]), loss.new_zeros(())
    return loss[hidden].sum() / counts[0], loss[~hidden].sum() / counts[1]


def tokens_of(tokenizer: ImageTokenizer, seen: Tensor, config: PretrainConfig) -> tuple[Tensor, Tensor]:
    """(source (B, n*n), target (B, N)), from pictures (B, 3, S, S) or from tokens as of `token_batch`."""
    if seen.ndim == 2:
        return seen[:, : config.grid**2], seen[:, config.grid**2 :]
    target = tokenizer.encode(seen).flatten(1)
    return tokenizer.encode(half_size(seen)).flatten(1) if config.upscale == 2 else target, target


def half_size(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H/2, W/2): the half-resolution source of the paper."""
    return interpolated(images, (images.shape[-2] // 2, images.shape[-1] // 2)).clamp(0, 1)


@torch.inference_mode()
def translation_gap(
    tokenizer: ImageTokenizer, translator: Translator, pictures: Sequence[Picture], size: int = 256
) -> tuple[float, float, float]:
    """What a base translator loses: mean PSNR in dB on centre crops of `size` px.

    Returns:
        (round trip - translated, round trip, translated): encode and decode alone, and with greedy translation between them.
    """
    round_trips: list[float] = []
    translations: list[float] = []
    for picture in pictures:
        image = to_tensor([np.asarray(centre_crop(picture.open(), size))]).to(translator.outNet.weight.device)
        plain = encode(tokenizer, image)
        content = encode(tokenizer, image, upscale=translator.config.upscale)
        translated = translate(translator, tokenizer, content, [], TranslateOptions(sampling=Sampling(softness=0)))
        for values, tokens in ((round_trips, plain), (translations, translated)):
            values.append(-10 * math.log10(F.mse_loss(decode(tokenizer, tokens), image).item()))
    round_trip, translation = (sum(values) / len(values) for values in (round_trips, translations))
    return round_trip - translation, round_trip, translation
