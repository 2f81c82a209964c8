"""Memory that does not suffice: the work is done in halves with the same result, and where nothing fits one sentence says so."""

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

import stylerdalle
from stylerdalle.cli.main import main
from stylerdalle.device import OutOfMemory, in_batches, in_halves, out_of_memory
from stylerdalle.learn.pretraining import PretrainConfig, train
from stylerdalle.learn.run import Run
from stylerdalle.tokenizers import vqgan
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.style import merged
from stylerdalle.translator.translate import translate

# as CUDA, the CPU, Python, MPS and cuDNN say it
ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    ),
    MemoryError(),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
)


class Limit:
    """A function that fails with an error of missing memory for more than `most`, by `size` of its first argument."""

    def __init__(self, function, size, most, error):
        self.function, self.size, self.most, self.error = function, size, most, error
        self.sizes = []

    def __call__(self, first, *others, **options):
        self.sizes.append(self.size(first))
        if self.sizes[-1] > self.most:
            raise self.error
        return self.function(first, *others, **options)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:20])
def test_every_way_to_say_it_is_known(error):
    assert out_of_memory(error)
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
def test_tiles_are_halved_and_give_the_same_tokens_and_pictures(error, bundle, monkeypatch):
    tokenizer = bundle.tokenizer
    images = torch.rand(2, 3, 200, 328, generator=torch.Generator().manual_seed(0))
    tokens = encode(tokenizer, images)
    shown = decode(tokenizer, tokens)
    reads = Limit(tokenizer.encode, lambda x: x.shape[-2] * x.shape[-1], 150 * 330, error)
    paints = Limit(tokenizer.decode, lambda x: x.shape[-2] * x.shape[-1], 800, error)
    monkeypatch.setattr(tokenizer, "encode", reads, raising=False)
    monkeypatch.setattr(tokenizer, "decode", paints, raising=False)
    again = encode(tokenizer, images)
    assert torch.equal(again.grid, tokens.grid) and torch.allclose(again.photo, tokens.photo, atol=1e-6)
    assert torch.allclose(decode(tokenizer, tokens), shown, atol=1e-5)
    for limit in (reads, paints):
        assert max(limit.sizes) > limit.most >= min(limit.sizes)


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: type(error).__name__)
def test_fewer_windows_at_once_give_the_same_tokens(error, bundle, monkeypatch):
    tokens = encode(bundle.tokenizer, torch.rand(1, 3, 128, 200, generator=torch.Generator().manual_seed(0)))
    style = tiny.style(bundle.translator, "ukiyo-e")
    want = translate(bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)])
    assert merged(bundle.translator, [(style, 1.0)])
    limit = Limit(bundle.translator.forward, len, 3, error)
    monkeypatch.setattr(bundle.translator, "forward", limit)
    found = translate(bundle.translator, bundle.tokenizer, tokens, [(style, 1.0)])
    assert torch.equal(found.grid, want.grid) and torch.allclose(found.mixture, want.mixture, atol=1e-5)
    assert limit.sizes[:3] == [8, 4, 2] and max(limit.sizes[2:]) == 2  # what did not fit is not tried again


def test_a_tokenizer_with_attention_takes_smaller_tiles(monkeypatch):
    tokenizer = tiny.vqgan()
    monkeypatch.setattr(vqgan, "VQGAN_TILE", 64)
    tokens = encode(tokenizer, torch.rand(1, 3, 200, 240, generator=torch.Generator().manual_seed(0)))
    whole = decode(tokenizer, tokens)
    limit = Limit(tokenizer.decode_embedded, lambda x: x.shape[-2] * x.shape[-1], 40 * 40, MemoryError())
    monkeypatch.setattr(tokenizer, "decode_embedded", limit)
    parts = decode(tokenizer, tokens)
    assert parts.shape == whole.shape and (parts - whole).abs().mean() < 0.1
    assert max(limit.sizes) > 40 * 40 >= limit.sizes[-1]


@pytest.mark.parametrize("part", ["encode", "translate", "decode"])
def test_where_nothing_fits_one_sentence_says_so_at_once(part, bundle, monkeypatch):
    owner, name = (bundle.translator, "forward") if part == "translate" else (bundle.tokenizer, part)
    limit = Limit(None, lambda x: 1, 0, MemoryError())
    monkeypatch.setattr(owner, name, limit, raising=False)
    monkeypatch.setattr(bundle.tokenizer, "decode_mixture", limit if part == "decode" else bundle.tokenizer.decode_mixture)
    with pytest.raises(OutOfMemory, match="there is not enough memory for a picture of this size: take a smaller one") as caught:
        stylerdalle.stylize(torch.rand(1, 3, 128, 128), "ukiyo-e", bundle)
    assert "\n" not in str(caught.value)
    assert len(limit.sizes) < 12
    assert isinstance(caught.value, torch.OutOfMemoryError)  # which a host knows


def test_other_errors_are_not_taken_for_missing_memory(bundle, monkeypatch):
    limit = Limit(None, lambda x: 1, 0, RuntimeError("a bug"))
    monkeypatch.setattr(bundle.translator, "forward", limit)
    with pytest.raises(RuntimeError, match="a bug"):
        stylerdalle.stylize(torch.rand(1, 3, 128, 128), "ukiyo-e", bundle)
    assert len(limit.sizes) == 1


def test_the_command_line_says_it_in_one_line(bundle_folder, tmp_path, monkeypatch, capsys):
    from pathlib import Path

    monkeypatch.setattr("stylerdalle.tokenizers.dvae.DVAE.encode", Limit(None, lambda x: 1, 0, MemoryError()))
    photo = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
    words = ["--style", "ukiyo-e", "--bundle", str(bundle_folder), "--device", "cpu", "--output", str(tmp_path / "a.png")]
    assert main(["stylize", str(photo), *words]) == 1
    error = capsys.readouterr().err
    assert "there is not enough memory" in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_training_says_it_and_resumes(tmp_path, monkeypatch):
    config = PretrainConfig(width=32, heads=2, encoder_layers=1, decoder_blocks=1, grid=4, steps=4, batch=3)
    whole = train(tiny.tokenizer(), pictures(6), config, Run(tmp_path / "whole"), minutes_between_saves=0)
    real, steps = torch.Tensor.backward, []

    def backward(self, *args, **options):
        steps.append(1)
        if len(steps) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(
        OutOfMemory, match="for step 3 of the training, which resumes from its last save: lower its batch or size"
    ):
        train(tiny.tokenizer(), pictures(6), config, Run(tmp_path / "broken"), minutes_between_saves=0)
    resumed = train(tiny.tokenizer(), pictures(6), config, Run(tmp_path / "broken"), minutes_between_saves=0)
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name


def test_batches_and_boxes_cover_everything_once():
    done: list[int] = []

    def some(numbers):
        if len(numbers) > 3:
            raise MemoryError
        done.extend(numbers)

    assert in_batches(some, range(10), 16) == 2
    assert done == list(range(10))
    seen = torch.zeros(50, 70)

    def box(part):
        top, bottom, left, right = part
        if (bottom - top) * (right - left) > 300:
            raise MemoryError
        seen[top:bottom, left:right] += 1

    in_halves(box, (0, 50, 0, 70), 8)
    assert (seen == 1).all()
