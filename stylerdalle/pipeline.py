"""From pictures and a style prompt to stylised pictures: what the command line and the nodes share.

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .bundle import Bundle, load_bundle
from .find import find_style
from .masks import on_grid
from .resize import resized_part, taps, weighted
from .sampling import DEFAULT, Sampling, choose_tokens
from .steady import PARTS, Frame, steadied
from .style import Style, merged
from .texture import field, under
from .tokenizers import ImageTokenizer, Tokens
from .translator import Translator
from .windows import tiles, translate_grid

TILE = 64  # tokens a side that the tokenizer does at once
WHOLE = 1 << 20  # tokens a side of a tokenizer that does any size by itself
LARGEST = 16384  # px a side that a detail above 1 may lead to
Progress = Callable[[int, int], None]


def encode(
    tokenizer: ImageTokenizer,
    images: Tensor,
    alpha: Tensor | None = None,
    upscale: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
    detail: float = 1.0,
) -> Tokens:
    """Pictures of any size to content tokens.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1], carried along.
        upscale: of the translator the tokens are for: 2 reads the pictures at half size.
        device: the tokenizer's, where tiles go one at a time; where the pictures are if not given.
        progress: called with (tiles done, tiles in all), a small picture being one tile; may raise to cancel.
        detail: 2 reads the pictures at twice their size, which makes marks half as large; 0.5 at half of it.

    Raises:
        ValueError: detail is not a positive number, or makes a side longer than LARGEST.
    """
    size = read_size(images.shape[-2:], detail, upscale)
    unit, (tile, halo) = tokenizer.downsample, in_parts(tokenizer)
    h, w = (-(-side // unit) for side in size)
    margin = halo * unit
    boxes = tiles(h * unit, w * unit, tile * unit, margin)
    grid = torch.empty(len(images), h, w, dtype=torch.long, device=images.device)
    photo = images.new_empty(len(images), 3, PARTS * h, PARTS * w, dtype=torch.float32) if len(images) > 1 else None
    with torch.inference_mode():
        for i, picture in enumerate(images.split(1)):
            for k, (top, bottom, left, right) in enumerate(boxes):
                y, x = max(0, top - margin), max(0, left - margin)
                rows, columns = (y, min(h * unit, bottom + margin)), (x, min(w * unit, right + margin))
                part = resized_part(picture, size, rows, columns, device)
                inner = part[..., top - y : bottom - y, left - x : right - x]
                first, last, west, east = (side // unit for side in (top, bottom, left, right))  # in tokens
                y, x = y // unit, x // unit
                grid[i, first:last, west:east] = tokenizer.encode(part)[0, first - y : last - y, west - x : east - x]
                if photo is not None:
                    means = F.avg_pool2d(inner, unit // PARTS)[0]
                    photo[i, :, PARTS * first : PARTS * last, PARTS * west : PARTS * east] = means
                if progress:
                    progress(i * len(boxes) + k + 1, len(images) * len(boxes))
    height, width = images.shape[-2:]
    return Tokens(grid, height, width, tokenizer.vocab_size, alpha, upscale, detail=detail, photo=photo)


def in_parts(tokenizer: ImageTokenizer) -> tuple[int, int]:
    """(tokens a side that the tokenizer does at once, tokens read on each side beyond)."""
    return (TILE, tokenizer.halo) if tokenizer.halo is not None else (WHOLE, 0)


def read_size(picture: Sequence[int], detail: float, scale: int) -> tuple[int, int]:
    """(height, width) in px that a picture is read at, for a detail and the px of it that a px stands for."""
    if not 0 < detail < math.inf:
        raise ValueError(f"detail {detail} is not possible: 1 is the picture's own size, 2 twice it")
    height, width = (max(1, round(side * detail)) for side in picture)
    if detail > 1 and max(height, width) > LARGEST:
        raise ValueError(
            f"a {picture[1]} x {picture[0]} px picture at detail {detail:g} is worked on at {width} x {height} px: "
            f"at most {LARGEST} px a side are possible, choose a lower detail"
        )
    return -(-height // scale), -(-width // scale)


def decode(
    tokenizer: ImageTokenizer, tokens: Tokens, device: torch.device | None = None, progress: Progress | None = None
) -> Tensor:
    """Tokens to pictures, float32 (B, 3, H, W) in [0, 1], or (B, 4, H, W) where they carry an alpha.

    Args:
        device: where the pictures are put, tile by tile; the tokens' if not given.
        progress: called with (tiles done, tiles in all), a small picture being one tile; may raise to cancel.
    """
    if tokens.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this tokenizer has {tokenizer.vocab_size}: "
            "decode with the tokenizer that encoded"
        )
    home = next(tokenizer.parameters()).device
    unit, (side, halo) = tokenizer.downsample, in_parts(tokenizer)
    height, width = tokens.height, tokens.width
    shown = read_size((height, width), tokens.detail, tokens.scale)  # px that the tokens stand for
    tile, margin = (max(1, round(n * unit * tokens.scale / tokens.detail)) for n in (side, halo))
    boxes = tiles(height, width, tile, margin)
    count, channels = len(tokens.grid), 3 if tokens.alpha is None else 4
    # as ComfyUI's IMAGE lies in memory, and picture files do
    images = torch.empty(count, channels, height, width, device=device or tokens.grid.device, memory_format=torch.channels_last)
    with torch.inference_mode():
        for i in range(count):
            if tokens.alpha is not None:
                images[i, 3:] = tokens.alpha[i].clamp(0, 1)
            for k, (top, bottom, left, right) in enumerate(boxes):
                y0, y1, down = taps(shown[0], height, top, bottom)
                x0, x1, across = taps(shown[1], width, left, right)
                y, x = max(0, y0 // unit - halo), max(0, x0 // unit - halo)
                part = (slice(i, i + 1), slice(y, -(-y1 // unit) + halo), slice(x, -(-x1 // unit) + halo))
                if tokens.mixture is None:
                    image = tokenizer.decode(tokens.grid[part].to(home))
                else:
                    image = tokenizer.decode_mixture(tokens.mixture[part].to(home).permute(0, 3, 1, 2))  # (1, D_tok, h, w)
                image = image[..., y0 - y * unit : y1 - y * unit, x0 - x * unit : x1 - x * unit]
                images[i, :3, top:bottom, left:right] = weighted(image, down, across)[0]
                if progress:
                    progress(i * len(boxes) + k + 1, count * len(boxes))
    return images


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


def of_all(progress: Progress, index: int, count: int, done: int, total: int) -> None:
    """Tell what is done of one of `count` equal parts as what is done of all."""
    progress(index * total + done, count * total)


def stylize(
    images: Tensor,
    style: str | Style,
    bundle: Bundle | str = "mini",
    strength: float = 1.0,
    mask: Tensor | None = None,
    sampling: Sampling = DEFAULT,
    progress: Progress | None = None,
    detail: float = 1.0,
    feather: float = 0.0,
    steady: float = 0.0,
) -> Tensor:
    """Pictures in a style: tokenize, translate, detokenize.

    Args:
        images: float (B, 3, H, W) in [0, 1], or (B, 4, H, W): alpha is put back unchanged. Any size.
        style: a bundled style's name, a prompt, a style file's path, or a Style.
        bundle: from load_bundle, or its name.
        others: as `encode` and `translate`.

    Returns:
        float32, the shape of `images`, on the CPU or the bundle's device as `images` was.

    Raises:
        ValueError: pictures or options that cannot be used, an unknown style.
    """
    if images.ndim != 4 or images.shape[1] not in (3, 4) or min(images.shape) < 1:
        raise ValueError(f"images of shape {tuple(images.shape)}: need (B, 3, H, W) or (B, 4, H, W), not empty")
    if min(images.shape[-2:]) < 2:
        raise ValueError(f"a picture of {images.shape[-1]} x {images.shape[-2]} px is too small: both sides need 2 px or more")
    opened = load_bundle(bundle) if isinstance(bundle, str) else bundle
    found = find_style(opened, style)
    source = images.float()
    alpha = source[:, 3:] if source.shape[1] == 4 else None
    upscale = opened.translator.config.upscale
    tokens = encode(opened.tokenizer, source[:, :3], alpha, upscale, opened.device, detail=detail)
    tokens = translate(
        opened.translator,
        opened.tokenizer,
        tokens,
        [(found, 1.0)],
        strength,
        mask,
        sampling,
        progress,
        feather=feather,
        steady=steady,
    )
    return decode(opened.tokenizer, tokens, images.device)
