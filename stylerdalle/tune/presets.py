"""Options by name: the paper's two procedures (StylerDALLE, arXiv 2303.09268), and ours, which is faster.

`paper-1` is StylerDALLE-1 (DALL-E's dVAE), `paper-ru` is StylerDALLE-Ru (ruDALL-E's VQGAN). Where the paper says nothing they
have what this library has: AdamW's betas (0.9, 0.98), weight decay 0.01 and gradient norm at most 1 in pretraining; no dropout in
tuning and in use; the adapter with the best held-out score kept, not the last. Adam's betas (0.9, 0.98), eps 1e-9, the gradient
norm of at most 3 and the constant learning rate belong to the method `reinforce` (tune.py).

`fast` is the defaults: masked tokens in place, soft targets, a start as the identity; then the `direct` reward on an adapter.
With `--upscale 2` it is the paper's translator, learnt with that start and those targets, at a higher learning rate on a cosine
for a fifth of the epochs; these values are chosen from what serves the small models, and not yet measured at full size.
"""

from __future__ import annotations

from typing import Any

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
    "epochs": 4,
    "lr": 1e-6,
    "rank": 0,  # the decoder and the output layer whole
    "batch": 16,
    "size": 256,
    "augment": False,
    "caption_weight": 1.0,
    "patch_weight": 0.0,
    "directional_weight": 0.0,
    "kl_weight": 0.0,
    "softness": 0.0,
    "normalise": False,  # CLIP sees pixels as they are
    "check_every": 1000,
    "patience": 0,  # to the end
}
TUNE: dict[str, dict[str, Any]] = {"paper-1": PAPER_TUNE, "paper-ru": PAPER_TUNE, FAST: {}}
NAMES = tuple(PRETRAIN)


def pretrain_options(preset: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Options of PretrainConfig: a preset's, and those given explicitly on top."""
    own = FAST_UPSCALE if preset == FAST and given.get("upscale") == 2 else PRETRAIN.get(preset or FAST, {})
    return {**_counted(own, given), **given}


def tune_options(preset: str | None, given: dict[str, Any]) -> dict[str, Any]:
    """Options of TuneConfig, for `TuneConfig.of`: a preset's, and those given explicitly on top."""
    return {**_counted(TUNE.get(preset or FAST, {}), given), **given}


def _counted(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Without the preset's epochs where steps are given: one of them counts."""
    return {key: value for key, value in own.items() if not (key == "epochs" and "steps" in given)}
