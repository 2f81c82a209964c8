"""Pack the bundle's library of exemplars: works of art in the public domain, small, each with its source and licence.

The works behind the teacher's styles (teacher_styles.py) and a few known ones come first, then more by the same artists, then one
work of every style in turn, so that the library is broad whatever its size. Which works are taken depends only on the shards
and the options.

    python -m stylerdalle.training.library --exemplars art-0000.tar art-0001.tar --output weights/mini/exemplars.tar

reads shards of exemplars: KEY.webp, KEY.json with artist, died, title, year, style, medium, caption, source, licence, file, note.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..images.files import check_output
from ..learn.pictures import Picture, key_of
from ..learn.shards import write_shard
from ..learn.sources import entries, note_of, read
from ..tune.library import REQUIRED, read_library
from .registry import STYLES
from .shards import short_side
from .teacher_styles import MANNERS

LAST_DEATH = 1955  # works of artists who died later are not in the public domain everywhere (life and 70 years, in 2026)
DOUBTFUL = {  # works that are left out, and why
    **dict.fromkeys(("art_hk01", "art_hk02", "art_hk03", "art_hk04"), "their source states a copyright"),
    **dict.fromkeys(("art_sg01", "art_sg04", "art_sg05"), "photographs of windows by unnamed photographers"),
    "art_em01": "photograph of a textile by an unnamed photographer",
    "art_mu04": "the lower half of a print that is there already",
    **dict.fromkeys(("art_ab06", "art_ex02", "art_uk13"), "the title is uncertain"),
}
KNOWN = ("art_av04", "art_vg02", "art_mo02", "art_uk08", "art_pt05", "art_ro02")  # works that people ask for by their names
OF_AN_ARTIST = 3  # works of each of the teacher's artists, where there are so many
NAMELESS = ("anonymous", "unknown")  # how artists of no name begin
KEPT = ("artist", "died", "title", "year", "style", "medium", "kind", "caption", "source", "file", "licence", "note")
HEADERS = 512 * 4  # bytes that the tar adds for one work, at most: two headers, and two files filled up to 512


@dataclass(frozen=True)
class Candidate:
    """A work of the shards."""

    key: str
    data: bytes
    note: dict[str, Any]

    @property
    def free(self) -> bool:
        """Whether the work may be in the library: all that must be known of it is, and it is in the public domain."""
        died = self.note.get("died")
        return self.key not in DOUBTFUL and all(self.note.get(name) for name in REQUIRED) and (died is None or died <= LAST_DEATH)

    @property
    def stated(self) -> bool:
        """Whether the source states a licence or that the work is in the public domain."""
        return "states no licence" not in self.note["licence"]


def read_candidates(paths: Sequence[str]) -> list[Candidate]:
    """The works of shards of exemplars, in the order of their keys."""
    found = [Candidate(key_of(entry.name)[0], data, note_of(text)) for entry, data, text in read(entries(paths))]
    return sorted(found, key=lambda work: work.key)


def in_order(works: Sequence[Candidate], first: Sequence[str]) -> list[Candidate]:
    """All works that may be in a library, those to keep first: the keys of `first`, up to OF_AN_ARTIST of each of their artists,
    then each style's next work in turn.

    Works with a stated licence come before others of the same artist; in a style, artists who are not yet there come first.

    Raises:
        ValueError: a work of `first` is missing or may not be in the library.
    """
    free = {work.key: work for work in works if work.free}
    if missing := [key for key in first if key not in free]:
        raise ValueError(f"{', '.join(missing)} must be in the library, and the shards have no such work in the public domain")
    chosen = [free[key] for key in dict.fromkeys(first)]
    by_licence = sorted(free.values(), key=lambda work: (not work.stated, work.key))
    for artist in dict.fromkeys(work.note["artist"] for work in chosen):
        own = [work for work in by_licence if work.note["artist"] == artist and work not in chosen]
        have = sum(work.note["artist"] == artist for work in chosen)
        chosen += own[: max(0, OF_AN_ARTIST - have)] if not artist.startswith(NAMELESS) else []
    seen = {work.note["artist"] for work in chosen}
    styles: dict[str, list[Candidate]] = defaultdict(list)
    for work in sorted((work for work in by_licence if work not in chosen), key=lambda work: work.note["artist"] in seen):
        styles[work.note["style"]].append(work)
    rounds = zip_longest(*(spread(styles[style]) for style in sorted(styles)))
    return chosen + [work for turn in rounds for work in turn if work]


def spread(works: Sequence[Candidate]) -> list[Candidate]:
    """Works sorted so that every artist has one before any has two; otherwise in the same order."""
    counts = Counter[str]()
    turns: list[tuple[int, int]] = []
    for work in works:
        counts[work.note["artist"]] += 1
        turns.append((counts[work.note["artist"]], len(turns)))
    return [works[place] for _, place in sorted(turns)]


def packed(works: Iterable[Candidate], side: int, quality: int, most: int) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Works as samples of a shard, until `most` bytes are full; then the attribution of all of them.

    Args:
        side: px of the short side, at most.
        quality: of WebP.
    """
    left, lines = most - 100_000, []  # the attribution has room
    for work in works:
        image, stream = short_side(Picture(work.key, work.data).open(), side), io.BytesIO()
        image.save(stream, "WEBP", quality=quality, method=6)
        note = {name: work.note[name] for name in KEPT if work.note.get(name)} | {"size": image.size}
        prompts = [prompt for name, manner in MANNERS.items() if work.key in manner.exemplars for prompt in prompts_of(name)]
        text = json.dumps(note | ({"prompts": prompts} if prompts else {}), ensure_ascii=False).encode()
        left -= stream.tell() + len(text) + HEADERS
        if left < 0:
            break
        lines.append(f"{note['artist']}, {note['title']} ({note['year']}). {note['source']}, {note['file']}; {note['licence']}")
        yield work.key, {"webp": stream.getvalue(), "json": text}
    yield "ATTRIBUTION", {"txt": ("\n".join(sorted(lines)) + "\n").encode()}


def teacher_works() -> list[str]:
    """The keys of the works behind the teacher's styles."""
    return [key for manner in MANNERS.values() for key in manner.exemplars]


def prompts_of(style: str) -> tuple[str, ...]:
    """The prompts of a style of the teacher, as in the registry."""
    return STYLES[style].prompts if style in STYLES else ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exemplars", nargs="+", required=True, metavar="TAR", help="shards of works")
    parser.add_argument("--output", type=Path, required=True, help="the library to write, a .tar file")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--side", type=int, default=384, help="px of the short side, at most (default: 384)")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 0 to 100 (default: 75)")
    parser.add_argument("--megabytes", type=float, default=5.0, help="size of the file, at most (default: 5)")
    args = parser.parse_args()
    output = check_output(args.output, args.overwrite, (".tar",))
    works = in_order(read_candidates(args.exemplars), [*teacher_works(), *KNOWN])
    write_shard(output, packed(works, args.side, args.quality, int(1e6 * args.megabytes)))
    print(f"{output}: {len(read_library(output))} works, {output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
