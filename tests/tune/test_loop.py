"""How a style is learnt."""

import dataclasses

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.clip.scores import embed_texts, score_pictures
from stylerdalle.learn.run import Run
from stylerdalle.translator.style import translate_with
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.loop import hold_out, tune
from stylerdalle.tune.objective import Objective

# logits of the tiny translator are so far apart that only a large softness lets a gradient through
SMALL = TuneConfig(steps=3, batch=2, size=32, views=2, rank=2, pairs_batch=3, softness=20)
PROMPT = "a ukiyo-e print"


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


def made_pairs(count: int = 4, side: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    photos = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return photos, 255 - photos, torch.arange(2 * count).view(count, 2)


def test_tuning_changes_what_is_painted_and_leaves_the_models_alone(models, tmp_path):
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    states = []
    learnt = tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, lr=0.05), Run(tmp_path), callback=states.append)
    for model, tensors in zip(models, before, strict=True):
        assert all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert [s.step for s in states] == [1, 2, 3]
    assert states[-1].preview.shape == (3, 32, 32)
    assert states[0].kl == pytest.approx(0, abs=1e-3)
    read = models[0].embed(torch.arange(16)[None])
    assert not torch.allclose(translate_with(models[1], read, [(learnt.style, 1.0)]), models[1](read))
    assert learnt.style.prompt == PROMPT


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("upscale", [1, 2])
def test_a_style_is_tuned_on_a_vqgan_too(method, upscale, tmp_path):
    tokenizer = tiny.vqgan()
    config = TuneConfig.of(method, steps=1, batch=1, size=32, views=1, rank=2, lr=0.05, pairs_weight=0.1, pairs_colour_weight=0.1)
    learnt = tune(
        tokenizer,
        tiny.translator(tokenizer, upscale),
        tiny.clip_model(),
        pictures(2),
        PROMPT,
        config,
        Run(tmp_path),
        made_pairs(),
    )
    assert any(tensor.abs().sum() > 0 for name, tensor in learnt.style.tensors.items() if name.endswith("lora_b"))


def test_pairs_teach_their_own_tokens(models, tmp_path):
    config = dataclasses.replace(SMALL, steps=0, pairs_steps=60, pairs_lr=0.02)
    losses = []
    pairs = made_pairs()
    style = tune(*models, pictures(3), PROMPT, config, Run(tmp_path), pairs, lambda s: losses.append(s.loss)).style
    assert losses[-1] < 0.7 * losses[0]
    tuner = Objective(*models, PROMPT, config)
    content, target = tuner.encode_pairs(*pairs[:2])
    before, after = (float(tuner.pairs_loss(content, target, pairs[2], s)) for s in (None, style))
    assert after < 0.7 * before


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ticks", [1, 4, 8, 11])
def test_a_run_cancelled_anywhere_goes_on_as_if_it_had_not_been(models, method, ticks, tmp_path):
    options = {"steps": 3, "batch": 2, "size": 32, "views": 2, "rank": 2, "lr": 0.01, "check_every": 1, "kl_weight": 0.1}
    config = TuneConfig.of(method, **options)
    whole = tune(*models, pictures(6), PROMPT, config, Run(tmp_path / "whole"))
    left = ticks

    def stop():
        nonlocal left
        left -= 1
        if left == 0:
            raise Stop

    with pytest.raises(Stop):
        tune(*models, pictures(6), PROMPT, config, Run(tmp_path / "broken"), tick=stop)
    resumed = tune(*models, pictures(6), PROMPT, config, Run(tmp_path / "broken"))
    assert len(whole.rows) == 3
    for one, other in zip(whole.rows, resumed.rows, strict=True):
        assert {k: float(v) for k, v in one.items()} == pytest.approx({k: float(v) for k, v in other.items()}, abs=1e-5)
    assert resumed.best_step == whole.best_step
    for name, tensor in whole.style.tensors.items():
        assert torch.allclose(tensor, resumed.style.tensors[name], atol=1e-5), name


def test_a_run_killed_after_its_last_save_drops_the_rows_beyond_it(models, tmp_path):
    whole = tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path))
    state = torch.load(tmp_path / "state.pt")
    curve = tmp_path / "curve.csv"
    assert state["step"] == 3
    curve.write_text(curve.read_text() + "4,1.0,0.5,0.1,\n5,0.")  # logged, never saved, the last one cut short
    assert tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path)).rows == whole.rows


@pytest.mark.parametrize(("change", "prompt"), [({"rank": 3}, PROMPT), ({}, "pixel art"), ({"lr": 0.5}, PROMPT)])
def test_a_run_is_not_resumed_with_other_options(models, change, prompt, tmp_path):
    tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path))
    with pytest.raises(ValueError, match="was started with"):
        tune(*models, pictures(3), prompt, dataclasses.replace(SMALL, **change), Run(tmp_path))


def test_a_run_can_be_lengthened(models, tmp_path):
    tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path))
    assert tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, steps=4), Run(tmp_path)).steps == 4


def test_a_loss_that_is_not_a_number_stops_the_run_and_its_last_state_is_kept(models, tmp_path, monkeypatch):
    tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path))
    before = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr("stylerdalle.clip.scores.cosine", lambda images, texts: (images * texts).sum(-1) * float("nan"))
    with pytest.raises(ValueError, match="the loss became nan at step 4: lower the learning rate"):
        tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, steps=5), Run(tmp_path))
    assert (tmp_path / "state.pt").read_bytes() == before


