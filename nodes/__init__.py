"""The pack's ComfyUI nodes, in the order a picture goes through them."""

from comfy_api.latest import ComfyExtension, io

from .best import Best
from .detokenize import Detokenize
from .keep_colour import KeepColour
from .load import Load
from .load_style import LoadStyle
from .mix_styles import MixStyles
from .reward import Reward
from .reward_tune import RewardTune
from .save_style import SaveStyle
from .style_region import StyleRegion
from .stylize import Stylize
from .tokenize import Tokenize
from .translate import Translate
from .types import of_known_inputs

NODES: list[type[io.ComfyNode]] = [
    *(Load, LoadStyle, Tokenize, Translate, StyleRegion, Detokenize, KeepColour, RewardTune, SaveStyle, MixStyles, Reward, Best),
    Stylize,
]
for node in NODES:
    node.execute = classmethod(of_known_inputs(node.execute.__func__))


class StylerDALLE(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
