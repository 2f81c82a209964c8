"""The command line: its outputs, and its errors for bad input."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylerdalle.cli import main as cli
from stylerdalle.cli.main import main
from stylerdalle.images.colour import luma
from stylerdalle.images.files import SUFFIXES, read_picture
from stylerdalle.translator.sampling import Sampling

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """Runs commands with the tiny bundle in a folder with photos."""

    def __init__(self, folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.bundle, self.capsys = folder, bundle, capsys

    def __call__(self, *words: object) -> int:
        texts = [str(word) for word in words]
        if texts[0] in ("stylize", "styles", "score", "reconstruct"):
            texts += ["--bundle", str(self.bundle), "--device", "cpu", "--dtype", "fp32"]
        self.capsys.readouterr()
        code = main(texts)
        self.out, self.err = self.capsys.readouterr()
        return code

    def refuses(self, *words: object) -> str:
        """Run a command that must fail as bad input (exit code 2, one line on stderr, no new file) -> that line."""
        before = files(self.folder)
        assert self(*words) == 2
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("stylerdalle")
        assert "Traceback" not in self.err
        assert files(self.folder) == before
        return self.err


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def shell(tmp_path, bundle_folder, capsys, monkeypatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    blocks = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    for name, size in (("photo.jpg", (56, 40)), ("other.png", (30, 30))):
        Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(tmp_path / name)
    return Shell(tmp_path, bundle_folder, capsys)


def test_folders_and_files_may_have_spaces_and_letters_of_any_language(shell):
    folder = shell.folder / "Bilder für 画像 (1)"
    shutil.copytree(shell.bundle, folder / "mein Bündel")
    shutil.copy("photo.jpg", folder / "Größe 写真.jpg")
    shell.bundle = folder / "mein Bündel"
    assert shell("stylize", folder / "Größe 写真.jpg", "--style", "ukiyo-e", "--output", folder / "neu é/出力.png") == 0
    assert Image.open(folder / "neu é" / "出力.png").size == (56, 40)
    assert shell("score", folder / "neu é" / "出力.png", "--text", "a print", "--json") == 0
    assert json.loads(shell.out)["image"].endswith("出力.png")


def test_one_photo_goes_into_a_file_of_its_own_size(shell):
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "new/out.png") == 0
    assert Image.open("new/out.png").size == (56, 40)
    assert "new/out.png: 56 x 40 px, style ukiyo-e" in shell.out
    assert shell.err == ""


def test_one_photo_goes_into_an_existing_folder_too(shell):
    (shell.folder / "out").mkdir()
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out") == 0
    assert os.listdir("out") == ["photo.png"]


def test_several_photos_go_into_a_folder(shell):
    assert shell("stylize", "photo.jpg", "other.png", "--style", "a Van Gogh style oil painting", "--output", "out") == 0
    assert sorted(os.listdir("out")) == ["other.png", "photo.png"]


def test_size_is_the_shortest_side_of_the_output(shell):
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png", "--size", 20) == 0
    assert Image.open("out.png").size == (28, 20)


def test_alpha_comes_through(shell):
    Image.new("RGBA", (24, 24), (200, 30, 30, 100)).save("clear.png")
    assert shell("stylize", "clear.png", "--style", "ukiyo-e", "--output", "out.webp") == 0
    assert Image.open("out.webp").getextrema()[3] == (100, 100)


def test_strength_temperature_and_seed_reach_the_model(shell):
    def run(name: str, *options: object) -> bytes:
        assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", name, *options) == 0
        return Path(name).read_bytes()

    base = run("a.png", "--strength", 0)
    assert run("b.png") != base
    draws = [run(f"{i}.png", "--temperature", 2, "--seed", seed) for i, seed in enumerate((1, 1, 2))]
    assert draws[0] == draws[1] != draws[2]


def test_detail_and_keep_colour_reach_the_picture(shell):
    for name, options in {"a.png": [], "b.png": ["--detail", 2], "c.png": ["--keep-colour", 1]}.items():
        assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", name, *options) == 0
        assert Image.open(name).size == (56, 40)
    a, b, c = (Path(f"{name}.png").read_bytes() for name in "abc")
    assert len({a, b, c}) == 3
    styled, kept, photo = (chroma(read_picture(name)[0]) for name in ("a.png", "c.png", "photo.jpg"))
    assert (kept - photo).abs().mean() < 0.5 * (styled - photo).abs().mean()


def chroma(images: torch.Tensor) -> torch.Tensor:
    """The mean colour of the picture without its luma, (1, 3)."""
    return (images - luma(images)).mean((2, 3))


def test_the_best_of_several_candidates_is_written_with_its_seed_and_score(shell):
    words = ("stylize", "photo.jpg", "--style", "ukiyo-e", "--temperature", 3)
    assert shell(*words, "--output", "best.png", "--candidates", 3, "--seed", 5) == 0
    seed = int(re.search(r"seed (\d+), score [+-]\d\.\d{4}", shell.out)[1])
    assert shell(*words, "--output", "again.png", "--seed", seed) == 0
    assert Path("best.png").read_bytes() == Path("again.png").read_bytes()
    scores = {}
    for other in (5, 6, 7):
        assert shell(*words, "--output", f"{other}.png", "--seed", other) == 0
        assert shell("score", f"{other}.png", "--text", "a ukiyo-e print", "--json") == 0
        scores[other] = json.loads(shell.out)["score"]
    assert scores[seed] > max(scores.values()) - 2e-3  # files are rounded to 8 bits
    assert "would all be the same" in shell.refuses(
        "stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "x.png", "--candidates", 2
    )


def test_the_good_photos_are_done_and_the_bad_ones_named(shell):
    Path("broken.jpg").write_bytes(b"no picture")
    assert shell("stylize", "photo.jpg", "broken.jpg", "gone.png", "other.png", "--style", "ukiyo-e", "--output", "out") == 2
    assert sorted(os.listdir("out")) == ["other.png", "photo.png"]
    assert [line.split(": ")[1].split(" ")[0] for line in shell.err.splitlines()] == ["broken.jpg", "gone.png"]


def bad_photos() -> dict[str, bytes]:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
    line = io.BytesIO()
    Image.new("RGB", (1, 50)).save(line, "PNG")
    return {"text.jpg": b"hello", "cut.png": stream.getvalue()[:4000], "empty.png": b"", "line.png": line.getvalue()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text.jpg", "not a picture"),
        ("cut.png", "damaged"),
        ("empty.png", "empty"),
        ("line.png", "1 x 50 px"),
        ("no.jpg", "not exist"),
    ],
)
@pytest.mark.parametrize(
    "command", [("stylize", "--style", "ukiyo-e", "--output", "out.png"), ("reconstruct", "--output", "out.png")]
)
def test_a_bad_photo_is_refused(shell, command, name, says):
    for file, data in bad_photos().items():
        Path(file).write_bytes(data)
    assert says in shell.refuses(command[0], name, *command[1:], "--output", "out.png")


@pytest.mark.parametrize(
    ("style", "says"),
    [
        ("steel bridge", "it has: ukiyo-e ('a ukiyo-e print'), van-gogh"),
        ("", "the style prompt is empty"),
        ("x" * 5000, "5000 characters"),
        ("gone.safetensors", "does not exist"),
        ("foreign.safetensors", "not a readable safetensors file"),
    ],
)
def test_a_style_that_cannot_be_used_is_refused(shell, style, says):
    Path("foreign.safetensors").write_bytes(b"PK\x03\x04")
    assert says in shell.refuses("stylize", "photo.jpg", "--style", style, "--output", "out.png")


def test_an_existing_output_is_refused_before_any_work_and_replaced_with_overwrite(shell, monkeypatch):
    Path("out.png").write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr("stylerdalle.bundle.load_bundle", lambda *_: pytest.fail("work began"))
        assert "exists already" in shell.refuses("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png")
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png", "--overwrite") == 0
    assert Image.open("out.png").size == (56, 40)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("out.gif", "'.gif'"),
        ("out", "suffix ''"),
        ("photo.jpg/o.png", "is a file, not a folder"),
        ("photo.jpg", "exists already"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(shell, output, says):
    assert says in shell.refuses("stylize", "other.png", "--style", "ukiyo-e", "--output", output)


def test_the_photo_itself_is_never_overwritten(shell):
    assert "is the photo itself" in shell.refuses(
        "stylize", "other.png", "--style", "ukiyo-e", "--output", "other.png", "--overwrite"
    )


def test_an_output_never_replaces_another_photo_of_the_same_command(shell):
    shutil.copy("other.png", "photo.png")
    before = files(shell.folder)
    assert shell("stylize", "photo.jpg", "photo.png", "--style", "ukiyo-e", "--output", "./", "--overwrite") == 2
    assert files(shell.folder) == before
    assert shell.err.count("\n") == 2
    assert "is one of the photos and would be lost" in shell.err
    assert "is the photo itself" in shell.err


def test_several_photos_into_one_file_are_refused(shell):
    assert "give a folder" in shell.refuses("stylize", "photo.jpg", "other.png", "--style", "ukiyo-e", "--output", "out.png")


def test_two_photos_of_one_name_are_not_written_over_each_other(shell):
    (shell.folder / "deep").mkdir()
    shutil.copy("other.png", "deep/photo.png")
    assert shell("stylize", "photo.jpg", "deep/photo.png", "--style", "ukiyo-e", "--output", "out") == 2
    assert os.listdir("out") == ["photo.png"]
    assert "different folders" in shell.err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("--strength", "3"), "0 to 2"),
        (("--strength", "nan"), "0 to 2"),
        (("--temperature", "-1"), "out of range"),
        (("--seed", "-1"), "out of range"),
        (("--size", "7.5"), "'7.5' is not a whole number"),
        (("--size", "0"), "16 to 8192"),
        (("--dtype", "int8"), "invalid choice"),
        (("--device", "teapot"), "cannot be used here"),
        (("--bundle", "maxi"), "'maxi' is not known"),
        (("--colour", "red"), "unrecognized arguments"),
    ],
)
def test_an_option_that_cannot_be_is_refused(shell, option, says, capsys):
    before = files(shell.folder)
    code = main(["stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "o.png", "--bundle", str(shell.bundle), *option])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert says in error
    assert files(shell.folder) == before


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing"])
def test_damaged_weights_are_refused(shell, damage, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(shell.bundle, folder)
    path = folder / "translator.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        path.write_bytes(b"PK\x03\x04" * 100)
    else:
        path.unlink()
    shell.bundle = folder
    assert "translator.safetensors" in shell.refuses("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png")


@pytest.mark.parametrize("command", [("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "o.png"), ("styles",)])
def test_an_official_bundle_that_is_not_there_is_refused_with_the_way_to_it(shell, command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("stylerdalle.bundle.WEIGHTS", tmp_path / "weights")
    code = main([*command, "--bundle", "dalle"])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert "`stylerdalle fetch dalle`" in error
    assert not Path("o.png").exists()


def test_styles_prints_name_prompt_and_method(shell):
    assert shell("styles") == 0
    assert shell.out.splitlines()[1].split() == ["ukiyo-e", "a", "ukiyo-e", "print", "direct"]
    assert shell("styles", "--json") == 0
    rows = [json.loads(line) for line in shell.out.splitlines()]
    assert rows[1] == {"name": "van-gogh", "prompt": "a Van Gogh style oil painting", "method": "direct"}


def test_info_prints_what_a_file_holds(shell):
    path = shell.bundle / "styles" / "ukiyo-e.safetensors"
    assert shell("info", path) == 0
    for text in ("sha256:", "parameters:", "a ukiyo-e print", "base_sha256:"):
        assert text in shell.out
    assert shell("info", path, "--json") == 0
    facts = json.loads(shell.out)
    assert facts["metadata"]["recipe"]["method"] == "direct"
    assert facts["parameters"] > 1000
    assert len(facts["sha256"]) == 64


def test_info_of_something_else_is_refused(shell):
    assert "not a readable safetensors file" in shell.refuses("info", "photo.jpg")
    assert "does not exist" in shell.refuses("info", "gone.safetensors")


def test_score_prints_a_cosine_for_each_picture(shell):
    assert shell("score", "photo.jpg", "other.png", "--text", "a ukiyo-e print", "--json") == 0
    rows = [json.loads(line) for line in shell.out.splitlines()]
    assert [row["image"] for row in rows] == ["photo.jpg", "other.png"]
    assert all(set(row) == {"image", "text", "score"} and -1 <= row["score"] <= 1 for row in rows)
    assert shell("score", "photo.jpg", "--text", "a ukiyo-e print") == 0
    assert float(shell.out.split()[0]) == pytest.approx(rows[0]["score"], abs=1e-4)


def test_score_refuses_an_empty_text_and_names_bad_pictures(shell):
    assert "empty" in shell.refuses("score", "photo.jpg", "--text", " ")
    assert shell("score", "photo.jpg", "gone.png", "--text", "art", "--json") == 2
    assert len(shell.out.splitlines()) == 1
    assert "gone.png does not exist" in shell.err


def test_reconstruct_gives_the_tokenizers_round_trip(shell):
    assert shell("reconstruct", "photo.jpg", "--output", "trip.png") == 0
    assert read_picture("trip.png")[0].shape == (1, 3, 40, 56)
    assert "dB" in shell.out


def test_interrupting_exits_130_without_a_traceback(shell, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stylerdalle.pipeline.stylize", interrupt)
    before = files(shell.folder)
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png") == 130
    assert "interrupted" in shell.err
    assert "Traceback" not in shell.err
    assert files(shell.folder) == before


def test_an_unforeseen_error_is_one_line_and_debug_shows_where_it_came_from(shell, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("gears\nstuck")

    monkeypatch.setattr("stylerdalle.pipeline.stylize", fail)
    words = ("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png")
    assert shell(*words) == 1
    assert shell.err == "stylerdalle stylize: RuntimeError: gears stuck (add --debug to see where it happened)\n"
    with pytest.raises(RuntimeError):
        shell(*words, "--debug")


def test_too_little_memory_is_said_with_what_to_do(shell, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr("stylerdalle.pipeline.stylize", fail)
    assert shell("stylize", "photo.jpg", "--style", "ukiyo-e", "--output", "out.png") == 1
    assert "use a smaller --size" in shell.err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"usage: stylerdalle {command}" in capsys.readouterr().out


def test_the_help_of_no_command_loads_torch():
    code = (
        "import sys; from stylerdalle.cli.main import COMMANDS, main\n"
        "codes = [main([name, '--help']) for name in COMMANDS]\n"
        "sys.exit(any(codes) or bool({'torch', 'numpy', 'aiohttp', 'requests', 'tqdm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_help_names_the_formats_that_can_be_written_and_the_defaults_of_the_library(capsys):
    assert main(["stylize", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(suffix in text for suffix in SUFFIXES)
    assert f"mix the likely tokens (default: {Sampling().softness})" in text


def test_a_wrong_number_of_the_process_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "2")
    assert main(["styles"]) == 2
    assert (
        capsys.readouterr().err == "stylerdalle: RANK '2' and WORLD_SIZE '1' do not fit together: need 0 <= RANK < WORLD_SIZE\n"
    )


@pytest.mark.parametrize("words", [[], ["paint"], ["--paint"]])
def test_no_command_or_an_unknown_one_is_refused(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_refuses_bad_input_before_it_begins(shell):
    Path("out.safetensors").write_bytes(b"precious")
    common = ("--images", ".", "--run-dir", "run")
    assert "exists already" in shell.refuses("train-tokenizer", *common, "--output", "out.safetensors")
    assert "'.png'" in shell.refuses("train-tokenizer", *common, "--output", "new.png")
    Path("out.safetensors").unlink()
    assert "too few" in shell.refuses("train-tokenizer", *common, "--output", "new.safetensors")
    assert "gone does not exist" in shell.refuses("train-tokenizer", "--images", "gone", "--output", "new.safetensors")


def test_training_a_tokenizer_is_one_command_that_ends_in_a_file(shell):
    (shell.folder / "photos").mkdir()
    for i in range(110):
        Image.new("RGB", (40, 40), (i * 2, 255 - i, 90)).save(f"photos/{i}.png")
    sizes = ("--vocab-size", 512, "--n-init", 16, "--dim", 4, "--batch", 8, "--size", 32, "--free-steps", 4, "--steps", 5)
    words = ("train-tokenizer", "--images", "photos", "--output", "t.safetensors", "--run-dir", "run", *sizes)
    assert shell(*words, "--threads", 1) == 0
    assert shell("info", "t.safetensors", "--json") == 0
    recipe = json.loads(shell.out)["metadata"]["recipe"]
    assert (recipe["command"], recipe["steps"], recipe["vocab_size"]) == ("train-tokenizer", 5, 512)


def test_tuning_a_style_and_pretraining_a_translator_end_in_files_that_fit(shell):
    (shell.folder / "photos").mkdir()
    for i in range(110):
        Image.new("RGB", (40, 40), (i * 2, 255 - i, 90)).save(f"photos/{i}.png")
    words = ("--style", "a charcoal drawing", "--bundle", shell.bundle, "--device", "cpu", "--output", "charcoal.safetensors")
    sizes = ("--size", 32, "--batch", 1, "--views", 1, "--rank", 2, "--steps", 1, "--pairs-steps", 1, "--pairs-batch", 1)
    pairs = ("--pairs", "pencil_sketch", "--pairs-count", 2)
    assert shell("tune", *words, "--images", "photos", "--run-dir", "tune", *sizes, *pairs) == 0
    assert shell("stylize", "photo.jpg", "--style", "charcoal.safetensors", "--output", "drawing.png") == 0
    assert "style charcoal" in shell.out
    more = (
        *words[:-1],
        "better.safetensors",
        "--overwrite",
        "--images",
        "photos",
        "--start",
        "charcoal.safetensors",
        "--run-dir",
        "more",
    )
    assert shell("tune", *more, "--size", 32, "--batch", 1, "--rank", 2, "--steps", 1) == 0
    assert "rank 2, the new one 3" in shell.refuses("tune", *more[:-1], "other", "--size", 32, "--rank", 3, "--steps", 1)
    words = ("--tokenizer", shell.bundle / "tokenizer.safetensors", "--output", "t.safetensors", "--run-dir", "pretrain")
    sizes = ("--width", 32, "--heads", 2, "--encoder-layers", 1, "--decoder-blocks", 1, "--grid", 4, "--batch", 2, "--steps", 1)
    assert shell("pretrain", *words, "--images", "photos", *sizes) == 0
    assert shell("info", "t.safetensors") == 0
