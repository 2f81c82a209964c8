"""Reward Tune: learns a style from photos and a prompt, until CLIP sees it (arXiv 2303.09268, section 3.3).

A run keeps its state in ComfyUI's output folder, under a name made of all that it depends on: cancelled, it goes on from there
when the same inputs are queued again, and more steps or minutes make it longer.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from io import BytesIO

import numpy as np
import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style, storage, stylize
from ..stylerdalle.bundle import open_bundle
from ..stylerdalle.images.files import over_white, resized, to_image
from ..stylerdalle.learn.pictures import Picture
from ..stylerdalle.learn.run import Run, draw_curve
from ..stylerdalle.resolve import check_prompt, warn_of_unknown_words
from ..stylerdalle.tune.config import METHODS, TuneConfig
from ..stylerdalle.tune.loop import Tuned, TuneState, tune
from . import host
from .types import CATEGORY, REWARD, STYLE, TOKENIZER, TRANSLATOR, expect, pixels

SHOWN, SIDE = 4, 256  # photos in the picture before and after, and px of their shortest side
BETWEEN_PREVIEWS = 0.5  # seconds, at least


class RewardTune(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_RewardTune",
            display_name="Reward Tune (StylerDALLE)",
            category=CATEGORY,
            description="Learns a style from photos and a prompt: CLIP says how well stylised photos match the prompt. "
            "A cancelled run goes on where it was when the same inputs are queued again.",
            is_experimental=True,
            inputs=[
                TOKENIZER.Input("tokenizer", tooltip="The TOKENIZER of Load StylerDALLE."),
                TRANSLATOR.Input("translator", tooltip="The TRANSLATOR of the same Load StylerDALLE. It is not changed."),
                REWARD.Input("reward", tooltip="The REWARD that judges: the CLIP of Load StylerDALLE."),
                io.Image.Input(
                    "image", tooltip="Photos to learn on, without the style: one or more, the more varied the better."
                ),
                io.String.Input(
                    "prompt",
                    default="a flat vector illustration",
                    multiline=True,
                    tooltip="The style to learn, in words that the CLIP knows.",
                ),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default="direct",
                    tooltip="direct follows the reward's gradient and needs the fewest steps; rloo and reinforce (the paper's) "
                    "learn by trial.",
                ),
                io.Int.Input(
                    "steps",
                    default=80,
                    min=1,
                    max=100_000,
                    step=1,
                    tooltip="Steps in all; a finished run goes on if there are more of them. reinforce needs thousands.",
                ),
                io.Float.Input(
                    "minutes", default=0.0, min=0.0, max=100_000.0, step=0.5, tooltip="Stop after so many minutes; 0 is no limit."
                ),
                io.Float.Input(
                    "learning_rate",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.000001,
                    tooltip="0 takes the method's own (0.001; reinforce 0.000001). Lower it where the pictures fall apart.",
                ),
                io.Int.Input(
                    "rank",
                    default=TuneConfig.rank,
                    min=0,
                    max=256,
                    step=1,
                    tooltip="Of the style, whose file grows with it; 0 tunes the whole decoder, as the paper does.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    step=1,
                    control_after_generate=True,
                    tooltip="The same seed learns the same style.",
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="What the photos show, one line each, in their order. Only reinforce reads them.",
                ),
            ],
            outputs=[
                TRANSLATOR.Output(display_name="TRANSLATOR", tooltip="For Translate: an empty prompt means the new style."),
                STYLE.Output(display_name="STYLE", tooltip="The new style, for Save Style, Mix Styles or Translate."),
                io.Image.Output(display_name="curve", tooltip="Loss, reward, KL and held-out score over the steps."),
                io.Image.Output(
                    display_name="before/after", tooltip="Up to four of the photos, under them the same in the style."
                ),
                io.LossMap.Output(display_name="LOSS_MAP", tooltip="The losses, for nodes that plot them."),
            ],
        )

    @classmethod
    def execute(
        cls,
        tokenizer: Bundle,
        translator: Bundle,
        reward: Bundle,
        image: torch.Tensor,
        prompt: str,
        method: str,
        steps: int,
        minutes: float,
        learning_rate: float,
        rank: int,
        seed: int,
        captions: str = "",
    ) -> io.NodeOutput:
        base, prompt, progress = expect(translator, Bundle, "TRANSLATOR"), check_prompt(prompt), host.progress()
        with torch.inference_mode(False), torch.enable_grad():
            models = together(expect(tokenizer, Bundle, "TOKENIZER"), base, expect(reward, Bundle, "REWARD"))
            config = options(models, method, rank, minutes, learning_rate, steps=steps, seed=seed)
            # a copy, (B, 3, H, W): what comes from outside has no gradients
            photos = over_white(*pixels(image.float().clamp(0, 1)))
            before = resized(photos[:SHOWN], SIDE)
            pictures = encoded(photos, captions)
            warn_of_unknown_words(models.clip_path, prompt)
            folder = run_name(models, pictures, prompt, config)
            clip, run = models.clip, Run(host.run_folder(folder))
            host.use(models, models.tokenizer, models.translator, clip)
            fixed = (models.tokenizer, models.translator, clip, pictures, prompt, config, run)
            tuned = tune(*fixed, callback=watch(progress), tick=host.tick)
            style = with_notes(tuned, storage.slug(prompt) or "style", config, models)
            after = stylize(before, style, models, progress=host.tick)
        sheet = torch.cat([torch.cat(list(row.cpu()), -1) for row in (before, after)], -2)  # (3, 2 rows, up to 4 columns)
        progress(1, 1, to_image(sheet))  # the node goes on showing its last preview
        style = style.to("cpu", torch.float32)
        rows = tuned.rows or [{"step": "0", "loss": "0"}]  # a curve that someone deleted
        curve = torch.from_numpy(np.array(draw_curve(rows))).float() / 255  # (H, W, 3)
        losses = {"loss": distinct([float(row["loss"]) for row in rows])}
        found = {"style": [style.name], "seed": [seed], "score": [float(tuned.held_out[1])], "steps": [int(tuned.steps)]}
        outputs = (replace(base, default_style=style), style, curve[None], sheet.movedim(0, -1)[None], losses)
        return io.NodeOutput(*outputs, ui=found)


def together(tokenizer: Bundle, translator: Bundle, reward: Bundle) -> Bundle:
    """The three as one bundle in float32, for gradients; it is let go after the run."""
    if storage.sha256(tokenizer.tokenizer_path) != storage.sha256(translator.tokenizer_path):
        raise ValueError(
            f"the TOKENIZER of {tokenizer.name!r} is not the one that the TRANSLATOR of {translator.name!r} belongs to: "
            "connect both from the same Load StylerDALLE"
        )
    files = (translator.tokenizer_path, translator.translator_path, reward.clip_path)
    return open_bundle(translator.name, *files, device=translator.device, dtype=torch.float32, load=host.Models())


def options(models: Bundle, method: str, rank: int, minutes: float, learning_rate: float, **others: int) -> TuneConfig:
    """The run's options. Raises ValueError for impossible ones."""
    translator = models.translator.config
    if not 0 <= rank <= translator.width:
        raise ValueError(f"rank {rank} is out of range: 1 to {translator.width}, this translator's width, or 0 for all")
    if not minutes >= 0:
        raise ValueError(f"minutes {minutes} is not possible: give 0 for no limit, or more")
    window = models.tokenizer.downsample * translator.grid * translator.upscale
    size = -(-TuneConfig.size // window) * window  # px of a crop, in whole windows
    own = {} if learning_rate == 0 else {"lr": learning_rate}
    return TuneConfig.of(method, size=size, rank=rank, minutes=minutes, **own, **others)


def encoded(photos: torch.Tensor, captions: str) -> list[Picture]:
    """Photos (B, 3, H, W) as tuning takes them, with a line of captions each."""
    lines = [line.strip() for line in captions.rstrip().splitlines()]
    if len(lines) > len(photos):
        raise ValueError(f"there are more captions ({len(lines)}) than photos ({len(photos)}): give one line a photo, or fewer")
    pictures = []
    for number, photo in enumerate(photos):
        host.tick()
        file = BytesIO()
        to_image(photo).save(file, "PNG", compress_level=1)
        caption = tuple(lines[number : number + 1]) if any(lines[number : number + 1]) else ()
        pictures.append(Picture(f"photo {number + 1}", file.getvalue(), caption))
    return pictures


def run_name(models: Bundle, pictures: list[Picture], prompt: str, config: TuneConfig) -> str:
    """The prompt, and a hash of all that the run depends on but its length."""
    fixed = {key: value for key, value in asdict(config).items() if key not in ("steps", "minutes")}
    files = [storage.sha256(path) for path in (models.tokenizer_path, models.translator_path, models.clip_path)]
    photos = [(hashlib.sha256(picture.data).hexdigest(), picture.captions) for picture in pictures]
    key = hashlib.sha256(json.dumps([prompt, fixed, files, photos], sort_keys=True).encode()).hexdigest()
    return f"{storage.slug(prompt)}-{key[:12]}".lstrip("-")


def watch(progress: Callable[..., None]) -> Callable[[TuneState], None]:
    """A callback that moves the bar every step and shows a picture now and then."""
    shown = 0.0

    def callback(state: TuneState) -> None:
        nonlocal shown
        due = state.preview is not None and time.monotonic() - shown >= BETWEEN_PREVIEWS
        shown = time.monotonic() if due else shown
        progress(state.step, state.steps, to_image(state.preview) if due else None)

    return callback


def with_notes(tuned: Tuned, name: str, config: TuneConfig, models: Bundle) -> Style:
    """The learnt style with its name, its base and how it was made."""
    notes = {"recipe": {"command": "tune", **asdict(config)}, **tuned.notes()}
    metadata = {key: json.dumps(value) for key, value in notes.items()}
    return replace(tuned.style, name=name, base_sha256=storage.sha256(models.translator_path), metadata=metadata)


def distinct(losses: list[float]) -> list[float]:
    """The losses, with one more where all are the same: ComfyUI's plotter divides by their range."""
    return losses if len(set(losses)) > 1 else [*losses, losses[0] + max(1e-6, abs(losses[0]) * 1e-6)]
