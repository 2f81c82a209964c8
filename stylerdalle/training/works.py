"""Exemplars as training pictures of CLIP: works with the wordings that artists' names, media and the registry's styles give."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..learn.pictures import Picture, key_of
from ..learn.sources import entries, note_of, read
from .registry import STYLES
from .teacher_styles import MANNERS

NOUNS = {  # medium -> what a work in it is called
    "oil": "oil painting",
    "tempera": "tempera painting",
    "gouache": "gouache painting",
    "ink": "ink drawing",
    "engraving": "engraving",
    "pencil": "pencil drawing",
    "manuscript": "illuminated manuscript",
    "poster": "poster",
    "pastel": "pastel drawing",
    "stained glass": "stained glass window",
    "chalk": "chalk drawing",
}  # others are called by the medium itself
PAINTED = ("oil", "tempera", "gouache", "fresco")
UNNAMED = ("anonymous", "unknown", "attributed")


def read_works(paths: Sequence[str | Path]) -> list[Picture]:
    """The exemplars of shards or folders, with their wordings among their captions and their styles in small letters.

    Raises:
        ValueError: as `learn.sources.entries`.
    """
    found: list[tuple[Picture, dict[str, Any]]] = []
    for entry, data, text in read(entries(paths)):
        note = note_of(text)
        note["artist"] = without_brackets(note.get("artist"))
        style, kind = without_brackets(note.get("style")).lower(), note.get("kind") or "art"
        if kind == "art" and note.get("medium") not in PAINTED:
            kind = "made"  # "a red chalk drawing", not "a red chalk drawing painting"
        picture = Picture(key_of(entry.name)[0], data, tuple(note["caption"]), style, kind=kind, source="exemplars")
        found.append((picture, note))
    surnames = {plain(note["artist"]).split()[-1] for _, note in found if named(note["artist"])}
    asked = dict(registry_prompts(found, surnames))
    return [replace(p, captions=(*p.captions, *dict.fromkeys([*work_prompts(note), *asked.get(p.key, ())]))) for p, note in found]


def without_brackets(text: object) -> str:
    """A note's text without what it says in brackets; empty for None."""
    return re.sub(r"\s*\(.*?\)", "", str(text or ""))


def ascii_of(text: str) -> str:
    """Without accents."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def plain(text: str) -> str:
    """In small letters without accents."""
    return ascii_of(text).lower()


def an(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if plain(noun)[:1] in tuple('aeiou') else 'a'} {noun}"


def named(artist: str) -> bool:
    """Whether a note's artist is a person's name."""
    return bool(artist) and not artist.lower().startswith(UNNAMED)


def work_prompts(note: dict[str, Any]) -> list[str]:
    """Wordings for a work without what it shows: of its artist, its medium and its style."""
    medium, style = str(note.get("medium") or "oil"), without_brackets(note.get("style") or "art").lower()
    noun, captions = NOUNS.get(medium, medium), [str(text) for text in note.get("caption") or ()]
    prompts = [an(noun), style, *([] if style == noun else [f"{noun}, {style}"])]
    prompts += [text.split(" of ")[0] for text in captions if re.match(r"an? .* of ", text)]
    artist = without_brackets(note.get("artist"))
    if named(artist):
        styled = re.match(r"an? (.+?) style ", captions[0]) if captions else None
        short = styled[1] if styled else artist.split()[-1]
        words = [noun, "painting"] if medium in PAINTED else [noun]
        prompts += [an(f"{short}{form} {word}") for word in words for form in (" style", "")]
        prompts += [f"{an(word)} by {plain_name}" for word in words for plain_name in (artist, ascii_of(artist))]
    return list(dict.fromkeys(prompts))


def registry_prompts(
    works: Sequence[tuple[Picture, dict[str, Any]]], surnames: set[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(key of a work, prompts of the registry that describe it).

    A registry's style has exemplars (teacher_styles.py). Its prompts go to these and to works of the same artist and style; those
    of a style that is not named after an artist also go to other works of that style, except prompts that name one.
    """
    notes = {picture.key: (picture.style, note["artist"]) for picture, note in works}

    def names_artist(text: str) -> bool:
        return bool(surnames & set(re.findall(r"\w+", plain(text))))

    for key, (style, artist) in notes.items():
        prompts: list[str] = []
        for name, manner in MANNERS.items():
            behind, texts = [notes[exemplar] for exemplar in manner.exemplars if exemplar in notes], STYLES[name].prompts
            if key in manner.exemplars or (style, artist) in behind:
                prompts += texts
            elif style in [other for other, _ in behind] and not names_artist(texts[0]):
                prompts += [text for text in texts if not names_artist(text)]
        yield key, tuple(prompts)
