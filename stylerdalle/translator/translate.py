"""Translate: content tokens of any size to the stylised tokens of the same pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..device import explained
from ..progress import Progress, split
from ..tokenizers.protocol import ImageTokenizer, all_embeddings
from ..tokenizers.tokens import Tokens, check_tokenizer
from .lattice import remove_lattice
from .masks import on_grid
from .model import Translator
from .noise import noise_grid
from .options import DEFAULT_OPTIONS, TranslateOptions
from .sampling import choose_tokens
from .style import Style, merged
from .temporal import Frame, History
from .texture import field_under, laid_under, texture_field
from .windows import translate_grid


@explained
def translate(
    translator: Translator,
    tokenizer: ImageTokenizer,
    tokens: Tokens,
    styles: Sequence[tuple[Style, float]],
    options: TranslateOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    history: History | None = None,
) -> Tokens:
    """Content tokens to stylised tokens, of any size, one picture after another.

    Args:
        tokens: grid (B, h, w), from `encode` with the translator's upscale u.
        styles: styles and their weights, merged into the translator as a weighted sum; none: the base translator.
        progress: called with (windows done, windows in all), sometimes with the same numbers again; may raise to cancel.
        history: of the frames before, if these go on with their video.

    Returns:
        The tokens with a grid of (B, u*h, u*w) and, with softness, a mixture.

    Raises:
        ValueError: tokens of another tokenizer or upscale, or masks that do not fit the pictures.
        OutOfMemory: memory does not suffice for one window at a time.
    """
    check(translator, tokens, options)
    check_tokenizer(tokens, tokenizer.sha256, tokenizer.vocab_size)
    (count, h, w), u = tokens.grid.shape, translator.config.upscale
    size = (tokens.height, tokens.width)
    masks = [None if mask is None else on_grid(mask, (h, w), feather, size) for mask, feather in options.masks]
    with torch.inference_mode():
        model = StyledTranslator(translator, tokenizer, styles, options)
        grid = torch.empty(count, u * h, u * w, dtype=torch.long, device=tokens.grid.device)
        mixture = None
        if options.sampling.softness:
            mixture = model.embeddings.new_empty(*grid.shape, model.embeddings.shape[1], device=grid.device)
        blocks = grid.new_zeros(grid.shape, dtype=torch.float32) if any(model.blocks) else None
        history = history or History(options.steady)
        for i, tell in enumerate(split(progress, [1] * count)):
            shares = [torch.ones(h, w) if mask is None else mask[i if len(mask) > 1 else 0] for mask in masks]
            out = [some[i : i + 1] for some in (grid, mixture) if some is not None]
            model.translate(tokens.grid[i : i + 1], shares, out, tell)
            if blocks is not None:
                blocks[i] = model.over_layers(model.blocks, torch.stack([share.to(blocks) for share in shares], -1))
            if options.steady and tokens.photo is not None:
                now = history.next(Frame(tokens.photo[i].float(), grid[i], None if mixture is None else mixture[i]))
                grid[i] = now.grid
                if mixture is not None and now.mixture is not None:
                    mixture[i] = now.mixture
    made = replace(tokens, grid=grid, scale=1, mixture=mixture, steady=options.steady, frames=count)
    return replace(made, seed=options.sampling.seed, blocks=blocks)


def check(translator: Translator, tokens: Tokens, options: TranslateOptions) -> None:
    """Raises ValueError where the tokens do not fit the translator or the options."""
    config, count = translator.config, len(tokens.grid)
    if tokens.vocab_size != config.vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this translator has one of {config.vocab_size}: "
            "tokenize with the tokenizer of the translator's bundle"
        )
    if tokens.scale != config.upscale:
        raise ValueError(
            f"the tokens were read at 1/{tokens.scale} size, this translator needs 1/{config.upscale}: "
            "tokenize for this translator"
        )
    if options.steady and count > 1 and tokens.photo is None:
        raise ValueError(
            "the tokens do not tell what changes from frame to frame: tokenize all frames together, or set steady to 0"
        )
    for mask, _ in options.masks:
        if mask is not None and len(mask) not in (1, count):
            raise ValueError(f"there are {len(mask)} masks for {count} pictures: give one mask, or one for each picture")


class StyledTranslator:
    """A translator with the styles of a picture and of its regions merged in, and their textures.

    Layer 0 is the picture's styles; layer k, 1 to R, is region k.
    """

    def __init__(
        self,
        translator: Translator,
        tokenizer: ImageTokenizer,
        styles: Sequence[tuple[Style, float]],
        options: TranslateOptions,
    ):
        self.translator, self.tokenizer, self.options = translator, tokenizer, options
        self.embeddings = all_embeddings(tokenizer)  # (V, D_tok)
        layers = [styles, *([(region.style, 1.0)] for region in options.regions)]
        # strength scales the changes of the parameters, not the logits: between two logits the photo's, which are sharper, would
        # nearly always win, and logits beyond the style's are outside of what it has learnt
        self.parameters = [merged(translator, [(style, options.strength * weight) for style, weight in some]) for some in layers]
        self.fields = [texture_field([(style.texture, weight) for style, weight in some], self.embeddings) for some in layers]
        self.blocks = [sum(weight * style.blocks for style, weight in some) for some in layers]
        self.shift = texture_shift(options.sampling.seed).to(self.embeddings.device)
        self.noise: Tensor | None = None  # of the picture that is being translated, (u*h, u*w, K)
        self.styled = bool(styles)
        self.needs_base = options.mask is not None

    def translate(self, grid: Tensor, shares: Sequence[Tensor], out: Sequence[Tensor], progress: Progress | None = None) -> None:
        """Translate one picture.

        Args:
            grid: content tokens (1, h, w).
            shares: of each layer, (h, w) in [0, 1].
            out: to be filled: tokens (1, u*h, u*w) and, with softness, mixtures (1, u*h, u*w, D_tok).
        """
        device, config, sampling = self.embeddings.device, self.translator.config, self.options.sampling
        if config.noise:
            sides = [config.upscale * max(side, config.grid) for side in grid.shape[1:]]
            self.noise = noise_grid(sides[0], sides[1], sampling.seed).to(self.embeddings)
        stacked = torch.stack([share.to(device) for share in shares], -1)[None]
        generator = torch.Generator(device=device).manual_seed(sampling.seed)
        passes = len(self.parameters) + self.needs_base
        translate_grid(
            self.logits,
            grid.to(device),
            stacked,  # (1, h, w, 1 + R)
            partial(choose_tokens, sampling=sampling, generator=generator, embeddings=self.embeddings),
            config.grid,
            config.upscale,
            # on a CPU about half a second of work of the bundled models, so that a cancel is heard soon
            batch=16 if device.type != "cpu" else max(1, 8 // passes),
            progress=progress,
            out=out,
        )
        if config.noise and self.styled and len(out) > 1:
            smooth = [float(field is None) for field in self.fields]  # styles without a texture
            remove_lattice(out[1][0], self.over_layers(smooth, stacked[0]))

    def over_layers(self, values: Sequence[float], shares: Tensor) -> Tensor:
        """How much each place has of something that layer k has as much of as values[k], 0 to 1, by strength: (u*h, u*w).

        Args:
            shares: (h, w, 1 + R), of each layer.
        """
        amount = torch.zeros_like(shares[..., 0])
        for k, value in enumerate(values):
            amount = torch.lerp(amount, torch.full_like(amount, min(1.0, max(0.0, value))), shares[..., k])
        u = self.translator.config.upscale
        return min(1.0, self.options.strength) * amount.repeat_interleave(u, 0).repeat_interleave(u, 1)

    def logits(self, windows: Tensor, shares: Tensor, places: Tensor) -> Tensor:
        """Logits of the target tokens, all layers mixed.

        Args:
            windows: content tokens (b, n*n).
            shares: (b, n*n, 1 + R), of each layer.
            places: (b, 2), where the windows begin, (y, x) in content tokens.

        Returns:
            (b, (u*n)^2, V).
        """
        n, u = self.translator.config.grid, self.translator.config.upscale
        embeddings = self.tokenizer.embed(windows)  # (b, n*n, D_tok)
        shares = shares.unflatten(1, (n, n)).repeat_interleave(u, 1).repeat_interleave(u, 2).flatten(1, 2)
        base = self.translator(embeddings).float() if self.needs_base else None
        out = self.layer(0, embeddings, places) if self.styled or base is None else base
        if base is not None and self.styled:
            out = torch.lerp(base, out, shares[..., :1])
        for k in range(1, len(self.parameters)):
            if shares[..., k].any():
                region = self.layer(k, embeddings, places)
                out = torch.lerp(out, region, shares[..., k, None])
        return out

    def layer(self, k: int, embeddings: Tensor, places: Tensor) -> Tensor:
        """Logits (b, (u*n)^2, V) of one layer alone, for content embeddings (b, n*n, D_tok) of windows at places (b, 2)."""
        field, u = self.fields[k], self.translator.config.upscale
        side = u * self.translator.config.grid
        texture = None if field is None else field_under(field, u * places + self.shift, side)
        noise = None if self.noise is None or not (k or self.styled) else cut_each(self.noise, u * places, side)
        under = laid_under(texture, noise, self.translator.config.embed_dim)
        if under is not None and self.options.strength < 1:
            under = self.options.strength * under
        logits: Tensor = torch.func.functional_call(self.translator, self.parameters[k], (embeddings, under))
        return logits.float()


def cut_each(grid: Tensor, places: Tensor, side: int) -> Tensor:
    """(h, w, K) -> its windows of side x side that begin at places (b, 2): (b, side*side, K)."""
    steps = torch.arange(side, device=grid.device)
    rows, columns = (places[:, i, None] + steps for i in range(2))  # (b, side) each
    return grid[rows[:, :, None], columns[:, None]].flatten(1, 2)


def texture_shift(seed: int) -> Tensor:
    """(2), (y, x): by how many tokens a seed shifts a style's texture under the picture; seed 0 does not."""
    if seed == 0:
        return torch.zeros(2, dtype=torch.long)
    return torch.randint(0, 1 << 16, (2,), generator=torch.Generator().manual_seed(seed))
