"""The dVAE tokenizer against OpenAI's own package."""

import dall_e
import pytest
import tiny
import torch
from dall_e import Decoder, Encoder

from stylerdalle.tokenizers import codec
from stylerdalle.tokenizers.dvae import DVAE
from stylerdalle.tokenizers.tokens import Tokens


@pytest.fixture(scope="module")
def full_size() -> tuple[Encoder, Decoder, DVAE, torch.Tensor]:
    """The package's full-size halves with random weights, ours over copies of them, and a small picture."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, decoder = Encoder(), Decoder()
        ours = DVAE(Encoder(), Decoder())
    decoder.blocks.input.w.data *= 8192**0.5  # random weights alone give a grey picture
    ours.encoder.load_state_dict(encoder.state_dict())
    ours.decoder.load_state_dict(decoder.state_dict())
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return encoder, decoder, ours, images


def as_the_package_does(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    z = torch.nn.functional.one_hot(tokens, decoder.vocab_size).permute(0, 3, 1, 2).float()
    return dall_e.unmap_pixels(torch.sigmoid(decoder(z)[:, :3]))


@torch.inference_mode()
def test_tokens_are_those_of_the_package_at_full_size(full_size):
    encoder, _, ours, images = full_size
    tokens = encoder(dall_e.map_pixels(images)).argmax(1)
    assert tokens.unique().numel() > 1
    assert torch.equal(ours.encode(images), tokens)


@torch.inference_mode()
def test_pixels_are_those_of_the_package_at_full_size(full_size):
    _, decoder, ours, _ = full_size
    tokens = torch.randint(8192, (1, 4, 4), generator=torch.Generator().manual_seed(2))
    theirs = as_the_package_does(decoder, tokens)
    assert theirs.std() > 0.01
    assert torch.allclose(ours.decode(tokens), theirs, atol=1e-4)


def test_the_embedding_is_the_decoders_first_convolution(full_size):
    _, decoder, ours, _ = full_size
    tokens = torch.randint(8192, (1, 3, 5), generator=torch.Generator().manual_seed(3))
    one_hot = torch.nn.functional.one_hot(tokens, 8192).permute(0, 3, 1, 2).float()
    rows = decoder.blocks.input(one_hot).permute(0, 2, 3, 1)
    assert ours.embed(tokens).shape == (1, 3, 5, 128)
    assert torch.allclose(ours.embed(tokens), rows, atol=1e-6)


@pytest.fixture(scope="module")
def small() -> DVAE:
    return tiny.tokenizer()


def some_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(512, shape, generator=torch.Generator().manual_seed(4))


def test_decode_soft_of_one_hot_is_decode(small):
    tokens = some_tokens(2, 3, 4)
    one_hot = torch.nn.functional.one_hot(tokens, 512).permute(0, 3, 1, 2).float()
    assert torch.allclose(small.decode_soft(one_hot), small.decode(tokens), atol=1e-5)


def test_decode_soft_has_a_gradient_in_the_probabilities(small):
    probabilities = torch.full((1, 512, 2, 2), 1 / 512).requires_grad_(True)
    small.decode_soft(probabilities).mean().backward()
    assert probabilities.grad.abs().sum() > 0


@torch.inference_mode()
def test_tiles_with_the_halo_decode_as_the_whole(small, monkeypatch):
    monkeypatch.setattr(codec, "TILE_TOKENS", 8)
    tokens = some_tokens(1, 30, 33)
    edge = 8 * codec.EDGE
    rows, columns = (torch.arange(-codec.EDGE, side + codec.EDGE).clamp(0, side - 1) for side in (30, 33))
    whole, done = small.decode(tokens[:, rows][:, :, columns])[..., edge:-edge, edge:-edge], []
    got = codec.decode(small, Tokens(tokens, 240, 264, small.vocab_size), progress=lambda *call: done.append(call))
    assert len(done) == 4 * 5
    assert torch.allclose(got, whole, atol=1e-5)


@torch.inference_mode()
def test_a_plain_picture_is_plain_to_its_edges(small):
    got = codec.decode(small, Tokens(torch.full((1, 8, 8), 5), 64, 64, small.vocab_size))
    inner = got[..., 24:32, 24:32]
    assert (got.unfold(2, 8, 8).unfold(3, 8, 8) - inner[:, :, None, None]).abs().max() < 0.005  # every token is shown alike
    padded = small.decode(torch.full((1, 8, 8), 5))
    assert (padded.unfold(2, 8, 8).unfold(3, 8, 8) - inner[:, :, None, None]).abs().max() > 0.02  # with zeros beyond the edge


@torch.inference_mode()
def test_tiles_with_the_halo_encode_as_the_whole(small, monkeypatch):
    monkeypatch.setattr(codec, "TILE_TOKENS", 8)
    images = torch.rand(1, 3, 8 * 26, 8 * 22, generator=torch.Generator().manual_seed(5))
    assert torch.equal(codec.encode(small, images).grid, small.encode(images))


@pytest.mark.parametrize("shape", [(1, 3, 12, 16), (1, 4, 16, 16), (3, 16, 16)])
def test_a_shape_that_cannot_be_encoded_is_refused(small, shape):
    with pytest.raises(ValueError, match="need \\(B, 3, H, W\\)"):
        small.encode(torch.rand(shape))


def test_halves_of_different_vocabulary_are_refused():
    with pytest.raises(ValueError, match="512 and 1024"):
        DVAE(
            Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512),
            Decoder(n_hid=64, n_blk_per_group=1, vocab_size=1024, n_init=16),
        )


def test_in_bf16_the_convolutions_over_the_vocabulary_stay_float32():
    model = tiny.tokenizer().cast(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.encoder.blocks.output.conv.w.dtype == torch.float32
    assert model.decoder.blocks.input.w.dtype == torch.float32
    assert model.decode(some_tokens(1, 2, 2)).dtype == torch.float32
