"""StylerDALLE: language-guided style transfer by translating the discrete tokens of a picture.

Example:

    import stylerdalle
    bundle = stylerdalle.load_bundle("mini")
    out = stylerdalle.stylize(images, "a ukiyo-e print", bundle=bundle)

Names are imported on first use, so that `import stylerdalle` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import checkpoint, pictures
    from .bundle import Bundle, load_bundle
    from .pipeline import stylize
    from .resolve import list_styles
    from .translator.sampling import Sampling
    from .translator.style import Style

__all__ = ["Bundle", "Sampling", "Style", "checkpoint", "list_styles", "load_bundle", "pictures", "stylize"]
__version__ = "0.1.0"
MODULES = {
    "Bundle": "bundle",
    "load_bundle": "bundle",
    "stylize": "pipeline",
    "list_styles": "resolve",
    "Sampling": "translator.sampling",
    "Style": "translator.style",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(f".{MODULES[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
