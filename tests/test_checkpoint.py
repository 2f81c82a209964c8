"""Model files: round trips, and the errors for bad ones."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from stylerdalle import checkpoint, storage
from stylerdalle.clip.package import clip
from stylerdalle.clip.statistics import StyleClipShape, build_style_clip
from stylerdalle.translator.style import Style

FILES = {"tokenizer": checkpoint.load_tokenizer, "translator": checkpoint.load_translator, "clip": checkpoint.load_clip}


@pytest.fixture
def folder(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle's small files that a test may damage."""
    shutil.copy(bundle_folder / "translator.safetensors", tmp_path)
    shutil.copytree(bundle_folder / "styles", tmp_path / "styles")
    return tmp_path


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.half() for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_tokenizer_comes_back_as_it_was_and_loads_into_the_package(bundle_folder):
    saved = tiny.tokenizer()
    loaded = checkpoint.load_tokenizer(bundle_folder / "tokenizer.safetensors")
    assert same(tensors(loaded), tensors(saved))
    encoder = type(saved.encoder)(n_hid=64, n_blk_per_group=1, vocab_size=512)
    encoder.load_state_dict(loaded.encoder.state_dict())


def test_a_vqgan_comes_back_as_it_was(tmp_path):
    saved = tiny.vqgan()
    checkpoint.save_tokenizer(tmp_path / "t.safetensors", saved)
    loaded = checkpoint.load_tokenizer(tmp_path / "t.safetensors", dtype=torch.bfloat16)
    assert loaded.config == saved.config
    assert loaded.dtype == torch.bfloat16
    assert same(tensors(checkpoint.load_tokenizer(tmp_path / "t.safetensors")), tensors(saved))


@pytest.mark.parametrize("upscale", [1, 2])
def test_a_translator_comes_back_with_its_sizes(tmp_path, upscale):
    saved = tiny.translator(tiny.tokenizer(), upscale)
    checkpoint.save_translator(tmp_path / "t.safetensors", saved)
    loaded = checkpoint.load_translator(tmp_path / "t.safetensors")
    assert loaded.config == saved.config
    assert same(tensors(loaded), tensors(saved))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_clip_comes_back_and_loads_with_the_packages_own_builder(bundle_folder):
    path = bundle_folder / "clip.safetensors"
    assert same(tensors(checkpoint.load_clip(path)), tensors(tiny.clip_model()))
    clip.model.build_model(dict(checkpoint.read(path, "clip")[0]))


def test_a_clip_without_the_tokens_that_no_caption_had_is_smaller_and_reads_the_others_alike(tmp_path):
    model = tiny.clip_model()
    text = clip.tokenize(["a painting of the sea"])
    used = text[0].unique()
    checkpoint.save_clip(tmp_path / "whole.safetensors", model)
    checkpoint.save_clip(tmp_path / "small.safetensors", model, used=used)
    whole, small = (checkpoint.load_clip(tmp_path / f"{name}.safetensors") for name in ("whole", "small"))
    assert (tmp_path / "small.safetensors").stat().st_size < 0.5 * (tmp_path / "whole.safetensors").stat().st_size
    assert torch.equal(small.encode_text(text), whole.encode_text(text))
    assert small.token_embedding.weight.shape == whole.token_embedding.weight.shape
    others = torch.ones(len(small.token_embedding.weight), dtype=torch.bool).index_fill_(0, used, False)
    assert not small.token_embedding.weight[others].any()


def style_clip() -> torch.nn.Module:
    return build_style_clip(StyleClipShape(32, (0, 2, 5), hidden=8, embed_dim=16, text_width=64, text_layers=1)).eval()


