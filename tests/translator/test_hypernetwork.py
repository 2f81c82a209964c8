"""A style for any prompt: the hypernetwork, its file, and how prompts are read with it."""

import shutil
from dataclasses import replace

import pytest
import tiny
import torch

import stylerdalle
from stylerdalle import checkpoint, storage
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import StyleFinder, blend, find_style, near_prompts
from stylerdalle.translator.hypernetwork import HyperConfig, HyperNetwork, changed
from stylerdalle.translator.style import Style, translate_with


def texts(count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(1)), dim=-1)


@pytest.fixture(scope="module")
def translator():
    return tiny.translator(tiny.tokenizer())


@pytest.mark.parametrize("kind", ["lora", "film"])
def test_a_new_network_changes_nothing_and_a_learnt_one_differs_by_prompt(translator, kind):
    network = HyperNetwork(HyperConfig(kind, 16, 8, 4, 3), changed(translator, kind), ["a", "b"])
    network.learn_scale(texts(2))
    embeddings = torch.randn(1, 16, translator.config.embed_dim, generator=torch.Generator().manual_seed(0))
    plain = translator(embeddings)
    one, two = texts(2)
    style = Style(network(one))
    style.check(translator)
    assert torch.equal(translate_with(translator, embeddings, [(style, 1.0)]), plain)
    with torch.no_grad():
        network.head.weight.normal_(generator=torch.Generator().manual_seed(2))
    first, second = (translate_with(translator, embeddings, [(Style(network(text)), 1.0)]) for text in (one, two))
    assert not torch.allclose(first, plain) and not torch.allclose(first, second)


def test_every_parameter_of_the_network_gets_a_gradient(translator):
    network = HyperNetwork(HyperConfig("lora", 16, 8, 4, 3), changed(translator, "lora"), (), torch.zeros(1, 4, 4).long())
    torch.nn.init.ones_(network.head.weight)
    torch.nn.init.normal_(network.choice.weight)
    text = texts(1)[0]
    (sum(t.square().sum() for t in network(text).values()) + network.choose(text)[0]).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_basis_starts_from_the_styles(translator):
    styles = [tiny.style(translator, name) for name in ("ukiyo-e", "van-gogh")]  # of rank 2
    network = HyperNetwork(HyperConfig("lora", 16, 8, 4, 2), changed(translator, "lora"), ["a", "b"])
    said = network.start_from(styles)
    name = network.others[0]
    for k, style in enumerate(styles):
        part = network.b[0][:, 2 * k : 2 * k + 2] @ network.a[0][2 * k : 2 * k + 2]
        torch.testing.assert_close(part, style.change(name), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="0 styles to start from: need 1 to 2"):
        network.start_from([])
    network.learn_scale(texts(2))
    network.imitate(texts(2), said, torch.tensor([0, 0]), steps=300, lr=0.01)
    for text, style in zip(texts(2), styles, strict=True):
        imitated = Style(network(text))
        assert all((imitated.change(n) - style.change(n)).norm() < 0.2 * style.change(n).norm() for n in style.names())


def test_a_prompt_settles_near_those_it_was_trained_on(translator):
    known = texts(3)
    between = torch.nn.functional.normalize(known[0] + 0.7 * known[1], dim=-1)

    def settled(share):
        network = HyperNetwork(HyperConfig("lora", 16, 8, 4, 2, settle=share), changed(translator, "lora"), ["a", "b", "c"])
        network.learn_scale(known)
        torch.testing.assert_close(network.settled(known[2]), known[2], atol=1e-3, rtol=0)
        return network.settled(between)

    assert torch.equal(settled(0.0), between)
    assert between @ known[0] < settled(0.5) @ known[0] < settled(1.0) @ known[0]


@pytest.mark.parametrize("change", [{"kind": "tea"}, {"rank": 0}, {"basis": 0}, {"hidden": -1}, {"settle": 2.0}])
def test_impossible_sizes_are_refused(change):
    with pytest.raises(ValueError, match="is not known|must be 1 or more|must lie between"):
        HyperConfig(**change)


@pytest.fixture
def prompted(bundle_folder, tmp_path) -> stylerdalle.Bundle:
    """The tiny bundle with a random hypernetwork."""
    folder = tmp_path / "prompted"
    shutil.copytree(bundle_folder, folder)
    tiny.write_hypernetwork(folder)
    return stylerdalle.load_bundle(folder, "cpu", "fp32")


def test_a_file_comes_back_as_it_was(prompted):
    network, again = prompted.hypernetwork, checkpoint.load_hypernetwork(prompted.hypernetwork_path)
    assert again.prompts == ("a mosaic", "a dark etching") and again.config == network.config
    text = texts(1)[0]
    for name, tensor in network(text).items():
        torch.testing.assert_close(again(text)[name], tensor)


