"""The VQGAN tokenizer against taming-transformers: against its recorded results, vqgan.json, and itself where installed."""

import json
from dataclasses import asdict, replace

import golden_vqgan
import pytest
import tiny
import torch

from stylerdalle.tokenizers import vqgan
from stylerdalle.tokenizers.vqgan import VQGAN, VQGANConfig


@pytest.fixture(scope="module")
def model() -> VQGAN:
    return tiny.vqgan()


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height * 1000 + width))


def some_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(64, shape, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def oracle() -> torch.nn.Module:
    try:
        theirs = golden_vqgan.oracle(golden_vqgan.CONFIG)
    except ImportError as error:
        pytest.skip(f"{error}: pip install --no-deps taming-transformers-rom1504 (the recorded values are tested anyway)")
    theirs.load_state_dict(tiny.vqgan().state_dict())
    return theirs


@torch.inference_mode()
def test_tokens_and_pixels_are_those_recorded_of_taming_transformers(model):
    recorded = json.loads(golden_vqgan.FILE.read_text())
    assert model.encode(golden_vqgan.picture())[0].tolist() == recorded["tokens"]
    pixels = model.decode(golden_vqgan.code_grid())[0, :, ::4, ::4].flatten(1)
    assert torch.allclose(pixels, torch.tensor(recorded["pixels"]), atol=1e-4)


@torch.inference_mode()
def test_the_record_is_what_taming_transformers_gives(oracle):
    recorded, now = json.loads(golden_vqgan.FILE.read_text()), golden_vqgan.made_by(oracle)
    assert now["tokens"] == recorded["tokens"]
    assert torch.allclose(torch.tensor(now["pixels"]), torch.tensor(recorded["pixels"]), atol=1e-4)


@torch.inference_mode()
def test_at_full_size_names_logits_and_pixels_are_those_of_taming_transformers(oracle):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ours, theirs = VQGAN(VQGANConfig()).eval(), golden_vqgan.oracle(VQGANConfig())
    theirs.load_state_dict(ours.state_dict())
    images, tokens = picture(64, 48), torch.arange(48).view(1, 8, 6) * 170
    assert torch.allclose(ours.logits(ours.features(images)), golden_vqgan.oracle_logits(theirs, images), atol=1e-4)
    assert torch.allclose(ours.decode(tokens), golden_vqgan.oracle_pixels(theirs, tokens), atol=1e-4)


def test_the_defaults_are_the_sizes_of_rudalles_checkpoint():
    with torch.device("meta"):
        model = VQGAN(VQGANConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert (model.downsample, model.vocab_size, model.embed_dim) == (8, 8192, 256)
    assert shapes["encoder.down.3.attn.1.q.weight"] == (512, 512, 1, 1)
    assert shapes["decoder.up.2.block.0.nin_shortcut.weight"] == (256, 512, 1, 1)
    assert shapes["quantize.proj.weight"] == (8192, 256, 1, 1)
    absent = ("encoder.down.2.attn", "encoder.down.3.downsample", "decoder.up.0.upsample")
    assert not any(name.startswith(absent) for name in shapes)


def test_the_embedding_is_the_row_of_the_codebook(model):
    tokens = some_tokens(2, 3, 5)
    assert torch.equal(model.embed(tokens), model.state_dict()["quantize.embed.weight"][tokens])


def test_decode_soft_of_one_hot_is_decode(model):
    tokens = some_tokens(2, 3, 4)
    one_hot = torch.nn.functional.one_hot(tokens, 64).permute(0, 3, 1, 2).float()
    assert torch.allclose(model.decode_soft(one_hot), model.decode(tokens), atol=1e-5)


def test_decode_soft_has_a_gradient_in_the_probabilities(model):
    probabilities = torch.full((1, 64, 2, 2), 1 / 64).requires_grad_(True)
    model.decode_soft(probabilities).mean().backward()
    assert probabilities.grad.abs().sum() > 0


@torch.inference_mode()
def test_the_same_picture_always_gives_the_same_tokens(model):
    assert torch.equal(model.encode(picture(24, 32)), model.encode(picture(24, 32)))


@torch.inference_mode()
def test_few_logits_at_once_give_the_same_tokens(model, monkeypatch):
    whole = model.encode(picture(48, 40))
    monkeypatch.setattr(vqgan, "LOGITS", 64 * 10 * 5)  # five of twelve rows
    assert torch.equal(model.encode(picture(48, 40)), whole)


@torch.inference_mode()
def test_no_piece_of_a_large_picture_is_larger_than_a_tile(monkeypatch):
    monkeypatch.setattr(vqgan, "VQGAN_TILE", 24)
    monkeypatch.setattr(vqgan, "OVERLAP", 8)
    model, seen = tiny.vqgan(), []
    model.encoder.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2:]))
    model.decoder.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2:]))
    images = picture(4 * 61, 4 * 30)
    tokens = model.encode(images)
    encoded = len(seen)
    assert tokens.shape == (1, 61, 30)
    assert model.decode(tokens).shape == images.shape
    assert encoded > 4
    assert max(max(shape) for shape in seen[:encoded]) <= 24 * 4
    assert max(max(shape) for shape in seen[encoded:]) <= 24


@torch.inference_mode()
def test_where_tiles_meet_a_smooth_picture_has_no_seam(model, monkeypatch):
    """Steps between neighbouring columns: where tiles overlap no larger than elsewhere; tiles side by side show a seam."""
    monkeypatch.setattr(vqgan, "VQGAN_TILE", 40)
    codes = torch.randn(1, 16, 3, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(codes, (40, 64), mode="bicubic")
    out = model.decode_mixture(smooth)
    apart = torch.cat([model.decode_mixture(part) for part in smooth.split(32, 3)], 3)
    steps, seam = (x.diff(dim=3).abs().mean((0, 1, 2)) for x in (out, apart))  # (255) of 256 columns
    shared = slice(4 * 24 - 2, 4 * 40 + 2)  # tiles of 40 tokens begin at 0 and 24
    ordinary = torch.cat([steps[16 : shared.start], steps[shared.stop : -16]]).max()  # without the picture's own edges
    assert seam[127] > 2 * ordinary
    assert steps[shared].max() < 1.1 * ordinary


@pytest.mark.parametrize("shape", [(1, 3, 10, 16), (1, 4, 16, 16), (3, 16, 16)])
def test_a_shape_that_cannot_be_encoded_is_refused(model, shape):
    with pytest.raises(ValueError, match="need \\(B, 3, H, W\\), H and W multiples of 4"):
        model.encode(torch.rand(shape))


@pytest.mark.parametrize("sizes", [{"ch": 48}, {"ch_mult": ()}, {"num_res_blocks": 0}, {"n_embed": -1}])
def test_sizes_that_cannot_be_built_are_refused(sizes):
    with pytest.raises(ValueError, match="multiple of 32"):
        replace(VQGANConfig(), **sizes)


def test_it_is_built_again_from_its_sizes_as_json_has_them(model):
    assert VQGAN.of(json.loads(json.dumps(model.arch()))).config == model.config
    assert model.arch() == {"type": "vqgan", **asdict(golden_vqgan.CONFIG)}


def test_in_bf16_the_vocabulary_stays_float32_and_fp16_means_float32():
    model = tiny.vqgan().cast(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert {p.dtype for p in model.quantize.parameters()} == {torch.float32}
    assert model.decode(some_tokens(1, 2, 2)).dtype == torch.float32
    assert model.cast(torch.float16).dtype == torch.float32
