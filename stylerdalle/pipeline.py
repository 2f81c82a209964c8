"""From pictures and a style prompt to stylised pictures: what the command line and the nodes share.

Example:

    bundle = load_bundle("mini")
    out = stylize(images, "a Van Gogh style oil painting", bundle)  # (B, 3, H, W) in [0, 1] -> the same shape
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cache, checkpoint, reward
from .sampling import DEFAULT, Sampling, choose_tokens
from .style import Style, merged
from .tokenizers import ImageTokenizer, Tokens
from .translator import Translator
from .windows import pad_to_multiple, tiled, translate_grid

WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
NEAR = 0.85  # a prompt at least this close (CLIP text cosine) to a style's own prompt means that style
PROMPT_LIMIT = 1000  # characters; CLIP reads about 75 words
TILE = 64  # tokens a side that the tokenizer does at once
Progress = Callable[[int, int], None]
Load = Callable[..., Any]  # (loader, path, device, dtype) -> what the loader gives, as `cache.load`
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A tokenizer, a translator, a CLIP and the styles that belong to them, on one device."""

    name: str
    tokenizer: ImageTokenizer
    translator: Translator
    tokenizer_path: Path
    translator_path: Path
    clip_path: Path  # the CLIP is loaded when first needed: a named style works without it
    style_paths: tuple[Path, ...]
    device: torch.device
    dtype: torch.dtype
    load: Load = cache.load  # how its files are opened: a host that manages memory brings its own
    default_style: Style | None = None  # what an empty prompt means, where there is one: a translator just tuned

    @property
    def clip(self) -> torch.nn.Module:
        # float32 always: the model is small, and cosines differ in the third digit in bf16
        model: torch.nn.Module = self.load(checkpoint.load_clip, self.clip_path, self.device, torch.float32)
        return model


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` is CUDA, then MPS, then the CPU. Raises ValueError for one this machine does not have."""
    if str(device) == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(device)!r} cannot be used here ({reason}): try auto or cpu") from error
    return chosen


def choose_dtype(device: torch.device, dtype: str | torch.dtype = "auto") -> torch.dtype:
    """`auto` is fp16 on CUDA, bf16 on CPUs with bf16 instructions, else fp32."""
    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        if device.type == "cuda":
            return torch.float16
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in names:
        raise ValueError(f"dtype {dtype!r} is not known: auto, {', '.join(names)}")
    return names[dtype]


def load_bundle(
    name_or_path: str | Path = "mini", device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> Bundle:
    """Open a bundle: a name under weights/, or a folder with tokenizer, translator and clip .safetensors and styles/.

    Models come from the shared cache: a second call loads nothing.

    Raises:
        ValueError: no such bundle, an incomplete one, a damaged file, or a device this machine does not have.
    """
    known = sorted(p.name for p in WEIGHTS.iterdir() if (p / "translator.safetensors").is_file()) if WEIGHTS.is_dir() else []
    folder = WEIGHTS / name_or_path if str(name_or_path) in known else Path(name_or_path)
    if not folder.is_dir():
        raise ValueError(f"bundle {str(name_or_path)!r} is not known: {', '.join(known) or 'none is there'}, or a folder's path")
    paths = {part: folder / f"{part}.safetensors" for part in ("tokenizer", "translator", "clip")}
    if missing := [path.name for path in paths.values() if not path.is_file()]:
        raise ValueError(f"bundle {folder} is not complete: {', '.join(missing)} missing; put the files there")
    styles = sorted((folder / "styles").glob("*.safetensors"))
    return open_bundle(folder.name, paths["tokenizer"], paths["translator"], paths["clip"], styles, device=device, dtype=dtype)


def open_bundle(
    name: str,
    tokenizer: Path,
    translator: Path,
    clip: Path,
    styles: Sequence[Path] = (),
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    load: Load = cache.load,
) -> Bundle:
    """A bundle of files that may lie anywhere. Raises ValueError as load_bundle, and where the two models do not fit."""
    where = choose_device(device)
    kind = choose_dtype(where, dtype)
    tokens = load(checkpoint.load_tokenizer, tokenizer, where, kind)
    nat = load(checkpoint.load_translator, translator, where, kind)
    if (nat.config.vocab_size, nat.config.embed_dim) != (tokens.vocab_size, tokens.embed_dim):
        raise ValueError(
            f"the translator {translator} speaks {nat.config.vocab_size} tokens of {nat.config.embed_dim} numbers, "
            f"the tokenizer {tokenizer} {tokens.vocab_size} of {tokens.embed_dim}: they do not belong together"
        )
    return Bundle(name, tokens, nat, tokenizer, translator, clip, tuple(styles), where, kind, load)


def list_styles(bundle: Bundle) -> list[Style]:
    """The bundle's own styles, by file name."""
    return [bundle.load(checkpoint.load_style, path, bundle.device, torch.float32) for path in bundle.style_paths]


def find_style(bundle: Bundle, style: str | Style) -> Style:
    """The style meant by a name, a prompt, a style file's path, or a Style itself.

    A text is matched to the bundle's styles by name, then by prompt (both without regard to case), then by the nearest
    prompt in CLIP's text space if that is at least NEAR. An empty text is the bundle's default style.

    Raises:
        ValueError: nothing fits (the styles are listed), or the style belongs to another translator (both hashes).
    """
    if isinstance(style, Style):
        found = style
    elif style.endswith(".safetensors"):
        found = bundle.load(checkpoint.load_style, Path(style), bundle.device, torch.float32)
    else:
        found = _match(bundle, style)
    checkpoint.check_base(found, bundle.translator_path)
    found.check(bundle.translator)
    return found


def check_prompt(text: str, what: str = "style prompt") -> str:
    """The prompt without outer blanks. Raises ValueError where it is empty or longer than PROMPT_LIMIT characters."""
    text = " ".join(text.split())
    if not text:
        raise ValueError(f"the {what} is empty: say a style, such as 'a Van Gogh style oil painting'")
    if len(text) > PROMPT_LIMIT:
        raise ValueError(f"the {what} has {len(text)} characters, at most {PROMPT_LIMIT} are read: shorten it")
    return text


def warn_of_unknown_words(clip_path: str | Path, text: str) -> list[str]:
    """The words of a text that a small CLIP never learnt (its metadata `words` lists those it did), with one warning."""
    known = set(checkpoint.read_metadata(clip_path).get("words", "").split())
    unknown = [word for word in re.findall(r"[^\W\d_]+", text.lower()) if known and word not in known]
    if unknown:
        log.warning(
            "this bundle's CLIP never learnt %s: its score for this text means little; "
            "use words for media and styles that it knows, or a bundle with the official CLIP",
            ", ".join(repr(word) for word in unknown),
        )
    return unknown


def _match(bundle: Bundle, text: str) -> Style:
    if bundle.default_style and not text.strip():
        return bundle.default_style
    text = check_prompt(text)
    styles = [*filter(None, [bundle.default_style]), *list_styles(bundle)]
    for style in styles:
        if text.casefold() in (style.name.casefold(), style.prompt.casefold()):
            return style
    listed = ", ".join(f"{s.name} ({s.prompt!r})" for s in styles) or "none"
    if styles:
        warn_of_unknown_words(bundle.clip_path, text)
        near = reward.embed_texts(bundle.clip, [text, *(s.prompt for s in styles)])  # type: ignore[arg-type]
        similarity, index = (near[1:] @ near[0]).max(0)
        if similarity >= NEAR:
            found = styles[int(index)]
            log.info("the prompt %r is taken as the style %r (similarity %.2f)", text, found.name, similarity)
            return found
    raise ValueError(
        f"the bundle {bundle.name!r} has no style for {text!r}; it has: {listed}. "
        "Choose one of them, or learn this one with `stylerdalle tune` (in ComfyUI: the tune-a-style workflow)"
    )


def encode(
    tokenizer: ImageTokenizer,
    images: Tensor,
    alpha: Tensor | None = None,
    upscale: int = 1,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Tokens:
    """Pictures of any size to content tokens, tile by tile.

    Args:
        images: (B, 3, H, W) in [0, 1].
        alpha: (B, 1, H, W) in [0, 1], carried along.
        upscale: of the translator the tokens are for: 2 reads the pictures at half size.
        device: the tokenizer's, where the pictures go one at a time; where they are if not given.
        progress: called with (pictures done, pictures in all); may raise to cancel.
    """
    height, width = images.shape[-2:]
    unit = tokenizer.downsample
    grids = []
    with torch.inference_mode():
        for done, picture in enumerate(images.split(1), 1):
            image = picture.to(device or images.device)
            if upscale > 1:
                half = (max(1, -(-height // upscale)), max(1, -(-width // upscale)))
                image = F.interpolate(image, half, mode="bicubic", antialias=True).clamp(0, 1)
            image = pad_to_multiple(image, unit)
            grids.append(tiled(tokenizer.encode, image, unit, tokenizer.halo * unit, TILE * unit, 1 / unit))
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
    unit = tokenizer.downsample
    pictures = []
    with torch.inference_mode():
        for done in range(1, len(tokens.grid) + 1):
            if tokens.mixture is None:
                image = tiled(tokenizer.decode, tokens.grid[done - 1 : done], 1, tokenizer.halo, TILE, unit)
            else:
                mixture = tokens.mixture[done - 1 : done].permute(0, 3, 1, 2)  # (1, D_tok, h, w)
                image = tiled(tokenizer.decode_mixture, mixture, 1, tokenizer.halo, TILE, unit)
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
) -> Tokens:
    """Content tokens to stylised tokens, any size.

    Args:
        styles: (style, weight) merged into the translator; none translates with the base alone.
        strength: 0 is the base translator's picture, 1 the style; logits between are mixed linearly.
        mask: (B or 1, H, W) in [0, 1], scales strength place by place.
        progress: called with (windows done, windows in all); may raise to cancel.
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
    strengths = torch.full(grid.shape, float(strength), device=grid.device)
    if mask is not None:
        strengths = strengths * F.interpolate(mask[:, None].float().to(grid.device), grid.shape[1:], mode="area")[:, 0]
    plain = mask is None and strength == 1
    with torch.inference_mode():
        parameters = merged(translator, styles)

        def model(windows: Tensor, strengths: Tensor) -> Tensor:
            embeddings = tokenizer.embed(windows)
            styled: Tensor = torch.func.functional_call(translator, parameters, (embeddings,))
            if plain or not styles:
                return styled
            u = config.upscale
            n = config.grid
            s = strengths.unflatten(1, (n, n)).repeat_interleave(u, 1).repeat_interleave(u, 2).flatten(1)
            base: Tensor = translator(embeddings)
            return torch.lerp(base.float(), styled.float(), s[..., None])

        generator = torch.Generator(device=grid.device).manual_seed(sampling.seed)
        rows = tokenizer.embed(torch.arange(config.vocab_size, device=grid.device)[None])[0] if sampling.softness else None
        out = translate_grid(
            model,
            grid,
            strengths,
            lambda logits: choose_tokens(logits, sampling, generator, rows),
            config.grid,
            config.upscale,
            progress=progress,
        )
    return tokens.with_grid(out[0], scale=1, mixture=out[1] if sampling.softness else None)


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
