"""Where the nodes meet ComfyUI, and the only file that imports it: device, memory, model folders, progress, cancel.

Model files lie in models/stylerdalle of every models folder the user configured (key `stylerdalle` in
extra_model_paths.yaml) and in the pack's weights/. A bundle NAME is a folder NAME with tokenizer, translator and
clip .safetensors and styles/, or the files tokenizers/NAME, translators/NAME and clip/NAME. Styles are in styles/.
"""

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any
from weakref import WeakValueDictionary

import folder_paths
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from PIL import Image

from ..stylerdalle import Bundle, storage
from ..stylerdalle.bundle import OFFICIAL, WEIGHTS, incomplete

FOLDER = "stylerdalle"
PARTS = {"tokenizer": "tokenizers", "translator": "translators", "clip": "clip"}
SUFFIX = ".safetensors"
PREVIEW = 768  # px a side, at most
WORKING_MEMORY = 2 * 1024**3  # bytes, about what a tile or a batch of windows takes with the official models
log = logging.getLogger(__name__)
_shared: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
folder_paths.add_model_folder_path(FOLDER, str(WEIGHTS))
folder_paths.folder_names_and_paths[FOLDER][1].add(SUFFIX)


class Models:
    """A bundle's `load`: as `cache.load`, but each model is under a ModelPatcher, so that ComfyUI can move and free it.

    What was opened lives as long as the bundle that holds this, and bundles of the same files share it. ComfyUI's own
    cache of node outputs therefore decides when memory returns.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[Any, ...], Any] = {}

    def __call__(self, loader: Callable[..., Any], path: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """loader(path, device, dtype); a model waits on the offload device until `use`."""
        status = os.stat(path)
        key = (loader, os.path.realpath(path), status.st_mtime_ns, status.st_size, dtype)
        if key not in self.held:
            found = _shared.get(key)
            if found is None:
                away = model_management.unet_offload_device()
                found = loader(path, away, dtype)
                if isinstance(found, torch.nn.Module):
                    found = ModelPatcher(found, device, away)
                _shared[key] = found
            self.held[key] = found
        found = self.held[key]
        return found.model if isinstance(found, ModelPatcher) else found

    def patcher(self, model: torch.nn.Module) -> ModelPatcher:
        return next(p for p in self.held.values() if isinstance(p, ModelPatcher) and p.model is model)


def device() -> torch.device:
    """Where models run."""
    return model_management.get_torch_device()


def image_device() -> torch.device:
    """Where nodes leave their pictures."""
    return model_management.intermediate_device()


def use(bundle: Bundle, *models: torch.nn.Module) -> None:
    """Bring models of a bundle to its device; others make room."""
    patchers = [bundle.load.patcher(model) for model in models]
    with torch.inference_mode(False):  # moved weights must stay ordinary tensors: tuning copies them
        model_management.load_models_gpu(patchers, memory_required=WORKING_MEMORY, force_full_load=True)


def progress() -> Callable[..., None]:
    """A bar on the running node, to be made inside execute: called with (done, total) and, now and then, a picture to show.

    It raises where the user pressed cancel.
    """
    bar = ProgressBar(1)

    def update(done: int, total: int, preview: Image.Image | None = None) -> None:
        tick()
        bar.update_absolute(done, total, ("JPEG", preview, PREVIEW) if preview else None)

    return update


def tick(*_: object) -> None:
    """Raises where the user pressed cancel."""
    model_management.throw_exception_if_processing_interrupted()


def run_folder(name: str) -> Path:
    """Where a tuning run keeps its state."""
    return Path(folder_paths.get_output_directory(), FOLDER, "runs", name)


def choose(what: str, name: str, allowed: list[str]) -> str:
    """The name if it is one of a combo's; ComfyUI does not check combos of workflows that come over its API."""
    if name not in allowed:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise ValueError(f"{what} {name!r} is not there: choose one of {', '.join(allowed) or '(none)'}. Searched: {folders}")
    return name


def bundles() -> list[str]:
    """Names of the bundles whose translator is there; `dalle` and `rudalle` are not offered before that either."""
    own = [PurePath(f).parts[0] for f in _files() if f.count("/") == 1 and f.endswith(f"/translator{SUFFIX}")]
    apart = [PurePath(f).stem for f in _files() if f.startswith(f"{PARTS['translator']}/")]
    return sorted({*own, *apart})


def bundle_files(name: str) -> dict[str, Path]:
    """Tokenizer, translator and clip of a bundle, and its hypernetwork where it has one. Raises ValueError
    where the bundle is unknown or not complete, with what to do."""
    if name not in OFFICIAL:
        choose("bundle", name, bundles())
    user = Path(folder_paths.models_dir, FOLDER)
    places = {part: (f"{name}/{part}{SUFFIX}", f"{folder}/{name}{SUFFIX}") for part, folder in PARTS.items()}
    found = {part: path for part, both in places.items() if (path := next(filter(None, map(_path, both)), None))}
    if missing := [part for part in PARTS if part not in found]:
        if name in OFFICIAL:
            text = incomplete(name, user / name, missing, "python -m stylerdalle")
            raise ValueError(f"{text} (with ComfyUI's Python, in {WEIGHTS.parent})")
        raise ValueError(f"the bundle {name!r} has no {missing[0]}: put {' or '.join(places[missing[0]])} in {user}")
    optional = next((p for p in map(_path, (f"{name}/hypernetwork{SUFFIX}", f"hypernetworks/{name}{SUFFIX}")) if p), None)
    return found | ({"hypernetwork": optional} if optional else {})


def bundle_styles(name: str) -> list[Path]:
    return [style_file(f) for f in _files() if f.startswith(f"{name}/styles/")]


def styles() -> list[str]:
    """Style files, as `styles/NAME.safetensors` (the user's) and `BUNDLE/styles/NAME.safetensors`."""
    return [f for f in _files() if "styles" in PurePath(f).parts[:-1]]


def style_file(name: str) -> Path:
    """Raises ValueError where there is no such style file."""
    return Path(folder_paths.get_full_path(FOLDER, choose("style", name, styles())))


def new_style_file(name: str) -> Path:
    """Where a style of the user's is saved: in the first of the configured folders that is not the pack's own."""
    own = os.path.realpath(WEIGHTS)
    folder = next(path for path in folder_paths.get_folder_paths(FOLDER) if os.path.realpath(path) != own)
    return Path(folder, "styles", f"{name}{SUFFIX}")


def styles_for(bundle: Bundle) -> list[Path]:
    """The user's style files that were tuned on this bundle's translator."""
    base, found = storage.sha256(bundle.translator_path), []
    for path in map(style_file, styles()):
        try:
            if path not in bundle.style_paths and storage.read_metadata(path).get("base_sha256") == base:
                found.append(path)
        except ValueError as error:
            log.warning("a style file is left out: %s", error)
    return found


def stamp(paths: Iterable[Path]) -> str:
    """Changes when one of the files does."""
    return "|".join(f"{path}:{os.stat(path).st_mtime_ns}:{os.stat(path).st_size}" for path in paths)


def _files() -> list[str]:
    """Model files relative to their folders, with / on every system."""
    return [PurePath(f).as_posix() for f in folder_paths.get_filename_list(FOLDER)]


def _path(name: str) -> Path | None:
    path = folder_paths.get_full_path(FOLDER, name)
    return Path(path) if path else None
