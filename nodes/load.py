"""Load: opens a bundle of tokenizer, translator and CLIP."""

from comfy_api.latest import io

from ..stylerdalle.bundle import open_bundle
from . import host
from .speech import spoken
from .types import CATEGORY, REWARD, TOKENIZER, TRANSLATOR


class Load(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = host.bundles()
        return io.Schema(
            node_id="StylerDALLE_Load",
            display_name="Load StylerDALLE",
            category=CATEGORY,
            description="Opens a bundle: a tokenizer, a translator and a CLIP that belong together.",
            inputs=[
                io.Combo.Input(
                    "bundle",
                    options=names,
                    default="mini" if "mini" in names else None,
                    tooltip="The bundle to open. 'mini' comes with this pack; others are read from models/stylerdalle.",
                ),
            ],
            outputs=[
                TOKENIZER.Output(display_name="TOKENIZER", tooltip="For Tokenize, Detokenize and Reward Tune."),
                TRANSLATOR.Output(display_name="TRANSLATOR", tooltip="For Translate and Reward Tune."),
                REWARD.Output(
                    display_name="REWARD",
                    tooltip="The bundle's CLIP, for Reward, Best and Reward Tune. It is loaded when first used.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, bundle: str) -> str:
        return host.stamp(host.bundle_files(bundle).values())

    @classmethod
    def validate_inputs(cls, bundle: str | None = None) -> bool | str:
        """Reports missing files when the workflow is queued. ComfyUI passes no value here for a connected input."""
        try:
            return bundle is None or bool(host.bundle_files(bundle))
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, bundle: str) -> io.NodeOutput:
        files = host.bundle_files(bundle)
        opened = open_bundle(bundle, **files, styles=host.bundle_styles(bundle), device=host.device(), load=host.Models())
        prompts = "any prompt in English" if opened.hypernetwork_path else "prompts near these styles"
        text = [f"{bundle}: {len(opened.style_paths)} styles, {prompts}; on {opened.device}"]
        return io.NodeOutput(opened, opened, opened, ui=spoken(text))