def test_a_network_for_another_translator_or_clip_is_refused_with_both_hashes(prompted):
    wrong = checkpoint.load_translator(prompted.translator_path)
    wrong.outNet.bias += 1
    checkpoint.save_translator(prompted.translator_path, wrong)
    with pytest.raises(ValueError, match=r"another translator \(sha256 \w{12}….*\(sha256 \w{12}…"):
        find_style(prompted, "a mosaic")


def test_a_damaged_file_is_refused(prompted):
    path = prompted.hypernetwork_path
    tensors, metadata = checkpoint.read(path, "hypernetwork")
    tensors.pop("head.bias")
    del metadata["format"], metadata["kind"]
    checkpoint.write(path, tensors, "hypernetwork", **metadata)
    with pytest.raises(ValueError, match="missing head.bias"):
        checkpoint.load_hypernetwork(path)
    checkpoint.write(path, tensors, "hypernetwork", **{**metadata, "arch": '{"kind": "tea"}'})
    with pytest.raises(ValueError, match="cannot be built"):
        checkpoint.load_hypernetwork(path)


def test_any_prompt_gives_a_style_and_the_bundles_own_come_first(prompted):
    own, made = find_style(prompted, "Ukiyo-E"), find_style(prompted, "a mosaic")
    assert own.name == "ukiyo-e" and "near" not in own.metadata
    assert made.prompt == "a mosaic" and made.metadata["near"] == "1.00 near to 'a mosaic'"
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    pictures = [stylize(image, prompt, prompted) for prompt in ("a mosaic", "a dark etching", "ukiyo-e")]
    assert not torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])


def test_a_prompt_that_names_a_style_of_blocks_has_its_blocks(prompted):
    path = prompted.style_paths[0]
    style = checkpoint.load_style(path)
    checkpoint.save_style(path, replace(style, prompt="pixel art", blocks=1.0))
    prompts = ("8-bit Pixel Art", "a castle as pixel art", "an art deco poster")
    assert [find_style(prompted, text).blocks for text in prompts] == [1.0, 1.0, 0.0]


def test_a_prompt_far_from_all_that_is_known_is_warned_of(prompted, caplog, monkeypatch):
    monkeypatch.setattr("stylerdalle.resolve.FAR", 1.01)
    find_style(prompted, "a mosaic")
    assert "far from all prompts that this bundle was trained on" in caplog.text


@pytest.mark.parametrize(
    ("text", "read", "warned"),
    [
        ("a Moody print by Klimt", "a print by", "'moody', 'klimt'"),
        ("a moody ink", "a moody ink", "'moody'"),  # nothing to go by would be left
        ("a print", "a print", ""),
    ],
)
def test_words_that_clip_never_learnt_are_not_read(prompted, caplog, monkeypatch, text, read, warned):
    assert prompted.hypernetwork  # read before the metadata are another's
    monkeypatch.setattr(storage, "read_metadata", lambda path: {"words": "a print by ink"})
    assert StyleFinder(prompted).known_words(text) == read
    assert (f"not trained on {warned}:" in caplog.text) if warned else "not trained on" not in caplog.text


def test_a_negative_prompt_leads_away(prompted):
    plain, away = find_style(prompted, "a mosaic"), find_style(prompted, "a mosaic", "a dark etching")
    name = plain.names()[0]
    assert not torch.allclose(plain.change(name), away.change(name)) and away.metadata["negative"] == "a dark etching"
    assert find_style(prompted, "ukiyo-e", "a mosaic").prompt == "a ukiyo-e print"  # made of the style's own prompt


def test_a_negative_prompt_needs_a_network(bundle):
    with pytest.raises(ValueError, match="no hypernetwork"):
        find_style(bundle, "ukiyo-e", "dark")
    with pytest.raises(ValueError, match="no hypernetwork|needs a style prompt"):
        find_style(bundle, find_style(bundle, "ukiyo-e"), "dark")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a, b", [("a, b", 1.0)]),
        ("a:0.7, b:0.3", [("a", 0.7), ("b", 0.3)]),
        ("a : .5 ,b", [("a", 0.5), ("b", 1.0)]),
        ("16:9 film still", [("16:9 film still", 1.0)]),
        ("", [("", 1.0)]),
    ],
)
def test_blends_are_read(text, parts):
    assert blend(text) == parts


def test_a_blend_is_the_weighted_sum(bundle):
    a, b, both = (find_style(bundle, text) for text in ("ukiyo-e", "van-gogh", "ukiyo-e:0.7, van-gogh:0.3"))
    for name in a.names():
        torch.testing.assert_close(both.change(name), 0.7 * a.change(name) + 0.3 * b.change(name), atol=1e-5, rtol=1e-4)
    half = find_style(bundle, "ukiyo-e:0.5")
    torch.testing.assert_close(half.change(a.names()[0]), 0.5 * a.change(a.names()[0]))


def test_prompts_near_a_text(prompted, bundle):
    found = near_prompts(prompted, "a dark etching", 3)
    assert found[0] == ("a dark etching", pytest.approx(1.0, abs=1e-3)) and len(found) == 3
    assert {text for text, _ in near_prompts(bundle, "a mosaic")} == set(tiny.STYLES.values())
