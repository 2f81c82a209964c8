"""Style and model files that are damaged, foreign, or made to do harm: one sentence each, when they are loaded."""

import json
import re
import struct
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

import stylerdalle
from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.resolve import list_styles
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.translate import translate


@pytest.fixture
def style_file(bundle_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    path.write_bytes((bundle_folder / "styles" / "ukiyo-e.safetensors").read_bytes())
    return path


def changed(path: Path, change: object, **metadata: str) -> None:
    """Rewrite a model file with `change` applied to its tensors, and other metadata."""
    tensors, notes = load_file(path), storage.read_metadata(path)
    change(tensors)
    save_file(tensors, path, {**notes, **metadata})


def header(path: Path, change: object) -> None:
    """Rewrite a file's JSON header, a text, without its library."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = change(data[8 : 8 + length].decode()).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def first_key(tensors: dict, kind: str) -> str:
    return next(key for key in tensors if key.endswith(kind))


def put(value: float):
    return lambda tensors: tensors[first_key(tensors, "lora_a")].view(-1)[:1].fill_(value)


def reshape(tensors: dict) -> None:
    key = first_key(tensors, "lora_b")
    tensors[key] = tensors[key][:, :1].contiguous()


def flatten(tensors: dict) -> None:
    key = first_key(tensors, "lora_a")
    tensors[key] = tensors[key].flatten()


def integers(tensors: dict) -> None:
    key = first_key(tensors, "lora_a")
    tensors[key] = tensors[key].to(torch.int32)


def repeat_a_key(header: str) -> str:
    tensor = re.search(r'"[^"]+":{"dtype"[^}]+}', header)[0]
    return header.replace(tensor, f"{tensor},{tensor}")


BAD = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "web page": lambda path: path.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "git lfs": lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "huge header": lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "keys twice": lambda path: header(path, repeat_a_key),
    "long header": lambda path: header(path, lambda text: text + " " * (5 << 20)),
    "deep header": lambda path: path.write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000),
    "NaN": lambda path: changed(path, put(float("nan"))),
    "infinity": lambda path: changed(path, put(float("inf"))),
    "wrong shape": lambda path: changed(path, reshape),
    "wrong rank": lambda path: changed(path, flatten),
    "integers": lambda path: changed(path, integers),
    "half lost": lambda path: changed(path, lambda tensors: tensors.pop(first_key(tensors, "lora_a"))),
    "no tensors": lambda path: changed(path, lambda tensors: tensors.clear()),
    "another kind": lambda path: changed(path, lambda tensors: None, kind="translator"),
    "foreign": lambda path: changed(path, lambda tensors: None, format="pt"),
    "escape in its name": lambda path: changed(path, lambda tensors: None, name="\x1b[31mred\x1b[0m"),
    "escape in its prompt": lambda path: changed(path, lambda tensors: None, prompt="a\x1b]0;title\x07"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_style_file_is_refused_in_one_sentence_and_nothing_is_painted(kind, style_file, bundle_folder, tmp_path, capsys):
    BAD[kind](style_file)
    with pytest.raises(ValueError, match="safetensors"):
        checkpoint.load_style(style_file)
    photo = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
    words = ["stylize", str(photo), "--style", str(style_file), "--bundle", str(bundle_folder), "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "out.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error and "\x1b" not in error
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_style_of_any_float_type_is_read(style_file, dtype):
    before = checkpoint.load_style(style_file)
    changed(style_file, lambda tensors: tensors.update({key: value.to(dtype) for key, value in tensors.items()}))
    after = checkpoint.load_style(style_file)
    assert all(torch.allclose(before.tensors[key], value, atol=0.02) for key, value in after.tensors.items())


@pytest.mark.parametrize("part", ["tokenizer", "translator", "clip"])
def test_a_model_with_nan_is_refused_when_it_is_loaded(part, tmp_path):
    folder = tiny.write_bundle(tmp_path / "bundle")

    def spoil(tensors: dict) -> None:
        next(t for t in tensors.values() if t.is_floating_point() and t.numel() > 10).view(-1)[3] = float("nan")

    changed(folder / f"{part}.safetensors", spoil)
    with pytest.raises(ValueError, match=rf"{part}\.safetensors holds NaN or infinite numbers"):
        getattr(checkpoint, f"load_{part}")(folder / f"{part}.safetensors")


@pytest.mark.parametrize(
    ("part", "arch"),
    [
        ("translator", {"width": 1 << 30}),
        ("translator", {"width": 60_000}),
        ("translator", {"encoder_layers": 10**9}),
        ("translator", {"grid": []}),
        ("translator", {"more": 1}),
        ("tokenizer", {"n_hid": 1 << 20}),
        ("tokenizer", {"vocab_size": 1 << 40}),
        ("tokenizer", {"n_init": None}),
        ("tokenizer", {"type": ["dvae"]}),
        ("hypernetwork", {"hidden": 1 << 30}),
        ("hypernetwork", {"shapes": [[1]]}),
        ("clip", {"image_resolution": 64, "type": "statistics-clip", "text_width": 1 << 30}),
    ],
)
def test_sizes_that_a_file_states_are_checked_before_memory_is_reserved(part, arch, tmp_path, monkeypatch):
    folder = tiny.write_bundle(tmp_path / "bundle")
    tiny.write_hypernetwork(folder)
    path = folder / f"{part}.safetensors"
    before = json.loads(storage.read_metadata(path).get("arch", "{}"))
    changed(path, lambda tensors: None, arch=json.dumps({**before, **arch}))
    real = torch.empty

    def empty(*size, **options):
        made = real(*size, **options)
        assert made.is_meta or made.numel() < 1 << 26, made.shape
        return made

    monkeypatch.setattr(torch, "empty", empty)
    with pytest.raises(ValueError, match=rf"{part}\.safetensors (states sizes|does not fit|is not a complete)") as caught:
        getattr(checkpoint, f"load_{part}")(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


@pytest.mark.parametrize("arch", ["[]", "3", "null", "{", "[" * 100_000, ""])
def test_sizes_that_are_no_object_are_refused(arch, tmp_path):
    folder = tiny.write_bundle(tmp_path / "bundle")
    for part in ("tokenizer", "translator", "clip"):
        changed(folder / f"{part}.safetensors", lambda tensors: None, arch=arch)
        with pytest.raises(ValueError, match=rf"{part}\.safetensors (states sizes|does not state)"):
            getattr(checkpoint, f"load_{part}")(folder / f"{part}.safetensors")


def test_a_long_text_in_a_file_is_not_repeated_whole(style_file):
    changed(style_file, lambda tensors: None, kind="x" * 5000)
    with pytest.raises(ValueError, match="holds a xxx") as caught:
        checkpoint.load_style(style_file)
    assert len(str(caught.value)) < 500


def test_one_bad_style_in_a_bundle_is_left_out_with_a_warning(tmp_path, caplog):
    folder = tiny.write_bundle(tmp_path / "bundle")
    (folder / "styles" / "bad.safetensors").write_bytes(b"PK")
    (folder / "styles" / "dead.safetensors").symlink_to("nowhere")
    bundle = stylerdalle.load_bundle(folder, device="cpu", dtype="fp32")
    assert [style.name for style in list_styles(bundle)] == ["ukiyo-e", "van-gogh"]
    assert "bad.safetensors" in caplog.text and "dead.safetensors" in caplog.text


def test_tokens_of_another_tokenizer_of_the_same_size_are_refused(tmp_path, bundle):
    folder = tiny.write_bundle(tmp_path / "bundle")
    changed(folder / "tokenizer.safetensors", lambda tensors: next(iter(tensors.values())).mul_(1.5))
    other = stylerdalle.load_bundle(folder, device="cpu", dtype="fp32")
    tokens = encode(other.tokenizer, torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="the tokens are of another tokenizer"):
        decode(bundle.tokenizer, tokens)
    with pytest.raises(ValueError, match="the tokens are of another tokenizer"):
        translate(bundle.translator, bundle.tokenizer, tokens, [])
    assert decode(other.tokenizer, tokens).shape == (1, 3, 32, 32)


def test_a_name_that_is_not_unicode_can_be_saved_after_a_tuning(tmp_path, style_file):
    style = checkpoint.load_style(style_file)
    object.__setattr__(style, "name", "caf\udce9")
    checkpoint.save_style(tmp_path / "new.safetensors", style, recipe={"file": "caf\udce9"})
    assert checkpoint.load_style(tmp_path / "new.safetensors").name == "caf?"
    assert json.loads(storage.read_metadata(tmp_path / "new.safetensors")["recipe"])
