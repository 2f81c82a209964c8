"""Reward Tune in a real ComfyUI, with tiny random models."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def photo() -> torch.Tensor:
    blocks = torch.rand(2, 8, 10, 3, generator=torch.Generator().manual_seed(0))
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)  # (2, 64, 80, 3)


@pytest.fixture
def tune(run: Run, photo: torch.Tensor) -> Callable[..., tuple[Any, ...]]:
    """tune(steps=2) -> the outputs of Reward Tune for the bundle `tiny` and two photos."""
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]

    def execute(**inputs: Any) -> tuple[Any, ...]:
        given = {"tokenizer": bundle, "translator": bundle, "reward": bundle, "image": photo, "prompt": "a wood cut", "steps": 2}
        return run("StylerDALLE_RewardTune", **{**given, **inputs})

    return execute


@pytest.fixture
def told(comfy: SimpleNamespace) -> Iterator[list[tuple[int, int, Any]]]:
    """(done, total, preview) of every update of a progress bar."""
    from comfy import utils

    calls: list[tuple[int, int, Any]] = []
    utils.set_progress_bar_global_hook(lambda done, total, preview, node_id=None: calls.append((done, total, preview)))
    yield calls
    utils.set_progress_bar_global_hook(None)


@pytest.fixture
def runs(comfy: SimpleNamespace) -> Path:
    """The folder of the runs; empty at first."""
    folder = Path(comfy.folder_paths.get_output_directory(), "stylerdalle", "runs")
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def translated(run: Run, photo: torch.Tensor, translator: Any, **inputs: Any) -> torch.Tensor:
    tokenizer = run("StylerDALLE_Load", bundle="tiny")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    mixture: torch.Tensor = run("StylerDALLE_Translate", translator=translator, tokens=tokens, **inputs)[0].mixture
    return mixture


def test_the_node_says_how_the_run_went_and_how_to_go_on(
    comfy: SimpleNamespace, run: Run, photo: torch.Tensor, runs: Path
) -> None:
    bundle = run("StylerDALLE_Load", bundle="prompted")[0]
    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_RewardTune"]
    widgets = {i.id: i.default for i in node.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
    given = {"tokenizer": bundle, "translator": bundle, "reward": bundle, "image": photo, "prompt": "a zzqx", "library": True}
    for steps in (2, 3):  # the second goes on
        with torch.inference_mode():
            ui = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**{**widgets, **given, "steps": steps}).ui
        said = "\n".join(ui["text"])
        assert said.startswith(f"{steps} steps; held-out score ") and ui["steps"] == [steps]
        assert "press Run: the run goes on" in said and str(runs) in said
    assert len(list(runs.iterdir())) == 1


def test_cancel_says_at_which_step_and_how_to_go_on(comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    host, tuning = (next(m for name, m in sys.modules.items() if name.endswith(f".nodes.{n}")) for n in ("host", "tuning_run"))
    said: list[list[str]] = []
    monkeypatch.setattr(host, "say", said.append)
    watch = tuning.Watch(lambda *_: None, 80)
    with pytest.raises(comfy.model_management.InterruptProcessingException), watch:
        watch.done = 12
        raise comfy.model_management.InterruptProcessingException
    assert said == [["stopped after step 12 of 80, and kept. Press Run again to go on from there."]]


@pytest.mark.parametrize("method", ["direct", "rloo", "reinforce"])
def test_it_learns_a_style_and_leaves_models_and_photos_alone(
    run: Run, tune: Run, photo: torch.Tensor, runs: Path, method: str
) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    models, before = (bundle.tokenizer, bundle.translator, bundle.clip), photo.clone()
    weights = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    _, style, curve, sheet, losses = tune(method=method, captions="a house")
    for model, old in zip(models, weights, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert torch.equal(photo, before)
    assert not any(tensor.requires_grad for tensor in style.tensors.values())
    assert (style.name, style.prompt) == ("a-wood-cut", "a wood cut")
    recipe = json.loads(style.metadata["recipe"])
    assert (recipe["method"], recipe["steps"], recipe["rank"]) == (method, 2, 8) and "held_out" in style.metadata["scores"]
    assert curve.shape == (1, 600, 640, 3) and sheet.shape == (1, 512, 640, 3)
    assert all(0 <= image.min() < image.max() <= 1 and image.dtype == torch.float32 for image in (curve, sheet))
    assert len(losses["loss"]) >= 2


def test_its_translator_paints_in_the_new_style_where_the_prompt_names_no_other(
    run: Run, tune: Run, photo: torch.Tensor, runs: Path
) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    translator, style, *_ = tune(learning_rate=0.5)
    new = translated(run, photo, translator, prompt="")
    assert any(style.change(name).any() for name in style.names())
    assert torch.equal(new, translated(run, photo, bundle, prompt="", style=style))
    assert torch.equal(new, translated(run, photo, translator, prompt="a Wood Cut"))
    old = translated(run, photo, bundle, prompt="van-gogh")
    assert torch.equal(old, translated(run, photo, translator, prompt="van-gogh")) and not torch.equal(old, new)
    with pytest.raises(ValueError, match="prompt is empty"):
        translated(run, photo, bundle, prompt="")


def test_every_step_is_told_and_the_last_preview_is_before_and_after(tune: Run, told: list[Any], runs: Path) -> None:
    tune(steps=3)
    assert [call[:2] for call in told] == [(1, 3), (2, 3), (3, 3), (1, 1)]
    assert told[0][2][1].size == (256, 256) and told[-1][2][1].size == (640, 512)


def test_a_cancelled_run_goes_on_as_if_it_had_not_been(
    comfy: SimpleNamespace, tune: Run, told: list[Any], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tune(steps=3)[1]
    shutil.rmtree(runs)
    check, ticks = comfy.model_management.throw_exception_if_processing_interrupted, 0

    def cancel_in_the_second_step() -> None:
        nonlocal ticks
        if len(told) == 5:  # four updates of the whole run, and the first step of this one
            ticks += 1
            if ticks == 4:
                comfy.model_management.interrupt_current_processing()
        check()

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancel_in_the_second_step)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        tune(steps=3)
    (folder,) = runs.iterdir()
    assert torch.load(folder / "state.pt")["step"] == 1
    told.clear()
    resumed = tune(steps=3)[1]
    assert [call[:2] for call in told] == [(2, 3), (3, 3), (1, 1)]
    assert all(torch.allclose(tensor, resumed.tensors[name], atol=1e-5) for name, tensor in whole.tensors.items())


def test_a_finished_run_returns_at_once_and_more_steps_make_it_longer(tune: Run, told: list[Any], runs: Path) -> None:
    first = tune(steps=2)
    told.clear()
    again = tune(steps=2)
    assert [call[:2] for call in told] == [(1, 1)] and torch.equal(first[2], again[2]) and torch.equal(first[3], again[3])
    told.clear()
    assert len(tune(steps=3)[4]["loss"]) == 3 and told[0][:2] == (3, 3) and len(list(runs.iterdir())) == 1
    tune(steps=1, seed=1)
    assert len(list(runs.iterdir())) == 2


def test_a_single_step_can_be_plotted(tune: Run, runs: Path) -> None:
    loss = tune(steps=1)[4]["loss"]
    assert max(loss) > min(loss)


def test_transparent_parts_of_photos_are_white(tune: Run, photo: torch.Tensor, runs: Path) -> None:
    sheet = tune(steps=1, image=torch.cat([photo, torch.zeros(2, 64, 80, 1)], -1))[3]
    assert sheet[:, :256].min() > 0.999


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": "x" * 2000}, "2000 characters"),
        ({"captions": "one\ntwo\nthree"}, r"more captions \(3\) than photos \(2\)"),
        ({"method": "zzz"}, "'zzz' is not known: direct, rloo, reinforce"),
        ({"steps": 0}, "steps 0"),
        ({"rank": 200}, "rank 200 is out of range: use 1 to 32"),
        ({"minutes": float("nan")}, "minutes nan"),
        ({"learning_rate": float("nan")}, "lr is nan"),
        ({"image": torch.full((1, 64, 64, 3), float("nan"))}, "NaN or infinite"),
        ({"image": torch.zeros(1, 64, 64, 1)}, "shape"),
        ({"reward": "mine"}, "REWARD got a str"),
    ],
)
def test_bad_inputs_are_refused_before_anything_is_written(tune: Run, runs: Path, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tune(**inputs)
    assert not runs.exists()


def test_models_that_do_not_belong_together_are_refused(run: Run, tune: Run, runs: Path) -> None:
    apart, half = (run("StylerDALLE_Load", bundle=name)[0] for name in ("apart", "half"))
    tune(steps=1, tokenizer=apart, reward=apart)  # copies of the same files
    with pytest.raises(
        ValueError, match=r"TOKENIZER \(bundle 'half'\) and the TRANSLATOR \(bundle 'tiny'\) do not belong together"
    ):
        tune(tokenizer=replace(half, tokenizer_path=half.translator_path))


def test_a_full_disk_is_said_to_be_one_and_the_models_stay_whole(tune: Run, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full_disk)
        with pytest.raises(ValueError, match="No space left on device.*run again to resume from the last save"):
            tune(steps=2)
    assert not [path for path in runs.rglob("*") if path.name.startswith(".") or path.name == "state.pt"]
    assert tune(steps=2)[1].tensors  # works when there is space again


def test_exemplars_are_a_part_of_the_reward_and_of_the_run(tune, runs, photo):
    plain = tune()
    with_exemplars = tune(exemplars=photo.flip(2))
    again = tune(exemplars=photo.flip(1))
    assert len(list(runs.iterdir())) == 3
    names = list(plain[1].tensors)
    assert any(not torch.equal(plain[1].tensors[name], with_exemplars[1].tensors[name]) for name in names)
    assert any(not torch.equal(again[1].tensors[name], with_exemplars[1].tensors[name]) for name in names)


def test_a_style_that_it_starts_from_is_a_part_of_the_run(run, tune, runs):
    start = run("StylerDALLE_LoadStyle", style="tiny/styles/van-gogh.safetensors")[0]
    other = run("StylerDALLE_LoadStyle", style="tiny/styles/ukiyo-e.safetensors")[0]
    tuned, plain = (tune(steps=1, rank=2, learning_rate=1e-6, **given)[1] for given in ({"start": start}, {}))
    tune(steps=1, rank=2, learning_rate=1e-6, start=other)
    assert len(list(runs.iterdir())) == 3
    near, far = (
        sum(float((style.change(name) - start.change(name)).abs().sum()) for name in start.names()) for style in (tuned, plain)
    )
    assert near < 0.01 * far
    assert json.loads(tuned.metadata["recipe"])["start"] == "van-gogh" and "start" not in json.loads(plain.metadata["recipe"])


def test_with_exemplars_it_starts_from_the_nearest_bundled_style_and_says_which(
    comfy: SimpleNamespace, run: Run, photo: torch.Tensor, runs: Path
) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_RewardTune"]
    widgets = {i.id: i.default for i in node.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
    parts = dict.fromkeys(("tokenizer", "translator", "reward"), bundle) | {"image": photo, "prompt": "a wood cut"}
    for name in ("van-gogh", "ukiyo-e"):
        painted = run("StylerDALLE_Stylize", image=photo, style=name, bundle="tiny")[0]
        given = {**widgets, **parts, "exemplars": painted, "steps": 1, "rank": 2, "learning_rate": 1e-6}
        for nearest, starts in ((True, name), (False, None)):
            with torch.inference_mode():
                found = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(**{**given, "nearest": nearest})
            assert json.loads(found.args[1].metadata["recipe"]).get("start") == starts
            assert any(line.startswith(f"started from {name}, ") for line in found.ui["text"]) == nearest
    assert len(list(runs.iterdir())) == 4


def test_a_run_keeps_the_nearest_style_and_does_not_look_for_it_again(
    run: Run, tune: Run, runs: Path, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = next(module for name, module in sys.modules.items() if name.endswith(".nodes.tuning_run"))
    exemplars = run("StylerDALLE_Stylize", image=photo, style="ukiyo-e", bundle="tiny")[0]
    tune(steps=1, rank=2, exemplars=exemplars)
    monkeypatch.setattr(tuning, "nearest_style", None)  # a call would fail
    longer = tune(steps=2, rank=2, exemplars=exemplars)[1]
    assert json.loads(longer.metadata["recipe"])["start"] == "ukiyo-e" and len(list(runs.iterdir())) == 1


def test_a_start_and_styles_of_another_rank_take_precedence_over_the_nearest(run, tune, runs, photo):
    start = run("StylerDALLE_LoadStyle", style="tiny/styles/van-gogh.safetensors")[0]
    exemplars = run("StylerDALLE_Stylize", image=photo, style="ukiyo-e", bundle="tiny")[0]
    chosen = tune(steps=1, rank=2, exemplars=exemplars, start=start)[1]
    none = tune(steps=1, exemplars=exemplars)[1]  # rank 8, and the bundle's styles have 2
    assert json.loads(chosen.metadata["recipe"])["start"] == "van-gogh"
    assert "start" not in json.loads(none.metadata["recipe"])


def test_a_start_that_does_not_fit_is_refused(run, tune, runs):
    start = run("StylerDALLE_LoadStyle", style="tiny/styles/van-gogh.safetensors")[0]
    with pytest.raises(ValueError, match="it has rank 2, the new one 8"):
        tune(start=start)
    with pytest.raises(ValueError, match="was tuned on another translator"):
        tune(rank=2, start=replace(start, base_sha256="0" * 64))
    with pytest.raises(ValueError, match="STYLE got a str"):
        tune(start="van-gogh")


def test_with_library_the_works_that_the_prompt_names_are_exemplars(run, tune, runs, photo):
    bundle = run("StylerDALLE_Load", bundle="prompted")[0]
    parts = dict.fromkeys(("tokenizer", "translator", "reward"), bundle)
    found = [
        json.loads(tune(**parts, steps=1, prompt="an etching", **given)[1].metadata["recipe"])
        for given in ({}, {"library": True}, {"library": True, "exemplars": photo}, {"library": True, "method": "reinforce"})
    ]
    assert [work["title"] for work in found[1]["works"]] == ["Prison"]
    assert not any("works" in recipe for recipe in (found[0], found[2], found[3]))
    assert found[2]["exemplars"] == ["exemplar 1", "exemplar 2"]
    assert len(list(runs.iterdir())) == 4


def test_a_prompt_without_works_and_a_bundle_without_a_library_go_on_as_before(run, tune, runs):
    bundle = run("StylerDALLE_Load", bundle="prompted")[0]
    parts = dict.fromkeys(("tokenizer", "translator", "reward"), bundle)
    for given in ({"prompt": "pop art", **parts}, {"prompt": "an etching"}):
        for library in (False, True):
            assert "works" not in json.loads(tune(**given, steps=1, library=library)[1].metadata["recipe"])
    assert len(list(runs.iterdir())) == 2
