"""Styles: low-rank changes that leave the base alone."""

import json
from dataclasses import replace

import pytest
import tiny
import torch

from stylerdalle.translator.style import TUNED, Style, merged, mix, new_adapter, translate_with

TOKENIZER = tiny.tokenizer()
BASE = tiny.translator(TOKENIZER)
CONTENT = TOKENIZER.embed(torch.arange(16)[None])  # (1, 16, 16)


def test_a_new_adapter_changes_nothing():
    fresh = Style(new_adapter(BASE, 4, torch.Generator().manual_seed(0)))
    assert torch.equal(translate_with(BASE, CONTENT, [(fresh, 1.0)]), BASE(CONTENT))


def test_an_adapter_touches_the_decoder_and_the_output_layer_only():
    names = Style(new_adapter(BASE, 4, torch.Generator().manual_seed(0))).names()
    assert names
    assert all(name.startswith(TUNED) for name in names)
    assert "outNet.weight" in names


def test_a_style_changes_what_is_said_and_the_base_stays_as_it_was():
    before = {name: p.clone() for name, p in BASE.named_parameters()}
    out = translate_with(BASE, CONTENT, [(tiny.style(BASE, "a"), 1.0)])
    assert not torch.equal(out.argmax(-1), BASE(CONTENT).argmax(-1))
    assert all(torch.equal(p, before[name]) for name, p in BASE.named_parameters())


def test_a_merged_parameter_is_the_base_plus_weight_times_b_a():
    style = tiny.style(BASE, "a")
    name = "outNet.weight"
    expected = BASE.outNet.weight + 0.3 * style.tensors[f"{name}.lora_b"] @ style.tensors[f"{name}.lora_a"]
    assert torch.allclose(merged(BASE, [(style, 0.3)])[name], expected, atol=1e-6)


def test_weight_0_is_the_base_and_two_styles_add():
    one, two = tiny.style(BASE, "a"), tiny.style(BASE, "b")
    assert torch.equal(merged(BASE, [(one, 0.0)])["outNet.weight"], BASE.outNet.weight)
    both = merged(BASE, [(one, 0.5), (two, 0.5)])["outNet.weight"] - BASE.outNet.weight
    parts = [merged(BASE, [(s, 0.5)])["outNet.weight"] - BASE.outNet.weight for s in (one, two)]
    assert torch.allclose(both, sum(parts), atol=1e-6)


def test_a_full_change_is_added_as_it_is():
    delta = torch.randn(512)
    full = Style({"outNet.bias.delta": delta})
    assert torch.equal(merged(BASE, [(full, 1.0)])["outNet.bias"], BASE.outNet.bias + delta)


def test_the_gradient_reaches_the_adapter():
    style = Style(new_adapter(BASE, 2, torch.Generator().manual_seed(0)))
    for tensor in style.tensors.values():
        tensor.requires_grad_(True)
    translate_with(BASE, CONTENT, [(style, 1.0)]).square().mean().backward()
    assert style.tensors["outNet.weight.lora_b"].grad.abs().sum() > 0


def test_a_style_of_another_translator_is_refused():
    tokenizer = tiny.tokenizer()
    tiny.style(BASE, "a").check(BASE)
    wrong = Style({"outNet.bias.delta": torch.zeros(7)}, name="wrong")
    with pytest.raises(ValueError, match=r"'wrong' changes outNet.bias in shape \(7,\)"):
        wrong.check(BASE)
    unknown = Style({"outNet.tilt.delta": torch.zeros(7)}, name="unknown")
    with pytest.raises(ValueError, match=r"'outNet.tilt', which this translator does not have"):
        unknown.check(tiny.translator(tokenizer, upscale=2))


def test_rank_0_changes_the_decoder_and_output_layer_whole():
    tensors = new_adapter(BASE, 0, torch.Generator(), with_texture=True)
    parameters = dict(BASE.named_parameters())
    assert {name.removesuffix(".delta") for name in tensors} == {name for name in parameters if name.startswith(TUNED)}
    assert all(tensor.shape == parameters[name.removesuffix(".delta")].shape for name, tensor in tensors.items())
    assert not any(tensor.any() for tensor in tensors.values())


@pytest.mark.parametrize("rank", [-1, 33])
def test_a_rank_that_cannot_be_is_refused(rank):
    with pytest.raises(ValueError, match="1 to 32"):
        new_adapter(BASE, rank, torch.Generator())


def test_a_mix_is_the_weighted_sum_of_its_styles():
    one, two = tiny.style(BASE, "a", "f" * 64), tiny.style(BASE, "b")
    full = Style({"outNet.weight.delta": torch.randn(512, 32), "outNet.bias.delta": torch.randn(512)}, "c")
    parts = [(one, 0.7), (two, -0.4), (full, 0.5)]
    mixed = mix(parts, "three")
    expected, got = merged(BASE, parts), merged(BASE, [(mixed, 1.0)])
    assert got.keys() == expected.keys()
    assert all(torch.allclose(got[name], expected[name], atol=1e-5) for name in expected)
    assert (mixed.name, mixed.prompt, mixed.base_sha256) == ("three", "a + b + c", "f" * 64)
    mixed.check(BASE)


def test_a_mix_of_low_rank_styles_is_low_rank_and_says_what_is_in_it():
    one, two = (replace(tiny.style(BASE, name), metadata={"licence": "MIT"}) for name in "ab")
    mixed = mix([(one, 0.5), (two, 0.25)])
    assert mixed.tensors["outNet.weight.lora_a"].shape == (4, 32)
    assert mixed.metadata["licence"] == "MIT"
    parts = json.loads(mixed.metadata["recipe"])["styles"]
    assert [(part["name"], part["weight"]) for part in parts] == [("a", 0.5), ("b", 0.25)]


def test_styles_of_different_translators_cannot_be_mixed():
    one, two = tiny.style(BASE, "a", "1" * 64), tiny.style(BASE, "b", "2" * 64)
    with pytest.raises(ValueError, match="111111111111.*222222222222"):
        mix([(one, 0.5), (two, 0.5)])
    with pytest.raises(ValueError, match="outNet.bias in shapes"):
        mix([(one, 0.5), (Style({"outNet.bias.delta": torch.zeros(7)}), 0.5)])


@pytest.mark.parametrize("weights", [[], [float("nan")], [float("inf")]])
def test_nothing_and_weights_that_are_no_numbers_cannot_be_mixed(weights):
    with pytest.raises(ValueError, match="give one or more styles, and a number for each"):
        mix([(tiny.style(BASE, "a"), weight) for weight in weights])
