"""Save Style, Mix Styles and Reward in a real ComfyUI."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from stylerdalle import checkpoint, storage
from stylerdalle.cli import main as cli

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def styles(run: Run) -> tuple[Any, Any]:
    return tuple(run("StylerDALLE_LoadStyle", style=f"tiny/styles/{name}.safetensors")[0] for name in ("ukiyo-e", "van-gogh"))


@pytest.fixture
def saved(comfy: SimpleNamespace) -> Iterator[Path]:
    """The folder for saved styles; emptied of what the test saved."""
    folder = Path(comfy.folder_paths.get_folder_paths("stylerdalle")[0], "styles")
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def tokens(run: Run, **inputs: Any) -> torch.Tensor:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    photo = torch.rand(1, 50, 70, 3, generator=torch.Generator().manual_seed(0))
    (content,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
    mixture: torch.Tensor = run("StylerDALLE_Translate", translator=bundle, tokens=content, **inputs)[0].mixture
    return mixture


def test_a_saved_style_is_found_by_its_name_and_keeps_its_metadata(run: Run, styles: Any, saved: Path) -> None:
    named, path = run("StylerDALLE_SaveStyle", style=styles[0], name=" mine at last.safetensors ")
    assert Path(path) == saved / "mine at last.safetensors" and named.name == "mine at last"
    metadata = storage.read_metadata(path)
    assert metadata["licence"] == "MIT" and json.loads(metadata["recipe"])["method"] == "direct"
    assert (metadata["prompt"], metadata["base_sha256"]) == (styles[0].prompt, styles[0].base_sha256)
    (loaded,) = run("StylerDALLE_LoadStyle", style="styles/mine at last.safetensors")
    assert torch.equal(tokens(run, prompt="", style=loaded), tokens(run, prompt="mine at last"))


def test_names_are_the_same_on_windows(comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    host = sys.modules[comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_LoadStyle"].__module__.rpartition(".")[0] + ".host"]
    here = host.styles(), host.bundles()
    listed = [name.replace("/", "\\") for name in comfy.folder_paths.get_filename_list("stylerdalle")]
    monkeypatch.setattr(host, "PurePath", PureWindowsPath)
    monkeypatch.setattr(host.folder_paths, "get_filename_list", lambda _: listed)
    assert any("\\" in name for name in listed)
    assert (host.styles(), host.bundles()) == here


def test_a_style_file_is_replaced_only_where_that_is_asked_for_and_else_saved_beside_it(
    run: Run, styles: Any, saved: Path
) -> None:
    (saved / "taken.safetensors").write_text("mine")
    for given, name in zip(styles, ("taken-2", "taken-3"), strict=True):
        style, path = run("StylerDALLE_SaveStyle", style=given, name="taken")
        assert (style.name, Path(path).name) == (name, f"{name}.safetensors")
        assert checkpoint.load_style(path).name == name
    assert (saved / "taken.safetensors").read_text() == "mine"
    run("StylerDALLE_SaveStyle", style=styles[0], name="taken", overwrite=True)
    assert checkpoint.load_style(saved / "taken.safetensors").name == "taken"


def test_the_same_style_is_not_saved_twice_under_one_name(run: Run, styles: Any, saved: Path) -> None:
    for name, given in (("again", styles[0]), ("again-2", styles[1]), ("again", styles[0]), ("again-2", styles[1])):
        style, path = run("StylerDALLE_SaveStyle", style=given, name="again")
        assert (style.name, Path(path).name, style.prompt) == (name, f"{name}.safetensors", given.prompt)
    assert sorted(path.name for path in saved.glob("again*")) == ["again-2.safetensors", "again.safetensors"]
    changed = replace(styles[0], tensors={name: 2 * tensor for name, tensor in styles[0].tensors.items()})
    assert Path(run("StylerDALLE_SaveStyle", style=changed, name="again")[1]).name == "again-3.safetensors"


@pytest.mark.parametrize(
    "name", ["", "  ", ".safetensors", "a/b", "a\\b", "../up", ".hidden", "what?", "a:b", "nul", "a\nb", "x" * 101, "画" * 99]
)
def test_a_name_that_is_no_files_is_refused_also_when_the_workflow_is_queued(
    run: Run, comfy: SimpleNamespace, styles: Any, saved: Path, name: str
) -> None:
    before = sorted(saved.iterdir())
    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_SaveStyle"]
    assert "is not a valid style name" in node.validate_inputs(name=name)
    assert node.validate_inputs(name="good") is True and node.validate_inputs(name=None) is True
    with pytest.raises(ValueError, match="is not a valid style name"):
        run("StylerDALLE_SaveStyle", style=styles[0], name=name)
    assert sorted(saved.iterdir()) == before


def test_a_mix_paints_and_one_with_itself_is_the_style(run: Run, styles: Any) -> None:
    one, two = styles
    (mixed,) = run("StylerDALLE_MixStyles", style_a=one, style_b=two, name="both")
    assert (mixed.name, mixed.prompt) == ("both", f"{one.prompt} + {two.prompt}")
    assert not torch.equal(tokens(run, prompt="", style=mixed), tokens(run, prompt="", style=one))
    (same,) = run("StylerDALLE_MixStyles", style_a=one, style_b=one)
    torch.testing.assert_close(tokens(run, prompt="", style=same), tokens(run, prompt="", style=one), rtol=0.05, atol=0.05)


def test_a_mix_can_be_saved(run: Run, styles: Any, saved: Path) -> None:
    (mixed,) = run("StylerDALLE_MixStyles", style_a=styles[0], style_b=styles[1], weight_a=0.75)
    _, path = run("StylerDALLE_SaveStyle", style=mixed, name="mixed")
    recipe = json.loads(storage.read_metadata(path)["recipe"])
    assert [(part["name"], part["weight"]) for part in recipe["styles"]] == [("ukiyo-e", 0.75), ("van-gogh", 0.5)]


def test_styles_of_different_translators_cannot_be_mixed(run: Run, styles: Any) -> None:
    with pytest.raises(ValueError, match="ffffffffffff.*only styles of the same translator"):
        run("StylerDALLE_MixStyles", style_a=styles[0], style_b=replace(styles[1], base_sha256="f" * 64))
    with pytest.raises(ValueError, match="STYLE got a str"):
        run("StylerDALLE_MixStyles", style_a=styles[0], style_b="mine")


def test_the_reward_is_the_number_of_the_command_line(
    run: Run, comfy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    pixels = torch.randint(256, (2, 90, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    score, lines = run("StylerDALLE_Reward", reward=bundle, image=pixels / 255, text="a ukiyo-e print")
    names = [str(tmp_path / f"{number}.png") for number in range(2)]
    for picture, name in zip(pixels, names, strict=True):
        Image.fromarray(picture.numpy()).save(name)
    folder = str(comfy.base / "models" / "stylerdalle" / "tiny")
    assert cli.main(["score", *names, "--text", "a ukiyo-e print", "--bundle", folder, "--device", "cpu", "--json"]) == 0
    each = [json.loads(line)["score"] for line in capsys.readouterr().out.splitlines()]
    assert type(score) is float and score == pytest.approx(sum(each) / 2, abs=1e-5)
    assert [float(line.split()[0]) for line in lines.splitlines()] == pytest.approx(each, abs=1e-4)


def test_the_reward_of_no_text_is_refused(run: Run) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    with pytest.raises(ValueError, match="text is empty"):
        run("StylerDALLE_Reward", reward=bundle, image=torch.rand(1, 32, 32, 3), text=" ")


def test_a_dead_link_or_a_damaged_style_in_the_models_folder_stops_nothing(
    run: Run, comfy: SimpleNamespace, saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead, damaged = saved / "dead.safetensors", saved / "damaged.safetensors"
    dead.symlink_to("nowhere.safetensors")
    damaged.write_bytes((comfy.base / "models" / "stylerdalle" / "tiny" / "styles" / "ukiyo-e.safetensors").read_bytes()[:-50])
    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Translate"]
    assert "dead.safetensors" not in node.fingerprint_inputs()
    assert tokens(run, prompt="ukiyo-e").isfinite().all()
    assert "dead.safetensors" in caplog.text and "damaged.safetensors" in caplog.text


@pytest.mark.parametrize(
    ("node", "inputs", "says"),
    [
        ("StylerDALLE_Translate", {"temperature": float("nan")}, "temperature is nan"),
        ("StylerDALLE_Translate", {"strength": float("nan")}, "strength nan is out of range"),
        ("StylerDALLE_Translate", {"softness": float("inf")}, "softness is inf"),
        ("StylerDALLE_Translate", {"candidates": 0}, "candidates 0 is out of range"),
        ("StylerDALLE_Translate", {"prompt": "ukiyo-e:5"}, "weight 5 of 'ukiyo-e' is out of range"),
        ("StylerDALLE_MixStyles", {"weight_a": float("nan")}, "weight nan is out of range"),
        ("StylerDALLE_MixStyles", {"weight_a": 1e9}, "weight 1e\\+09|weight 1000000000.0 is out of range"),
        ("StylerDALLE_Tokenize", {"detail": float("nan")}, "detail nan is out of range"),
    ],
)
def test_numbers_that_comfyui_lets_through_are_refused(run: Run, styles: Any, node: str, inputs: Any, says: str) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    photo = torch.rand(1, 32, 32, 3)
    own: dict[str, Any] = {"tokenizer": bundle, "image": photo}
    if node == "StylerDALLE_Translate":
        own = {"translator": bundle, "tokens": run("StylerDALLE_Tokenize", **own)[0], "prompt": "ukiyo-e"}
    elif node == "StylerDALLE_MixStyles":
        own = {"style_a": styles[0], "style_b": styles[1]}
    with pytest.raises(ValueError, match=says):
        run(node, **{**own, **inputs})
