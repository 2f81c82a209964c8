"""What an output keeps of its photo's metadata: date, author, copyright, description and resolution.

Colours are sRGB in every output, so a colour profile is not kept: the pixels were converted with it. Camera settings, places and
previews describe the photo, not the painting, and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from .decode import EXIF_IFD, READ_ERRORS, opened

KEPT = (0x010E, 0x0132, 0x013B, 0x8298)  # description, date, author, copyright
KEPT_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012)  # when it was taken and digitised, with time zones
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, INCH = 0x011A, 0x011B, 0x0128, 2


@dataclass(frozen=True)
class Notes:
    """EXIF data for an output, and its resolution in dots per inch."""

    exif: bytes = b""
    dpi: tuple[float, float] | None = None


def read_notes(path: str | Path) -> Notes:
    """What a photo tells of itself that its output keeps; nothing where its metadata is damaged.

    Raises:
        ValueError: as `decode`.
    """
    with opened(Path(path), str(path)) as (image, _, _):
        try:
            found = image.getexif()
            kept, dates = Image.Exif(), {k: v for k, v in found.get_ifd(EXIF_IFD).items() if k in KEPT_DATES}
            kept.update({key: value for key, value in found.items() if key in KEPT})
            if dates:
                kept[EXIF_IFD] = dates  # `get_ifd(...).update` is lost in versions of Pillow before 11
            dpi = _dpi(image.info.get("dpi"))
            if dpi:
                kept.update({X_RESOLUTION: dpi[0], Y_RESOLUTION: dpi[1], RESOLUTION_UNIT: INCH})
            return Notes(kept.tobytes() if len(kept) else b"", dpi)
        except READ_ERRORS:
            return Notes()


def _dpi(given: Any) -> tuple[float, float] | None:
    """A resolution that can be kept."""
    if not given:
        return None
    x, y = float(given[0]), float(given[-1])
    return (x, y) if min(x, y) > 1 and max(x, y) < 65_535 else None
