"""The one place that imports OpenAI's `clip` (on PyPI: clip-anytorch).

The package does `from pkg_resources import packaging`, and setuptools >= 82 has no pkg_resources. Requiring an older setuptools
would change a package of the user's ComfyUI. Where pkg_resources is missing, a stand-in module that holds `packaging` therefore
takes its place during the import.
"""

from __future__ import annotations

import importlib.util
import sys
import types


def _import() -> types.ModuleType:
    """The package. Raises ImportError if another package of the same name is installed."""
    if "clip" not in sys.modules and importlib.util.find_spec("pkg_resources") is None:
        import packaging.version

        stand_in = types.ModuleType("pkg_resources")
        vars(stand_in)["packaging"] = packaging
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
