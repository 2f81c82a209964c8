"""Style Transfer in a real ComfyUI, with tiny random models: it is the block nodes in one, and says what it did."""

import gc
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def stylize(comfy: SimpleNamespace, photo: torch.Tensor) -> Callable[..., tuple[torch.Tensor, dict[str, Any]]]:
    """stylize(style="ukiyo-e") -> the picture and the node's `ui`, with the bundle `tiny`."""

    def execute(**inputs: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Stylize"].PREPARE_CLASS_CLONE({})
        given = {"image": photo, "style": "van-gogh", "strength": 1.0, "seed": 0, "bundle": "tiny", **inputs}
        with torch.inference_mode():
            out = node.EXECUTE_NORMALIZED(**given)
        return out.args[0], out.ui

    return execute


def blocks(run: Run, image: torch.Tensor, keep_lines: float = 0.6, **inputs: Any) -> torch.Tensor:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=image)
    (tokens,) = run("StylerDALLE_Translate", translator=bundle, tokens=tokens, **inputs)
    (out,) = run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=tokens, photo=image, keep_lines=keep_lines)
    return out


def test_it_gives_the_picture_of_the_block_nodes(run: Run, stylize: Any, photo: torch.Tensor) -> None:
    out, ui = stylize(style="ukiyo-e", strength=0.7, seed=3)
    assert torch.equal(out, blocks(run, photo, prompt="ukiyo-e", strength=0.7, seed=3, keep_lines=0.6 * 0.7))
    assert out.shape == photo.shape and out.dtype == torch.float32
    assert ui["text"] == ["style: ukiyo-e: a ukiyo-e print"] and ui["style"] == ["ukiyo-e"] and ui["seed"] == [3]


def test_the_second_output_is_the_sheet_of_styles(run: Run, photo: torch.Tensor) -> None:
    sheet = run("StylerDALLE_Stylize", image=photo, style="van-gogh", bundle="tiny")[1]
    assert sheet.ndim == 4 and sheet.shape[-1] == 3 and 0 <= sheet.min() < sheet.max() <= 1


def test_a_prompt_replaces_the_chosen_style_and_the_node_says_so(run: Run, stylize: Any, photo: torch.Tensor) -> None:
    out, ui = stylize(prompt="a ukiyo-e print")
    assert torch.equal(out, blocks(run, photo, prompt="ukiyo-e"))
    assert "Note: the prompt is used, and not the chosen style 'van-gogh'" in ui["text"]


def test_what_the_library_warns_of_is_on_the_node(stylize: Any) -> None:
    _, ui = stylize(prompt="ink (dark:1.3)", bundle="prompted")
    assert any(line.startswith("Note: ") and "without brackets" in line for line in ui["text"])
    assert "near to" in ui["text"][0]
    _, ui = stylize()
    assert len(ui["text"]) == 1  # an earlier warning is not repeated


def test_the_empty_mask_of_load_image_is_none_and_other_masks_count(run: Run, stylize: Any, photo: torch.Tensor) -> None:
    whole, _ = stylize()
    out, ui = stylize(mask=torch.zeros(1, 64, 64))
    assert torch.equal(out, whole) and "the mask is empty" in ui["text"][-1]
    black, ui = stylize(mask=torch.zeros(1, 50, 70))
    assert torch.equal(black, blocks(run, photo, 0.0, prompt="van-gogh", strength=0.0)) and "keeps its look" in ui["text"][-1]
    half = torch.zeros(1, 50, 70)
    half[..., :35] = 1
    assert not torch.equal(stylize(mask=half)[0], whole) and not torch.equal(stylize(mask=half)[0], black)


