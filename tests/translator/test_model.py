"""The NAT: shapes, sizes and what a position sees."""

import pytest
import tiny
import torch

from stylerdalle.translator.identity import start_as_identity
from stylerdalle.translator.model import Decoder, Translator, TranslatorConfig
from stylerdalle.translator.style import TUNED, new_adapter

SMALL = TranslatorConfig(embed_dim=6, vocab_size=40, width=16, heads=2, encoder_layers=2, decoder_blocks=2, grid=3)


def small(**changes: int) -> Translator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Translator(TranslatorConfig(**{**vars(SMALL), **changes})).eval()


@pytest.mark.parametrize("upscale", [1, 2])
def test_every_source_token_gives_upscale_squared_rows_of_logits(upscale):
    assert small(upscale=upscale)(torch.randn(2, 9, 6)).shape == (2, 9 * upscale**2, 40)


def test_the_papers_sizes_have_the_papers_number_of_parameters():
    with torch.device("meta"):
        model = Translator(TranslatorConfig())
    count = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(count.values()) == 37_914_112
    decoder = sum(n for name, n in count.items() if name.startswith(("nat_dec.", "outNet.")))
    assert decoder == 29_434_880
    assert sum(n for name, n in count.items() if name.startswith(TUNED)) <= decoder


def test_the_names_are_those_of_the_authors_checkpoints():
    names = set(small().state_dict())
    assert {
        "linear_proj.weight",
        "nat_enc.pos_embedding.row_embed.weight",
        "nat_enc.layers.0.attn.to_keys_values.weight",
        "nat_enc.layers.1.mlp.fc2.bias",
        "nat_dec.pos_embedding.col_embed.weight",
        "nat_dec.transformer.layers.5.attn.to_keys.weight",
        "nat_dec.transformer.layers.0.norm2.bias",
        "nat_dec.ln_final.weight",
        "outNet.bias",
    } <= names


@pytest.mark.parametrize("upscale", [1, 2])
def test_started_as_the_identity_it_says_back_what_it_reads(upscale):
    tokenizer = tiny.tokenizer()
    model = tiny.translator(tokenizer, upscale)
    tokens = torch.randint(512, (3, 4, 4), generator=torch.Generator().manual_seed(0))
    out = model(tokenizer.embed(tokens).flatten(1, 2)).argmax(-1).unflatten(1, (4 * upscale, 4 * upscale))
    assert torch.equal(out, tokens.repeat_interleave(upscale, 1).repeat_interleave(upscale, 2))


def test_the_identity_holds_where_embeddings_are_wider_than_half_the_model():
    tokenizer = tiny.tokenizer()  # 16 numbers a token
    model = Translator(TranslatorConfig(embed_dim=16, vocab_size=512, width=24, heads=2, grid=4, upscale=1)).eval()
    start_as_identity(model, tokenizer.embed(torch.arange(512)))
    tokens = torch.arange(16)[None]
    assert (model(tokenizer.embed(tokens)).argmax(-1) == tokens).float().mean() > 0.9


def test_a_position_does_not_attend_to_itself():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = Decoder(SMALL).eval()
    seen = []
    layers = decoder.layers()
    for layer in layers:
        layer.attn.register_forward_hook(lambda _, args, __: seen.append(args[3] if len(args) > 3 else None))
    decoder(torch.randn(1, 36, 16), torch.randn(1, 9, 16))
    for i, mask in enumerate(seen):
        if i % 3 == 2:
            assert mask is None  # to the source every position looks freely
        else:
            assert not mask.diagonal().any()
            assert mask.sum() == 36 * 35


def test_attention_leaves_out_what_the_mask_leaves_out():
    layer = small(upscale=1).nat_dec.layers()[0].attn
    x = torch.randn(1, 9, 16)
    mask = ~torch.eye(9, dtype=torch.bool)
    changed = x.clone()
    changed[0, 4] += 10
    out, other = (layer(x, v, v, mask) for v in (x, changed))
    assert torch.allclose(out[0, 4], other[0, 4], atol=1e-6)
    assert not torch.allclose(out[0, 5], other[0, 5])


def test_dropout_is_off_at_inference():
    model = small(dropout=0.5)
    x = torch.randn(1, 9, 6)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize(
    ("changes", "says"), [({"width": 15}, "width 15"), ({"upscale": 3}, "upscale 3"), ({"grid": 0}, "grid is 0")]
)
def test_sizes_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        TranslatorConfig(**{**vars(SMALL), **changes})


def test_embeddings_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 8, 6\).*\(B, 9, 6\)"):
        small()(torch.randn(1, 8, 6))


def test_without_a_texture_the_tokens_of_a_plain_picture_cannot_be_told_apart():
    out = small(upscale=2)(torch.ones(1, 9, 6))  # (1, 36, V)
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-5)


def test_a_texture_tells_them_apart():
    model = small(upscale=2, texture=True)
    torch.nn.init.normal_(model.nat_dec.texture.weight, generator=torch.Generator().manual_seed(0))
    under = torch.randn(1, 36, 6, generator=torch.Generator().manual_seed(1))
    out = model(torch.ones(1, 9, 6), under)
    assert (out - out[:, :1]).abs().max() > 0.1


def test_room_for_a_texture_changes_nothing_at_first_and_a_style_may_fill_it():
    plain, roomy = small(), small(texture=True)
    missing = roomy.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["nat_dec.texture.weight"]
    x = torch.randn(2, 9, 6)
    assert torch.equal(plain(x), roomy(x, torch.randn(2, 9 * roomy.config.upscale**2, 6)))
    assert "nat_dec.texture.weight.lora_a" in new_adapter(roomy, 2, torch.Generator(), with_texture=True)
    assert not any("texture" in name for name in new_adapter(roomy, 2, torch.Generator()))


def test_a_texture_for_a_translator_without_room_is_refused():
    with pytest.raises(ValueError, match="reads no texture"):
        small()(torch.randn(1, 9, 6), torch.randn(1, 9, 6))
