"""The styles of the teacher and the works behind them, by their keys in the shards of exemplars."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Manner:
    """One style and its exemplars. Works that share a hand and a palette are averaged; a strong hand has one work alone."""

    exemplars: tuple[str, ...]
    side: int = 448  # px of an exemplar's short side: the smaller, the finer the marks
    content: float = 1.0  # of the content distance, times the recipe's weight


MANNERS: dict[str, Manner] = {
    "van-gogh": Manner(("art_vg01",), 416),  # The Starry Night
    "monet": Manner(("art_mo05",), 416),  # Water Lilies
    "hokusai": Manner(("art_uk01",)),  # The Great Wave
    "munch": Manner(("art_ex01",)),  # The Scream
    "klimt": Manner(("art_kl01",)),  # The Kiss
    "seurat": Manner(("art_pt04",), 512),  # The Seine and La Grande Jatte
    "signac": Manner(("art_pt01",), 448),
    "cezanne": Manner(("art_ce04",), 400),  # Mont Sainte-Victoire
    "gauguin": Manner(("art_ga03", "art_ga04")),
    "kandinsky": Manner(("art_ab01",)),  # Composition VII
    "gris": Manner(("art_cu02",)),  # Portrait of Pablo Picasso
    "fauvism": Manner(("art_fa03", "art_fa01")),  # Matisse
    "expressionism": Manner(("art_ex08",), 448),  # Kirchner
    "turner": Manner(("art_tu01",)),
    "baroque": Manner(("art_ba09", "art_ba07")),  # Caravaggio
    "rococo": Manner(("art_rc01",)),  # The Swing
    "mucha": Manner(("art_mu01",)),
    "chinese-ink": Manner(("art_ci01", "art_ci03")),
    "watercolour": Manner(("art_wl06",)),  # Cross
    "pencil": Manner(("art_dr01", "art_dr02", "art_dr03"), 416),
    "red-chalk": Manner(("art_ch01",)),
    "ink-drawing": Manner(("art_ik01", "art_en03"), 512),
    "wood-engraving": Manner(("art_en05", "art_en06"), 512),
    "pastel": Manner(("art_pa01",)),  # Degas
    "stained-glass": Manner(("art_sg03",)),
    "mosaic": Manner(("art_cu09",), 416),  # Delaunay's dabs laid like tesserae
    "manuscript": Manner(("art_ms03",)),
    "futurism": Manner(("art_fu01",)),  # Boccioni
}
