"""The styles of the registry that have a filter, without the filters, which need torch: for the help of the command line."""

from __future__ import annotations

FILTERED = (
    "van-gogh",
    "ukiyo-e",
    "pencil-sketch",
    "pixel-art",
    "watercolour",
    "comic",
    "impressionism",
    "pointillism",
    "fauvism",
    "cubism",
    "baroque",
    "charcoal",
    "ink",
    "pop-art",
    "anime",
    "art-nouveau",
    "stained-glass",
    "pixel-art-4",
    "mosaic",
)
