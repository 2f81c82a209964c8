"""docs/licences.md lists every package that this one needs, and those that these need, with the licence that they state."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
FAMILIES = ("MIT", "BSD", "Apache", "MPL", "PSF", "Public Domain", "NVIDIA")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def listed() -> dict[str, str]:
    """{package: licence} of the tables."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    return {normal(name): licence for names, licence in rows if names != "package" for name in names.split(", ")}


def named() -> list[str]:
    """Packages named in pyproject.toml and requirements.txt."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|dev|scale) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
    return [Requirement(found).name for part in lists for found in re.findall(r'"([^"]+)"', part)] + [
        Requirement(line).name for line in lines
    ]


def needed() -> set[str]:
    """The named packages and, as far as they are installed, those that they need."""
    todo, found = named(), set[str]()
    while todo:
        name = normal(todo.pop())
        if name in found:
            continue
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # such as accelerate in ComfyUI's environment
            continue
        wanted = [Requirement(text) for text in requires]
        todo += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def stated(name: str) -> str:
    """What a package says of its licence, "" where it says nothing or is not installed."""
    try:
        facts = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    kinds = [kind for kind in facts.get_all("Classifier") or [] if kind.startswith("License")]
    text = " ".join([facts.get("License-Expression") or "", (facts.get("License") or "")[:100], *kinds])
    return text.replace("Mozilla Public License", "MPL").replace("Python Software Foundation", "PSF")


def row(name: str) -> str:
    """The licence in the tables."""
    rows = listed()
    return rows.get(name) or (rows["nvidia-*"] if name.startswith("nvidia-") else "")


def test_the_list_names_every_package_that_is_needed():
    assert {"torch", "pillow", "dall-e", "clip-anytorch", "requests", "hypothesis", "ruff"} <= needed()
    assert [name for name in sorted(needed()) if not row(name)] == []


@pytest.mark.parametrize("name", sorted(needed()))
def test_a_package_states_the_licence_that_the_list_gives_it(name):
    says = stated(name)
    assert not re.search(r"\bA?GPL", says), says
    families = [family for family in FAMILIES if family in says]
    assert not families or any(family in row(name) for family in families), (says, row(name))
