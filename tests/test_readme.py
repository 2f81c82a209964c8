"""The commands and code in the README, so that they stay correct."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import stylerdalle
from stylerdalle.cli.main import build_parser, main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
LINES = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("stylerdalle ")]
CODE = [block for kind, block in BLOCKS if kind == "python"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_one_the_parser_takes(command):
    words = shlex.split(command)[1:]
    assert build_parser(words[0]).parse_args(words).command == words[0]


def test_the_commands_on_pictures_run_in_the_order_they_are_written(bundle_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle_folder, tmp_path / "weights" / "mini")
    tiny.write_hypernetwork(tmp_path / "weights" / "mini")
    monkeypatch.setattr("stylerdalle.bundle.WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr("stylerdalle.bundle.choose_device", lambda _: torch.device("cpu"))
    blocks = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((56, 40), Image.Resampling.NEAREST).save("photo.jpg")
    for command in COMMANDS:
        words = shlex.split(command.replace("--size 512", "--size 64"))[1:]
        if words[0] in ("stylize", "styles", "info", "score", "reconstruct"):
            assert main(words) == 0, (command, capsys.readouterr().err)
    for code in CODE:
        exec(compile(code, "README.md", "exec"), {})
    assert Image.open("library.png").size == (56, 40)


@pytest.mark.parametrize("target", ["demo", "test"])
def test_each_make_target_it_names_exists(target):
    assert f"make {target}" in LINES
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_ci_runs_its_test_command():
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_files_it_links_to_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert all((ROOT / link).is_file() for link in links)


def test_the_version_is_the_same_everywhere():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert version[1] == stylerdalle.__version__
    assert f"## [{version[1]}]" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_asked_of_a_host_names_a_package_that_comes_with_it():
    wanted = re.findall(r"^([\w-]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert not {"torch", "torchvision", "torchaudio", "numpy", "pillow", "safetensors"} & {name.lower() for name in wanted}
