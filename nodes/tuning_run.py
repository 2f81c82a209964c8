"""The parts of a Reward Tune run: its models, options, photos and folder before; its style and pictures after."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..stylerdalle import Bundle, Style, checkpoint, storage, stylize
from ..stylerdalle.bundle import open_bundle
from ..stylerdalle.images.files import over_white, resized, to_image
from ..stylerdalle.learn.curve import draw_curve
from ..stylerdalle.learn.pictures import Picture
from ..stylerdalle.learn.run import Run
from ..stylerdalle.resolve import list_styles
from ..stylerdalle.tune.config import TuneConfig
from ..stylerdalle.tune.exemplars import Exemplars
from ..stylerdalle.tune.library import answers, library_exemplars, recipe_of, used_works
from ..stylerdalle.tune.loop import Tuned, TuneState
from ..stylerdalle.tune.start import nearest_style
from . import host
from .speech import warned
from .types import clamped

SHOWN, SIDE = 4, 256  # photos in the before/after picture, and the length of their shorter side in px
PREVIEW_INTERVAL = 0.5  # seconds, at least
START = "start.txt"  # in a run's folder: the name of the nearest style, which it starts from; empty if there is none
log = logging.getLogger(__name__)


def matching(tokenizer: Bundle, translator: Bundle, reward: Bundle) -> Bundle:
    """The three models as one bundle, in float32 for the gradients; it is released after the run.

    Raises:
        ValueError: the tokenizer is not the translator's.
    """
    if storage.sha256(tokenizer.tokenizer_path) != storage.sha256(translator.tokenizer_path):
        raise ValueError(
            f"the TOKENIZER (bundle {tokenizer.name!r}) and the TRANSLATOR (bundle {translator.name!r}) do not belong together: "
            "connect both from the same Load StylerDALLE"
        )
    files = (translator.tokenizer_path, translator.translator_path, reward.clip_path, translator.style_paths)
    options = {"device": translator.device, "dtype": torch.float32, "load": host.Models(), "exemplars": translator.exemplars_path}
    return open_bundle(translator.name, *files, **options)


def options(models: Bundle, method: str, rank: int, minutes: float, learning_rate: float, **others: int) -> TuneConfig:
    """The options of the run. Raises ValueError if one is out of range."""
    translator = models.translator.config
    if not 0 <= rank <= translator.width:
        raise ValueError(
            f"rank {rank} is out of range: use 1 to {translator.width} (the translator's width), or 0 for the whole decoder"
        )
    if not 0 <= minutes < math.inf:
        raise ValueError(f"minutes {minutes} is out of range: use 0 (no limit) or more")
    window = models.tokenizer.downsample * translator.grid * translator.upscale
    size = -(-TuneConfig.size // window) * window  # px of a crop: a whole number of windows
    own = {} if learning_rate == 0 else {"lr": learning_rate}
    return TuneConfig.of(method, size=size, rank=rank, minutes=minutes, **own, **others)


def photo_files(photos: torch.Tensor, captions: str) -> list[Picture]:
    """Photos (B, 3, H, W) as PNG files in memory, each with its line of the captions, if there is one.

    Raises:
        ValueError: more captions than photos.
    """
    lines = [line.strip() for line in captions.rstrip().splitlines()]
    if len(lines) > len(photos):
        raise ValueError(f"there are more captions ({len(lines)}) than photos ({len(photos)}): enter at most one line per photo")
    pictures = []
    for number, photo in enumerate(photos):
        host.tick()
        file = BytesIO()
        to_image(photo).save(file, "PNG", compress_level=1)
        caption = tuple(lines[number : number + 1]) if any(lines[number : number + 1]) else ()
        pictures.append(Picture(f"photo {number + 1}", file.getvalue(), caption))
    return pictures


def find_exemplars(
    given: torch.Tensor | None, library: bool, prompt: str, models: Bundle, config: TuneConfig
) -> tuple[Exemplars | None, dict[str, Any]]:
    """The exemplars of a run, and what its recipe says of them: those given, an IMAGE (B, H, W, C), or with `library` the works
    of the bundle's library that are near to the prompt; None without any."""
    if given is not None:
        shown = over_white(*clamped(given))  # (B, 3, H, W), transparent parts white
        host.use(models, models.features)
        names = [f"exemplar {number + 1}" for number in range(len(shown))]  # an IMAGE has none of its own
        return Exemplars(models.features, list(shown.split(1)), config.exemplar_size), {"exemplars": names}
    if not (library and models.exemplars_path and answers(config)):
        return None, {}
    host.use(models, models.clip)
    found = used_works(models, prompt)
    if not found:
        return None, {}
    host.use(models, models.features)
    return library_exemplars(models.features, found, config.exemplar_size), recipe_of(found)


def fitting(start: Style | None, models: Bundle) -> Style | None:
    """The style to start from. Raises ValueError if it was made for another translator."""
    if start is not None:
        checkpoint.check_base(start, models.translator_path)
        start.check(models.translator)
    return start


