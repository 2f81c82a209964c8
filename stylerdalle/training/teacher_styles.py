"""The works behind styles, named as in registry.py: for the teacher and the critics, by keys in the shards of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images.colour import luma


@dataclass(frozen=True)
class Manner:
    """One style and its exemplars: one work with distinct brush marks, or a few with similar marks and palette, averaged."""

    exemplars: tuple[str, ...]
    side: int = 448  # px of an exemplar's short side: the larger, the coarser the marks; tokens of 8 px cannot show fine ones
    content: float = 1.0  # of the content distance, times the recipe's weight: less where marks are strong
    works: tuple[str, ...] = ()  # for the critics (polish.py): keys, or beginnings of keys; none: only its pairs are learnt
    # the `style` of labelled pictures, for the critics. They are many and small: half of a style's crops, which show whole
    # compositions and the range of its palettes. Marks are measured on the works alone
    labels: tuple[str, ...] = ()
    grey: bool = False  # works in black and white: a colour cast of the painted pictures is removed


MANNERS: dict[str, Manner] = {
    "van-gogh": Manner(("art_vg01",), 640, 0.6, works=("art_vg",)),  # The Starry Night
    "impressionism": Manner(
        ("art_mo06",), 576, 0.6, works=("art_mo", "art_im", "art_re", "art_wl07"), labels=("impressionism",)
    ),  # Monet, Etretat
    "ukiyo-e": Manner(("art_uk01",), 560, works=("art_uk",), labels=("ukiyo-e",)),  # The Great Wave
    "munch": Manner(("art_ex01",), 560, 0.7, works=("art_ex01", "art_ex02")),  # The Scream
    "klimt": Manner(("art_kl05",), 576, 0.7, works=("art_kl",)),  # The Tree of Life
    "pointillism": Manner(
        ("art_pt04",), 720, 0.7, works=("art_pt", "art_cu09"), labels=("pointillism",)
    ),  # The Seine and La Grande Jatte
    "cezanne": Manner(("art_ce04",), 512, 0.6, works=("art_ce",)),  # Mont Sainte-Victoire
    "gauguin": Manner(("art_ga04",), 512, 0.6, works=("art_ga",)),  # Arlesiennes
    "kandinsky": Manner(("art_ab01",), 512, 0.6, works=("art_ab01", "art_ab02", "art_ab03", "art_ab04")),  # Composition VII
    "cubism": Manner(
        ("art_cu02",),
        512,
        0.6,
        works=("art_cu01", "art_cu02", "art_cu03", "art_cu04", "art_cu05", "art_cu07", "art_cu08"),
        labels=("cubism",),
    ),  # Portrait of Pablo Picasso
    "fauvism": Manner(("art_fa01",), 448, 0.8, works=("art_fa",), labels=("fauvism",)),  # Matisse, Woman with a Hat
    "expressionism": Manner(("art_ex08",), 576, 0.8, works=("art_ex0",)),  # Kirchner
    "turner": Manner(("art_tu01",), works=("art_tu",)),  # The Fighting Temeraire
    "baroque": Manner(("art_ba09", "art_ba07"), works=("art_ba", "art_sl"), labels=("baroque",)),  # Caravaggio
    "art-nouveau": Manner(("art_mu01",), 480, works=("art_mu",), labels=("art nouveau",)),
    "chinese-ink": Manner(("art_ci03",), 576, 0.8, works=("art_ci01", "art_ci02", "art_ci03", "art_ci04")),
    "watercolour": Manner(
        ("art_wl06",), 576, 1.5, works=("art_wl01", "art_wl02", "art_wl03", "art_wl05", "art_wl06", "art_wc", "art_wi")
    ),  # Cross
    "pencil-sketch": Manner(("art_dr01", "art_dr02", "art_dr03"), 576, works=("art_dr",), grey=True),
    "red-chalk": Manner(("art_ch01",), 576, works=("art_ch",)),
    "ink": Manner(("art_ik01", "art_en03"), 576, works=("art_ik",), grey=True),
    "wood-engraving": Manner(("art_en09", "art_en05"), 640, works=("art_en",), grey=True),
    "pastel": Manner(("art_pa01",), 576, 0.6, works=("art_pa",)),  # Degas
    "stained-glass": Manner(("art_sg03",), 512, 0.7, works=("art_sg03", "art_sg04")),
    "manuscript": Manner(("art_ms03",), 512, 0.7, works=("art_ms01", "art_ms02", "art_ms03", "art_ms04")),
    "futurism": Manner(("art_fu02",), 448, 0.7, works=("art_fu01", "art_fu02")),  # Russolo
}


def without_cast(images: Tensor, names: Sequence[str]) -> Tensor:
    """What the teacher painted, (B, 3, H, W) in [0, 1], one style's name for each.

    It is in grey where the works of its style are in black and white.
    """
    grey = torch.tensor([name in MANNERS and MANNERS[name].grey for name in names])[:, None, None, None]
    return torch.where(grey.to(images.device, non_blocking=True), luma(images), images)
