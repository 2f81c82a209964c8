"""The one place that imports OpenAI's `clip` (on PyPI: clip-anytorch).

Its first lines read `from pkg_resources import packaging`, and setuptools >= 82 has no pkg_resources. Asking users for an
older setuptools would move a package of their ComfyUI; so where pkg_resources is missing, a stand-in that holds the
`packaging` package is there for the moment of the import.
"""

from __future__ import annotations

import importlib.util
import sys
import types


def _import() -> types.ModuleType:
    if "clip" not in sys.modules and importlib.util.find_spec("pkg_resources") is None:
        import packaging.version

        stand_in = types.ModuleType("pkg_resources")
        stand_in.packaging = packaging  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
        try:
            import clip
        finally:
            del sys.modules["pkg_resources"]
    else:
        import clip
    if not hasattr(clip, "tokenize"):
        raise ImportError(
            "the installed package 'clip' is not OpenAI's CLIP (PyPI's 'clip' is a clipboard manager): "
            "pip uninstall clip && pip install clip-anytorch"
        )
    import clip.model

    return clip


clip = _import()
