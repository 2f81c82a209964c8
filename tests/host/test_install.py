"""Installing the pack: requirements.txt into ComfyUI's environment, and the folder under any name."""

import asyncio
import json
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from host.formats import pictures
from host.server import COMFY, PACK
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from tiny import write_bundle


def hosts_packages() -> dict[str, metadata.Distribution]:
    """The packages of ComfyUI's requirements.txt in this environment, with their dependencies."""
    lines = (line.partition("#")[0].strip() for line in (COMFY / "requirements.txt").read_text().splitlines())
    wanted, seen, found = [Requirement(line) for line in lines if line], set(), {}
    while wanted:
        requirement = wanted.pop()
        name, extras = canonicalize_name(requirement.name), {"", *requirement.extras}
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # such as torchaudio, which is optional
            continue
        if (name, *sorted(extras)) not in seen:
            seen.add((name, *sorted(extras)))
            needs = map(Requirement, found[name].requires or ())
            wanted += [need for need in needs if not need.marker or any(need.marker.evaluate({"extra": e}) for e in extras)]
    return found


def test_requirements_move_no_package_that_a_host_has(tmp_path: Path) -> None:
    """A dry run of pip in an environment that has only the metadata of ComfyUI's packages."""
    if not (COMFY / "requirements.txt").is_file():
        pytest.skip(f"there is no ComfyUI in {COMFY}: set COMFYUI_DIR to a checkout")
    host = hosts_packages()
    if "comfyui-frontend-package" not in host:
        pytest.skip("ComfyUI's requirements are not installed here")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env" / Path(sys.executable).relative_to(sys.prefix)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    for package in host.values():
        folder = next(Path(str(file.locate())).parent for file in package.files or () if file.name == "METADATA")
        (site / folder.name).symlink_to(folder, target_is_directory=True)
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--dry-run", "--quiet", "--report", "-"]
    asked = subprocess.run([*command, "-r", PACK / "requirements.txt"], capture_output=True, text=True)
    if "(from versions: none)" in asked.stderr:
        pytest.skip(f"no package index can be reached: {asked.stderr.strip().splitlines()[-1]}")
    assert asked.returncode == 0, asked.stderr
    added = {canonicalize_name(one["metadata"]["name"]) for one in json.loads(asked.stdout)["install"]}
    assert {"dall-e", "clip-anytorch"} <= added
    assert not added & host.keys()


def test_a_folder_with_spaces_and_any_letters_works(
    comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pack = tmp_path / "Ünï cödé 画 pack"
    for name in ("nodes", "stylerdalle", "web"):
        shutil.copytree(PACK / name, pack / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACK / "__init__.py", pack)
    write_bundle(pack / "weights" / "only here")
    monkeypatch.setattr(comfy.nodes, "NODE_CLASS_MAPPINGS", dict(comfy.nodes.NODE_CLASS_MAPPINGS))
    paths, suffixes = comfy.folder_paths.folder_names_and_paths["stylerdalle"]
    monkeypatch.setitem(comfy.folder_paths.folder_names_and_paths, "stylerdalle", ([*paths], {*suffixes}))
    monkeypatch.setattr(comfy.folder_paths, "filename_list_cache", {})

    assert asyncio.run(comfy.nodes.load_custom_node(str(pack)))
    assert all(comfy.nodes.NODE_CLASS_MAPPINGS[name].__module__.startswith(str(pack)) for name in comfy.ids)
    (comfy.base / "input").mkdir(exist_ok=True)
    Image.effect_mandelbrot((48, 40), (-2, -1, 1, 1), 50).convert("RGB").save(comfy.base / "input" / "Fötö 画.jpg")
    graph = json.loads((PACK / "workflows" / "api" / "stylize.json").read_text())
    for node in graph.values():
        changed = {"bundle": "only here", "image": "Fötö 画.jpg"}
        node["inputs"] |= {k: v for k, v in changed.items() if isinstance(node["inputs"].get(k), str)}
    assert pictures(comfy, graph).shape == (1, 40, 48, 3)