def test_colours_can_be_the_photos(run: Run, stylize: Any, photo: torch.Tensor) -> None:
    styled, _ = stylize()
    (kept,) = run("StylerDALLE_KeepColour", image=styled, photo=photo, amount=0.5)
    assert torch.equal(stylize(keep_colour=0.5)[0], kept)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"style": "zzz"}, r"style 'zzz' was not found: choose one of .*ukiyo-e"),
        ({"bundle": "zzz"}, r"bundle 'zzz' was not found: choose one of .*tiny"),
        ({"strength": float("nan")}, "strength nan is out of range"),
        ({"keep_lines": 1.5}, "keep_lines 1.5 is out of range"),
        ({"detail": 9.0}, "detail 9.0 is out of range"),
        ({"prompt": "x.safetensors"}, "is a file name"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(stylize: Any, inputs: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        stylize(**inputs)
    assert "\n" not in str(error.value)


def test_a_second_run_loads_nothing_and_load_shares_the_models(
    run: Run, stylize: Any, comfy: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stylize()
    caplog.clear()
    stylize(style="ukiyo-e", seed=1)
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    assert [r for r in caplog.records if r.msg.startswith("loaded ") and "ukiyo-e" not in str(r.args)] == []
    loaded = [m.model.model for m in comfy.model_management.current_loaded_models]
    assert any(model is bundle.tokenizer for model in loaded) and any(model is bundle.translator for model in loaded)


def test_models_that_comfyui_unloads_are_forgotten(stylize: Any, comfy: SimpleNamespace) -> None:
    stylize()
    models = [weak for m in comfy.model_management.current_loaded_models if (weak := m.real_model)]
    assert models
    comfy.model_management.unload_all_models()  # as for POST /free
    gc.collect()
    assert [model() for model in models] == [None] * len(models)


def test_saved_styles_can_be_chosen_also_with_a_bundled_ones_name(
    stylize: Any, comfy: SimpleNamespace, run: Run, photo: torch.Tensor
) -> None:
    user = comfy.base / "models" / "stylerdalle" / "styles"
    user.mkdir(exist_ok=True)
    file = shutil.copy(user.parent / "tiny" / "styles" / "ukiyo-e.safetensors", user / "van-gogh.safetensors")
    try:
        options = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Stylize"].GET_SCHEMA().inputs[1].options
        assert {"charcoal", "van-gogh", "van-gogh (yours)"} <= set(options)
        assert torch.equal(stylize(style="van-gogh (yours)")[0], stylize(style="ukiyo-e")[0])
    finally:
        Path(file).unlink()


def test_the_page_finds_it_by_common_words_and_hides_rare_inputs(comfy: SimpleNamespace) -> None:
    from comfy_api.latest import io

    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Stylize"]
    schema = node.GET_SCHEMA()
    assert "Style Transfer" in schema.display_name
    known = {field.name for field in fields(io.Schema)}
    if "search_aliases" in known:  # newer hosts
        assert {"style transfer", "van gogh", "painting"} <= set(schema.search_aliases)
    if "essentials_category" in known:
        assert schema.essentials_category
    rare = [i.id for i in schema.inputs if i.as_dict().get("advanced")]
    assert rare == ["detail", "feather", "bundle", "keep_lines"]


def test_the_demo_photo_of_the_templates_is_offered_and_a_users_file_is_left_alone(comfy: SimpleNamespace) -> None:
    host = next(m for name, m in sys.modules.items() if name.endswith(".nodes.host"))
    folder = Path(comfy.folder_paths.get_input_directory())
    folder.mkdir(exist_ok=True)
    path = folder / host.DEMO_NAME
    path.unlink(missing_ok=True)
    host.offer_demo_photo()
    assert path.read_bytes() == host.DEMO.read_bytes()
    path.write_bytes(b"mine")
    host.offer_demo_photo()
    assert path.read_bytes() == b"mine"
    path.unlink()


def test_freed_memory_is_given_back_once_for_several_models(comfy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = next(m for name, m in sys.modules.items() if name.endswith(".nodes.memory"))
    calls: list[int] = []
    monkeypatch.setattr(memory, "TRIM", calls.append)
    monkeypatch.setattr(memory, "DELAYS", (0.05,))
    monkeypatch.setattr(memory, "_asked", type(memory._asked)())  # the thread that waits has another one
    for _ in range(3):
        memory.give_back()
    memory.work()
    assert calls == [0] and memory._asked.empty()
