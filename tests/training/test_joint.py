"""Translator and styles learnt together."""

from dataclasses import replace
from itertools import pairwise

import pytest
import tiny
import torch
import torch.nn.functional as F
from training.test_tokenizer import pictures

from stylerdalle import checkpoint
from stylerdalle.learn import loop
from stylerdalle.learn.run import Run
from stylerdalle.learn.targets import soft_cross_entropy
from stylerdalle.tokenizers.protocol import all_embeddings
from stylerdalle.training.coded import coded_pairs
from stylerdalle.training.joint import Joint, JointConfig, main, scale_logits, train
from stylerdalle.translator.style import Style, new_adapter, translate_with
from stylerdalle.translator.texture import field_under, texture_field

SMALL = JointConfig(steps=40, styles=2, batch=4, rank=2, lr=2e-3, adapter_lr=0.02, pairs=40, neighbours=4)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def pairs(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return {name: coded_pairs(tokenizer, pictures(4), name, 32, 40, folder) for name in ("pixel_art", "ink", "comic")}


def test_pairs_are_made_once(tokenizer, tmp_path, monkeypatch):
    folder = tmp_path / "of a run" / "to come"
    first = coded_pairs(tokenizer, pictures(2), "ink", 32, 3, folder)
    monkeypatch.setattr("stylerdalle.training.coded.make_pairs", None)
    again = coded_pairs(tokenizer, pictures(2), "ink", 32, 3, folder)
    assert first.content.shape == (3, 16) and first.places.shape == (3, 2)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("content", "target", "places"))
    assert torch.equal(first.texture.tokens, again.texture.tokens)


def test_every_style_is_learnt_and_the_translator_alone_stays_the_identity(tokenizer, pairs, tmp_path):
    translator = tiny.translator(tokenizer)
    adapters = train(tokenizer, translator, pairs, SMALL, Run(tmp_path))
    embeddings = all_embeddings(tokenizer)
    assert set(adapters) == set(pairs)
    for name, coded in pairs.items():
        content, target = coded.content, coded.target
        shown = texture_field([(coded.texture, 1.0)], embeddings) if coded.texture else None
        read = None if shown is None else field_under(shown, coded.places, 4)
        plain = translator(embeddings[content])
        styled = translate_with(translator, embeddings[content], [(Style(adapters[name]), 1.0)], read)
        assert (plain.argmax(-1) == content).float().mean() > 0.9
        before, after = (F.cross_entropy(logits.flatten(0, 1), target.flatten()) for logits in (plain, styled))
        assert after < 0.7 * before


def test_a_run_taken_up_again_ends_as_an_unbroken_one(tokenizer, pairs, tmp_path):
    config = replace(SMALL, steps=6)
    whole = train(tokenizer, tiny.translator(tokenizer), pairs, config, Run(tmp_path / "whole"))

    class Stop(Exception):
        pass

    class Breaking(Run):
        def save(self, state):
            super().save(state)
            if state["step"] == 3:
                raise Stop

    with pytest.raises(Stop):
        train(tokenizer, tiny.translator(tokenizer), pairs, config, Breaking(tmp_path / "broken"), minutes_between_saves=0)
    again = train(tokenizer, tiny.translator(tokenizer), pairs, config, Run(tmp_path / "broken"))
    for name, adapter in whole.items():
        for key, tensor in adapter.items():
            assert torch.allclose(again[name][key], tensor, atol=1e-6), (name, key)


def test_a_run_with_a_time_limit_ends_with_a_low_learning_rate(tokenizer, pairs, tmp_path, monkeypatch):
    rates, now = [], [0.0]
    step = torch.optim.AdamW.step

    def stepped(self, *args):
        rates.append(self.param_groups[0]["lr"])
        now[0] += 1.0
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", stepped)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    config = replace(SMALL, steps=100_000, minutes=1.0, styles=1, batch=1, base=1)
    train(tokenizer, tiny.translator(tokenizer), pairs, config, Run(tmp_path))
    assert 58 <= len(rates) <= 62
    assert rates[29] == pytest.approx(SMALL.lr)  # the last step of the rise
    assert rates[30] == pytest.approx(0.51 * SMALL.lr, rel=0.05)  # half of the time has passed
    assert all(a > b for a, b in pairwise(rates[30:59]))
    assert rates[-1] == pytest.approx(0.02 * SMALL.lr, rel=0.1)


