"""Inputs that several nodes have, in one wording and one range. Each call makes a new one: a schema owns its inputs."""

from comfy_api.latest import io

from ..stylerdalle.settings import LINES, SEEDS


def image() -> io.Input:
    return io.Image.Input("image", tooltip="One or more pictures of any size. The alpha channel is kept.")


def strength() -> io.Input:
    return io.Float.Input(
        "strength",
        default=1.0,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="0 applies no style, 1 applies the style as it was tuned, 2 exaggerates it.",
    )


def seed(tooltip: str) -> io.Input:
    return io.Int.Input("seed", default=0, min=0, max=SEEDS - 1, step=1, control_after_generate=True, tooltip=tooltip)


def mask() -> io.Input:
    return io.Mask.Input("mask", optional=True, tooltip="Where to apply the style: white fully, grey partly, black not at all.")


def detail(tooltip: str) -> io.Input:
    return io.Float.Input("detail", default=1.0, min=0.25, max=4.0, step=0.05, optional=True, tooltip=tooltip)


def feather() -> io.Input:
    return io.Int.Input(
        "feather",
        default=0,
        min=0,
        max=4096,
        step=1,
        optional=True,
        tooltip="Softens the edge of the mask: this many pixels to each side.",
    )


def keep_lines() -> io.Input:
    return io.Float.Input(
        "keep_lines",
        default=LINES,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        tooltip="How much of the photo's fine lines, such as eyes and contours, is drawn into the picture: 0 is the style alone.",
    )
