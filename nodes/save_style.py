"""Save Style: a style as a file that Load Style and Translate find."""

import re
from dataclasses import replace

from comfy_api.latest import io

from ..stylerdalle import Style, checkpoint
from ..stylerdalle.images.files import check_output
from . import host
from .types import CATEGORY, STYLE, expect

LONGEST = 100  # characters of a name
RESERVED = re.compile(r"[\x00-\x1f/\\<>:\"|?*]|^\.|\.$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


class SaveStyle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="StylerDALLE_SaveStyle",
            display_name="Save Style (StylerDALLE)",
            category=CATEGORY,
            description="Saves a style in models/stylerdalle/styles. Translate then finds it by its name or prompt.",
            is_output_node=True,
            inputs=[
                STYLE.Input("style", tooltip="A style from Reward Tune or Mix Styles."),
                io.String.Input("name", default="my-style", tooltip="The style's name and its file's, without folders."),
                io.Boolean.Input("overwrite", default=False, tooltip="Replace a file of this name, if there is one."),
            ],
            outputs=[
                STYLE.Output(display_name="STYLE", tooltip="The style under its new name."),
                io.String.Output(display_name="path", tooltip="Where the file is."),
            ],
        )

    @classmethod
    def execute(cls, style: Style, name: str, overwrite: bool) -> io.NodeOutput:
        named = replace(expect(style, Style, "STYLE"), name=check_name(name))
        path = host.new_style_file(named.name)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists already: choose another name, or turn overwrite on")
        check_output(path, overwrite, (host.SUFFIX,))
        try:
            checkpoint.save_style(path, named)
        except OSError as error:
            raise ValueError(f"{path} cannot be written ({error.strerror or error}): make room, or another place") from error
        return io.NodeOutput(named, str(path))


def check_name(name: str) -> str:
    """The name without outer blanks and suffix. Raises ValueError where it cannot be a file's name on every system."""
    name = name.strip().removesuffix(host.SUFFIX)
    if not name or len(name) > LONGEST or RESERVED.search(name):
        raise ValueError(
            f"{name!r} cannot be a style's name: use 1 to {LONGEST} letters, digits, blanks, - or _, such as 'my-style'; "
            'no folders, and none of < > : " / \\ | ? *'
        )
    return name
