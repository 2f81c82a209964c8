"""The nodes in a real ComfyUI, with tiny random models."""

import asyncio
import gc
import os
import shlex
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import clip_model, tokenizer, vqgan, write_bundle

from stylerdalle import checkpoint
from stylerdalle.convert import identity
from stylerdalle.translator.model import TranslatorConfig

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.rand(2, 50, 70, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("given", ["a.png", 3, ["x"], None])
def test_a_text_in_place_of_a_picture_or_mask_is_refused_in_one_sentence(run: Run, photo: torch.Tensor, given: Any) -> None:
    tokenizer, translator, reward = run("StylerDALLE_Load", bundle="tiny")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    tune = {"tokenizer": tokenizer, "translator": translator, "reward": reward, "prompt": "ink", "image": given}
    for node, inputs in {
        "StylerDALLE_Tokenize": {"tokenizer": tokenizer, "image": given},
        "StylerDALLE_Reward": {"reward": reward, "image": given, "text": "ink"},
        "StylerDALLE_Best": {"reward": reward, "image": given, "text": "ink"},
        "StylerDALLE_KeepColour": {"image": photo, "photo": given},
        "StylerDALLE_RewardTune": tune,
        "StylerDALLE_StyleRegion": {"mask": given, "prompt": "ink"},
        "StylerDALLE_Stylize": {"image": given, "style": "ukiyo-e", "strength": 1.0, "seed": 0},
    }.items():
        with pytest.raises(ValueError, match=f"(IMAGE|MASK) got a {type(given).__name__}: connect"):
            run(node, **inputs)
    if given is not None:
        with pytest.raises(ValueError, match=f"MASK got a {type(given).__name__}: connect"):
            run("StylerDALLE_Translate", translator=translator, tokens=tokens, prompt="ukiyo-e", mask=given)
        with pytest.raises(ValueError, match=f"MASK got a {type(given).__name__}: connect"):
            run("StylerDALLE_Stylize", image=photo, style="ukiyo-e", strength=1.0, seed=0, mask=given)


def test_an_input_that_a_node_does_not_have_is_refused_in_one_sentence(comfy: SimpleNamespace) -> None:
    for name in comfy.ids:
        with pytest.raises(ValueError, match="this node has no input 'x': remove it from the workflow, or update the pack"):
            comfy.nodes.NODE_CLASS_MAPPINGS[name].EXECUTE_NORMALIZED(x=3)


def test_a_long_text_in_place_of_a_choice_is_not_repeated_whole(run: Run, photo: torch.Tensor) -> None:
    for inputs in ({"bundle": "a," * 700}, {"style": "9" * 1000}):
        with pytest.raises(ValueError, match="was not found: choose one of") as caught:
            run(
                "StylerDALLE_Stylize",
                **{"image": photo, "style": "ukiyo-e", "strength": 1.0, "seed": 0, "bundle": "tiny"} | inputs,
            )
        assert max(len(word) for word in str(caught.value).split()) < 400


def stylised(run: Run, image: torch.Tensor, bundle: str = "tiny", **inputs: Any) -> torch.Tensor:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle=bundle)
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=image)
    (tokens,) = run("StylerDALLE_Translate", translator=translator, tokens=tokens, **inputs)
    (out,) = run("StylerDALLE_Detokenize", tokenizer=tokenizer, tokens=tokens)
    return out


def test_every_node_explains_itself(comfy: SimpleNamespace) -> None:
    for name in comfy.ids:
        schema = comfy.nodes.NODE_CLASS_MAPPINGS[name].GET_SCHEMA()
        assert schema.description and schema.display_name and schema.category == "StylerDALLE", name
        assert all(i.tooltip and i.tooltip.endswith(".") for i in schema.inputs), name
        assert all(o.display_name for o in schema.outputs), name
        for number in (i for i in schema.inputs if i.io_type in ("INT", "FLOAT")):
            assert None not in (number.default, number.min, number.max, number.step), (name, number.id)


def test_every_node_has_help(comfy: SimpleNamespace) -> None:
    docs = Path(__file__).parents[2] / "web" / "docs"
    assert [name for name in comfy.ids if not (docs / f"{name}.md").is_file()] == []


