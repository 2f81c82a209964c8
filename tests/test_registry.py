"""pyproject.toml and the pictures are as the Comfy Registry asks: https://docs.comfy.org/registry/specifications"""

import re
from pathlib import Path

import pytest
from PIL import Image
from registry import FIELDS, load, missing

ROOT = Path(__file__).resolve().parent.parent
COMFY = re.findall(r'^([\w-]+) = "(.*)"', (ROOT / "pyproject.toml").read_text().partition("[tool.comfy]")[2], re.MULTILINE)


def test_the_least_version_of_comfyui_is_stated():
    assert re.fullmatch(r">=\d+\.\d+\.\d+", dict(COMFY)["requires-comfyui"])


ADDRESSES = {"project.urls.Repository", "tool.comfy.Icon", "tool.comfy.Banner"}  # unknown until there is a public repository


def test_every_field_of_the_registry_is_filled_but_addresses():
    assert set(missing(load(ROOT / "pyproject.toml"))) <= ADDRESSES


@pytest.mark.parametrize("path", FIELDS)
def test_a_field_that_is_missing_or_of_another_form_is_named(path):
    settings = load(ROOT / "pyproject.toml")
    settings["project"]["urls"] = {"Repository": "https://example.org/x"}
    settings["tool"]["comfy"] |= {"Icon": "https://example.org/i.png", "Banner": "https://example.org/b.jpg"}
    assert missing(settings) == {}
    *parts, last = path.split(".")
    table = settings
    for part in parts:
        table = table[part]
    table[last] = ""
    assert list(missing(settings)) == [path]
    del table[last]
    assert list(missing(settings)) == [path]


@pytest.mark.parametrize("key", ["Icon", "Banner"])
def test_pictures_are_named_by_addresses(key):
    assert not dict(COMFY)[key] or dict(COMFY)[key].startswith("https://")


@pytest.mark.parametrize(("name", "ratio", "wide", "most"), [("icon.png", 1, 400, 60_000), ("banner.jpg", 7 / 3, 2100, 120_000)])
def test_the_icon_is_square_and_the_banner_21_to_9_and_both_are_small(name, ratio, wide, most):
    path = ROOT / "docs" / name
    with Image.open(path) as picture:
        assert picture.width <= wide and picture.width == pytest.approx(ratio * picture.height, abs=1)
    assert path.stat().st_size <= most


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.jpg")), ids=lambda path: path.stem)
def test_thumbnails_belong_to_templates_and_are_small(path):
    assert path.with_suffix(".json").is_file()
    assert path.stat().st_size <= 60_000
