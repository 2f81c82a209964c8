"""How a style is learnt."""

import dataclasses

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.reward import embed_texts
from stylerdalle.style import translate_with
from stylerdalle.training.run import Run
from stylerdalle.tune import TuneConfig, Tuner, crop_boxes, score_pictures, take_crops, tune

# logits of the tiny translator are so far apart that only a large softness lets a gradient through
SMALL = TuneConfig(steps=3, batch=2, size=32, views=2, rank=2, pairs_batch=3, softness=20)
PROMPT = "a ukiyo-e print"


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


def made_pairs(count: int = 4, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    photos = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return photos, 255 - photos


def test_tuning_changes_what_is_painted_and_leaves_the_models_alone(models, tmp_path):
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    states = []
    style = tune(*models, pictures(3), PROMPT, dataclasses.replace(SMALL, lr=0.05), Run(tmp_path), callback=states.append)
    for model, tensors in zip(models, before, strict=True):
        assert all(torch.equal(v, tensors[k]) for k, v in model.state_dict().items())
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
    assert [s.step for s in states] == [1, 2, 3]
    assert states[-1].preview.shape == (3, 32, 32)
    assert states[0].kl == pytest.approx(0, abs=1e-3)
    read = models[0].embed(torch.arange(16)[None])
    assert not torch.allclose(translate_with(models[1], read, [(style, 1.0)]), models[1](read))
    assert style.prompt == PROMPT


def test_the_reward_has_a_gradient_into_the_adapter(models):
    from stylerdalle.style import Style, new_adapter

    tuner = Tuner(*models, PROMPT, SMALL)
    tensors = new_adapter(models[1], 2, torch.Generator().manual_seed(0))
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss, score, _, out = tuner.reward_loss(images, Style(tensors), torch.Generator().manual_seed(0))
    loss.backward()
    assert tensors["outNet.bias.delta"].grad.abs().sum() > 0
    assert -1 <= score <= 1
    assert out.shape == images.shape


def test_pairs_teach_their_own_tokens(models, tmp_path):
    config = dataclasses.replace(SMALL, steps=0, pairs_steps=60, pairs_lr=0.02)
    losses = []
    pairs = made_pairs()
    style = tune(*models, pictures(3), PROMPT, config, Run(tmp_path), pairs, lambda s: losses.append(s.loss))
    assert losses[-1] < 0.7 * losses[0]
    tuner = Tuner(*models, PROMPT, config)
    content, target = tuner.encode_pairs(*pairs)
    before, after = (float(tuner.pairs_loss(content, target, s)) for s in (None, style))
    assert after < 0.7 * before


def test_a_stopped_run_goes_on_where_it_was(models, tmp_path):
    whole = tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "whole"))

    def stop(state):
        if state.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "broken"), callback=stop)
    steps = []
    resumed = tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "broken"), callback=lambda s: steps.append(s.step))
    assert steps == [3]
    for name, tensor in whole.tensors.items():
        assert torch.allclose(tensor, resumed.tensors[name], atol=1e-5), name


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
        Tuner(*models, PROMPT, dataclasses.replace(SMALL, size=40))


def test_a_rank_above_the_width_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="rank 33 is out of range: 1 to 32"):
        tune(*models, pictures(1), PROMPT, dataclasses.replace(SMALL, rank=33), Run(tmp_path))


def test_crops_lie_in_the_picture():
    for top, left, side in crop_boxes(50, 32, torch.Generator().manual_seed(0)):
        assert 16 <= side <= 32
        assert top >= 0 and left >= 0 and top + side <= 32 and left + side <= 32
    assert take_crops(torch.rand(2, 3, 32, 32), [(0, 0, 16), (4, 8, 20)], 8).shape == (2, 3, 8, 8)


def test_scores_are_cosines_of_each_picture(models):
    model = models[2]
    scores = score_pictures(model, torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), PROMPT)
    assert scores.shape == (3,)
    assert (scores.abs() <= 1).all()
    assert scores.std() > 0
    assert embed_texts(model, [PROMPT]).norm() == pytest.approx(1, abs=1e-5)
