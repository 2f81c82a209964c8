"""The paper's procedure as commands: prepare, pretrain, tune, evaluate."""

import json
import logging

import numpy as np
import pytest
import tiny
import torch
from learn.test_prepare import SHA, write_folder, written
from training.test_tokenizer import pictures

from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.learn.prepared import PreparedTokens
from stylerdalle.learn.pretraining import PretrainConfig, token_batch, tokens_of, train
from stylerdalle.learn.run import Run

SIZES = ("--width", 32, "--heads", 2, "--encoder-layers", 1, "--decoder-blocks", 1, "--grid", 4, "--batch", 2)
SMALL = PretrainConfig(width=32, heads=2, encoder_layers=1, decoder_blocks=1, grid=4, upscale=2, steps=4, batch=3, warm=2)


@pytest.fixture
def run(tmp_path, bundle_folder, capsys, monkeypatch):
    """Runs a command in a folder with photos and a bundle -> its exit code; `run.out` and `run.err` are what it said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny.write_bundle(tmp_path / "bundle", upscale=2)
    write_folder(tmp_path / "photos", 10)
    notes = {
        "images": [{"id": i, "file_name": f"{i:03d}.png"} for i in range(10)],
        "annotations": [{"image_id": i, "caption": "A boat."} for i in range(10)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(notes))

    def call(*words: object) -> int:
        logging.getLogger("stylerdalle").setLevel(logging.NOTSET)  # commands that train turn it up for the whole process
        capsys.readouterr()
        code = main([str(word) for word in words])
        call.out, call.err = capsys.readouterr()
        return code

    return call


def prepared(run, *more: object) -> int:
    words = ("--images", "photos", "--tokenizer", "bundle/tokenizer.safetensors", "--per-shard", 4, "--device", "cpu")
    return run("prepare", *words, "--dtype", "fp32", "--output", "tokens", "--sides", 32, 64, *more)


def pretrained(run, *more: object) -> int:
    words = ("--tokenizer", "bundle/tokenizer.safetensors", "--tokens", "tokens", "--run-dir", "run", "--threads", 1)
    return run("pretrain", *words, *SIZES, *more)


def test_the_four_commands_end_in_a_figure(run, tmp_path):
    assert prepared(run, "--captions", "captions.json") == 0
    assert "tokens: 10 pictures in 3 shards, 10 with captions" in run.out
    assert pretrained(run, "--preset", "paper-1", "--epochs", 1, "--output", "bundle/translator.safetensors", "--overwrite") == 0
    recipe = json.loads(storage.read_metadata("bundle/translator.safetensors")["recipe"])
    assert (recipe["preset"], recipe["decay"], recipe["epochs"], recipe["width"]) == ("paper-1", "linear", 1, 32)
    assert torch.load("run/state.pt")["step"] == 5  # 10 pictures, 2 a step
    words = ("--bundle", "bundle", "--device", "cpu", "--style", "a charcoal drawing", "--images", "tokens", "--run-dir", "tune")
    sizes = ("--size", 64, "--batch", 2, "--steps", 1, "--output", "bundle/styles/charcoal.safetensors")
    assert run("tune", "--preset", "paper-1", *words, *sizes) == 0
    recipe = json.loads(storage.read_metadata("bundle/styles/charcoal.safetensors")["recipe"])
    assert (recipe["method"], recipe["rank"], recipe["normalise"], recipe["steps"]) == ("reinforce", 0, False, 1)
    group = torch.load("tune/state.pt")["optimizer"]["param_groups"][0]
    assert (group["betas"], group["eps"], group["lr"]) == ((0.9, 0.98), 1e-9, 1e-6)
    for style in list((tmp_path / "bundle" / "styles").glob("*")):
        if style.stem != "charcoal":
            style.unlink()  # of the translator before
    words = ("--images", "photos", "--style", "charcoal", "--bundle", "bundle", "--device", "cpu", "--count", 2, "--size", 64)
    assert run("evaluate", *words, "--json") == 0
    assert json.loads(run.out)["photos"] == 2


def test_prepare_says_what_is_wrong_in_one_sentence(run, tmp_path):
    assert prepared(run) == 0
    assert prepared(run) == 0  # nothing to do
    for more, says in (
        (("--per-shard", 3), "per_shard 4 (now 3)"),
        (("--no-pictures",), "pictures True (now False)"),
        (("--captions", "photos/000.png", "--output", "other"), "is not an annotation file"),
        (("--sides", 7, "--output", "other"), "multiples of 8"),
    ):
        assert prepared(run, *more) == 2
        assert run.err.count("\n") == 1
        assert says in run.err
    assert run("prepare", "--bundle", tmp_path / "photos", "--images", "photos", "--output", "other") == 2
    assert "tokenizer.safetensors missing" in run.err
    assert run("prepare", "--bundle", "bundle", "--tokenizer", "x", "--images", "photos", "--output", "other") == 2
    assert "not allowed with argument" in run.err


def test_pretraining_refuses_tokens_that_do_not_fit(run):
    assert prepared(run) == 0
    out = ("--output", "t.safetensors")
    for more, says in (
        (("--upscale", 2, "--grid", 8), "prepare with --sides 64 128"),
        (("--upscale", 1, "--grid", 16), "upscale 1 and grid 16 need 128"),
        (("--upscale", 2, "--tokenizer", "other.safetensors"), "does not exist"),
        (("--images", "photos"), "not allowed with argument"),
    ):
        assert pretrained(run, *more, *out) == 2, more
        assert run.err.count("\n") == 1
        assert says in run.err
    checkpoint.save_tokenizer("other.safetensors", tiny.tokenizer(), licence="another file")
    assert pretrained(run, "--upscale", 2, "--tokenizer", "other.safetensors", *out) == 2
    assert "tokens of another tokenizer" in run.err
    assert run("pretrain", *out) == 2
    assert "one of the arguments" in run.err
    assert run("pretrain", "--images", "photos", "--valid", "photos", *out) == 2
    assert "--valid goes with --tokens" in run.err


def test_a_preset_is_not_for_many_styles_and_an_unknown_one_is_refused(run):
    assert run("tune", "--styles", "prompts.txt", "--preset", "fast", "--images", "photos", "--output", "h.safetensors") == 2
    assert "--preset cannot be used with --styles" in run.err
    assert run("pretrain", "--preset", "slow", "--tokens", "tokens", "--output", "t.safetensors") == 2
    assert "paper-1" in run.err


def test_a_step_reads_prepared_tokens_as_sources_and_targets(run):
    assert prepared(run) == 0
    tokenizer = checkpoint.load_tokenizer("bundle/tokenizer.safetensors")
    stream = PreparedTokens("tokens", storage.sha256("bundle/tokenizer.safetensors"), (4, 8))
    source, target = tokens_of(tokenizer, token_batch(stream, SMALL, 0, None), SMALL)
    assert (source.shape, target.shape) == ((3, 16), (3, 64))
    sources, targets = stream.batch(0, 3, 0)
    assert source.tolist() == sources.reshape(3, -1).tolist()
    assert target.tolist() == targets.reshape(3, -1).tolist()


def test_a_run_on_tokens_resumes_exactly_and_refuses_other_tokens(tmp_path):
    tokenizer = tiny.tokenizer()
    stream = PreparedTokens(written(tmp_path / "tokens", [3, 4, 2]), SHA, (4, 8))
    whole = train(tokenizer, stream, SMALL, Run(tmp_path / "whole"))
    states = []
    broken = Run(tmp_path / "again")

    def stop(state, save=broken.save):
        save(state)
        states.append(state["step"])
        if states == [1, 2]:
            raise KeyboardInterrupt

    broken.save = stop
    with pytest.raises(KeyboardInterrupt):
        train(tokenizer, stream, SMALL, broken, minutes_between_saves=0)
    again = PreparedTokens(tmp_path / "tokens", SHA, (4, 8))
    resumed = train(tokenizer, again, SMALL, Run(tmp_path / "again"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    other = PreparedTokens(written(tmp_path / "other", [9]), SHA, (4, 8))
    with pytest.raises(ValueError, match="started with tokens"):
        train(tokenizer, other, SMALL, Run(tmp_path / "again"))


def test_a_same_grid_translator_learns_from_windows_of_a_larger_side(tmp_path):
    stream = PreparedTokens(written(tmp_path / "tokens", [5], sides=(64,)), SHA, (4, 4))
    config = PretrainConfig(**{**vars(SMALL), "upscale": 1, "steps": 2})
    grids = np.arange(3 * 64, dtype=np.uint16).reshape(3, 8, 8)
    places = set()
    for step in range(20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "batch", lambda *_: (grids, grids))
            seen = token_batch(stream, config, step, np.random.default_rng(step))
        assert torch.equal(seen[:, :16], seen[:, 16:])
        for k, window in enumerate(seen[:, :16].view(3, 4, 4).numpy()):
            y, x = divmod(int(window[0, 0]) - 64 * k, 8)
            assert np.array_equal(window, grids[k, y : y + 4, x : x + 4])
            places.add((y, x))
    assert {y for y, _ in places} == {x for _, x in places} == set(range(5))
    assert train(tiny.tokenizer(), stream, config, Run(tmp_path / "run")).config.upscale == 1


def test_a_state_from_before_presets_goes_on(tmp_path):
    tokenizer = tiny.tokenizer()
    train(tokenizer, pictures(4), SMALL, Run(tmp_path))
    state = torch.load(tmp_path / "state.pt")
    for name in ("warm", "decay", "epochs", "identity", "augment", "tokens"):
        state["config"].pop(name, None)
    torch.save(state, tmp_path / "state.pt")
    train(tokenizer, pictures(4), SMALL, Run(tmp_path))


def test_random_weights_are_not_the_identity(tmp_path):
    tokenizer = tiny.tokenizer()
    config = PretrainConfig(**{**vars(SMALL), "steps": 1, "lr": 1e-9})
    one, other = (
        train(tokenizer, pictures(3), PretrainConfig(**{**vars(config), "identity": is_one}), Run(tmp_path / str(is_one)))
        for is_one in (True, False)
    )
    assert one.nat_dec.layers()[0].mlp.fc2.weight.abs().max() < 1e-6
    assert other.nat_dec.layers()[0].mlp.fc2.weight.abs().max() > 1e-2
