"""The pack's ComfyUI nodes, in the order a picture goes through them."""

from comfy_api.latest import ComfyExtension, io

from .detokenize import Detokenize
from .load import Load
from .load_style import LoadStyle
from .tokenize import Tokenize
from .translate import Translate


class StylerDALLE(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Load, LoadStyle, Tokenize, Translate, Detokenize]
