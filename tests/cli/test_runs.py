"""Commands that train: what identifies a run, and outputs that replace nothing else."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
from training.test_tokenizer import pictures

from stylerdalle import storage
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

    monkeypatch.setattr("stylerdalle.cli.tune.warn_of_unknown_words", write)
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
