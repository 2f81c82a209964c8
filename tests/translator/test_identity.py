"""The translator that a codebook makes: tokens out are tokens in, and styles can be learnt on it."""

import pytest
import tiny
import torch

from stylerdalle.convert.identity import GRID, identity_config, identity_translator
from stylerdalle.translator.identity import nearest_squares, returned, start_as_identity
from stylerdalle.translator.model import Translator, TranslatorConfig
from stylerdalle.translator.style import Style, new_adapter, translate_with
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.objective import Objective

SIZES = {"width": 64, "heads": 2, "encoder_layers": 1, "decoder_blocks": 2, "grid": 4, "upscale": 1, "texture": True, "noise": 2}


def codes(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def made(embeddings: torch.Tensor, **changes: int) -> Translator:
    config = TranslatorConfig(embeddings.shape[1], len(embeddings), **{**SIZES, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        translator = Translator(config).eval().requires_grad_(False)
    start_as_identity(translator, embeddings)
    return translator


@pytest.mark.parametrize("width", [12, 31, 40, 100])  # of the embeddings; the translator has room for 31 numbers
def test_every_token_comes_back_at_every_place(width):
    embeddings = codes(200, width)
    translator = made(embeddings)
    tokens = torch.randint(200, (3, 16), generator=torch.Generator().manual_seed(0))
    assert torch.equal(translator(embeddings[tokens]).argmax(-1), tokens)
    assert returned(translator, embeddings) == 200


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_size_of_the_codebooks_numbers_does_not_matter(scale):
    embeddings = scale * (codes(200, 20) + 3)
    assert returned(made(embeddings), embeddings) == 200


def test_tokens_of_one_direction_and_different_lengths_stay_apart():
    one = codes(1, 20)
    embeddings = torch.cat([codes(50, 20, seed=1), *(length * one for length in (0.5, 1, 2, 4))])
    assert returned(made(embeddings), embeddings) == 54


def test_the_nearer_a_code_is_the_likelier_and_the_nearest_has_e_to_minus_4_of_the_share_on_average():
    embeddings = codes(100, 20)
    translator = made(embeddings)
    tokens = torch.arange(16)[None]
    log_p = translator(embeddings[tokens])[0].log_softmax(-1)  # (16, 100)
    square = torch.cdist(embeddings[:16], embeddings).square()
    assert torch.equal(log_p.argsort(1, descending=True), square.argsort(1))
    gaps = log_p.max(1).values - log_p.topk(2).values[:, 1]
    assert gaps.mean() / (nearest_squares(embeddings)[:16].mean() / nearest_squares(embeddings).mean()) == pytest.approx(
        4, rel=0.1
    )


def test_codes_that_are_the_same_share_and_the_others_still_come_back():
    embeddings = codes(100, 20)
    embeddings[:10] = embeddings[10]
    assert returned(made(embeddings), embeddings) == 90  # one of eleven


def test_a_codebook_without_differences_is_refused():
    with pytest.raises(ValueError, match="all tokens have the same embedding"):
        made(torch.ones(50, 20))


def test_a_tiled_decoder_input_cannot_be_the_identity():
    translator = Translator(TranslatorConfig(16, 50, 32, 2, 1, 1, 4, upscale=2, decoder_input="tiled"))
    with pytest.raises(ValueError, match="tiled"):
        start_as_identity(translator, codes(50, 16))


def test_it_has_the_papers_sizes_on_the_papers_target_grid():
    config = identity_config(tiny.tokenizer())
    assert (config.width, config.heads, config.encoder_layers, config.decoder_blocks) == (512, 8, 4, 4)
    assert (config.grid, config.upscale, GRID) == (32, 1, 32)


@pytest.mark.parametrize("tokens", [tiny.tokenizer, tiny.vqgan])
def test_it_is_the_same_each_time_and_leaves_the_global_generator_alone(tokens):
    tokenizer = tokens()
    config = TranslatorConfig(tokenizer.embed_dim, tokenizer.vocab_size, **SIZES)
    before = torch.random.get_rng_state()
    one, other = (identity_translator(tokenizer, config).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_an_adapter_has_a_gradient_in_every_layer():
    """In the last weights of a sub-layer at once, in the others as soon as those are not zero."""
    embeddings = codes(100, 20)
    translator = made(embeddings)
    style = Style({k: v.requires_grad_(True) for k, v in new_adapter(translator, 4, torch.Generator().manual_seed(0)).items()})
    seen, target = embeddings[torch.arange(32).view(2, 16)], torch.arange(50, 82)
    under = torch.randn(2, 16, 22, generator=torch.Generator().manual_seed(1))
    adam = torch.optim.Adam(style.tensors.values(), lr=0.01)
    for _ in range(3):
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(translate_with(translator, seen, [(style, 1.0)], under).flatten(0, 1), target)
        loss.backward()
        found = {name for name, tensor in style.tensors.items() if tensor.grad.abs().max() > 1e-7}
        last = {name for name in style.tensors if name.endswith(("project.weight.lora_b", "fc2.weight.lora_b", "bias.delta"))}
        assert last | {"outNet.weight.lora_b", "nat_dec.texture.weight.lora_b"} <= found
        adam.step()
    assert found == style.tensors.keys()


def tiny_models() -> tuple:
    tokenizer = tiny.tokenizer()
    config = TranslatorConfig(tokenizer.embed_dim, tokenizer.vocab_size, **SIZES)
    return tokenizer, identity_translator(tokenizer, config), tiny.clip_model()


def test_a_short_tune_from_the_identity_raises_the_reward():
    models = tiny_models()
    config = TuneConfig(size=32, views=2, rank=4, directional_weight=0.0, kl_weight=0.0)
    objective = Objective(*models, "a ukiyo-e print", config)
    style = Style({k: v.requires_grad_(True) for k, v in new_adapter(models[1], 4, torch.Generator().manual_seed(0)).items()})
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    adam = METHODS["direct"].optimizer(style.tensors.values(), 0.02)
    rewards = []
    for step in range(25):
        outcome = objective.step(photo, [objective.text("")], style, [torch.Generator().manual_seed(step)])
        rewards.append(outcome.reward)
        adam.step()
        adam.zero_grad()
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.002
