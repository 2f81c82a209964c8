"""Save Style: writes a style to a file that Load Style and Translate can find."""

import os
import re
from dataclasses import replace

from comfy_api.latest import io

from ..stylerdalle import Style, checkpoint
from ..stylerdalle.images.files import check_output
from ..stylerdalle.settings import shortened
from ..stylerdalle.storage import next_free
from . import host
from .speech import spoken
from .types import CATEGORY, STYLE, expect

LONGEST = 100  # characters of a name
LONGEST_BYTES = 200  # of a name, which is shorter in letters of three bytes
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
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="If a file with this name exists: yes replaces it, no saves under the next free name, "
                    "such as my-style-2.",
                ),
            ],
            outputs=[
                STYLE.Output(display_name="STYLE", tooltip="The style with its new name."),
                io.String.Output(display_name="path", tooltip="The path of the saved file."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Checks the name and the folder when the workflow is queued, before a long tuning. A connected name comes as None."""
        try:
            check_output(host.new_style_file("my-style" if name is None else check_name(name)), True, (host.SUFFIX,))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, style: Style, name: str, overwrite: bool) -> io.NodeOutput:
        style = expect(style, Style, "STYLE")
        path = host.new_style_file(check_name(name))
        if not overwrite:  # the same style is not saved twice, such as when a workflow is queued again after a restart
            path = next_free(path, lambda there: not checkpoint.holds_style(there, style))
            if path.exists():
                return io.NodeOutput(replace(style, name=path.stem), str(path))
        path = check_output(path, overwrite, (host.SUFFIX,))
        named = replace(style, name=path.stem)
        try:
            checkpoint.save_style(path, named)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written ({error.strerror or error}): free disk space, or choose another folder"
            ) from error
        text = [f"saved as {path}", f"To use it: type {path.stem} as the prompt, or press R and choose it in a list of styles."]
        return io.NodeOutput(named, str(path), ui=spoken(text, path=[str(path)]))


def check_name(name: str) -> str:
    """The name, stripped of spaces and suffix. Raises ValueError if it is not a valid file name on every system."""
    name = name.strip().removesuffix(host.SUFFIX)
    if not name or len(name) > LONGEST or len(os.fsencode(name)) > LONGEST_BYTES or RESERVED.search(name):
        raise ValueError(
            f"{shortened(repr(name))} is not a valid style name: use 1 to {LONGEST} letters, digits, spaces, - or _, such as "
            "'my-style', "
            'without a folder and without < > : " / \\ | ? *'
        )
    return name
