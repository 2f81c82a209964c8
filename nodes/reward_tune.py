"""Reward Tune: learns a style from photos and a prompt with CLIP's reward (arXiv 2303.09268, section 3.3).

The state of a run is kept in ComfyUI's output folder. The folder's name is a hash of everything that the run depends on except
its length: the same inputs resume a cancelled run, and more steps or minutes extend a finished one.
"""

from contextlib import closing
from dataclasses import replace

import torch
from comfy_api.latest import io

from ..stylerdalle import Bundle, Style
from ..stylerdalle.images.files import over_white, to_image
from ..stylerdalle.resolve import check_prompt, warn_of_unknown_words
from ..stylerdalle.tune.config import TuneConfig
from ..stylerdalle.tune.library import learn_others
from ..stylerdalle.tune.loop import tune
from ..stylerdalle.tune.methods import METHODS
from . import host
from .speech import heard, spoken
from .tuning_run import (
    Watch,
    before_and_after,
    curve_picture,
    distinct,
    find_exemplars,
    fitting,
    matching,
    named_style,
    nearest_start,
    open_run,
    options,
    photo_files,
    run_name,
    small,
    summary,
)
from .types import CATEGORY, REWARD, STYLE, TOKENIZER, TRANSLATOR, clamped, expect

INPUTS = (
    TOKENIZER.Input("tokenizer", tooltip="The TOKENIZER output of Load StylerDALLE."),
    TRANSLATOR.Input("translator", tooltip="The TRANSLATOR output of the same Load StylerDALLE. The model is not changed."),
    REWARD.Input("reward", tooltip="The REWARD output of Load StylerDALLE: the CLIP that scores the pictures."),
    io.Image.Input("image", tooltip="Photos to learn from, not stylised. One is enough; more and varied photos are better."),
    io.String.Input(
        "prompt",
        default="a flat vector illustration",
        multiline=True,
        tooltip="The style to learn, in English words that the CLIP knows.",
    ),
    io.Combo.Input(
        "method",
        options=list(METHODS),
        default="direct",
        tooltip="direct follows the gradient of the reward and needs the fewest steps. rloo and reinforce (the paper's method) "
        "learn by trial and error.",
    ),
    io.Int.Input(
        "steps",
        default=80,
        min=1,
        max=100_000,
        step=1,
        tooltip="Total number of steps. A larger number extends a finished run. reinforce needs thousands.",
    ),
    io.Float.Input(
        "minutes",
        default=0.0,
        min=0.0,
        max=100_000.0,
        step=0.5,
        tooltip="Stop after this many minutes; 0 means no limit.",
    ),
    io.Float.Input(
        "learning_rate",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.000001,
        tooltip="0 uses the default of the method (0.001; reinforce 0.000001). Lower it if the pictures fall apart.",
    ),
    io.Int.Input(
        "rank",
        default=TuneConfig.rank,
        min=0,
        max=256,
        step=1,
        tooltip="The rank of the style's adapter. A higher rank makes a larger file; 0 tunes the whole decoder, as in the paper.",
    ),
    io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFF,
        step=1,
        control_after_generate=True,
        tooltip="The same seed and inputs give the same style.",
    ),
    io.String.Input(
        "captions",
        default="",
        multiline=True,
        optional=True,
        tooltip="What the photos show, in English: one line for each photo, in the same order. Only reinforce uses them.",
    ),
    io.Image.Input(
        "exemplars",
        optional=True,
        tooltip="Pictures of the style, such as paintings. The reward then also compares colours and brush marks with theirs. "
        "One picture is enough.",
    ),
    STYLE.Input(
        "start",
        optional=True,
        tooltip="A style to start from, such as one with brush marks from Load Style. Its rank must be `rank`.",
    ),
    io.Boolean.Input(
        "library",
        default=False,
        optional=True,
        tooltip="Without exemplars: compare with the works of art in the bundle's library that the prompt names by artist, "
        "movement or medium. The log and the style's recipe say which. Not with reinforce.",
    ),
    io.Boolean.Input(
        "nearest",
        default=True,
        optional=True,
        tooltip="With exemplars and without a start: start from the bundled style of rank `rank` whose pictures come nearest to "
        "the exemplars. Off: start from nothing.",
    ),
)
OUTPUTS = (
    TRANSLATOR.Output(display_name="TRANSLATOR", tooltip="For Translate: an empty prompt there means the new style."),
    STYLE.Output(display_name="STYLE", tooltip="The new style, for Save Style, Mix Styles or Translate."),
    io.Image.Output(display_name="curve", tooltip="Plot of loss, reward, KL and held-out score over the steps."),
    io.Image.Output(display_name="before/after", tooltip="Up to four of the photos, and below them the stylised versions."),
    io.LossMap.Output(display_name="LOSS_MAP", tooltip="The losses, for nodes that plot them."),
)


