"""Loops do not read numbers back from the device: on a GPU each reading waits until all work before it is done."""

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylerdalle.tokenizers.codec import encode
from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.translator.translate import translate
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.objective import Objective


class Readings(TorchDispatchMode):
    """Counts numbers that are read from tensors one by one: `.item()`, `float()`, `bool()`."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


@pytest.mark.parametrize("method", METHODS)
def test_a_tuning_step_reads_no_more_for_more_photos(models, method):
    objective = Objective(*models, "a ukiyo-e print", TuneConfig.of(method, size=32, views=2, rank=2, kl_weight=0.1))
    tensors = new_adapter(models[1], 2, torch.Generator().manual_seed(0))
    found = []
    for count in (1, 3):
        style = Style({name: tensor.clone().requires_grad_(True) for name, tensor in tensors.items()})
        photos = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        generators = [torch.Generator().manual_seed(k) for k in range(count)]
        with Readings() as readings:
            objective.step(photos, [objective.text("")] * count, style, generators)
        found.append(readings.count)
    assert found[0] == found[1]


def test_translating_reads_no_more_for_more_windows(models):
    tokenizer, translator, _ = models
    style, found = tiny.style(translator, "ukiyo-e"), []
    for side in (32, 128):
        tokens = encode(tokenizer, torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
        with Readings() as readings:
            translate(translator, tokenizer, tokens, [(style, 1.0)])
        found.append(readings.count)
    assert found[0] == found[1]
