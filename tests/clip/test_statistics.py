"""The image tower that reads statistics."""

import pytest
import torch
import torch.nn.functional as F

from stylerdalle.clip import scores
from stylerdalle.clip.statistics import (
    LITE0,
    Bottleneck,
    SameConv2d,
    StatisticsTower,
    StyleClipShape,
    build_style_clip,
    channel_statistics,
    columns,
)

SMALL = StyleClipShape(32, (0, 2, 5), hidden=8, embed_dim=16, text_width=64, text_layers=1)


@pytest.fixture(scope="module")
def tower() -> StatisticsTower:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return StatisticsTower(SMALL).eval().requires_grad_(False)


def test_statistics_are_means_and_deviations_of_channels():
    layer = torch.rand(2, 3, 5, 7)
    found = channel_statistics([layer, 2 * layer])
    assert found.shape == (2, 12)
    assert torch.allclose(found[:, :3], layer.mean((2, 3)))
    assert torch.allclose(found[:, 3:6], layer.std((2, 3), unbiased=False), atol=1e-3)
    assert torch.allclose(found[:, 6:9], 2 * found[:, :3])


def test_statistics_do_not_ask_where_in_the_picture():
    layer = torch.rand(1, 4, 6, 6)
    assert torch.allclose(channel_statistics([layer]), channel_statistics([layer.roll((2, 3), (2, 3)).flip(3)]), atol=1e-6)


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (8, 5, 2), (7, 3, 2), (9, 5, 2), (6, 3, 1)])
def test_padding_is_tensorflows(size, kernel, stride):
    layer = SameConv2d(1, 1, kernel, stride, bias=False)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    x = torch.rand(1, 1, size, size)
    expected = F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), layer.weight, stride=stride)
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_a_bottleneck_adds_its_input_where_the_shapes_agree():
    block = Bottleneck(4, 4, 3, 1)
    torch.nn.init.zeros_(block.project.weight)
    torch.nn.init.zeros_(block.project.bias)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert Bottleneck(4, 6, 5, 2)(x).shape == (1, 6, 3, 3)


def test_layers_after_the_last_one_read_are_left_out(tower):
    assert len(tower.blocks) == 5
    assert SMALL.widths == (32, LITE0[1][2], LITE0[4][2])
    assert tower.look(torch.rand(2, 3, 32, 32)).shape == (2, SMALL.statistics)


def test_statistics_of_some_layers_are_columns_of_those_of_all(tower):
    every = StatisticsTower(StyleClipShape(32, tuple(range(6)), hidden=8, embed_dim=16, text_width=64, text_layers=1))
    every.conv1.load_state_dict(tower.conv1.state_dict())
    every.blocks.load_state_dict(tower.blocks.state_dict())
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(every.look(x)[:, columns(every.shape.read, SMALL.read)], tower.look(x))


def test_the_reward_has_a_gradient_in_the_pixels_even_of_a_plain_picture():
    model = build_style_clip(SMALL).eval().requires_grad_(False)
    images = torch.full((1, 3, 48, 48), 0.5, requires_grad=True)
    scores.cosine(scores.embed_images(model, images), scores.embed_texts(model, ["art"])).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.abs().sum() > 0


def test_it_keeps_clips_interface():
    model = build_style_clip(SMALL).eval()
    assert model.visual.input_resolution == 32
    assert model.dtype == torch.float32
    assert model.encode_image(torch.rand(2, 3, 32, 32)).shape == model.encode_text(torch.ones(2, 77).long()).shape == (2, 16)
    assert scores.embed_images(model.to(torch.bfloat16), torch.rand(2, 3, 40, 50)).dtype == torch.float32


@pytest.mark.parametrize("read", [(), (2, 1), (1, 1), (-1, 2), (3, 17)])
def test_layers_that_are_not_there_are_refused(read):
    with pytest.raises(ValueError, match="ascending numbers from 0 to 16"):
        StyleClipShape(read=read)


def test_a_text_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        StyleClipShape(text_width=100)
