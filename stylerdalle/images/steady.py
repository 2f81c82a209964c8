"""Steady stylised frames of a video: marks move with the picture, and stay as they were painted.

A stylised frame has its marks where the token grid has them, so they stand still on the screen while the photo moves, and where
the photo is noisy they change from frame to frame. Here the frame before is carried along the motion of the photos and kept
wherever they still agree; a place where they do not is painted anew, all of it if the scene changes. Marks are kept or replaced,
never averaged, because averages of different marks are a blur. Only the colour of a place, without its marks, slowly follows.

The photo is carried in the same way as the picture, and the motion is measured against the carried photo: errors do not add up,
and a change too slow to be seen from one frame to the next is seen.

Letters: H x W px of a picture; a photo of h x w cells, its mean colours, of which `block` a side make a token.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .carry import Carried
from .flow import flow_between, resized_flow, slopes

TOLERANCE = 0.02  # difference of two photos in [0, 1] up to which they count as the same, about a sensor's noise
MISPLACED = 0.5  # cells; what this shift would change counts as the same too
LIMIT = 1.5  # of the mean squared difference over that, from which a place is painted anew
CUT = 0.6  # share of places painted anew from which the scene has changed
STILL = 0.03  # cells; smaller motion is none
WHOLLY = 0.5  # steadiness from which the frame before is kept without a share of the new one
RATE = 0.2  # of the colour that follows in a frame, at a steadiness of 0
SMOOTH = 2  # tokens over which a colour is averaged
EDGE = 1  # tokens at the edges, which are never kept from where a picture comes in: a translator's marks are poor there
STRIP = 3  # tokens that have come in until they are kept, at once, so that their marks are of one frame


class Steady:
    """What is known of the frames before.

    Args:
        amount: 0 to 1; 0 keeps nothing; below WHOLLY, frames are mixed.
        block: cells of a photo a side that make a token.
    """

    def __init__(self, amount: float, block: int):
        self.amount, self.block = amount, block
        self.photo: Carried | None = None
        self.picture: Carried | None = None

    def next(self, photo: Tensor, picture: Tensor, covered: tuple[int, int] | None = None) -> Tensor:
        """The next frame.

        Args:
            photo: (3, h, w) in [0, 1].
            picture: (3, H, W), the frame stylised by itself.
            covered: (height, width) in px of the picture that the photo covers, if it reaches beyond the picture's right and
                lower edges.

        Returns:
            (3, H, W).
        """
        cells, fresh = photo[None].float(), picture[None]
        if self.photo is None or self.picture is None or self.photo.pixels.shape != cells.shape:
            return self.start(cells, fresh)
        flow = flow_between(self.photo.shown()[0], photo)[None]
        flow = flow * (flow.norm(dim=1, keepdim=True) > STILL)
        height, width = fresh.shape[-2:]
        way = resized_flow(flow, covered or (height, width))[..., :height, :width]
        old_photo, old = self.photo.moved(flow), self.picture.moved(way)
        same = agreement(old_photo.shown(), cells, old_photo.known, self.block)
        if (same < 0.5).float().mean() > CUT:
            return self.start(cells, fresh)
        grid = (-(-same.shape[-2] // SMOOTH), -(-same.shape[-1] // SMOOTH))
        photo_share = F.interpolate(same, cells.shape[-2:], mode="bilinear") * old_photo.known
        self.photo = self.followed(old_photo, cells, photo_share, grid)[0]
        self.photo = Carried(self.photo.pixels, self.photo.rest, torch.ones_like(old_photo.known))
        token = self.block * (covered or (height, width))[0] / cells.shape[-2]  # px
        share = F.interpolate(same, (height, width), mode="bilinear") * softened(old.known) * min(1, self.amount / WHOLLY)
        self.picture, shown = self.followed(settled(old, token), fresh, share, grid)
        return shown[0]

    def start(self, photo: Tensor, picture: Tensor) -> Tensor:
        """The first frame of a scene."""
        self.photo, self.picture = Carried.new(photo), Carried.new(picture)
        return picture[0]

    def followed(self, old: Carried, fresh: Tensor, share: Tensor, grid: tuple[int, int]) -> tuple[Carried, Tensor]:
        """The carried picture with new ones (1, 3, H, W) where the share (1, 1, H, W) of the old is below 1; and what it shows.

        Args:
            grid: places (rows, columns) of which each has a colour that follows.
        """
        shown = old.shown()
        colour = F.interpolate(F.adaptive_avg_pool2d((fresh - shown) * share, grid), fresh.shape[-2:], mode="bilinear")
        colour = RATE * (1 - self.amount) * colour
        mixed = torch.lerp(fresh, shown + colour, share).clamp(0, 1)
        return Carried(old.pixels + colour, old.rest, old.known).mended(mixed, share > 0.999), mixed


def agreement(before: Tensor, now: Tensor, known: Tensor, block: int) -> Tensor:
    """Whether two photos (1, 3, h, w) are the same at and around each token: (1, 1, h / block, w / block), 0 or 1.

    Args:
        known: (1, 1, h, w), 0 where there is no photo before.
    """
    off = (before - now).square().mean(1, keepdim=True) * known
    across, down = slopes(now.mean(1, keepdim=True))
    allowed = TOLERANCE**2 + MISPLACED**2 * (across.square() + down.square())[None, None]
    ratio = F.avg_pool2d(off, block) / F.avg_pool2d(allowed, block)
    return (F.max_pool2d(ratio, 3, 1, 1) < LIMIT).float()


def softened(known: Tensor) -> Tensor:
    """(1, 1, H, W) of 0 and 1, with soft edges inside."""
    return torch.minimum(known, F.avg_pool2d(F.pad(known, (2,) * 4, mode="replicate"), 5, 1))


def settled(old: Carried, token: float) -> Carried:
    """A picture of which all that has come in is known from now on, but for its edges, if it reaches far enough.

    Args:
        token: px of a token.
    """
    strip, edge = (max(1, round(count * token)) for count in (STRIP, EDGE))
    inner = old.known[..., strip:-strip, strip:-strip] if min(old.known.shape[-2:]) > 3 * strip else old.known
    if inner.numel() == old.known.numel():
        return Carried(old.pixels, old.rest, torch.ones_like(old.known))
    if inner.min() > 0:
        return old
    known = old.known.clone()
    known[..., edge:-edge, edge:-edge] = 1
    return Carried(old.pixels, old.rest, known)
