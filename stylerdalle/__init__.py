"""StylerDALLE: language-guided style transfer by translating the discrete tokens of a picture.

Example:

    import stylerdalle
    bundle = stylerdalle.load_bundle("mini")
    out = stylerdalle.stylize(images, "a ukiyo-e print", bundle=bundle)
"""

from .bundle import Bundle, load_bundle
from .find import list_styles
from .pipeline import stylize
from .sampling import Sampling
from .style import Style

__all__ = ["Bundle", "Sampling", "Style", "list_styles", "load_bundle", "stylize"]
__version__ = "0.1.0"
