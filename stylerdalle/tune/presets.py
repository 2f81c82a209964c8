"""Options by name: the paper's two procedures (StylerDALLE, arXiv 2303.09268), and a faster one of ours.

`paper-1` is StylerDALLE-1 (DALL-E's dVAE), `paper-ru` is StylerDALLE-Ru (ruDALL-E's VQGAN). What the paper leaves open is as
in the rest of this library: in pretraining AdamW's betas (0.9, 0.98), weight decay 0.01 and a gradient norm of at most 1; no
dropout in tuning and in use; the adapter with the best held-out score is kept, not the last one. The optimiser of tuning belongs
to the method (methods/reinforce.py).

`fast` is the defaults: masked tokens in place, soft targets, a start as the identity; then the `direct` reward on an adapter.
With `--upscale 2` it is the paper's translator, with that start and those targets, at a higher learning rate on a cosine for a
fifth of the epochs. These values are taken from what works for the small models, and are not measured at full size.
"""

from __future__ import annotations

from typing import Any

from .methods import METHODS

FAST = "fast"
PAPER = {
    "upscale": 2,
    "width": 512,
    "heads": 8,
    "encoder_layers": 4,
    "decoder_blocks": 4,
    "grid": 16,
    "dropout": 0.5,
    "identity": False,
    "augment": False,
    "lr": 1e-4,
    "warm": 5000,
    "decay": "linear",
    "neighbours": 1,
    "softness": 0.0,  # hard targets
}
PRETRAIN: dict[str, dict[str, Any]] = {
    "paper-1": {**PAPER, "batch": 32, "epochs": 25},
    "paper-ru": {**PAPER, "batch": 8, "epochs": 20},
    FAST: {},
}
FAST_UPSCALE = {
    **{key: PAPER[key] for key in ("upscale", "width", "heads", "encoder_layers", "decoder_blocks", "grid")},
    "dropout": 0.1,
    "batch": 32,
    "epochs": 5,
    "lr": 3e-4,
    "warm": 500,
}
PAPER_TUNE = {
    "method": "reinforce",
    **METHODS["reinforce"].defaults,
    "epochs": 4,
    "size": 256,
    "augment": False,
    "normalise": False,  # CLIP sees pixels as they are
    "check_every": 1000,
    "patience": 0,  # to the end
}
TUNE: dict[str, dict[str, Any]] = {"paper-1": PAPER_TUNE, "paper-ru": PAPER_TUNE, FAST: {}}
NAMES = tuple(PRETRAIN)


def pretrain_options(preset: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Options for PretrainConfig: those of a preset, replaced by those given."""
    own = FAST_UPSCALE if preset == FAST and given.get("upscale") == 2 else PRETRAIN.get(preset or FAST, {})
    return {**_without_epochs(own, given), **given}


def tune_options(preset: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Options for `TuneConfig.of`: those of a preset, replaced by those given."""
    return {**_without_epochs(TUNE.get(preset or FAST, {}), given), **given}


def _without_epochs(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """A preset's options, its epochs left out where steps are given, for they would count instead."""
    return {key: value for key, value in own.items() if not (key == "epochs" and "steps" in given)}
