"""Save Style: writes a style to a file that Load Style and Translate can find."""

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
            description="Saves a style in models/stylerdalle/styles. Translate can then find it by its name or prompt.",
            is_output_node=True,
            inputs=[
                STYLE.Input("style", tooltip="A style from Reward Tune or Mix Styles."),
                io.String.Input("name", default="my-style", tooltip="The name of the style and of its file, without a folder."),
                io.Boolean.Input("overwrite", default=False, tooltip="If a file with this name exists, replace it."),
            ],
            outputs=[
                STYLE.Output(display_name="STYLE", tooltip="The style with its new name."),
                io.String.Output(display_name="path", tooltip="The path of the saved file."),
            ],
        )

    @classmethod
    def execute(cls, style: Style, name: str, overwrite: bool) -> io.NodeOutput:
        named = replace(expect(style, Style, "STYLE"), name=check_name(name))
        path = host.new_style_file(named.name)
        if path.exists() and not overwrite:
            raise ValueError(f"{path} exists already: choose another name, or turn on overwrite")
        check_output(path, overwrite, (host.SUFFIX,))
        try:
            checkpoint.save_style(path, named)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written ({error.strerror or error}): free disk space, or choose another folder"
            ) from error
        return io.NodeOutput(named, str(path))


def check_name(name: str) -> str:
    """The name, stripped of spaces and suffix. Raises ValueError if it is not a valid file name on every system."""
    name = name.strip().removesuffix(host.SUFFIX)
    if not name or len(name) > LONGEST or RESERVED.search(name):
        raise ValueError(
            f"{name!r} is not a valid style name: use 1 to {LONGEST} letters, digits, spaces, - or _, such as 'my-style', "
            'without a folder and without < > : " / \\ | ? *'
        )
    return name
