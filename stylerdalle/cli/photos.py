"""Photos in, pictures out: where each output goes, and reading one photo."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ..images.files import SUFFIXES, check_output, read_picture, resized
from ..images.video import VIDEO_OUTPUTS, is_video
from ..storage import identities, place_of


def plan(photos: list[Path], output: str, overwrite: bool) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Where each photo's or video's output goes, checked before any work: ((photo, output) pairs, problems with single ones).

    Raises:
        ValueError: several photos for one file.
    """
    place = Path(output)
    into_folder = place.is_dir() or output.endswith(("/", os.sep))
    if len(photos) > 1 and not into_folder:
        if place.suffix.lower() in (*SUFFIXES, *VIDEO_OUTPUTS) or place.exists():
            raise ValueError(f"{len(photos)} photos cannot be written to the one file {place}: give a folder as --output")
        into_folder = True
    jobs: list[tuple[Path, Path]] = []
    problems: list[str] = []
    own = {key: photo for photo in photos for key in identities(photo)}
    taken: dict[str, Path] = {}  # photos by the place of their output
    for photo in photos:
        suffixes = tuple(VIDEO_OUTPUTS) if is_video(photo) else SUFFIXES
        target = place / f"{photo.stem}{suffixes[0]}" if into_folder else place
        try:
            hit = next((own[key] for key in identities(target) if key in own), None)
            if hit == photo:
                raise ValueError(f"{target} is the photo itself: choose another output")
            if hit:
                raise ValueError(f"{target}, the output of {photo}, is one of the photos and would be lost: give another folder")
            check_output(target, overwrite, suffixes)
            if other := taken.get(place_of(target)):
                raise ValueError(f"{photo} and {other} would both be written to {target}: use different folders")
        except ValueError as problem:
            problems.append(str(problem))
        else:
            taken[place_of(target)] = photo
            jobs.append((photo, target))
    return jobs, problems


def read(photo: Path, size: int | None = None) -> Tensor:
    """A photo as (1, 3, H, W), or (1, 4, H, W) with alpha, float32 in [0, 1]; resized to `size` px at the shortest side."""
    images, alpha = read_picture(photo)
    if alpha is not None:
        images = torch.cat([images, alpha], 1)  # (1, 4, H, W)
    return images if size is None else resized(images, size)
