"""The jobs that are killed, and what must hold for their files at every moment and in the end.

All use tiny models, so that an unbroken job takes a second or so. A job's folder is its own; `shared` has what it only reads.
"""

import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from fake_comfyui import write_workflow
from PIL import Image
from safetensors.torch import load_file
from training.test_tokenizer import pictures

from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.convert.download import Address
from stylerdalle.convert.fetch import Known, fetch
from stylerdalle.images.files import write_picture
from stylerdalle.learn import pretraining
from stylerdalle.learn.prepared import PreparedTokens
from stylerdalle.learn.pretraining import train
from stylerdalle.learn.run import Run

ARCH = {"type": "dvae", "n_hid": 64, "n_blk_per_group": 1, "vocab_size": 512, "n_init": 16}
PHOTOS = 6


def write_shared(folder: Path) -> None:
    """Models, photos and a workflow, which no job changes."""
    tiny.write_bundle(folder / "bundle")
    for place, count in (("photos", PHOTOS), ("sent", PHOTOS), ("many", 100)):  # pretrain keeps some of 100 for validation
        (folder / place).mkdir()
        for picture in pictures(count):
            (folder / place / f"{picture.key}.png").write_bytes(picture.data)
    write_workflow(folder / "workflow.json")
    model = tiny.tokenizer()
    for name, part in (("encoder", model.encoder), ("decoder", model.decoder)):
        torch.save(part, folder / f"{name}.pkl")


def words(options: dict[str, Any]) -> list[str]:
    return [str(word) for key, value in options.items() for word in (f"--{key}", value)]


# the jobs


def tune(folder: str, shared: str, steps: int = 12) -> int:
    options = {
        "style": "a ukiyo-e print", "images": f"{shared}/photos", "bundle": f"{shared}/bundle", "steps": steps, "size": 32,
        "batch": 1, "views": 1, "rank": 2, "softness": 20, "check-every": 5, "patience": 0, "device": "cpu", "threads": 1,
        "save-every": 0,
        "run-dir": f"{folder}/run", "output": f"{folder}/out.safetensors",
    }  # fmt: skip
    return main(["tune", *words(options)])


def pretrain(folder: str, shared: str, steps: int = 12) -> int:
    options = {
        "images": f"{shared}/many", "tokenizer": f"{shared}/bundle/tokenizer.safetensors", "steps": steps, "width": 32,
        "heads": 2,
        "encoder-layers": 1, "decoder-blocks": 1, "grid": 4, "batch": 2, "device": "cpu", "dtype": "fp32", "threads": 1,
        "run-dir": f"{folder}/run", "output": f"{folder}/out.safetensors",
    }  # fmt: skip
    pretraining.train = partial(train, minutes_between_saves=0)  # of this process: the command saves every five minutes
    return main(["pretrain", *words(options)])


def prepare(folder: str, shared: str) -> int:
    options = {
        "images": f"{shared}/photos", "tokenizer": f"{shared}/bundle/tokenizer.safetensors", "sides": 32, "per-shard": 2,
        "output": f"{folder}/tokens", "device": "cpu", "dtype": "fp32", "threads": 1,
    }  # fmt: skip
    return main(["prepare", *words(options)])


def fetch_weights(folder: str, shared: str, urls: list[str]) -> int:
    files = tuple((Address(url),) for url in urls)
    count = sum(tensor.numel() for tensor in tiny.tokenizer().state_dict().values())
    try:
        fetch(
            Known("dalle", "a small dVAE", "dvae", files, ("dalle/tokenizer.safetensors",), ARCH, count, "MIT"),
            Path(folder, "weights"),
        )
    except (ValueError, OSError) as error:
        print(f"fetch: {error}", flush=True)
        return 2
    return 0


def queue(folder: str, shared: str, urls: list[str]) -> int:
    options = {"workflow": f"{shared}/workflow.json", "images": f"{shared}/sent", "output": f"{folder}/out", "poll": 0.05}
    return main(["queue", "--server", *urls, *words(options)])


def save(folder: str, shared: str, rounds: int = 8) -> int:
    """Write a style, a picture and a translator again and again over the same names."""
    base = tiny.translator(tiny.tokenizer())
    try:
        for k in range(rounds):
            checkpoint.save_style(Path(folder, "styles", "a.safetensors"), tiny.style(base, "ab"[k % 2]))
            checkpoint.save_translator(Path(folder, "translator.safetensors"), base)
            image = torch.full((1, 3, 64, 64), (k % 2) / 2 + 0.25)
            write_picture(Path(folder, "a.png"), image, overwrite=True)
    except (ValueError, OSError) as error:
        print(f"save: {error}", flush=True)
        return 2
    return 0


JOBS: dict[str, Callable[..., int]] = {
    "tune": tune, "pretrain": pretrain, "prepare": prepare, "fetch": fetch_weights, "queue": queue, "save": save,
}  # fmt: skip


# what holds at any moment: every file with a name of its own is whole


def whole(folder: Path) -> int:
    """Raises AssertionError or the reader's error for a broken file -> how far the work is, which never goes back."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.name.startswith(".") or ".fetch" in path.parts:
            continue
        match path.suffix:
            case ".safetensors":
                assert load_file(path) and storage.read_metadata(path)
            case ".png" | ".jpg":
                with Image.open(path) as image:
                    image.load()
            case ".json":
                json.loads(path.read_text())
            case ".tar":
                with tarfile.open(path) as tar:
                    assert tar.getmembers()
            case ".pt":
                torch.load(path, weights_only=True)
    state = folder / "run" / "state.pt"
    if state.is_file():
        return int(torch.load(state, weights_only=True)["step"])
    return sum(1 for path in folder.rglob("*") if path.suffix in (".png", ".tar") and not path.name.startswith("."))


# what the end is compared by


def result(job: str, folder: Path, shared: Path) -> Any:
    """What a finished job made, for comparison with ==."""
    match job:
        case "tune" | "pretrain":
            made = load_file(folder / "out.safetensors")
            return {name: tensor.tolist() for name, tensor in made.items()}, Run(folder / "run").rows() if job == "tune" else None
        case "prepare":
            index = (folder / "tokens" / "index.json").read_bytes()
            found = PreparedTokens(folder / "tokens", json.loads(index)["tokenizer"], (4, 4))
            return index, [array.tolist() for array in found.batch(0, PHOTOS, 0)]
        case "fetch":
            made = folder / "weights" / "tokenizer.safetensors"
            assert not list((folder / "weights").rglob("*.part*")), "downloads are left"
            return {name: float(tensor.double().sum()) for name, tensor in load_file(made).items()}
        case "queue":
            rows = json.loads((folder / "out" / "report.json").read_text())["results"]
            photos = {path.name: path.read_bytes() for path in (shared / "sent").iterdir()}
            made = {path.name: path.read_bytes() for path in (folder / "out").glob("*.png")}
            assert {name: photos[name] for name in made} == made
            return sorted((row["picture"], row["outputs"], row["error"]) for row in rows)
        case _:
            style = checkpoint.load_style(folder / "styles" / "a.safetensors")
            stream = io.BytesIO()
            Image.open(folder / "a.png").save(stream, "PNG")
            return style.prompt, {name: tensor.tolist() for name, tensor in style.tensors.items()}, stream.getvalue()