def test_a_clip_that_reads_statistics_comes_back_with_its_sizes(tmp_path):
    model, path = style_clip(), tmp_path / "c.safetensors"
    text, images = clip.tokenize(["a painting"]), torch.rand(1, 3, 32, 32)
    checkpoint.save_clip(path, model, dtype=torch.float32, used=text[0].unique())
    loaded = checkpoint.load_clip(path)
    assert loaded.visual.shape == model.visual.shape
    assert torch.allclose(loaded.encode_image(images), model.encode_image(images), atol=1e-5)
    assert torch.allclose(loaded.encode_text(text), model.encode_text(text), atol=1e-5)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert checkpoint.load_clip(path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"read": [0, 2]}, "does not fit its own description: unknown visual.blocks.2"),
        ({"hidden": 9}, "visual.hidden.weight is"),
        ({"read": [5, 2]}, "sizes that cannot be built"),
        ({"read": None}, "sizes that cannot be built"),
        ({"depth": 3}, "sizes that cannot be built"),
    ],
)
def test_a_clip_that_does_not_fit_its_sizes_is_refused(tmp_path, change, message):
    path = tmp_path / "c.safetensors"
    checkpoint.save_clip(path, style_clip())
    got, metadata = checkpoint.read(path, "clip")
    checkpoint.write(path, got, "clip", arch={**json.loads(metadata["arch"]), **change})
    with pytest.raises(ValueError, match=message):
        checkpoint.load_clip(path)


def test_a_style_comes_back_with_prompt_name_base_and_recipe(bundle_folder):
    loaded = checkpoint.load_style(bundle_folder / "styles" / "van-gogh.safetensors")
    base = storage.sha256(bundle_folder / "translator.safetensors")
    assert (loaded.name, loaded.prompt, loaded.base_sha256) == ("van-gogh", "a Van Gogh style oil painting", base)
    assert json.loads(loaded.metadata["recipe"])["method"] == "direct"
    assert loaded.metadata["format"] == "stylerdalle/1"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_style_keeps_its_share_of_blocks(share, bundle_folder, tmp_path):
    path = tmp_path / "style.safetensors"
    style = replace(checkpoint.load_style(next((bundle_folder / "styles").glob("*.safetensors"))), blocks=share)
    checkpoint.save_style(path, style)
    assert checkpoint.load_style(path).blocks == share
    assert checkpoint.holds_style(path, style) and not checkpoint.holds_style(path, replace(style, blocks=0.25))
    checkpoint.save_style(path, replace(checkpoint.load_style(path), blocks=0.0))  # what the file said does not come back
    assert checkpoint.load_style(path).blocks == 0


@pytest.mark.parametrize("said", ["much", "2", "-0.1", "nan", ""])
def test_a_style_with_an_impossible_share_of_blocks_is_damaged(said, bundle_folder, tmp_path):
    path = tmp_path / "style.safetensors"
    style = checkpoint.load_style(next((bundle_folder / "styles").glob("*.safetensors")))
    checkpoint.save_style(path, style, blocks=said)
    with pytest.raises(ValueError, match="is damaged .blocks is .*not 0 to 1.: copy it again"):
        checkpoint.load_style(path)


def test_a_style_loaded_and_saved_again_keeps_what_is_known_of_it(tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    notes = {"recipe": {"steps": 3}, "scores": {"held_out": 0.25}, "licence": "MIT"}
    checkpoint.save_style(first, Style({"outNet.bias.delta": torch.ones(4)}, "a print", "first", "f" * 64), **notes)
    checkpoint.save_style(second, replace(checkpoint.load_style(first), name="second"))
    before, after = storage.read_metadata(first), storage.read_metadata(second)
    assert after == {**before, "name": "second"}
    assert json.loads(after["scores"]) == {"held_out": 0.25}


def test_the_dtype_is_the_one_asked_for(folder):
    assert checkpoint.load_translator(folder / "translator.safetensors", dtype=torch.bfloat16).dtype == torch.bfloat16


def test_models_loaded_in_inference_mode_can_still_be_trained(folder):
    with torch.inference_mode():
        model = checkpoint.load_translator(folder / "translator.safetensors")
    assert not any(p.is_inference() for p in model.parameters())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    path = folder / "translator.safetensors"
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(path, {"x": torch.zeros(1)}, "translator")
    assert path.read_bytes() == before
    assert sorted(os.listdir(folder)) == ["styles", "translator.safetensors"]


@pytest.mark.parametrize("kept", [0, 5, 200, -100])
def test_a_cut_off_file_is_refused(folder, kept):
    path = folder / "translator.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"translator.safetensors is not a readable safetensors file .*copy it again"):
        checkpoint.load_translator(path)


def test_a_file_that_is_no_safetensors_is_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"PK\x03\x04 a pickle in a zip, as torch.save writes it" * 10)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        storage.read_metadata(path)