@pytest.mark.parametrize("bundle", ["tiny", "apart", "half"])
def test_a_picture_comes_back_in_its_size(run: Run, photo: torch.Tensor, bundle: str) -> None:
    prompt = "charcoal" if bundle == "apart" else "van-gogh"  # a bundle of three files has no styles; the user's are used
    out = stylised(run, photo, bundle, prompt=prompt)
    assert out.shape == photo.shape and out.dtype == torch.float32 and 0 <= out.min() <= out.max() <= 1


def test_alpha_is_kept(run: Run, photo: torch.Tensor) -> None:
    alpha = torch.rand(2, 50, 70, 1)
    out = stylised(run, torch.cat([photo, alpha], -1))
    torch.testing.assert_close(out[..., 3:], alpha)


def test_odd_sizes_can_be_cut_for_video(run: Run) -> None:
    photo = torch.rand(2, 51, 71, 3)
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
    whole, cut = (run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=tokens, even=even)[0] for even in (False, True))
    assert whole.shape == photo.shape and torch.equal(cut, whole[:, :50, :70])


def test_inputs_are_left_as_they_were(run: Run, photo: torch.Tensor) -> None:
    before = photo.clone()
    stylised(run, photo)
    assert torch.equal(photo, before)


def test_the_same_seed_gives_the_same_picture(run: Run, photo: torch.Tensor) -> None:
    first, again, other = (stylised(run, photo, temperature=5.0, seed=seed) for seed in (3, 3, 2**64 - 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_black_mask_is_strength_0(run: Run, photo: torch.Tensor) -> None:
    plain = stylised(run, photo, strength=0.0)
    assert torch.equal(stylised(run, photo, mask=torch.zeros(1, 64, 64)), plain)
    assert torch.equal(stylised(run, photo, mask=torch.zeros(64, 64)), plain)
    assert not torch.equal(stylised(run, photo), plain)
    with pytest.raises(ValueError, match="3 masks for 2 pictures"):
        stylised(run, photo, mask=torch.ones(3, 64, 64))


def test_the_prompt_finds_the_users_styles(run: Run, photo: torch.Tensor) -> None:
    (charcoal,) = run("StylerDALLE_LoadStyle", style="styles/charcoal.safetensors")
    assert torch.equal(stylised(run, photo, prompt="Charcoal"), stylised(run, photo, prompt="", style=charcoal))
    with pytest.raises(ValueError, match=r"charcoal.*ukiyo-e|ukiyo-e.*charcoal"):
        stylised(run, photo, prompt="zzz qqq")


def test_prompt_and_style_must_agree(run: Run, photo: torch.Tensor) -> None:
    (style,) = run("StylerDALLE_LoadStyle", style="tiny/styles/ukiyo-e.safetensors")
    for prompt in ("", " ", "Ukiyo-E", "a UKIYO-E print"):
        stylised(run, photo[:1], prompt=prompt, style=style)
    with pytest.raises(ValueError, match=r"the prompt is 'a Van Gogh.*'ukiyo-e'"):
        stylised(run, photo[:1], prompt="a Van Gogh style oil painting", style=style)


def test_a_file_name_is_no_prompt(run: Run, photo: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="Load Style"):
        stylised(run, photo[:1], prompt="/anything.safetensors")


def test_a_style_of_another_translator_is_refused(run: Run, photo: torch.Tensor) -> None:
    (style,) = run("StylerDALLE_LoadStyle", style="half/styles/ukiyo-e.safetensors")
    with pytest.raises(ValueError, match="another translator"):
        stylised(run, photo[:1], prompt="", style=style)


def test_unknown_choices_are_refused_with_the_allowed_ones(run: Run, comfy: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match=r"'zzz' was not found: choose one of apart, half, .*tiny"):
        run("StylerDALLE_Load", bundle="zzz")
    with pytest.raises(ValueError, match=r"'\.\./zzz' was not found: choose one of .*styles/charcoal.safetensors"):
        run("StylerDALLE_LoadStyle", style="../zzz")


def test_a_bundle_without_its_tokenizer_says_what_to_put_where(run: Run, comfy: SimpleNamespace) -> None:
    lonely = comfy.base / "models" / "stylerdalle" / "translators" / "lonely.safetensors"
    lonely.touch()
    try:
        with pytest.raises(ValueError, match=r"no tokenizer: put lonely/tokenizer.safetensors or tokenizers/lonely"):
            run("StylerDALLE_Load", bundle="lonely")
    finally:
        lonely.unlink()


def queued(comfy: SimpleNamespace, bundle: Any) -> str:
    """ComfyUI's error when a workflow that loads a bundle is queued; empty if it is accepted."""
    from execution import validate_prompt

    graph = {
        "1": {"class_type": "StylerDALLE_Load", "inputs": {"bundle": bundle}},
        "2": {"class_type": "StylerDALLE_Tokenize", "inputs": {"tokenizer": ["1", 0], "image": ["3", 0]}},
        "3": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 1, "color": 0}},
        "4": {"class_type": "StylerDALLE_Detokenize", "inputs": {"tokenizer": ["1", 0], "tokens": ["2", 0]}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "x"}},
    }
    taken, _, _, problems = asyncio.run(validate_prompt("id", graph, None))
    said = [error["details"] for node in problems.values() for error in node["errors"]]
    assert taken == (not said)
    return " ".join(said)


