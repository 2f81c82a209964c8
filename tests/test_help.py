"""Every node's help and texts, in every language: complete, and as the contract of tests/host/contract.json says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "web" / "docs"  # what ComfyUI serves; pictures of every language's help are relative to it
CONTRACT: dict[str, Any] = json.loads((ROOT / "tests" / "host" / "contract.json").read_text())
LANGUAGES = ("en", "ja", "zh")
OTHERS = LANGUAGES[1:]
NAMES = r"[A-Z_]+"  # of types, such as IMAGE: the same in every language
BOTH = [(node, language) for node in CONTRACT for language in LANGUAGES]


def nodes(language: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    return found


def flat(texts: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested texts by path: {"a": {"b": "c"}} -> {"a/b": "c"}."""
    found: dict[str, str] = {}
    for key, value in texts.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return found


def help_of(node: str, language: str) -> str:
    """As ComfyUI looks for it: the language's own file, for English the one without a language."""
    path = DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"
    return path.read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of all tables, without heads and rules."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    rules = [i for i, cells in enumerate(table) if set(cells[0]) == {"-"}]
    return [cells for i, cells in enumerate(table) if i not in rules and i + 1 not in rules]


def test_there_is_no_help_or_text_of_a_node_that_is_not_there():
    assert {path.stem for path in DOCS.glob("*.md")} == {path.parent.name for path in DOCS.glob("*/*.md")} == set(CONTRACT)
    assert all(set(nodes(language)) == set(CONTRACT) for language in LANGUAGES)


@pytest.mark.parametrize(("node", "language"), BOTH)
def test_help_begins_with_the_name_that_the_node_has_in_that_language(node, language):
    assert help_of(node, language).splitlines()[0] == f"# {nodes(language)[node]['display_name']}"


@pytest.mark.parametrize(("node", "language"), BOTH)
def test_help_has_a_row_for_every_input_and_output_in_their_order(node, language):
    told = [re.match(r"[\w/]+", cells[0])[0] for cells in rows(help_of(node, language))]
    outputs = nodes(language)[node]["outputs"]
    inputs = [i["id"] for i in CONTRACT[node]["inputs"]]
    assert told == [*inputs, *(outputs[str(k)]["name"] for k in range(len(CONTRACT[node]["outputs"])))]


@pytest.mark.parametrize(("node", "language"), BOTH)
def test_help_tells_the_limits_and_defaults_of_numbers(node, language):
    for given, (_, cell) in zip(CONTRACT[node]["inputs"], rows(help_of(node, language)), strict=False):  # then come outputs
        if "min" in given:
            told = re.sub(r"2\^(\d+) - 1", lambda power: str(2 ** int(power[1]) - 1), cell.split("<br>")[0])
            numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", told)]
            assert numbers == [float(given[key]) for key in ("min", "max", "default")], given["id"]


@pytest.mark.parametrize("node", CONTRACT)
def test_every_language_shows_the_same_pictures_which_are_there_and_small(node):
    shown = [re.findall(r"!\[.+\]\((.+)\)", help_of(node, language)) for language in LANGUAGES]
    assert shown[0]
    assert shown.count(shown[0]) == len(LANGUAGES)
    for link in shown[0]:
        with Image.open(DOCS / link) as picture:
            picture.verify()
        assert (DOCS / link).stat().st_size <= (52 if node == "StylerDALLE_Stylize" else 40) * 1024  # it shows every style


def test_the_pictures_are_small_together():
    assert sum(path.stat().st_size for path in (DOCS / "images").iterdir()) <= 500 * 1024


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_a_text_for_every_english_one(language):
    english, translated = flat(nodes("en")), flat(nodes(language))
    assert list(translated) == list(english)
    assert [key for key, text in translated.items() if not text.strip()] == []
    assert [key for key, text in translated.items() if text == english[key] and not re.fullmatch(NAMES, text)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_a_sign_that_means_something_to_comfyui(language):
    # the frontend's translations read {name} as a value, @ as a link and | as a plural
    assert [key for key, text in flat(nodes(language)).items() if re.search(r"[{}@|]", text)] == []


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_names_other_nodes_as_it_calls_them(language):
    names = {node["display_name"].removesuffix(" (StylerDALLE)") for node in nodes(language).values()}
    names |= {output["name"] for node in nodes(language).values() for output in node["outputs"].values()}
    texts = [*flat(nodes(language)).values(), *(help_of(node, language) for node in CONTRACT)]
    quoted = {name for text in texts for name in re.findall(r"[「“](.+?)[」”]", text)}
    assert quoted
    assert quoted <= names
