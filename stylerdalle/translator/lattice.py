"""Removal of the chessboard pattern (the lattice) that neighbouring tokens form in plain areas.

All tokens are chosen at the same time, although the best choice depends on the neighbours. Where the content is plain, a style of
dabs then often makes every second token dark: the same mark repeats along diagonals. Strokes and edges have hardly any such
component. So the component that changes its sign from token to token in both directions, averaged over a few tokens, is
subtracted from the mixture. Styles with a texture keep it, because dots and hatching may alternate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1, 4, 6, 4, 1)  # weights of the mean of the alternating component, down and across
REACH = len(TAPS) // 2
ROWS = 64  # of a mixture that are worked on at once


def remove_lattice(mixture: Tensor, amount: Tensor) -> None:
    """Take the lattice out of a mixture, in place.

    Args:
        mixture: (h, w, D_tok).
        amount: how much of it at each place, (h, w) in [0, 1].
    """
    if min(mixture.shape[:2]) <= REACH:  # too small to have one
        return
    taps = torch.tensor(TAPS, device=mixture.device) / sum(TAPS)
    kernel = (taps[:, None] * taps)[None, None]
    # mirroring at the edge continues a chessboard, and leaves a plain picture plain
    above, end = mixture[1 : REACH + 1].flip(0), mixture[-REACH - 1 : -1].flip(0)
    for first in range(0, len(mixture), ROWS):
        last = min(first + ROWS, len(mixture))
        below = torch.cat([mixture[last : last + REACH], end])[:REACH]
        rows = torch.cat([above, mixture[first:last], below]).float()  # as they were
        signs = _signs(first - REACH, len(rows), rows.shape[1], rows.device)
        alternating = (rows * signs[..., None]).permute(2, 0, 1)[:, None]  # (D_tok, 1, ., w)
        mean = F.conv2d(F.pad(alternating, (REACH, REACH, 0, 0), mode="reflect"), kernel)[:, 0].permute(1, 2, 0)
        above = torch.cat([above, mixture[first:last]])[-REACH:]
        mixture[first:last] -= (mean * (signs[REACH:-REACH] * amount[first:last].to(mean))[..., None]).to(mixture.dtype)


def _signs(first: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """+1 and -1 as on a chessboard, (rows, columns), beginning in row `first`."""
    y, x = torch.arange(first, first + rows, device=device), torch.arange(columns, device=device)
    return 1.0 - 2.0 * ((y[:, None] + x) % 2)
