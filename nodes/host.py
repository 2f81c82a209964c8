"""ComfyUI's side of the nodes: device, memory, model folders, progress, cancel. The only file that imports its modules
(the others import comfy_api, the public API for schemas).

Model files are in models/stylerdalle, in the folders that extra_model_paths.yaml lists under `stylerdalle`, and in the pack's
weights/. A bundle NAME is either a folder NAME with tokenizer, translator and clip .safetensors and styles/, or the files
NAME.safetensors in tokenizers/, translators/ and clip/. Its library of exemplars is NAME/exemplars.tar or exemplars/NAME.tar. The
user's styles are in styles/.
"""

import gc
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any
from weakref import WeakValueDictionary, finalize

import folder_paths
import numpy as np
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ..stylerdalle import Bundle, storage
from ..stylerdalle.bundle import OFFICIAL, WEIGHTS, incomplete, library_file, open_bundle
from ..stylerdalle.settings import shortened
from . import memory

FOLDER = "stylerdalle"
PART_FOLDERS = {"tokenizer": "tokenizers", "translator": "translators", "clip": "clip"}
SUFFIX = ".safetensors"
PREVIEW = 768  # px of the longer side, at most
WORKING_MEMORY = 2 * 1024**3  # bytes: about what one tile or one batch of windows needs with the full-size models
Cancelled: type[BaseException] = model_management.InterruptProcessingException  # what `tick` raises
log = logging.getLogger(__name__)
_dead: set[str] = set()  # links that a warning has named
DEMO = WEIGHTS.parent / "docs" / "demo" / "photo.jpg"  # the photo of the templates
DEMO_NAME = "stylerdalle-demo.jpg"  # its name in ComfyUI's input folder
_shared: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()
_kept: dict[tuple[Any, ...], Bundle] = {}  # opened by `opened`, until ComfyUI unloads one of their models
_unloaded: set[int] = set()  # the threads in which ComfyUI has unloaded a model since `_forget`

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
folder_paths.add_model_folder_path(FOLDER, str(WEIGHTS))
folder_paths.folder_names_and_paths[FOLDER][1].add(SUFFIX)


class Patcher(ModelPatcher):
    """ComfyUI's ModelPatcher, which tells of two things: that ComfyUI has unloaded the model, for `_forget`, and that the model
    is gone, so that its memory is given back to the system."""

    def __init__(self, model: torch.nn.Module, *others: Any, **more: Any):
        super().__init__(model, *others, **more)
        memory.start()
        finalize(model, memory.give_back)

    def detach(self, unpatch_all: bool = True) -> Any:
        if unpatch_all:  # else ComfyUI is about to load it again
            _unloaded.add(threading.get_ident())
        return super().detach(unpatch_all)


def _forget(phase: str, info: dict[str, int]) -> None:
    """Drop the bundles that only `opened` holds, once ComfyUI has unloaded one of their models: for example after POST /free.

    A callback of the garbage collection, which ComfyUI starts when it has unloaded models. Only then: while it still goes through
    its list of models, in this thread or another, none of them may vanish.
    """
    if phase != "start" or info["generation"] < 2 or threading.get_ident() not in _unloaded:
        return
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_globals is vars(model_management):
            return
    _unloaded.clear()
    _kept.clear()


gc.callbacks.append(_forget)


