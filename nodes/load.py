"""Load: a bundle's tokenizer, translator and CLIP."""

from comfy_api.latest import io

from ..stylerdalle.bundle import open_bundle
from . import host
from .types import CATEGORY, REWARD, TOKENIZER, TRANSLATOR


class Load(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = host.bundles()
        return io.Schema(
            node_id="StylerDALLE_Load",
            display_name="Load StylerDALLE",
            category=CATEGORY,
            description="Opens a bundle: a picture tokenizer, the translator trained on its tokens, and a CLIP.",
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=names,
                    default="mini" if "mini" in names else None,
                    tooltip="The models to use together. 'mini' comes with the pack; others are read from models/stylerdalle.",
                ),
            ],
            outputs=[
                TOKENIZER.Output(display_name="TOKENIZER", tooltip="For Tokenize and Detokenize."),
                TRANSLATOR.Output(display_name="TRANSLATOR", tooltip="For Translate."),
                REWARD.Output(display_name="REWARD", tooltip="The bundle's CLIP, read from disk when first used."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, bundle: str) -> str:
        return host.stamp(host.bundle_files(bundle).values())

    @classmethod
    def validate_inputs(cls, bundle: str | None = None) -> bool | str:
        """Says what is missing when the workflow is queued; an input that is connected is seen by execute alone."""
        try:
            return bundle is None or bool(host.bundle_files(bundle))
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, bundle: str) -> io.NodeOutput:
        files = host.bundle_files(bundle)
        opened = open_bundle(bundle, **files, styles=host.bundle_styles(bundle), device=host.device(), load=host.Models())
        return io.NodeOutput(opened, opened, opened)
