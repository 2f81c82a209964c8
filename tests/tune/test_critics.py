"""Critics that learn to tell exemplars from what is painted."""

import dataclasses

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.learn.run import Run
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.critics import RISE, Critics
from stylerdalle.tune.exemplars import Exemplars
from stylerdalle.tune.loop import tune
from stylerdalle.tune.objective import Objective

SMALL = TuneConfig(steps=4, batch=2, size=32, views=1, rank=2, softness=20, exemplar_size=64, check_every=2)
PROMPT = "a ukiyo-e print"


@pytest.fixture(scope="module")
def exemplars() -> Exemplars:
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1))).requires_grad_(False)
    wave = (0.5 + 0.4 * torch.sin(torch.arange(96) * 0.8)).expand(1, 3, 64, 96)
    return Exemplars(network, [wave, torch.rand(1, 3, 80, 64, generator=torch.Generator().manual_seed(1))], 64)


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


def test_they_learn_to_tell_exemplars_from_other_pictures(exemplars):
    critics = Critics(exemplars, 32)
    optimizer = torch.optim.Adam(critics.parameters(), lr=2e-3)
    grey = torch.full((4, 3, 32, 32), 0.5) + 0.02 * torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(0)
    real = critics.crops(4, generator)
    assert torch.equal(critics(exemplars.network(real)), torch.zeros(4))  # they have learnt nothing, so they say nothing
    for _ in range(2 * RISE):
        optimizer.zero_grad()
        critics.learn(grey, generator)
        optimizer.step()
    assert critics(exemplars.network(real)).mean() > critics(exemplars.network(grey)).mean() + 0.3


def test_crops_are_parts_of_the_exemplars_of_the_size_asked_for(exemplars):
    crops = Critics(exemplars, 48).crops(6, torch.Generator().manual_seed(0))
    assert crops.shape == (6, 3, 48, 48) and crops.min() >= 0 and crops.max() <= 1
    assert Critics(exemplars, 200).crops(1, torch.Generator().manual_seed(0)).shape[-1] == 200  # larger than any exemplar


def test_the_reward_has_no_gradient_for_the_critics_and_one_for_the_picture(exemplars, models):
    objective = Objective(*models, PROMPT, SMALL, exemplars)
    assert objective.critics is not None
    objective.critics.age.fill_(RISE)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3)).requires_grad_(True)
    objective.critics(exemplars.network(picture)).sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in objective.critics.parameters())


def test_a_higher_score_is_a_higher_reward(exemplars, models):
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    rewards = []
    for weight in (0.0, 1.0):
        objective = Objective(*models, PROMPT, dataclasses.replace(SMALL, critics_weight=weight), exemplars)
        if objective.critics:
            objective.critics.age.fill_(RISE)
            gain = float(objective.critics(exemplars.network(photo)))
        rewards.append(float(objective.judge(photo, photo, objective.text(""), [(0, 0, 32)])[0]))
    assert rewards[1] - rewards[0] == pytest.approx(gain, abs=1e-3)


def test_a_run_with_critics_that_is_resumed_ends_as_an_unbroken_one(exemplars, models, tmp_path):
    class Stop(Exception):
        pass

    def stop(state) -> None:
        if state.step == 2:
            raise Stop

    whole = tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "whole"), exemplars=exemplars)
    with pytest.raises(Stop):
        tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "broken"), exemplars=exemplars, callback=stop)
    again = tune(*models, pictures(3), PROMPT, SMALL, Run(tmp_path / "broken"), exemplars=exemplars)
    assert whole.rows == again.rows
    for name, tensor in whole.style.tensors.items():
        torch.testing.assert_close(tensor, again.style.tensors[name], rtol=0, atol=0)


def test_without_exemplars_or_with_weight_0_there_are_no_critics(exemplars, models):
    assert Objective(*models, PROMPT, SMALL).critics is None
    assert Objective(*models, PROMPT, dataclasses.replace(SMALL, critics_weight=0), exemplars).critics is None