def test_foreign_weights_are_refused_with_what_to_do(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"not a StylerDALLE file \(format 'pt'.*converted first"):
        checkpoint.load_translator(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("asked", FILES)
def test_a_file_of_another_kind_is_refused(folder, asked):
    path = folder / "styles" / "ukiyo-e.safetensors"
    with pytest.raises(ValueError, match=f"holds a style, not a {asked}"):
        FILES[asked](path)


def test_missing_and_unknown_tensors_are_listed(folder):
    path = folder / "translator.safetensors"
    got, metadata = checkpoint.read(path, "translator")
    got["extra.weight"] = got.pop("outNet.bias")
    got["outNet.weight"] = got["outNet.weight"][:5].clone()
    checkpoint.write(path, got, "translator", arch=json.loads(metadata["arch"]))
    with pytest.raises(ValueError, match="missing outNet.bias") as caught:
        checkpoint.load_translator(path)
    assert "unknown extra.weight" in str(caught.value)
    assert "outNet.weight is (5, 32), need (512, 32)" in str(caught.value)


@pytest.mark.parametrize("arch", ["not json", '{"width": 15}', '{"depth": 3}', "[1, 2]"])
def test_sizes_that_cannot_be_read_or_built_are_refused(folder, arch):
    path = folder / "translator.safetensors"
    checkpoint.write(path, checkpoint.read(path, "translator")[0], "translator", arch=arch)
    with pytest.raises(ValueError, match="does not state its sizes|sizes that cannot be built"):
        checkpoint.load_translator(path)


@pytest.mark.parametrize(
    "arch",
    [
        {"n_hid": 64},
        {"type": "dvae", "n_hid": "wide"},
        {"type": "dvae", "n_hid": None},
        {"type": "vqgan", "ch": 48},
        {"type": "vqgan", "ch": "wide"},
        {"type": "vqgan", "depth": 3},
        {"type": "vqvae"},
        [1, 2],
    ],
)
def test_tokenizer_sizes_that_cannot_be_built_are_refused(tmp_path, arch):
    checkpoint.write(tmp_path / "t.safetensors", {"x": torch.zeros(1)}, "tokenizer", arch=arch)
    with pytest.raises(ValueError, match="sizes that cannot be built"):
        checkpoint.load_tokenizer(tmp_path / "t.safetensors")


def test_an_incomplete_clip_is_refused(tmp_path):
    checkpoint.write(tmp_path / "c.safetensors", {"visual.proj": torch.zeros(1, 1)}, "clip")
    with pytest.raises(ValueError, match="not a complete CLIP"):
        checkpoint.load_clip(tmp_path / "c.safetensors")


def test_half_of_a_low_rank_change_is_refused(tmp_path):
    checkpoint.write(tmp_path / "s.safetensors", {"outNet.weight.lora_a": torch.zeros(2, 32)}, "style")
    with pytest.raises(ValueError, match="outNet.weight.lora_b is missing"):
        checkpoint.load_style(tmp_path / "s.safetensors")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        checkpoint.load_clip(tmp_path / "no.safetensors")


def test_a_style_of_another_translator_file_is_refused_with_both_hashes(folder):
    path = folder / "translator.safetensors"
    checkpoint.check_base(Style({}, base_sha256=storage.sha256(path)), path)
    checkpoint.check_base(Style({}), path)  # a style that does not say where it belongs
    with pytest.raises(ValueError, match="ffffffffffff") as caught:
        checkpoint.check_base(Style({}, name="lost", base_sha256="f" * 64), path)
    assert storage.sha256(path)[:12] in str(caught.value)


def test_the_hash_follows_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert storage.sha256(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"abc")
    assert re.match("ba7816bf", storage.sha256(path))


def test_an_unknown_kind_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="tokenizer, translator, style, clip"):
        checkpoint.write(tmp_path / "x.safetensors", {}, "vae")
