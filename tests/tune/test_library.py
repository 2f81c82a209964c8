"""The library of exemplars: which works are near to a prompt, and how tuning uses them."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from stylerdalle import Bundle, checkpoint, load_bundle, storage
from stylerdalle.bundle import EXEMPLARS, library_file
from stylerdalle.cli.main import main
from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.learn.shards import write_shard
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.library import (
    LEAST,
    MOST,
    NEXT,
    answers,
    embed_works,
    library_exemplars,
    near_works,
    read_library,
    shares,
    stems,
    used_works,
)

TINY = "--steps 1 --batch 1 --size 32 --views 1"


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1))).requires_grad_(False)


@pytest.fixture(scope="module")
def folder(bundle_folder: Path, network: FeatureNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a library, and photos beside it."""
    folder = shutil.copytree(bundle_folder, tmp_path_factory.mktemp("library") / "bundle")
    tiny.write_library(folder / "exemplars.tar")
    checkpoint.save_features(folder / "features.safetensors", network)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder.parent / "photo.png")
    return folder


@pytest.fixture(scope="module")
def library(folder: Path) -> Bundle:
    return load_bundle(folder, device="cpu", dtype="fp32")


@pytest.fixture
def run_tune(folder: Path, tmp_path: Path):
    """run_tune("ukiyo-e", "--exemplars", "none") -> the recipe of the tuned style's file."""

    def run(style: str, *words: str) -> dict:
        output = tmp_path / "out.safetensors"
        given = ["--style", style, "--images", f"{folder.parent}/photo.png", "--bundle", str(folder), "--output", str(output)]
        assert main(["tune", *given, *TINY.split(), "--run-dir", str(tmp_path / "run"), *words]) == 0
        return json.loads(storage.read_metadata(output)["recipe"])

    return run


def keys(found) -> list[str]:
    return [near.work.picture.key for near in found]


def test_a_work_is_read_with_all_that_is_said_of_it(folder):
    work = read_library(folder / "exemplars.tar")[0]
    assert work.label == "Katsushika Hokusai, The Great Wave (1800)"
    assert work.attribution() == "Katsushika Hokusai, The Great Wave (1800). a museum; CC0"
    assert (work.picture.style, work.prompts, work.picture.open().size) == ("ukiyo-e", ("a ukiyo-e print",), (80, 60))


@pytest.mark.parametrize("missing", ["artist", "title", "year", "source", "licence"])
def test_a_work_of_which_something_is_not_known_is_refused(missing, tmp_path):
    note = {"artist": "A", "title": "B", "year": "1800", "source": "C", "licence": "CC0", missing: ""}
    write_shard(tmp_path / "works.tar", [("one", {"webp": b"x", "json": json.dumps(note).encode()})])
    with pytest.raises(ValueError, match=f"one in .* has no {missing}: every work needs artist, title"):
        read_library(tmp_path / "works.tar")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("an impressionist painting", "Impressionism"),
        ("Cezanne", "Cézanne"),
        ("a moody watercolor", "moody watercolours"),
        ("etchings", "an etching"),
        ("a painting in the style of", "art like a sketch"),
    ],
)
def test_words_are_compared_without_endings_accents_and_words_that_name_no_style(text, same):
    assert stems(text) == stems(same)


def test_an_artist_or_a_movement_is_nearer_than_a_word_of_the_title(folder):
    works = read_library(folder / "exemplars.tar")
    found = dict(zip([work.picture.key for work in works], shares("a ukiyo-e fuji", works), strict=True))
    assert found["fuji"] > found["sails"] == found["bridge"] > found["dabs"] == 0


def test_a_prompt_that_a_work_stands_for_uses_it_first_and_then_others_of_its_style(library):
    found = used_works(library, "a ukiyo-e  print")
    assert found[0].work.picture.key == "waves" and found[0].weight == 1.0
    assert len(found) == MOST and all(NEXT <= near.weight < 1 for near in found[1:])


@pytest.mark.parametrize("text", ["pop art", "pixel art", "a photo", "a teapot", "a painting", "a synthwave skyline in rain"])
def test_a_prompt_that_names_no_work_uses_none_and_no_clip_is_needed(text, library):
    assert used_works(dataclasses.replace(library, clip_path=Path("nowhere")), text) == []


def test_works_that_are_listed_but_not_used_have_no_weight(library):
    found = near_works(library, "an etching", 4)
    assert keys(found)[0] == "prison" and [near.weight for near in found] == [1.0, 0.0, 0.0, 0.0]
    assert all(-1 <= near.cosine <= 1 and (near.words >= LEAST) == bool(near.weight) for near in found)


def test_another_clip_sees_the_works_anew(folder, library):
    works, other = read_library(folder / "exemplars.tar"), tiny.clip_model()
    other.visual.proj.data.neg_()
    first, second = (embed_works(model, works) for model in (library.clip, other))
    torch.testing.assert_close(first.norm(dim=1), torch.ones(len(works)))
    torch.testing.assert_close(first, -second, atol=1e-2, rtol=0)  # the bundle's file has fp16 weights


def test_a_bundle_without_a_library_has_no_works(bundle):
    assert bundle.exemplars_path is None and near_works(bundle, "ukiyo-e") == used_works(bundle, "ukiyo-e") == []