class Models:
    """A bundle's `load`, like `cache.load`, with each model in a ModelPatcher, so that ComfyUI can move and free it.

    A model lives as long as a bundle holds it; bundles of the same files share it. So ComfyUI's cache of node outputs decides
    when its memory is freed.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[Any, ...], Any] = {}

    def __call__(self, loader: Callable[..., Any], path: Path, device: torch.device, dtype: torch.dtype) -> Any:
        """loader(path, device, dtype), or the same from before. A model stays on the offload device until `use`."""
        status = os.stat(path)
        key = (loader, os.path.realpath(path), status.st_mtime_ns, status.st_size, dtype)
        if key not in self.held:
            found = _shared.get(key)
            if found is None:
                away = model_management.unet_offload_device()
                found = loader(path, away, dtype)
                if isinstance(found, torch.nn.Module):
                    found = Patcher(found, device, away)
                _shared[key] = found
            self.held[key] = found
        found = self.held[key]
        return found.model if isinstance(found, ModelPatcher) else found

    def patcher(self, model: torch.nn.Module) -> ModelPatcher:
        return next(p for p in self.held.values() if isinstance(p, ModelPatcher) and p.model is model)


def device() -> torch.device:
    """The device that models run on."""
    return model_management.get_torch_device()


def image_device() -> torch.device:
    """The device that nodes return their pictures on."""
    return model_management.intermediate_device()


def use(bundle: Bundle, *models: torch.nn.Module) -> None:
    """Move models of a bundle to its device; ComfyUI moves others away if they need room."""
    patchers = [bundle.load.patcher(model) for model in models]
    with torch.inference_mode(False):  # not inference tensors: tuning copies the weights and needs gradients
        model_management.load_models_gpu(patchers, memory_required=WORKING_MEMORY, force_full_load=True)


def opened(name: str) -> Bundle:
    """A bundle by its name, for nodes that have no Load before them. It shares its models with Load, and stays open from run to
    run, until its files change or ComfyUI unloads one of its models.

    Raises:
        ValueError: as bundle_files.
    """
    files, own = bundle_files(name), bundle_styles(name)
    key = (name, stamp(files.values()), device())
    if key not in _kept:
        _kept.clear()
        _kept[key] = open_bundle(name, **files, styles=own, device=device(), load=Models())
    return _kept[key]


def progress() -> Callable[..., None]:
    """A progress bar on the running node: a function of (done, total) and, optionally, a preview. Call it inside execute.

    Each update raises ComfyUI's exception if the user pressed Cancel.
    """
    bar = ProgressBar(1)

    def update(done: int, total: int, preview: Image.Image | None = None) -> None:
        tick()
        bar.update_absolute(done, total, ("JPEG", preview, PREVIEW) if preview else None)

    return update


def tick(*_: object) -> None:
    """Raise ComfyUI's exception if the user pressed Cancel; accepts a progress callback's arguments."""
    model_management.throw_exception_if_processing_interrupted()


def say(lines: Iterable[str]) -> None:
    """Show lines on the running node in every open page (web/js/stylerdalle.js draws them)."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context and server:
        server.send_sync("stylerdalle.text", {"node": str(context.node_id), "text": list(lines)})


def help_picture(name: str) -> torch.Tensor:
    """A picture of the nodes' help as an IMAGE (1, H, W, 3)."""
    with Image.open(WEIGHTS.parent / "web" / "docs" / "images" / name) as picture:
        pixels = torch.from_numpy(np.array(picture.convert("RGB")))
    return pixels[None].to(image_device(), torch.float32) / 255


def offer_demo_photo() -> None:
    """Put the templates' photo into ComfyUI's input folder, unless a file of its name is there."""
    path = Path(folder_paths.get_input_directory(), DEMO_NAME)
    if path.parent.is_dir() and not path.exists():
        try:
            shutil.copyfile(DEMO, path)
        except OSError as error:
            log.warning("the demo photo of the templates could not be copied to %s: %s", path, error.strerror or error)


def run_folder(name: str) -> Path:
    """The folder for the state of a tuning run."""
    return Path(folder_paths.get_output_directory(), FOLDER, "runs", name)


def choose(what: str, name: str, allowed: list[str]) -> str:
    """The name, if it is allowed. ComfyUI does not check the value of a connected combo.

    Raises:
        ValueError: another name; the message has the allowed names and the folders searched.
    """
    if name not in allowed:
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        given = shortened(repr(name))
        raise ValueError(f"{what} {given} was not found: choose one of {', '.join(allowed) or '(none)'}. Searched: {folders}")
    return name


def bundles() -> list[str]:
    """Names of the bundles that have a translator file; so `dalle` is listed only once a translator for it is there."""
    own = [PurePath(f).parts[0] for f in _files() if f.count("/") == 1 and f.endswith(f"/translator{SUFFIX}")]
    apart = [PurePath(f).stem for f in _files() if f.startswith(f"{PART_FOLDERS['translator']}/")]
    return sorted({*own, *apart})


