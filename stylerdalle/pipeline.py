"""From pictures and a style prompt to stylised pictures: what the command line and the nodes share.

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .bundle import Bundle, load_bundle
from .find import find_style
from .sampling import DEFAULT, Sampling, choose_tokens
from .style import Style, merged
from .tokenizers import ImageTokenizer, Tokens
from .translator import Translator
from .windows import pad_to_multiple, translate_grid

Progress = Callable[[int, int], None]


def encode(
    tokenizer: ImageTokenizer,
    images: Tensor,
    alpha: Tensor | None = None,
    upscale: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Tokens:
    """Pictures of any size to content tokens.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1], carried along.
        upscale: of the translator the tokens are for: 2 reads the pictures at half size.
        device: the tokenizer's, where the pictures go one at a time; where they are if not given.
        progress: called with (pictures done, pictures in all); may raise to cancel.
    """
    height, width = images.shape[-2:]
    grids = []
    with torch.inference_mode():
        for done, picture in enumerate(images.split(1), 1):
            image = picture.to(device or images.device)
            if upscale > 1:
                half = (max(1, -(-height // upscale)), max(1, -(-width // upscale)))
                image = F.interpolate(image, half, mode="bicubic", antialias=True).clamp(0, 1)
            grids.append(tokenizer.encode(pad_to_multiple(image, tokenizer.downsample)))
            if progress:
                progress(done, len(images))
    return Tokens(torch.cat(grids), height, width, tokenizer.vocab_size, alpha, scale=upscale)


def decode(
    tokenizer: ImageTokenizer, tokens: Tokens, device: torch.device | None = None, progress: Progress | None = None
) -> Tensor:
    """Tokens to pictures, float32 (B, 3, H, W) in [0, 1], or (B, 4, H, W) where they carry an alpha.

    Args:
        device: where the pictures are put, one at a time; the tokens' if not given.
        progress: called with (pictures done, pictures in all); may raise to cancel.
    """
    if tokens.vocab_size != tokenizer.vocab_size:
        raise ValueError(
            f"the tokens are of a vocabulary of {tokens.vocab_size}, this tokenizer has {tokenizer.vocab_size}: "
            "decode with the tokenizer that encoded"
        )
    pictures = []
    with torch.inference_mode():
        for done in range(1, len(tokens.grid) + 1):
            if tokens.mixture is None:
                image = tokenizer.decode(tokens.grid[done - 1 : done])
            else:
                image = tokenizer.decode_mixture(tokens.mixture[done - 1 : done].permute(0, 3, 1, 2))
            if tokens.scale > 1:
                image = F.interpolate(image, scale_factor=tokens.scale, mode="bicubic").clamp(0, 1)
            pictures.append(image[..., : tokens.height, : tokens.width].to(device or image.device))
            if progress:
                progress(done, len(tokens.grid))
    images = torch.cat(pictures)
    return images if tokens.alpha is None else torch.cat([images, tokens.alpha.to(images)], 1)


def translate(
    translator: Translator,
    tokenizer: ImageTokenizer,
    tokens: Tokens,
    styles: list[tuple[Style, float]],
    strength: float = 1.0,
    mask: Tensor | None = None,
    sampling: Sampling = DEFAULT,
    progress: Progress | None = None,
    regions: Sequence[tuple[Style, Tensor]] = (),
) -> Tokens:
    """Content tokens to stylised tokens, any size.

    Args:
        styles: (style, weight) merged into the translator; none translates with the base alone.
        strength: 0 is the base translator's picture, 1 the style; logits between are mixed linearly.
        mask: (B or 1, H, W) in [0, 1], scales strength place by place.
        progress: called with (windows done, windows in all); may raise to cancel.
        regions: styles for parts of the picture, each with a mask as above, laid one over the other: where a mask is 1 its style
            takes the place of those before. One more pass of the translator for windows that a mask touches.
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
    grid = tokens.grid
    overall = torch.full(grid.shape, float(strength), device=grid.device)
    if mask is not None:
        overall = overall * on_grid(mask, grid)
    shares = torch.stack([overall, *(on_grid(where, grid).expand(grid.shape) for _, where in regions)], -1)  # (B, h, w, 1 + R)
    plain = mask is None and strength == 1
    with torch.inference_mode():
        parameters = [merged(translator, styles), *(merged(translator, [(style, 1.0)]) for style, _ in regions)]

        def model(windows: Tensor, shares: Tensor) -> Tensor:
            embeddings = tokenizer.embed(windows)
            u = config.upscale
            n = config.grid
            shares = shares.unflatten(1, (n, n)).repeat_interleave(u, 1).repeat_interleave(u, 2).flatten(1, 2)
            base = None if plain else translator(embeddings).float()
            out: Tensor = torch.func.functional_call(translator, parameters[0], (embeddings,)) if styles or base is None else base
            if base is not None and styles:
                out = torch.lerp(base, out.float(), shares[..., :1])
            for k, changed in enumerate(parameters[1:], 1):
                if shares[..., k].any():
                    other: Tensor = torch.func.functional_call(translator, changed, (embeddings,)).float()
                    other = other if base is None else base + strength * (other - base)
                    out = torch.lerp(out.float(), other, shares[..., k, None])
            return out

        generator = torch.Generator(device=grid.device).manual_seed(sampling.seed)
        rows = tokenizer.embed(torch.arange(config.vocab_size, device=grid.device)[None])[0] if sampling.softness else None
        out = translate_grid(
            model,
            grid,
            shares,
            lambda logits: choose_tokens(logits, sampling, generator, rows),
            config.grid,
            config.upscale,
            progress=progress,
        )
    return tokens.with_grid(out[0], scale=1, mixture=out[1] if sampling.softness else None)


def on_grid(mask: Tensor, grid: Tensor) -> Tensor:
    """A mask (B or 1, H, W) in [0, 1] at the places of a token grid (B, h, w)."""
    return F.interpolate(mask[:, None].float().to(grid.device), grid.shape[1:], mode="area")[:, 0]


def stylize(
    images: Tensor,
    style: str | Style,
    bundle: Bundle | str = "mini",
    strength: float = 1.0,
    mask: Tensor | None = None,
    sampling: Sampling = DEFAULT,
    progress: Progress | None = None,
) -> Tensor:
    """Pictures in a style: tokenize, translate, detokenize.

    Args:
        images: float (B, 3, H, W) in [0, 1], or (B, 4, H, W): alpha is put back unchanged. Any size.
        style: a bundled style's name, a prompt, a style file's path, or a Style.
        bundle: from load_bundle, or its name.
        others: as `translate`.

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
    tokens = encode(opened.tokenizer, source[:, :3], alpha, opened.translator.config.upscale, opened.device)
    tokens = translate(
        opened.translator,
        opened.tokenizer,
        tokens,
        [(found, 1.0)],
        strength,
        mask,
        sampling,
        progress,
    )
    return decode(opened.tokenizer, tokens, images.device)