def test_official_bundles_are_not_offered_before_they_are_there(comfy: SimpleNamespace) -> None:
    combo = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Load"].GET_SCHEMA().inputs[0]
    assert "tiny" in combo.options
    assert not {"dalle", "rudalle"} & set(combo.options)


def test_an_official_bundle_that_is_not_there_says_how_to_get_it_when_it_is_queued(run: Run, comfy: SimpleNamespace) -> None:
    folder = comfy.base / "models" / "stylerdalle" / "dalle"
    said = queued(comfy, "dalle")
    assert f"{folder} needs tokenizer.safetensors (`python -m stylerdalle fetch dalle --to {shlex.quote(str(folder))}`)" in said
    assert (
        f"`python -m stylerdalle fetch clip --to {shlex.quote(str(folder))}`" in said
        and "pretrain" in said
        and "convert translator" in said
    )
    assert "ComfyUI's Python" in said
    with pytest.raises(ValueError, match="is not complete"):
        run("StylerDALLE_Load", bundle="dalle")


def test_an_official_bundle_is_offered_and_runs_once_its_files_are_there(
    run: Run, comfy: SimpleNamespace, photo: torch.Tensor
) -> None:
    folder = comfy.base / "models" / "stylerdalle" / "rudalle"
    write_bundle(folder, upscale=2, tokens=vqgan())
    try:
        combo = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Load"].GET_SCHEMA().inputs[0]
        assert "rudalle" in combo.options
        assert queued(comfy, "rudalle") == ""
        assert stylised(run, photo, "rudalle", prompt="van-gogh").shape == photo.shape
    finally:
        shutil.rmtree(folder)


def test_a_bundle_as_fetch_makes_it_is_offered_at_once_and_learns_a_style(
    run: Run, comfy: SimpleNamespace, photo: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = comfy.base / "models" / "stylerdalle" / "dalle"
    combo = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Load"].GET_SCHEMA().inputs[0]
    assert "dalle" not in combo.options
    try:
        checkpoint.save_tokenizer(folder / "tokenizer.safetensors", tokenizer())
        checkpoint.save_clip(folder / "clip.safetensors", clip_model())
        monkeypatch.setattr(identity, "identity_config", small_translator)
        identity.make_translator(folder / "tokenizer.safetensors", folder / "translator.safetensors")
        combo = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Load"].GET_SCHEMA().inputs[0]
        assert "dalle" in combo.options and queued(comfy, "dalle") == ""
        with pytest.raises(ValueError, match="has no style for 'van-gogh'; it has: none.*tune-a-style"):
            stylised(run, photo, "dalle", prompt="van-gogh")
        bundle = run("StylerDALLE_Load", bundle="dalle")[0]
        models = {"tokenizer": bundle, "translator": bundle, "reward": bundle}
        tuned = run("StylerDALLE_RewardTune", **models, image=photo, prompt="a wood cut", steps=1)
        (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
        (tokens,) = run("StylerDALLE_Translate", translator=tuned[0], tokens=tokens, prompt="")
        assert run("StylerDALLE_Detokenize", tokenizer=bundle, tokens=tokens)[0].shape == photo.shape
    finally:
        shutil.rmtree(folder)


def small_translator(tokenizer: Any) -> TranslatorConfig:
    sizes = {"width": 64, "heads": 2, "encoder_layers": 1, "decoder_blocks": 1, "grid": 4, "upscale": 1}
    return TranslatorConfig(tokenizer.embed_dim, tokenizer.vocab_size, **sizes, texture=True, noise=2)


def test_unknown_bundles_are_refused_when_queued_and_connected_ones_wait_for_the_run(comfy: SimpleNamespace) -> None:
    assert "'zzz' was not found: choose one of apart" in queued(comfy, "zzz")
    assert queued(comfy, "tiny") == ""
    assert "bundle" not in queued(comfy, ["6", 0])


def test_tokens_of_another_vocabulary_are_refused(run: Run, photo: torch.Tensor) -> None:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="tiny")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    other = replace(tokens, vocab_size=8192)
    with pytest.raises(ValueError, match="vocabulary of 8192"):
        run("StylerDALLE_Translate", translator=translator, tokens=other)
    with pytest.raises(ValueError, match="vocabulary of 8192"):
        run("StylerDALLE_Detokenize", tokenizer=tokenizer, tokens=other)


def test_tokens_for_another_translator_are_refused(run: Run, photo: torch.Tensor) -> None:
    (_, translator, _), (half, _, _) = (run("StylerDALLE_Load", bundle=name) for name in ("tiny", "half"))
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=half, image=photo)
    with pytest.raises(ValueError, match="tokenize for this translator"):
        run("StylerDALLE_Translate", translator=translator, tokens=tokens)


