"""Content tokens of any size to stylised tokens: styles, regions, masks, sampling, frames of a video."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..progress import Progress, of_all
from ..tokenizers.protocol import ImageTokenizer
from ..tokenizers.tokens import Tokens
from .masks import on_grid
from .model import Translator
from .sampling import DEFAULT, Sampling, choose_tokens
from .style import Style, merged
from .temporal import Frame, steadied
from .texture import field, under
from .windows import translate_grid


def translate(
    translator: Translator,
    tokenizer: ImageTokenizer,
    tokens: Tokens,
    styles: list[tuple[Style, float]],
    strength: float = 1.0,
    mask: Tensor | None = None,
    sampling: Sampling = DEFAULT,
    progress: Progress | None = None,
    regions: Sequence[tuple[Style, Tensor, float]] = (),
    feather: float = 0.0,
    steady: float = 0.0,
) -> Tokens:
    """Content tokens to stylised tokens, any size. The noise of sampling is the same for every picture.

    Args:
        styles: (style, weight) merged into the translator; none translates with the base alone.
        strength: 0 is the base translator's picture, 1 the style; logits between are mixed linearly.
        mask: (B or 1, H, W) in [0, 1], scales strength place by place.
        progress: called with (windows done, windows in all), now and then with the same again; may raise to cancel.
        regions: styles for parts of the picture, each with a mask and a feather as here, laid one over the other: where a mask is
            1 its style takes the place of those before. One more pass of the translator for windows that a mask touches.
        feather: px over which the mask's edges become soft, to either side.
        steady: for frames of one video, in their order: how much of the frame before is kept where the photo did not change.
    """
    config = translator.config
    if tokens.vocab_size != config.vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this translator knows {config.vocab_size}: "
            "tokenize with the tokenizer of the translator's bundle"
        )
    if tokens.scale != config.upscale:
        raise ValueError(
            f"the tokens were read at 1/{tokens.scale} size, this translator needs 1/{config.upscale}: "
            "tokenize for this translator"
        )
    if not 0 <= strength <= 2:
        raise ValueError(f"strength {strength} is out of range: 0 (no style) to 2 (exaggerated), 1 is the style as tuned")
    if not 0 <= steady <= 1:
        raise ValueError(f"steady {steady} is out of range: 0 (every frame by itself) to 1 (nothing moves that did not move)")
    if steady and len(tokens.grid) > 1 and tokens.photo is None:
        raise ValueError(
            "the tokens do not tell what changes from frame to frame: tokenize all frames together, or set steady to 0"
        )
    (count, h, w), u = tokens.grid.shape, config.upscale
    masks = [(mask, feather), *((where, soft) for _, where, soft in regions)]
    for some, _ in masks:
        if some is not None and len(some) not in (1, count):
            raise ValueError(f"there are {len(some)} masks for {count} pictures: give one mask, or one for each picture")
    placed = [None if m is None else on_grid(m, (h, w), soft, (tokens.height, tokens.width)) for m, soft in masks]
    device = next(translator.parameters()).device
    plain = mask is None and strength == 1
    with torch.inference_mode():
        rows = tokenizer.embed(torch.arange(config.vocab_size, device=device)[None])[0].float()  # (V, D_tok)
        laid = [styles, *([(style, 1.0)] for style, _, _ in regions)]
        model = painter(translator, tokenizer, laid, rows, strength, plain, moved(sampling.seed))
        # on a CPU about half a second's work of the bundled models, after which a cancel is heard
        batch = 16 if device.type != "cpu" else max(1, 8 // (len(laid) + (not plain)))
        grids = torch.empty(count, u * h, u * w, dtype=torch.long, device=tokens.grid.device)
        mixtures = rows.new_empty(*grids.shape, rows.shape[1], device=grids.device) if sampling.softness else None
        before: Frame | None = None
        for i, grid in enumerate(tokens.grid.split(1)):
            shares = [torch.ones(h, w) if m is None else m[i if len(m) > 1 else 0] for m in placed]
            shares[0] = shares[0] * strength
            generator = torch.Generator(device=device).manual_seed(sampling.seed)
            translate_grid(
                model,
                grid.to(device),
                torch.stack([share.to(device) for share in shares], -1)[None],  # (1, h, w, 1 + R)
                partial(choose_tokens, sampling=sampling, generator=generator, rows=rows),
                config.grid,
                u,
                batch=batch,
                progress=partial(of_all, progress, i, count) if progress else None,
                out=[some[i : i + 1] for some in (grids, mixtures) if some is not None],
            )
            if steady and tokens.photo is not None:
                now = Frame(tokens.photo[i], grids[i], None if mixtures is None else mixtures[i])
                before = steadied(now, before, steady) if before else now
                grids[i] = before.grid
                if mixtures is not None and before.mixture is not None:
                    mixtures[i] = before.mixture
    return tokens.with_grid(grids, scale=1, mixture=mixtures)


def painter(
    translator: Translator,
    tokenizer: ImageTokenizer,
    laid: Sequence[Sequence[tuple[Style, float]]],
    rows: Tensor,
    strength: float,
    plain: bool,
    shift: Tensor,
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """What `translate_grid` asks of a model: windows of tokens (b, n*n), shares (b, n*n, 1 + R), places (b, 2) -> logits.

    Args:
        laid: the styles of the picture, and of every region.
        rows: (V, D_tok), the embedding of every token.
        plain: the first styles have share 1 everywhere.
        shift: (2), by which the textures are moved.
    """
    u, n = translator.config.upscale, translator.config.grid
    parameters = [merged(translator, some) for some in laid]
    textures = [field([(style.texture, weight) for style, weight in some if style.texture], rows) for some in laid]
    shift = shift.to(rows.device)

    def model(windows: Tensor, shares: Tensor, places: Tensor) -> Tensor:
        embeddings = tokenizer.embed(windows)
        shares = shares.unflatten(1, (n, n)).repeat_interleave(u, 1).repeat_interleave(u, 2).flatten(1, 2)

        def painted(k: int) -> Tensor:
            texture = textures[k]
            read = None if texture is None else under(texture, u * places + shift, u * n)
            out: Tensor = torch.func.functional_call(translator, parameters[k], (embeddings, read))
            return out.float()

        base = None if plain else translator(embeddings).float()
        out = painted(0) if laid[0] or base is None else base
        if base is not None and laid[0]:
            out = torch.lerp(base, out, shares[..., :1])
        for k in range(1, len(laid)):
            if shares[..., k].any():
                other = painted(k)
                other = other if base is None else base + strength * (other - base)
                out = torch.lerp(out, other, shares[..., k, None])
        return out

    return model


def moved(seed: int) -> Tensor:
    """(y, x) in tokens by which a seed moves a style's texture under the picture; seed 0 leaves it where it is."""
    if seed == 0:
        return torch.zeros(2, dtype=torch.long)
    return torch.randint(0, 1 << 16, (2,), generator=torch.Generator().manual_seed(seed))