def nearest_start(
    models: Bundle,
    exemplars: Exemplars,
    photos: list[Picture],
    config: TuneConfig,
    folder: Path,
    progress: Callable[..., None],
) -> Style | None:
    """The bundled style whose pictures of the photos come nearest to the exemplars; None if no style has the rank of the run.

    Trying all styles takes as long as many steps, so the run's folder keeps the name for when the run goes on.
    """
    note = folder / START
    if note.is_file():
        name = note.read_text(encoding="utf-8")
        return next((style for style in list_styles(models) if style.name == name), None)
    host.use(models, models.tokenizer, models.translator, exemplars.network)
    host.say(["looking for the bundled style that is nearest to the exemplars"])
    found = nearest_style(models, exemplars, photos, config.rank, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with storage.replacing(note) as stream:
            stream.write((found.name if found else "").encode())
    except OSError as error:
        log.warning("%s could not be written (%s): the styles will be tried again", note, error.strerror or error)
    return found


def run_name(
    models: Bundle,
    pictures: list[Picture],
    prompt: str,
    config: TuneConfig,
    exemplars: Exemplars | None = None,
    start: Style | None = None,
    nearest: bool = False,
) -> str:
    """The prompt, and a hash of everything that the run depends on except its length."""
    fixed = {key: value for key, value in asdict(config).items() if key not in ("steps", "minutes")}
    files = [storage.sha256(path) for path in (models.tokenizer_path, models.translator_path, models.clip_path)]
    photos = [(hashlib.sha256(picture.data).hexdigest(), picture.captions) for picture in pictures]
    others = [exemplars.sha256] if exemplars else []
    others += [fingerprint(start)] if start else ["nearest"] if nearest else []
    key = hashlib.sha256(json.dumps([prompt, fixed, files, photos, *others], sort_keys=True).encode()).hexdigest()
    return f"{storage.slug(prompt)}-{key[:12]}".lstrip("-")


def open_run(folder: Path, steps: int) -> Run:
    """The run in a folder. If it has done more steps than are asked for now, a run of its own beside it: the longer one stays."""
    rows = Run(folder).rows()
    return Run(folder.with_name(f"{folder.name}-{steps}") if rows and float(rows[-1]["step"]) > steps else folder)


def fingerprint(style: Style) -> str:
    """A hash of what a style changes and of its texture."""
    parts = dict(style.tensors) | ({"texture": style.texture.tokens, "weights": style.texture.weights} if style.texture else {})
    hashed = hashlib.sha256()
    for name, tensor in sorted(parts.items()):
        hashed.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return hashed.hexdigest()


class Watch:
    """A callback for `tune`: updates the progress bar at every step, and preview and text every PREVIEW_INTERVAL.

    As a context manager it says how to go on if the user cancels.
    """

    def __init__(self, progress: Callable[..., None], steps: int):
        self.progress, self.steps = progress, steps
        self.done, self.shown, self.scores = 0, 0.0, list[float]()

    def __call__(self, state: TuneState) -> None:
        self.done, self.steps = state.step, state.steps
        self.scores += [] if state.held_out is None else [state.held_out]
        due = state.preview is not None and time.monotonic() - self.shown >= PREVIEW_INTERVAL
        if due:
            self.shown = time.monotonic()
            host.say([f"step {state.step} of {state.steps}", *self.told()])
        self.progress(state.step, state.steps, to_image(state.preview) if due else None)

    def told(self) -> list[str]:
        return [f"held-out score {self.scores[0]:.3f} at first, {self.scores[-1]:.3f} now"] if self.scores else []

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, host.Cancelled):
            at = f"stopped after step {self.done} of {self.steps}" if self.done else "stopped before the first new step"
            host.say([f"{at}, and kept. Press Run again to go on from there.", *self.told()])


def summary(tuned: Tuned, run: Run, works: list[str] | None, warnings: list[str], nearest: str) -> list[str]:
    """What the node says of a finished run: its length and scores, what it compared with, and how to go on.

    Args:
        works: titles of the library's works that it compared with; None without the library.
        nearest: name of the style that it chose to start from; empty if it chose none.
    """
    none = "the library has no work near to the prompt: only CLIP scored the pictures" if works == [] else ""
    first, best = tuned.held_out
    return [
        f"{tuned.steps} steps; held-out score {first:.3f} at first, {best:.3f} at step {tuned.best_step}, which is kept",
        *([f"started from {nearest}, the bundled style that is nearest to the exemplars"] if nearest else []),
        *([f"compared with: {'; '.join(works)}"] if works else [none] if none else []),
        *warned(warnings),
        "To learn more, raise the steps and press Run: the run goes on. To keep the style, connect STYLE to Save Style.",
        f"the run is in {run.folder}",
    ]


def named_style(tuned: Tuned, prompt: str, config: TuneConfig, models: Bundle, origin: dict[str, Any]) -> Style:
    """The tuned style with a name made of its prompt, the hash of its translator, and its recipe and scores.

    Args:
        origin: what the recipe says beside the options.
    """
    notes = {"recipe": {"command": "tune", **asdict(config), **origin}, **tuned.notes()}
    metadata = {key: json.dumps(value) for key, value in notes.items()}
    base = storage.sha256(models.translator_path)
    return replace(tuned.style, name=storage.slug(prompt) or "style", base_sha256=base, metadata=metadata)


def small(photos: torch.Tensor) -> torch.Tensor:
    """The first SHOWN of (B, 3, H, W), for the before/after picture. Raises ValueError for extremely long ones."""
    return resized(photos[:SHOWN], SIDE)


def before_and_after(before: torch.Tensor, style: Style, models: Bundle) -> torch.Tensor:
    """Photos (B, 3, H, W) in a row, and below them the stylised ones: (3, 2 H, B W)."""
    after = stylize(before, style, models, progress=host.tick)
    return torch.cat([torch.cat(list(row.cpu()), -1) for row in (before, after)], -2)


def curve_picture(rows: list[dict[str, str]]) -> torch.Tensor:
    """The curve of a run as an IMAGE (1, H, W, 3)."""
    return torch.from_numpy(np.array(draw_curve(rows))).float()[None] / 255


def distinct(losses: list[float]) -> list[float]:
    """The losses; if all are equal, one slightly larger value is added: ComfyUI's plotter divides by their range."""
    return losses if len(set(losses)) > 1 else [*losses, losses[0] + max(1e-6, abs(losses[0]) * 1e-6)]