def test_values_of_other_packs_and_pictures_without_colour_are_refused(run: Run, photo: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="TOKENIZER got a str"):
        run("StylerDALLE_Tokenize", tokenizer="mine", image=photo)
    tokenizer, _, _ = run("StylerDALLE_Load", bundle="tiny")
    with pytest.raises(ValueError, match="shape"):
        run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo[..., :1])


def test_model_folders_join_those_the_user_configured(comfy: SimpleNamespace) -> None:
    folders = comfy.folder_paths.get_folder_paths("stylerdalle")
    assert len(folders) == 3 and folders[1] == str(comfy.base / "models" / "stylerdalle")
    assert all(name.endswith(".safetensors") for name in comfy.folder_paths.get_filename_list("stylerdalle"))


def test_a_changed_file_is_loaded_again(comfy: SimpleNamespace) -> None:
    load = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Load"]
    before = load.fingerprint_inputs(bundle="apart")
    assert load.fingerprint_inputs(bundle="apart") == before
    os.utime(comfy.base / "models" / "stylerdalle" / "clip" / "apart.safetensors")
    assert load.fingerprint_inputs(bundle="apart") != before


def test_the_clip_waits_until_it_is_used(run: Run, photo: torch.Tensor) -> None:
    _, _, reward = run("StylerDALLE_Load", bundle="tiny")
    stylised(run, photo[:1], prompt="van-gogh")
    assert not any("load_clip" in key[0].__name__ for key in reward.load.held)
    assert type(reward.clip).__name__ == "CLIP" and reward.clip is reward.clip


def test_two_loads_share_the_models(run: Run) -> None:
    (first, _, _), (second, _, _) = (run("StylerDALLE_Load", bundle="tiny") for _ in range(2))
    assert first.tokenizer is second.tokenizer and first.translator is second.translator


def test_unloaded_models_come_back_and_forgotten_ones_are_freed(run: Run, comfy: SimpleNamespace, photo: torch.Tensor) -> None:
    bundle = run("StylerDALLE_Load", bundle="tiny")[0]
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
    assert any(m.model.model is bundle.tokenizer for m in comfy.model_management.current_loaded_models)
    comfy.model_management.unload_all_models()  # like POST /free, which then empties the cache of node outputs
    assert comfy.model_management.current_loaded_models == []
    (again,) = run("StylerDALLE_Tokenize", tokenizer=bundle, image=photo)
    assert torch.equal(again.grid, tokens.grid)
    models = [weakref.ref(bundle.tokenizer), weakref.ref(bundle.translator)]
    comfy.model_management.unload_all_models()
    del bundle
    gc.collect()
    assert [model() for model in models] == [None, None]


def test_cancel_stops_a_translation(run: Run, comfy: SimpleNamespace, photo: torch.Tensor) -> None:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="tiny")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("StylerDALLE_Translate", translator=translator, tokens=tokens)
