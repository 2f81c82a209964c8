"""One network for all prompts, learnt on a list."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from training.test_tokenizer import pictures

from stylerdalle.clip import scores as reward
from stylerdalle.learn.crops import to_tensor
from stylerdalle.learn.run import Run
from stylerdalle.tokenizers.protocol import all_embeddings
from stylerdalle.training.amortise import AmortiseConfig, amortise
from stylerdalle.training.art import art_targets
from stylerdalle.training.coded import Coded
from stylerdalle.training.prompt_pairs import pairs_of_prompts
from stylerdalle.training.prompts import Prompt
from stylerdalle.translator.hypernetwork import HyperConfig
from stylerdalle.translator.style import Style, translate_with
from stylerdalle.translator.texture import field_under, texture_field

PROMPTS = [
    Prompt("an ink drawing", "ink", "ink"),
    Prompt("a red picture", "photo", "", "red"),
    Prompt("symbolism", "symbolism"),
    Prompt("a mosaic", "mosaic", held_out=True),
]
SMALL = AmortiseConfig(steps=60, prompts=2, batch=4, lr=0.01, per_filter=24, per_tone=12)
HYPER = HyperConfig("lora", 16, 16, 4, 2, noise=0.05)


@pytest.fixture(scope="module")
def models():
    dvae = tiny.tokenizer()
    return dvae, tiny.translator(dvae), tiny.clip_model()


def made_pairs(tokenizer, photos, folder):
    return pairs_of_prompts(tokenizer, photos, PROMPTS[:2], 32, SMALL.per_filter, SMALL.per_tone, SMALL.seed, folder)


def test_toned_pairs_are_of_the_pairs_of_now(models, tmp_path):
    tokenizer, night = models[0], [Prompt("a photo at night", "photo", "", "night")]

    def found(seed: int, folder) -> Coded:
        return pairs_of_prompts(tokenizer, pictures(4), night, 32, SMALL.per_filter, SMALL.per_tone, seed, folder)[night[0].text]

    for name in ("used", "new"):
        (tmp_path / name).mkdir()
    found(0, tmp_path / "used")
    again, anew = found(1, tmp_path / "used"), found(1, tmp_path / "new")  # other photos, in a folder that was used before
    assert torch.equal(again.content, anew.content) and torch.equal(again.target, anew.target)
    assert not torch.equal(anew.target, found(0, tmp_path / "used").target)


def art():
    return [replace(p, kind="art", captions=(text,)) for p, text in zip(pictures(3), ("symbolism", "a dog", "ink"), strict=True)]


def test_prompts_with_pairs_are_learnt(models, tmp_path):
    tokenizer, translator, model = models
    before = {name: p.clone() for name, p in translator.named_parameters()}
    network = amortise(tokenizer, translator, model, pictures(4), art(), PROMPTS, SMALL, HYPER, Run(tmp_path))
    assert network.prompts == ("an ink drawing", "a red picture", "symbolism")
    assert all(torch.equal(p, before[name]) for name, p in translator.named_parameters())
    pairs = made_pairs(tokenizer, pictures(4), tmp_path)
    embeddings = all_embeddings(tokenizer)
    with torch.no_grad():
        for text, coded in pairs.items():
            said = reward.embed_texts(model, [text])[0]
            style = Style(network(said))
            shown = texture_field([(coded.texture, 1.0)], embeddings) if coded.texture else None
            read = None if shown is None else field_under(shown, coded.places, 4)
            content = embeddings[coded.content]
            plain = translate_with(translator, content)
            styled = translate_with(translator, content, [(style, 1.0)], read)
            was, now = (F.cross_entropy(logits.flatten(0, 1), coded.target.flatten()) for logits in (plain, styled))
            assert now < 0.85 * was, text
            assert int(network.choose(said).argmax()) == (0 if coded.texture else 1), text  # the texture it was made with


def test_prompts_begin_with_the_tuned_style_of_their_filter(models, tmp_path):
    tokenizer, translator, model = models
    style = replace(tiny.style(translator, "ink"), prompt="an ink drawing")
    config = replace(SMALL, steps=1, lr=1e-9)
    network = amortise(tokenizer, translator, model, pictures(3), art(), PROMPTS, config, HYPER, Run(tmp_path), [style])
    said = reward.embed_texts(model, ["an ink drawing", "a red picture"])
    drawn, red = (Style(network(text)) for text in said)
    name = network.others[0]
    assert (drawn.change(name) - style.change(name)).norm() < 0.3 * style.change(name).norm()
    assert red.change(name).norm() < 0.3 * style.change(name).norm()
    assert [int(network.choose(text).argmax()) for text in said] == [0, 1]


def test_a_run_taken_up_again_ends_as_an_unbroken_one(models, tmp_path):
    config = replace(SMALL, steps=4)

    def run(folder, steps):
        return amortise(*models, pictures(3), art(), PROMPTS, replace(config, steps=steps), HYPER, Run(folder), callback=stop)

    class Stop(Exception):
        pass

    def stop(step, loss):
        if stopping and step == 2:
            raise Stop

    stopping = False
    whole = run(tmp_path / "whole", 4)
    stopping = True
    with pytest.raises(Stop):
        amortise(*models, pictures(3), art(), PROMPTS, config, HYPER, Run(tmp_path / "b"), callback=stop, minutes_between_saves=0)
    stopping = False
    again = run(tmp_path / "b", 4)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-5, rtol=1e-4)


def test_pairs_are_made_once(models, tmp_path, monkeypatch):
    first = made_pairs(models[0], pictures(2), tmp_path)
    monkeypatch.setattr("stylerdalle.training.coded.make_pairs", None)
    monkeypatch.setattr("stylerdalle.training.prompt_pairs.tone", None)
    again = made_pairs(models[0], pictures(2), tmp_path)
    for text, coded in first.items():
        assert torch.equal(coded.content, again[text].content) and torch.equal(coded.target, again[text].target)
    red = first["a red picture"]
    assert red.content.shape == (12, 16) and not torch.equal(red.content, red.target)


def test_art_nearest_by_caption_is_leant_to(models, monkeypatch):
    model, pictured = models[2], art()
    monkeypatch.setattr("stylerdalle.training.art.NEAREST", 1)
    texts = reward.embed_texts(model, ["a dog", "ink"])
    crops = to_tensor([np.asarray(p.open().resize((64, 64))) for p in pictured])
    seen = reward.embed_images(model, crops)
    want = F.normalize(seen[[1, 2]] - seen.mean(0), dim=-1)
    torch.testing.assert_close(art_targets(model, pictured, texts), want, atol=1e-4, rtol=1e-3)
    assert art_targets(model, pictures(2), texts) is None


def test_nothing_to_train_on_is_refused(models, tmp_path):
    for prompts, photos in ((PROMPTS[3:], pictures(2)), (PROMPTS, [])):
        with pytest.raises(ValueError, match="nothing to train on"):
            amortise(*models, photos, [], prompts, SMALL, HYPER, Run(tmp_path))