def bundle_files(name: str) -> dict[str, Path]:
    """The files of a bundle: tokenizer, translator, clip and, if it has them, hypernetwork and exemplars.

    Raises:
        ValueError: the bundle is unknown or incomplete; the message says what to do.
    """
    if name not in OFFICIAL:
        choose("bundle", name, bundles())
    user = Path(folder_paths.models_dir, FOLDER)
    places = {part: (f"{name}/{part}{SUFFIX}", f"{folder}/{name}{SUFFIX}") for part, folder in PART_FOLDERS.items()}
    found = {part: path for part, both in places.items() if (path := next(filter(None, map(_path, both)), None))}
    if missing := [part for part in PART_FOLDERS if part not in found]:
        if name in OFFICIAL:
            text = incomplete(name, user / name, missing, "python -m stylerdalle")
            raise ValueError(f"{text} (with ComfyUI's Python, in {WEIGHTS.parent})")
        raise ValueError(f"the bundle {name!r} has no {missing[0]}: put {' or '.join(places[missing[0]])} in {user}")
    network = next(filter(None, map(_path, (f"{name}/hypernetwork{SUFFIX}", f"hypernetworks/{name}{SUFFIX}"))), None)
    works = next(filter(None, map(_path, (f"{name}/exemplars.tar", f"exemplars/{name}.tar"))), None)
    optional = {"hypernetwork": network, "exemplars": library_file(works, name)}
    return found | {part: path for part, path in optional.items() if path}


def bundle_styles(name: str) -> list[Path]:
    return [style_file(f) for f in _files() if f.startswith(f"{name}/styles/")]


def styles() -> list[str]:
    """All style files: `styles/NAME.safetensors` of the user and `BUNDLE/styles/NAME.safetensors`."""
    return [f for f in _files() if "styles" in PurePath(f).parts[:-1]]


def style_choices(bundle: str = "") -> dict[str, Path]:
    """Styles by the names to choose from: those of the bundle (of all bundles if empty), then the user's. A user's style that has
    a bundled one's name is `NAME (yours)`."""
    files = [PurePath(f) for f in styles()]
    of_bundles = [f for f in files if f.parts[0] != "styles" and (not bundle or f.parts[0] == bundle)]
    found = {f.stem: style_file(f.as_posix()) for f in reversed(of_bundles)}
    found = dict(sorted(found.items()))
    for f in (f for f in files if f.parts[0] == "styles"):
        found[f"{f.stem} (yours)" if f.stem in found else f.stem] = style_file(f.as_posix())
    return found


def style_file(name: str) -> Path:
    """The path of a style file. Raises ValueError if there is none."""
    return Path(folder_paths.get_full_path(FOLDER, choose("style", name, styles())))


def new_style_file(name: str) -> Path:
    """The path for a new style of the user: in the first configured folder that is not the pack's weights/."""
    own = os.path.realpath(WEIGHTS)
    folder = next(path for path in folder_paths.get_folder_paths(FOLDER) if os.path.realpath(path) != own)
    return Path(folder, "styles", f"{name}{SUFFIX}")


def styles_for(bundle: Bundle) -> list[Path]:
    """The user's style files that were tuned for this bundle's translator."""
    base, found = storage.sha256(bundle.translator_path), []
    for path in map(style_file, styles()):
        try:
            if path not in bundle.style_paths and storage.read_metadata(path).get("base_sha256") == base:
                found.append(path)
        except (ValueError, OSError) as error:
            log.warning("left out a style file: %s", error)
    return found


def stamp(paths: Iterable[Path]) -> str:
    """A text that changes when one of the files changes, for ComfyUI's cache."""
    return "|".join(map(_stamp, paths))


def _stamp(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError:  # removed, or not to be read: whoever opens it says so
        return f"{path}:missing"
    return f"{path}:{status.st_mtime_ns}:{status.st_size}"


def _files() -> list[str]:
    """Model files, relative to their folders, with / as separator on every system. Dead links are left out with a warning."""
    listed = [PurePath(f).as_posix() for f in folder_paths.get_filename_list(FOLDER)]
    found = [name for name in listed if _path(name)]
    if dead := sorted(set(listed) - set(found) - _dead):
        log.warning("left out links to files that are not there: %s", ", ".join(map(repr, dead)))
        _dead.update(dead)
    return found


def _path(name: str) -> Path | None:
    path = folder_paths.get_full_path(FOLDER, name)
    return Path(path) if path else None


offer_demo_photo()