def test_the_loss_of_the_base_translator_weighs_hidden_tokens_less(tokenizer, pairs):
    joint = Joint(tokenizer, tiny.translator(tokenizer), pairs, SMALL, {})
    tokens = pairs["ink"].content[:2]
    hidden = torch.zeros(2, 16, dtype=torch.bool)
    hidden[1, ::3] = True
    with torch.no_grad():
        logits = joint.translator(joint.embeddings[tokens] * ~hidden[..., None])
        each = soft_cross_entropy(logits, tokens, *joint.targets)
        found, plain = (joint.base_loss(tokens, some) for some in (hidden, torch.zeros_like(hidden)))
        assert found.item() == pytest.approx((0.2 * each[hidden].mean() + each[~hidden].mean()).item(), rel=0.02)
        logits = joint.translator(joint.embeddings[tokens])
        assert plain.item() == pytest.approx(soft_cross_entropy(logits, tokens, *joint.targets).mean().item(), rel=0.02)


def test_the_command_trains_on_several_files_of_pairs_without_photos(tokenizer, tmp_path):
    checkpoint.save_tokenizer(tmp_path / "tokenizer.safetensors", tokenizer)
    checkpoint.save_translator(tmp_path / "translator.safetensors", tiny.translator(tokenizer))
    for name in ("ink", "comic"):
        tokens = torch.randint(512, (20, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint16)
        tensors = {"content": tokens, "target": tokens.flip(0), "style": torch.zeros(20), "seed": torch.arange(20)}
        checkpoint.write(tmp_path / f"{name}.safetensors", tensors, "pairs", styles=[name])
    files = [f"--{name}={tmp_path / name}.safetensors" for name in ("tokenizer", "translator")]
    files += ["--painted", str(tmp_path / "ink.safetensors"), str(tmp_path / "comic.safetensors")]
    small = ["--steps", "2", "--styles", "2", "--batch", "2", "--device", "cpu", "--run-dir", str(tmp_path / "run")]
    assert main(["ink", "comic", *files, *small, "--minutes", "5", "--output", str(tmp_path / "out")]) == 0
    style = checkpoint.load_style(tmp_path / "out" / "styles" / "comic.safetensors")
    assert "20 windows of pairs made by the teacher" in style.metadata["recipe"]
    style.check(checkpoint.load_translator(tmp_path / "out" / "translator.safetensors"))


def test_a_style_without_painted_pairs_needs_photos(tokenizer, tmp_path, capsys):
    checkpoint.save_tokenizer(tmp_path / "tokenizer.safetensors", tokenizer)
    checkpoint.save_translator(tmp_path / "translator.safetensors", tiny.translator(tokenizer))
    files = [f"--{name}={tmp_path / name}.safetensors" for name in ("tokenizer", "translator")]
    given = [*files, "--device", "cpu", "--run-dir", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["ink", *given]) == 2
    assert "the pairs of ink are neither painted nor in" in capsys.readouterr().err
    assert main(["nobody", *given]) == 2
    assert "no recipe for nobody: choose from" in capsys.readouterr().err


def test_a_run_may_begin_with_styles(tokenizer, pairs, tmp_path):
    translator = tiny.translator(tokenizer)
    begun = Style(
        {key: torch.full_like(t, 0.01) for key, t in new_adapter(translator, 2, torch.Generator(), with_texture=True).items()}
    )
    config = replace(SMALL, steps=1, lr=1e-9, adapter_lr=1e-9, gain=1.0)
    adapters = train(tokenizer, translator, pairs, config, Run(tmp_path), start={"ink": begun})
    for key, tensor in adapters["ink"].items():
        assert torch.allclose(tensor, begun.tensors[key], atol=1e-6), key
    assert adapters["comic"]["outNet.weight.lora_b"].abs().max() < 1e-6


def test_a_gain_multiplies_the_logits_with_and_without_a_style(tokenizer):
    translator = tiny.translator(tokenizer)
    content = tokenizer.embed(torch.randint(512, (1, 16), generator=torch.Generator().manual_seed(0)))
    style = tiny.style(translator, "a")
    before = [translate_with(translator, content, some) for some in ([], [(style, 1.0)])]
    tensors = dict(style.tensors)
    scale_logits(translator, [tensors], 2.0)
    after = [translate_with(translator, content, some) for some in ([], [(replace(style, tensors=tensors), 1.0)])]
    assert all(torch.allclose(b, 2 * a, rtol=1e-4, atol=1e-3) for a, b in zip(before, after, strict=True))