def test_a_bundle_has_its_own_library_and_the_official_ones_have_that_of_mini(folder):
    own = folder / "exemplars.tar"
    assert library_file(own, "dalle") == library_file(own, "mine") == own
    assert [library_file(folder / "no.tar", name) for name in ("dalle", "rudalle", "mine")] == [EXEMPLARS, EXEMPLARS, None]
    assert load_bundle("mini", "cpu", "fp32").exemplars_path == EXEMPLARS


def test_less_weight_is_more_distance(network, library):
    found = used_works(library, "ukiyo-e")
    exemplars = library_exemplars(network, found, 64)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one = [library_exemplars(network, [dataclasses.replace(near, weight=1.0)], 64) for near in found]
    alone = [float(single.distances(single.network(picture), picture)[0]) for single in one]
    expected = min(distance / near.weight for distance, near in zip(alone, found, strict=True))
    assert float(exemplars.distances(exemplars.network(picture), picture)[0]) == pytest.approx(expected, rel=1e-5)
    assert library_exemplars(network, [], 64) is None


def test_the_library_is_used_by_rewards_that_look_at_exemplars_and_not_by_the_papers_method():
    assert answers(TuneConfig.of("direct")) and answers(TuneConfig.of("rloo"))
    assert not answers(TuneConfig.of("reinforce"))
    assert not answers(TuneConfig.of("direct", style_weight=0, layout_weight=0))
    assert not answers(TuneConfig.of("direct", steps=0, pairs_steps=5))


def test_tune_uses_the_works_near_to_its_prompt_and_the_file_says_which(run_tune, capsys):
    recipe = run_tune("an etching")
    known = {"artist": "Piranesi", "title": "Prison", "year": "1805", "source": "a museum", "licence": "CC0"}
    assert recipe["works"] == [{**known, "weight": 1.0}] and "exemplars" not in recipe
    told = [line for line in capsys.readouterr().err.splitlines() if "exemplars of the library" in line]
    assert told == ["INFO: exemplars of the library for 'an etching': Piranesi, Prison (1805)"]


def test_tune_says_that_no_work_is_near(run_tune, capsys):
    assert "works" not in run_tune("pop art")
    assert "the library of exemplars has no work near to 'pop art': the reward is CLIP's alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--exemplars", "none"],
        ["--method", "reinforce", "--lr", "0.001"],
        ["--style-weight", "0", "--layout-weight", "0"],
        ["--pairs", "ink", "--pairs-count", "2", "--pairs-steps", "1"],
        ["--exemplars", "{photo}"],
    ],
)
def test_tune_leaves_the_library_out_where_something_else_says_what_the_style_is(words, run_tune, folder):
    photo = f"{folder.parent}/photo.png"
    recipe = run_tune("an etching", *(word.format(photo=photo) for word in words))
    assert "works" not in recipe and recipe.get("exemplars", []) == (["photo.png"] if words[-1] == "{photo}" else [])


def test_tune_uses_the_library_beside_pairs_where_it_is_asked_to(run_tune):
    recipe = run_tune("an etching", "--pairs", "ink", "--pairs-count", "2", "--pairs-steps", "1", "--exemplars", "library")
    assert [work["title"] for work in recipe["works"]] == ["Prison"]


def test_a_library_that_is_asked_for_and_has_no_near_work_is_an_error(folder, tmp_path, capsys):
    words = f"tune --images {folder.parent}/photo.png --bundle {folder} --output {tmp_path}/o.safetensors --exemplars library"
    assert main([*words.split(), "--run-dir", str(tmp_path / "run"), "--style", "pop art"]) == 2
    assert "has no work near to 'pop art'" in capsys.readouterr().err


def test_styles_near_names_works_beside_prompts(folder, capsys):
    assert main(["styles", "--near", "an etching", "--bundle", str(folder)]) == 0
    prompts, works = capsys.readouterr().out.split("\n\n")
    assert prompts.splitlines()[0].split() == ["prompt", "near"]
    assert works.splitlines()[1].split() == ["artist", "title", "year", "near", "words", "weight"]
    assert works.splitlines()[2].startswith("Piranesi ") and works.splitlines()[2].endswith("1.00")


def test_styles_near_as_json_keeps_an_object_a_prompt_and_adds_the_works(folder, capsys):
    assert main(["styles", "--near", "an etching", "--json", "--bundle", str(folder)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["prompt"] for row in rows} == set(tiny.STYLES.values()) and all(-1 <= float(row["near"]) <= 1 for row in rows)
    work = rows[0]["works"][0]
    assert (work["artist"], work["title"], work["year"], work["weight"]) == ("Piranesi", "Prison", "1805", "1.00")
    assert -1 <= float(work["near"]) <= 1


def test_styles_works_prints_every_work_with_source_and_licence(folder, bundle_folder, capsys):
    assert main(["styles", "--works", "--bundle", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(tiny.WORKS) and "Piranesi, Prison (1805). a museum; CC0" in lines
    assert main(["styles", "--works", "--json", "--bundle", str(folder)]) == 0
    assert {json.loads(line)["licence"] for line in capsys.readouterr().out.splitlines()} == {"CC0"}
    assert main(["styles", "--works", "--bundle", str(bundle_folder)]) == 0
    assert "has no library of exemplars" in capsys.readouterr().out
