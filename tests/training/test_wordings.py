"""What CLIP's training says of pictures, and the views that it sees of them."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.shards import encoded, write_shard
from stylerdalle.training import views
from stylerdalle.training.filters.tones import TONES
from stylerdalle.training.views import EXEMPLARS, VIEWS_OF_EXEMPLAR, plan, read_views
from stylerdalle.training.wordings import TONE_WORDS, known_words, sentence_of, style_classes, without_replaced, wordings_of
from stylerdalle.training.works import read_works


def note(**given: object) -> dict[str, object]:
    whole = {"artist": "Edvard Munch", "medium": "oil", "style": "Expressionism", "kind": "art"}
    return {**whole, "caption": ["a Munch style oil painting of a bridge", "The Scream by Edvard Munch, oil painting"], **given}


def shard(path: Path, **notes: dict[str, object]) -> list[Picture]:
    image = Image.new("RGB", (40, 40), "red")
    samples = ((key, {"webp": encoded(image), "json": json.dumps(value).encode()}) for key, value in notes.items())
    write_shard(path / "works.tar", samples)
    return read_works([path / "works.tar"])


def test_an_exemplar_is_called_by_its_artist_medium_and_style(tmp_path):
    (work,) = shard(tmp_path, one=note())
    assert {"a painting by Edvard Munch", "a Munch painting", "a Munch style oil painting", "expressionism"} <= set(work.captions)
    assert work.style == "expressionism" and work.source == EXEMPLARS and work.kind == "art"


def test_drawings_are_not_called_paintings_and_nobody_is_called_unknown(tmp_path):
    (work,) = shard(tmp_path, one=note(medium="chalk", style="red chalk drawing", artist="unknown old master", caption=[]))
    assert "a chalk drawing" in work.captions
    assert not any("unknown" in text or "painting" in text for text in work.captions)
    assert not any("painting" in text for text in wordings_of(work.style, work.kind))


def test_accents_and_brackets_are_dropped(tmp_path):
    (work,) = shard(tmp_path, one=note(artist="Paul Cézanne (after)", style="landscape (Provence)", caption=[]))
    assert {"a painting by Paul Cézanne", "a painting by Paul Cezanne", "landscape"} <= set(work.captions)


def test_the_registrys_prompts_go_to_its_exemplars_and_unnamed_ones_to_works_of_the_style(tmp_path):
    works = shard(
        tmp_path,
        art_ex01=note(),  # The Scream, munch in teacher_styles.py
        art_ex08=note(artist="Ernst Ludwig Kirchner", caption=[]),  # expressionism
        other=note(artist="Franz Marc", caption=[]),
    )
    munch, kirchner, marc = (set(work.captions) for work in works)
    assert "an Edvard Munch painting in wavy lines" in munch
    assert "a painting by Ernst Ludwig Kirchner" in kirchner
    assert "an expressionist painting" in marc and "an expressionist painting" in kirchner
    assert not any("Munch" in text or "Kirchner" in text for text in marc)


def test_every_tone_has_words():
    assert set(TONE_WORDS) == set(TONES)
    picture = Picture("x", b"", style="cubism", kind="art")
    for number, name in enumerate(TONES):
        text = sentence_of(picture, number, np.random.default_rng(0))
        assert text in {
            form.format(noun.removeprefix("a ")) for form in TONE_WORDS[name] for noun in wordings_of("cubism", "art")
        }


def test_made_pictures_give_way_to_real_works():
    made = [Picture("a", b"", style=style, kind="made") for style in ("a Van Gogh style oil painting", "pop art", "pixel art")]
    real = Picture("b", b"", style="cubism", kind="art")
    exemplar = Picture("c", b"", style="pixel art", kind="made", source=EXEMPLARS)
    assert without_replaced([*made, real, exemplar]) == [made[1], real, exemplar]


def test_styles_of_exemplars_are_classes_of_every_step_however_few():
    some = [Picture(str(i), b"", style="cubism", kind="art") for i in range(3)]
    some += [Picture("e", b"", style="futurism", kind="art", source=EXEMPLARS), Picture("r", b"", style="rare", kind="art")]
    some += [Picture("p", b"")]
    found = {c.name: (c.common, c.always) for c in style_classes(some, least=3)}
    assert found == {"cubism": (True, True), "futurism": (False, True), "photo": (False, False)}


def test_words_of_tones_the_registry_and_classes_are_known():
    exemplar = Picture("e", b"", ("a Klimt painting",), "x", kind="art", source=EXEMPLARS)
    artist = [Picture(key, b"", style="Sandro Botticelli", kind="art") for key in "ab"]
    known = set(known_words([exemplar, *artist, Picture("c", b"", style="shibori", kind="art")], least=12))
    assert {"misty", "kandinsky", "klimt", "chalk", "manuscript", "botticelli"} <= known
    assert "shibori" not in known  # a single picture


def test_rare_styles_and_exemplars_have_more_views_and_tones_come_last():
    styles = ["common"] * 400 + ["rare"] * 30 + ["exemplar"]
    found = plan(styles, [style == "exemplar" for style in styles], 10, seed=0)
    count = [sum(i == k for i, shade in found if shade < 0) for k in (0, 400, 430)]
    assert count == [1, 2, VIEWS_OF_EXEMPLAR]
    assert all(shade < 0 for _, shade in found[:-10]) and all(shade >= 0 for _, shade in found[-10:])


def test_of_a_very_common_style_not_all_pictures_are_looked_at_and_few_of_them_first(monkeypatch):
    monkeypatch.setattr(views, "MOST", 5)
    monkeypatch.setattr(views, "FIRST", 2)
    found = plan(["a"] * 9, [False] * 9, 3, seed=0)
    assert len({i for i, shade in found if shade < 0}) == 5
    assert [shade >= 0 for _, shade in found] == [False] * 4 + [True] * 3 + [False] * 6  # two views of each picture


@pytest.fixture
def two() -> list[Picture]:
    out = []
    for colour in ("red", "blue"):
        stream = BytesIO()
        Image.new("RGB", (20, 20), colour).save(stream, "PNG")
        out.append(Picture(colour, stream.getvalue(), style="x", kind="art"))
    return out


def test_views_are_read_once_and_resumed(tmp_path, two, monkeypatch):
    monkeypatch.setattr(views, "BATCH", 2)
    looked: list[int] = []

    def look(images: torch.Tensor) -> torch.Tensor:
        looked.append(len(images))
        return images.mean((2, 3))

    path, names = tmp_path / "views.pt", ["x", "x"]
    first = read_views(path, two, names, 8, 2, 0, look)
    whole = sum(looked)
    assert whole == len(first.statistics) == len(first.picture) == 6
    again = read_views(path, two, names, 8, 2, 0, look)
    assert sum(looked) == whole and torch.equal(again.statistics, first.statistics)
    kept = torch.load(path, weights_only=True)
    torch.save({**kept, "statistics": kept["statistics"][:2]}, path)
    resumed = read_views(path, two, names, 8, 2, 0, look)
    assert sum(looked) == whole + 4 and torch.equal(resumed.statistics, first.statistics)
    read_views(path, two, names, 8, 2, 1, look)  # another seed
    assert sum(looked) == whole + 10


def test_recoloured_views_have_another_colour(tmp_path, two):
    found = read_views(tmp_path / "views.pt", two, ["x", "x"], 8, 1, 0, lambda images: images.mean((2, 3)))
    toned = found.statistics[found.tone >= 0][0]
    assert next(iter(TONES)) == "grey" and toned.max() - toned.min() < 0.01
