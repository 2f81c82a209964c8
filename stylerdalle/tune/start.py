"""Where a style for exemplars begins: the bundle's own style whose pictures come nearest to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..bundle import Bundle
from ..learn.crops import centre_crop, to_tensor
from ..learn.pictures import Picture
from ..pipeline import stylize
from ..resolve import list_styles
from ..translator.style import Style
from .exemplars import Exemplars

SHOWN, SIDE = 2, 256  # photos that every style is tried on, px


@torch.no_grad()
def nearest_style(
    bundle: Bundle,
    exemplars: Exemplars,
    photos: Sequence[Picture],
    rank: int,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Style | None:
    """The style of the bundle whose pictures of a few photos come nearest to the exemplars: the style distance is small, and the
    recogniser takes them for exemplars.

    Args:
        photos: one or more; the first are used.
        rank: of the adapter to tune; styles of other ranks cannot be started from.
        tick: called with (styles tried, all styles); may raise to cancel.

    Returns:
        None if the bundle has no style of this rank.
    """
    shown = [to_tensor([np.asarray(centre_crop(photo.open(), SIDE))]).to(bundle.device) for photo in photos[:SHOWN]]
    styles = [style for style in list_styles(bundle) if style.rank == rank]
    distances = []
    for done, style in enumerate(styles, 1):
        activations = exemplars.network(torch.cat([stylize(photo, style, bundle) for photo in shown]))
        distances.append(float((exemplars.nearest(activations) + exemplars.surprise(activations)).mean()))
        tick(done, len(styles))
    return min(zip(distances, range(len(styles)), styles, strict=True))[2] if styles else None
