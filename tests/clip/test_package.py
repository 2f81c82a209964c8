"""The one import of OpenAI's clip."""

import importlib.util
import sys
import types

import pytest

from stylerdalle.clip import package as clip_package


def forget_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("clip", "pkg_resources")]:
        monkeypatch.delitem(sys.modules, name)


def test_clip_is_imported_where_setuptools_has_no_pkg_resources_any_more(monkeypatch):
    forget_clip(monkeypatch)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pkg_resources" else find(name))
    assert clip_package._import().tokenize("a photo").shape == (1, 77)
    assert "pkg_resources" not in sys.modules  # the stand-in is gone


def test_the_other_package_named_clip_is_refused_with_the_remedy(monkeypatch):
    forget_clip(monkeypatch)
    monkeypatch.setitem(sys.modules, "clip", types.ModuleType("clip"))
    with pytest.raises(ImportError, match="pip install clip-anytorch"):
        clip_package._import()
