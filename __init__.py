"""ComfyUI-StylerDALLE: language-guided style transfer. ComfyUI loads this file; the nodes are in nodes/."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    try:
        from .nodes import StylerDALLE
    except Exception:
        import logging

        logging.getLogger(__name__).exception(
            "StylerDALLE's nodes could not be loaded"
        )  # with the traceback: ComfyUI logs one line only
        raise
    return StylerDALLE()
