"""How the library of exemplars is packed, and the shipped one."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from stylerdalle.bundle import EXEMPLARS
from stylerdalle.learn.shards import write_shard
from stylerdalle.training.library import (
    DOUBTFUL,
    KNOWN,
    LAST_DEATH,
    Candidate,
    in_order,
    packed,
    read_candidates,
    teacher_works,
)
from stylerdalle.tune.library import LEAST, read_library, shares


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def candidate(key: str, artist: str = "Hokusai", style: str = "ukiyo-e", licence: str = "CC0", **note) -> Candidate:
    known = {
        "artist": artist,
        "died": 1849,
        "title": key,
        "year": "1830",
        "style": style,
        "source": "a museum",
        "licence": licence,
    }
    return Candidate(key, picture(len(key)), {**known, "caption": ["a wave"], "file": f"{key}.png", **note})


def order(works, first=()) -> list[str]:
    return [work.key for work in in_order(works, first)]


def test_wanted_works_come_first_then_more_by_their_artists_then_one_of_every_style_in_turn():
    works = [candidate(f"h{i}") for i in range(4)] + [candidate("m0", "Monet", "dabs"), candidate("m1", "Monet", "dabs")]
    works += [candidate("s0", "Seurat", "dabs"), candidate("k0", "Klee", "abstract")]
    assert order(works, ["h2"]) == ["h2", "h0", "h1", "k0", "m0", "h3", "s0", "m1"]


def test_a_stated_licence_comes_before_none_and_nameless_artists_are_not_one_artist():
    works = [
        candidate("a0", "anonymous", licence="repository states no licence"),
        *(candidate(f"a{i}", "anonymous") for i in (1, 2)),
    ]
    assert order([*works, candidate("b", "Klee", "abstract")], ["a1"]) == ["a1", "b", "a2", "a0"]


@pytest.mark.parametrize("note", [{"died": LAST_DEATH + 1}, {"licence": ""}, {"title": None}, {"year": ""}])
def test_works_under_copyright_or_of_doubtful_source_are_left_out(note):
    works = [candidate("good"), candidate("bad", **note), candidate(next(iter(DOUBTFUL)))]
    assert order(works) == ["good"]
    with pytest.raises(ValueError, match="bad must be in the library"):
        in_order(works, ["bad"])


def test_an_artist_without_a_known_death_is_kept():
    assert order([candidate("old", "unknown old master", died=None)]) == ["old"]


def test_packing_stops_at_the_limit_and_lists_what_is_in_the_file(tmp_path):
    works = [candidate(f"w{i}" * (i + 1)) for i in range(6)]
    write_shard(tmp_path / "works.tar", [(w.key, {"webp": w.data, "json": json.dumps(w.note).encode()}) for w in works])
    found = read_candidates([str(tmp_path / "works.tar")])
    size = 0
    for name, most in (("all", 200_000), ("few", 115_000)):
        for _ in range(2):  # the same bytes every time
            write_shard(tmp_path / f"{name}.tar", packed(in_order(found, []), 30, 75, most))
            before, size = size, (tmp_path / f"{name}.tar").stat().st_size
        assert before == size <= most
    assert 0 < len(read_library(tmp_path / "few.tar")) < len(read_library(tmp_path / "all.tar")) == 6
    work = read_library(tmp_path / "all.tar")[0]
    assert min(work.picture.open().size) == 30 and work.licence == "CC0"
    with tarfile.open(tmp_path / "few.tar") as tar:
        lines = tar.extractfile("ATTRIBUTION.txt").read().decode().splitlines()
    assert len(lines) == len(read_library(tmp_path / "few.tar")) and "a museum, w0.png; CC0" in lines[0]


@pytest.fixture(scope="module")
def shipped():
    return read_library(EXEMPLARS)


def test_the_shipped_library_is_small_and_says_of_every_work_what_must_be_known(shipped):
    assert EXEMPLARS.stat().st_size <= 5_000_000 and 110 <= len(shipped) <= 150
    for work in shipped:
        assert all((work.artist, work.title, work.year, work.source, work.licence, work.picture.style, work.picture.captions))
        assert 300 <= min(work.picture.open().size) <= 384


def test_the_shipped_library_has_the_teachers_works_and_none_that_is_doubtful(shipped):
    keys = {work.picture.key for work in shipped}
    assert keys >= {*teacher_works(), *KNOWN} and not keys & DOUBTFUL.keys() and len(keys) == len(shipped)
    assert len({work.picture.style for work in shipped}) >= 45
    with tarfile.open(EXEMPLARS) as tar:
        notes = [json.load(tar.extractfile(member)) for member in tar if member.name.endswith(".json")]
        lines = tar.extractfile("ATTRIBUTION.txt").read().decode().splitlines()
    assert all((note.get("died") or 0) <= LAST_DEATH for note in notes) and len(lines) == len(shipped)


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("a Van Gogh style oil painting", "The Starry Night"),
        ("a ukiyo-e print", "The Great Wave off Kanagawa"),
        ("a painting by Gustav Klimt", "The Tree of Life (Stoclet Frieze)"),
        ("storm at sea", "Storm at Sea"),
        ("a stained glass window", "Adoration of the Magi window"),
        ("The Scream by Munch", "The Scream"),
        *((prompt, None) for prompt in ("pop art", "pixel art", "a comic book page", "an anime illustration", "an oil painting")),
        *((prompt, None) for prompt in ("a flat vector illustration", "a photo", "a charcoal drawing", "a synthwave landscape")),
    ],
)
def test_the_shipped_library_answers_prompts_that_name_a_work_and_no_others(shipped, prompt, title):
    found = shares(prompt, shipped)
    best = max(found)
    assert (shipped[found.index(best)].title if best >= LEAST else None) == title
