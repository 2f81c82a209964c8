"""How the feature network is learnt, with a tiny stand-in for the instrument."""

from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle import checkpoint
from stylerdalle.features import FeatureNetwork, FeatureShape
from stylerdalle.learn.crops import to_tensor
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.training import features
from stylerdalle.training.features import FeatureConfig, Imitation, classes_of, nearest_style, train


def instrument(images: torch.Tensor) -> list[torch.Tensor]:
    """Colours and their differences at 1/2, 1/4, 1/8 of the side."""
    levels = [F.avg_pool2d(images, k) for k in (2, 4, 8)]
    return [torch.cat([x, x - x.roll(1, -1)], 1) for x in levels]


@pytest.fixture
def works(monkeypatch) -> list[Picture]:
    """Two styles of four works each, and photos."""
    monkeypatch.setattr(features, "FEWEST", 4)
    kinds = [("a", "art"), ("b", "art"), ("photo", "photo")]
    return [Picture(p.key, p.data, style=kinds[i // 4][0], kind=kinds[i // 4][1]) for i, p in enumerate(pictures(12))]


CONFIG = FeatureConfig(steps=6, batch=4, size=32)


def test_styles_with_enough_works_are_classes(works):
    assert classes_of(works) == ["a", "b"]
    with pytest.raises(ValueError, match="no style has 4 works"):
        classes_of(works[8:]) or train(works[8:], CONFIG, None, instrument)


def test_the_same_seed_gives_the_same_network_with_balanced_channels(works, tmp_path):
    first, second = (train(works, CONFIG, Run(tmp_path / name), instrument) for name in ("first", "second"))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    means = [level.mean() for level in first(torch.cat([to_tensor([np.asarray(p.open())]) for p in works]))]
    assert all(0.2 < mean < 5 for mean in means)


def test_imitation_falls_below_the_mean(works):
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1)))
    images = F.interpolate(torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0)), 32, mode="bilinear")
    stages = instrument(images)
    scales = [(s.mean((0, 2, 3), keepdim=True), s.std((0, 2, 3), keepdim=True)) for s in stages]
    imitation = Imitation(network, scales, 2)
    optimizer = torch.optim.Adam(imitation.parameters(), 1e-2)
    for _ in range(80):
        error, named = imitation.losses(images, stages, torch.tensor([0, 1, -1, -1, 0, 1, 0, 1]))
        optimizer.zero_grad()
        (error + named).backward()
        optimizer.step()
    assert error < 0.7 and named < 0.6


def test_a_network_is_the_same_after_it_was_saved(tmp_path):
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureShape((4, 6), (1, 2))).half().float()
    checkpoint.save_features(tmp_path / "features.safetensors", network, licence="MIT")
    loaded = checkpoint.load_features(tmp_path / "features.safetensors")
    assert loaded.shape == network.shape
    picture = torch.rand(1, 3, 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(network(picture), loaded(picture), strict=True))


def test_nearest_works_are_of_the_same_style_where_marks_differ():
    torch.manual_seed(0)
    network = FeatureNetwork(FeatureShape((8, 8, 8, 8), (1, 1, 1, 1)))

    def work(i: int, vertical: bool) -> Picture:
        rng = np.random.default_rng(i)
        wave = (127 + 90 * np.sin(np.arange(64) * 0.8 + rng.uniform(0, 6))).astype(np.uint8)
        plane = np.tile(wave, (64, 1)) if vertical else np.tile(wave[:, None], (1, 64))
        stream = BytesIO()
        Image.fromarray(np.stack([plane] * 3, -1)).save(stream, "PNG")
        return Picture(str(i), stream.getvalue(), style=str(vertical), kind="art")

    right, chance = nearest_style(network, [work(i, i % 2 == 0) for i in range(8)], 64)
    assert right == 1 and chance == pytest.approx(3 / 7)