def test_the_adapter_with_the_best_held_out_score_is_returned(models, tmp_path, monkeypatch):
    scores = iter([0.1, 0.4, 0.2, 0.3])
    monkeypatch.setattr("stylerdalle.tune.guard.Guard.score", lambda self, style, tick: next(scores))
    config = dataclasses.replace(SMALL, steps=4, check_every=1, lr=0.05)
    learnt = tune(*models, pictures(6), PROMPT, config, Run(tmp_path / "four"))
    assert (learnt.best_step, learnt.held_out) == (2, (0.1, 0.4))
    assert [float(row["held_out"]) for row in learnt.rows] == [0.1, 0.4, 0.2, 0.3]


def test_the_run_stops_when_the_held_out_score_no_longer_rises(models, tmp_path, monkeypatch):
    monkeypatch.setattr("stylerdalle.tune.guard.Guard.score", lambda self, style, tick: 0.5)
    config = dataclasses.replace(SMALL, steps=50, check_every=1, patience=3)
    assert tune(*models, pictures(6), PROMPT, config, Run(tmp_path)).steps == 4
    assert tune(*models, pictures(6), PROMPT, config, Run(tmp_path)).steps == 4  # nor when it is taken up again


def test_the_run_stops_beyond_its_kl_budget_and_keeps_what_was_within(models, tmp_path):
    config = dataclasses.replace(SMALL, steps=50, check_every=1, lr=0.2, kl_budget=0.05, kl_weight=0.0)
    learnt = tune(*models, pictures(6), PROMPT, config, Run(tmp_path))
    assert learnt.steps < 50
    assert float(learnt.rows[-1]["kl"]) > 0.05 >= float(learnt.rows[learnt.best_step - 1]["kl"])


@pytest.mark.parametrize(("given", "train", "kept"), [(1, 1, 1), (4, 4, 4), (5, 4, 1), (100, 96, 4)])
def test_a_fifth_of_the_photos_at_most_is_held_out(given, train, kept):
    tuned_on, held_out = hold_out(pictures(given), SMALL)
    assert (len(tuned_on), len(held_out)) == (train, kept)


def test_the_options_of_a_method_are_its_own_unless_given():
    paper = TuneConfig.of("reinforce", steps=7)
    assert (paper.lr, paper.rank, paper.batch, paper.kl_weight, paper.steps) == (1e-6, 0, 16, 0, 7)
    assert TuneConfig.of("reinforce", lr=1e-3).lr == 1e-3
    assert TuneConfig.of("direct") == TuneConfig()


def test_the_minutes_limit_stops_early(models, tmp_path):
    states = []
    tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, steps=50, minutes=1e-6), Run(tmp_path), callback=states.append)
    assert len(states) == 1


def test_no_pictures_are_refused(models, tmp_path):
    with pytest.raises(ValueError, match="give at least one photo"):
        tune(*models, [], PROMPT, SMALL, Run(tmp_path))


def test_pairs_steps_without_pairs_are_refused(models, tmp_path):
    with pytest.raises(ValueError, match="need made pairs"):
        tune(*models, pictures(1), PROMPT, dataclasses.replace(SMALL, pairs_steps=1), Run(tmp_path))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"samples": 1}, "2 or more"),
        ({"lr": 0.0}, "between 0 and 1"),
        ({"patch_weight": 0, "directional_weight": 0}, "nothing would be learnt"),
        ({"method": "magic"}, "'magic' is not known"),
        ({"steps": -1}, "need 1 to 1,000,000"),
        ({"steps": 10**9}, "need 1 to 1,000,000"),
        ({"batch": 0}, "1 or more"),
    ],
)
def test_impossible_options_are_refused_at_once(change, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(SMALL, **change)


def test_a_size_that_is_no_multiple_of_the_window_is_refused(models):
    with pytest.raises(ValueError, match="not a multiple of 32 px"):
        Objective(*models, PROMPT, dataclasses.replace(SMALL, size=40))


def test_a_rank_above_the_width_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="rank 33 is out of range: 1 to 32"):
        tune(*models, pictures(1), PROMPT, dataclasses.replace(SMALL, rank=33), Run(tmp_path))


def test_scores_are_cosines_of_each_picture(models):
    model = models[2]
    scores = score_pictures(model, torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), PROMPT)
    assert scores.shape == (3,)
    assert (scores.abs() <= 1).all()
    assert scores.std() > 0
    assert embed_texts(model, [PROMPT]).norm() == pytest.approx(1, abs=1e-5)


def test_a_run_begins_with_the_style_given(models, tmp_path):
    first = tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, lr=0.05), Run(tmp_path / "first")).style
    config = dataclasses.replace(SMALL, steps=1, lr=1e-9)
    again = tune(*models, pictures(3), PROMPT, config, Run(tmp_path / "again"), start=first).style
    assert all(torch.allclose(tensor, first.tensors[name], atol=1e-6) for name, tensor in again.tensors.items())


def test_a_style_of_another_rank_cannot_be_started_from(models, tmp_path):
    first = tune(*models, pictures(1), PROMPT, dataclasses.replace(SMALL, steps=1), Run(tmp_path / "first")).style
    with pytest.raises(ValueError, match="it has rank 2, the new one 3"):
        tune(*models, pictures(1), PROMPT, dataclasses.replace(SMALL, rank=3), Run(tmp_path / "other"), start=first)