class RewardTune(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_RewardTune",
            display_name="Reward Tune (StylerDALLE)",
            category=CATEGORY,
            description="Learns a style from photos and a prompt: CLIP scores how well the stylised photos match the prompt. "
            "To resume a cancelled run, queue it again with the same inputs.",
            is_experimental=True,
            inputs=list(INPUTS),
            outputs=list(OUTPUTS),
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
        exemplars: torch.Tensor | None = None,
        start: Style | None = None,
        library: bool = False,
        nearest: bool = True,
    ) -> io.NodeOutput:
        base, prompt, progress = expect(translator, Bundle, "TRANSLATOR"), check_prompt(prompt), host.progress()
        watch = Watch(progress, steps)
        with torch.inference_mode(False), torch.enable_grad(), heard() as warnings, watch:
            models = matching(expect(tokenizer, Bundle, "TOKENIZER"), base, expect(reward, Bundle, "REWARD"))
            config = options(models, method, rank, minutes, learning_rate, steps=steps, seed=seed)
            photos = over_white(*clamped(image))  # (B, 3, H, W), a copy: inference tensors have no gradients
            before, pictures = small(photos), photo_files(photos, captions)
            warn_of_unknown_words(models.clip_path, prompt)
            begin = fitting(None if start is None else expect(start, Style, "STYLE"), models)
            shown, origin = find_exemplars(exemplars, library, prompt, models, config)
            if shown:
                learn_others(shown, models, pictures, config, host.tick)
            wanted = nearest and begin is None and exemplars is not None
            folder = host.run_folder(run_name(models, pictures, prompt, config, shown, begin, wanted))
            near = nearest_start(models, shown, pictures, config, folder, progress) if wanted and shown else None
            begin = begin or near
            origin |= {"start": begin.name} if begin else {}
            run = open_run(folder, steps)
            parts = (models.tokenizer, models.translator, models.clip)
            host.use(models, *parts, *([shown.network] if shown else []))
            others = {"callback": watch, "tick": host.tick, "start": begin, "exemplars": shown}
            with closing(run):  # a cancel may come before the training begins, which closes it too
                tuned = tune(*parts, pictures, prompt, config, run, **others)
            style = named_style(tuned, prompt, config, models, origin)
            sheet = before_and_after(before, style, models)  # (3, H, W)
        progress(1, 1, to_image(sheet))  # the node keeps its last preview
        style = style.to("cpu", torch.float32)
        rows = tuned.rows or [{"step": "0", "loss": "0"}]  # empty if the curve's file was deleted
        losses = {"loss": distinct([float(row["loss"]) for row in rows])}
        values = {"style": [style.name], "seed": [seed], "score": [float(tuned.held_out[1])], "steps": [int(tuned.steps)]}
        titles = [work["title"] for work in origin.get("works", [])] if library and exemplars is None else None
        said = spoken(summary(tuned, run, titles, warnings, near.name if near else ""), **values)
        outputs = (replace(base, default_style=style), style, curve_picture(rows), sheet.movedim(0, -1)[None], losses)
        return io.NodeOutput(*outputs, ui=said)
