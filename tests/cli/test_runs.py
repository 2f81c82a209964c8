"""Commands that train: what identifies a run, and outputs that replace nothing else."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle import checkpoint, device, storage
from stylerdalle.cli.main import main

SMALL = {"size": 32, "batch": 1, "views": 1, "rank": 2, "softness": 20, "check-every": 1, "patience": 0, "device": "cpu"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.write_bundle(tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for picture in pictures(5):
        (tmp_path / "photos" / f"{picture.key}.png").write_bytes(picture.data)


def tune(output: str = "new.safetensors", **options: object) -> int:
    given = {"style": "a mosaic", "images": "photos", "bundle": "bundle", "run-dir": "run", "steps": 2, **SMALL, **options}
    words = [word for key, value in given.items() for word in (f"--{key}", *([] if value is True else [str(value)]))]
    return main(["tune", *words, "--output", output])


def refused(capsys: pytest.CaptureFixture[str], **options: object) -> str:
    """Tune with other options, which must be refused in one sentence and change no file -> the sentence."""
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    capsys.readouterr()
    assert tune(**options) == 2
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    (error,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("INFO")]
    return error


def test_the_same_command_resumes_and_one_with_other_inputs_is_refused(capsys):
    assert tune() == 0
    assert tune("same.safetensors") == 0
    assert Path("same.safetensors").stat().st_size > 0
    shutil.copytree("photos", "copied")
    assert tune("copied.safetensors", images="copied") == 0, "copies of the photos are the same photos"

    photo = next(Path("copied").iterdir())
    photo.write_bytes(next(path for path in Path("photos").iterdir() if path.name != photo.name).read_bytes())
    assert "was started with other pictures" in refused(capsys, output="x.safetensors", images="copied")
    for kind in ("photos", "styled"):
        shutil.copytree("photos", f"pairs/{kind}")
    assert "was started with other pairs" in refused(capsys, output="x.safetensors", pairs="pairs", **{"pairs-count": 3})
    assert "(now 'same')" in refused(capsys, output="x.safetensors", start="same.safetensors")
    shutil.copytree("bundle", "other")
    clip = Path("other/clip.safetensors")
    clip.write_bytes(clip.read_bytes().replace(b'"licence":"MIT"', b'"licence":"ISC"'))
    assert "was started with other clip" in refused(capsys, output="x.safetensors", bundle="other")
    assert "rank 2 (now 3)" in refused(capsys, output="x.safetensors", rank=3)
    assert "more than the 1 asked for" in refused(capsys, output="x.safetensors", steps=1)
    assert tune("anew.safetensors", steps=1, **{"no-resume": True}) == 0
    assert json.loads(storage.read_metadata("anew.safetensors")["recipe"])["steps"] == 1


def test_an_output_never_replaces_a_model_that_the_command_reads(capsys):
    assert tune() == 0
    for output, options in {
        "new.safetensors": {"start": "new.safetensors"},
        "bundle/clip.safetensors": {},
        "bundle/styles/ukiyo-e.safetensors": {},
    }.items():
        sentence = refused(capsys, output=output, overwrite=True, **{"run-dir": "second"}, **options)
        assert "is one of the inputs" in sentence


def test_an_output_that_another_run_has_written_meanwhile_is_kept(monkeypatch):
    def write(*_: object, **__: object) -> None:
        Path("new.safetensors").write_text("of another run")

    monkeypatch.setattr("stylerdalle.resolve.warn_of_unknown_words", write)
    assert tune() == 0
    assert Path("new.safetensors").read_text() == "of another run"
    assert storage.read_metadata("new-2.safetensors")["name"] == "new-2"


def test_prepare_refuses_a_folder_of_its_inputs_and_one_that_is_in_use(capsys):
    words = ["prepare", "--bundle", "bundle", "--sides", "32", "--device", "cpu"]
    assert main([*words, "--images", "photos", "--output", "photos"]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert main([*words, "--images", "photos", "--output", "tokens"]) == 0
    capsys.readouterr()
    assert main([*words, "--images", "tokens/tokens-00000.tar", "--output", "tokens"]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    lock = storage.Lock("tokens/.prepare-0.lock")
    assert lock.take()
    assert main([*words, "--images", "photos", "--output", "tokens"]) == 2
    assert "another stylerdalle prepare writes to tokens" in capsys.readouterr().err
    lock.release()


@pytest.fixture
def cpu_with_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    device.multiplies_in_bf16.cache_clear()
    yield
    device.multiplies_in_bf16.cache_clear()


@pytest.mark.usefixtures("cpu_with_bfloat16")
def test_the_precision_asked_for_is_used_and_fp16_is_refused(capsys):
    assert refused(capsys, dtype="fp16") == (
        "stylerdalle tune: tune cannot compute in fp16, gradients would vanish: use --dtype bf16 to save memory, fp32, or auto"
    )
    found = {}
    for dtype in ("auto", "fp32", "bf16"):
        assert tune(f"{dtype}.safetensors", dtype=dtype, **{"run-dir": f"run-{dtype}"}) == 0
        found[dtype] = checkpoint.load_style(f"{dtype}.safetensors").tensors["outNet.bias.delta"]
    assert not torch.equal(found["auto"], found["fp32"]), "products are rounded to bfloat16"
    assert not torch.equal(found["auto"], found["bf16"]), "weights are rounded to bfloat16"


def test_activations_computed_again_give_the_same_style():
    for name, options in (("plain", {}), ("again", {"recompute": True})):
        assert tune(f"{name}.safetensors", **{"run-dir": name}, **options) == 0
    one, other = (checkpoint.load_style(f"{name}.safetensors").tensors for name in ("plain", "again"))
    assert all(torch.allclose(tensor, other[name], atol=1e-4) for name, tensor in one.items())


def test_a_network_for_prompts_has_no_choice_of_precision(capsys):
    Path("prompts.txt").write_text("a mosaic\n")
    assert main(["tune", "--styles", "prompts.txt", "--images", "photos", "--output", "x.safetensors", "--dtype", "bf16"]) == 2
    assert "--dtype cannot be used with --styles: leave it out" in capsys.readouterr().err
