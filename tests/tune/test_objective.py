"""The losses of the three methods."""

import dataclasses

import pytest
import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.clip import scores as reward
from stylerdalle.images.lines import add_lines
from stylerdalle.learn.run import Run
from stylerdalle.settings import LINES
from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.translator.texture import Texture
from stylerdalle.tune.config import METHODS, TuneConfig
from stylerdalle.tune.loop import tune
from stylerdalle.tune.methods.method import Judged, Method, draw
from stylerdalle.tune.objective import Objective

# logits of the tiny translator are so far apart that only a large softness lets a gradient through
SMALL = TuneConfig(batch=2, size=32, views=2, rank=2, softness=20)
PROMPT = "a ukiyo-e print"


@pytest.fixture(scope="module")
def models():
    tokenizer = tiny.tokenizer()
    return tokenizer, tiny.translator(tokenizer), tiny.clip_model()


def adapter(models, rank: int = 2) -> Style:
    tensors = new_adapter(models[1], rank, torch.Generator().manual_seed(0))
    return Style({name: tensor.requires_grad_(True) for name, tensor in tensors.items()})


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_gradient_into_the_adapter_and_into_nothing_else(models, method, rank):
    config = dataclasses.replace(SMALL, method=method, rank=rank, softness=20 if method == "direct" else 0)
    objective, style = Objective(*models, PROMPT, config), adapter(models, rank)
    texts = torch.stack([objective.text("")] * 2)
    outcome = objective.step(photos(), texts, style, [torch.Generator().manual_seed(0)] * 2)
    assert style.tensors["outNet.bias.delta"].grad.abs().sum() > 0
    assert -2 <= outcome.reward <= 2
    assert outcome.kl == pytest.approx(0, abs=1e-3)
    assert outcome.pictures.shape == (2, 3, 32, 32)
    assert not any(p.grad is not None for model in models for p in model.parameters())


def test_the_gradient_of_a_batch_is_the_mean_of_its_photos(models):
    objective = Objective(*models, PROMPT, dataclasses.replace(SMALL, directional_weight=0, patch_weight=0, caption_weight=1))
    text = objective.text("")

    def gradient(some: torch.Tensor) -> torch.Tensor:
        style = adapter(models)
        objective.step(some, text.expand(len(some), -1), style, [torch.Generator().manual_seed(0) for _ in some])
        return style.tensors["outNet.bias.delta"].grad

    whole, parts = gradient(photos()), [gradient(photo) for photo in photos().split(1)]
    assert torch.allclose(whole, (parts[0] + parts[1]) / 2, rtol=1e-3, atol=1e-7)


def test_reinforce_is_the_papers_loss_and_baseline(models, monkeypatch):
    """L = -1/(B N) sum_b sum_i (r_b - b) log p(s_bi), b <- (B b + mean r) / (B + 1), written out in one piece."""
    config = TuneConfig.of("reinforce", size=32, views=1, rank=0)
    objective, style = Objective(*models, PROMPT, config), adapter(models, 0)
    rewards = iter([0.3, 0.1])
    monkeypatch.setattr(Objective, "judge", lambda self, out, *rest: (out.new_tensor([next(rewards)]), out.new_zeros(1, 1)))
    outcome = objective.step(photos(), torch.zeros(2, 1), style, [torch.Generator().manual_seed(3)] * 2, baseline=0.25)
    baseline = (2 * 0.25 + 0.2) / 3
    assert outcome.baseline == pytest.approx(baseline)
    assert outcome.reward == pytest.approx(0.2)

    other, generator = adapter(models, 0), torch.Generator().manual_seed(3)
    loss = torch.zeros(())
    with objective.autocast():
        for photo, r in zip(photos().split(1), (0.3, 0.1), strict=True):
            torch.randint(0, 1 << 16, (1, 2), generator=generator)  # the place on a texture, drawn first
            _, log_p = draw(objective.logits(objective.content(photo), other).float(), 1, generator)
            reward.crop_boxes(1, 32, generator)
            loss = loss - (r - baseline) * log_p.mean() / 2
    loss.backward()
    for name, tensor in style.tensors.items():
        want = other.tensors[name].grad
        assert torch.allclose(tensor.grad, want, rtol=2e-2, atol=2e-2 * float(want.abs().max())), name


def test_reinforce_raises_the_probability_of_what_was_rewarded(models, monkeypatch):
    config = TuneConfig.of("reinforce", size=32, views=1, lr=0.05)
    objective, style = Objective(*models, PROMPT, config), adapter(models, 0)
    wanted = 5

    def judge(self, out, *rest):
        return out.new_tensor([share[-1]]), out.new_zeros(1, 1)

    share: list[float] = []
    real = objective.tokenizer.decode

    def decode(tokens):
        share.append((tokens == wanted).float().mean().item())
        return real(tokens)

    monkeypatch.setattr(Objective, "judge", judge)
    monkeypatch.setattr(objective.tokenizer, "decode", decode, raising=False)
    monkeypatch.setattr(
        objective, "logits", lambda content, s, places=None: flat(content) + (s.tensors["outNet.bias.delta"] if s else 0)
    )
    optimizer = torch.optim.Adam([style.tensors["outNet.bias.delta"]], lr=0.1)
    style = Style({"outNet.bias.delta": style.tensors["outNet.bias.delta"]})
    baseline = 0.0
    for step in range(40):
        generators = [torch.Generator().manual_seed(step)] * 4
        baseline = objective.step(photos(4), torch.zeros(4, 1), style, generators, baseline).baseline
        optimizer.step()
        optimizer.zero_grad()
    assert sum(share[-8:]) / 8 > 2 * sum(share[:8]) / 8


def flat(content: torch.Tensor) -> torch.Tensor:
    """Logits that prefer nothing."""
    return torch.zeros(*content.shape, tiny.tokenizer().vocab_size)


def test_rloo_credits_a_crops_reward_to_the_tokens_under_it(models, monkeypatch):
    config = TuneConfig.of("rloo", size=32, views=1, samples=2, normalise_advantage=False)
    objective = Objective(*models, PROMPT, config)
    monkeypatch.setattr(Objective, "crops", lambda *a, **k: [(0, 0, 16)])
    monkeypatch.setattr(Objective, "judge", lambda self, out, *rest: (out.new_zeros(2), out.new_tensor([[1.0, 0.0]])))
    logits = flat(torch.zeros(1, 4, 4)).requires_grad_(True)
    judged = METHODS["rloo"].loss(objective, logits, photos(1), torch.zeros(1), torch.Generator().manual_seed(0))
    judged.loss.backward()
    tokens, _ = draw(logits, 2, torch.Generator().manual_seed(0))
    assert judged.reward == pytest.approx(0.5) and judged.pictures.shape == (2, 3, 32, 32)
    differ = (tokens[0] != tokens[1])[:2, :2]
    gradient = logits.grad[0, :2, :2]
    first, second = (gradient.gather(-1, t[:2, :2, None])[..., 0][differ] for t in tokens)
    assert (first < 0).all() and (second > 0).all()  # the better draw becomes likelier, the worse one less likely


def test_captions_are_put_as_in_the_paper_and_read_once(models, monkeypatch):
    objective = Objective(*models, PROMPT, SMALL)
    seen: list[str] = []
    real = reward.embed_texts
    monkeypatch.setattr(reward, "embed_texts", lambda model, texts: seen.extend(texts) or real(model, texts))
    for caption in ("A cat.", "a cat", "", " "):
        assert objective.text(caption).shape == (tiny.clip_model().text_projection.shape[1],)
    assert seen == ["a ukiyo-e print of a cat", "a ukiyo-e print"]


def test_the_content_reward_sees_the_photo(models):
    objective = Objective(*models, PROMPT, dataclasses.replace(SMALL, patch_weight=0, directional_weight=0, content_weight=1))
    photo = photos(1)
    same, _ = objective.judge(photo, photo, objective.text(""), [(0, 0, 32)])
    other, _ = objective.judge(1 - photo, photo, objective.text(""), [(0, 0, 32)])
    assert same.item() == pytest.approx(1, abs=1e-4) and other.item() < same.item()


def test_the_colours_of_pairs_are_a_term_of_their_loss(models):
    content, target = torch.randint(512, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    places = torch.zeros(1, 2, dtype=torch.long)
    plain, coloured = (
        Objective(*models, PROMPT, dataclasses.replace(SMALL, pairs_colour_weight=weight)).pairs_loss(
            content, target, places, None
        )
        for weight in (0.0, 10.0)
    )
    objective = Objective(*models, PROMPT, SMALL)
    shown, made = objective.paint(objective.logits(content, None)), models[0].decode(target)
    distance = torch.nn.functional.avg_pool2d(shown - made, 4).abs().mean()
    assert coloured - plain == pytest.approx(10 * distance.item(), rel=1e-3)


def test_pictures_are_judged_with_the_lines_and_bends_of_use(models):
    shown, bare = (Objective(*models, PROMPT, dataclasses.replace(SMALL, keep_lines=amount)) for amount in (LINES, 0.0))
    photo = torch.full((1, 3, 32, 32), 0.5)
    photo[..., 16:] = 0.8  # an edge, with plain places beside it
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    want = add_lines(picture.clone(), photo)
    torch.testing.assert_close(shown.drawn(picture, photo), want)
    bent = [shown.drawn(picture, photo, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(bent[0], bent[1]) and not torch.equal(bent[0], bent[2])
    assert (bent[0] - want).abs().max() > 0.01
    assert bare.drawn(picture, photo, torch.Generator().manual_seed(1)) is picture


@pytest.mark.parametrize(("method", "amount"), [("direct", LINES), ("rloo", LINES), ("reinforce", 0.0)])  # the paper has none
def test_what_methods_paint_has_lines(models, method, amount, monkeypatch):
    config = TuneConfig.of(method, size=32, views=1, samples=2, rank=2)
    assert config.keep_lines == amount
    objective, style = Objective(*models, PROMPT, config), adapter(models, config.rank)
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(Objective, "drawn", lambda self, pictures, photo, *rest: drawn.append(pictures) or pictures)
    objective.step(photos(1), objective.text("")[None], style, [torch.Generator()])
    assert len(drawn) == 1


def test_a_style_is_shown_its_texture_where_the_picture_lies_on_it(models):
    texture = Texture(torch.randint(512, (1, 8, 8), generator=torch.Generator().manual_seed(1)), torch.ones(1))
    style = tiny.style(models[1], "a", texture=texture)
    objective = Objective(*models, PROMPT, SMALL)
    content = torch.zeros(2, 8, 8, dtype=torch.long)  # 2 x 2 windows each
    places = torch.tensor([[0, 0], [3, 5]])
    out = objective.logits(content, style, places)
    rolled = dataclasses.replace(style, texture=Texture(texture.tokens.roll((-3, -5), (1, 2)), texture.weights))
    assert torch.allclose(out[1], objective.logits(content[1:], rolled)[0], atol=1e-3)
    assert not torch.allclose(out[0], out[1], atol=1e-3)


def test_a_new_method_needs_no_more_than_its_object(models, monkeypatch, tmp_path):
    def loss(painter, logits, photo, text, generator):
        picture = painter.paint(logits, generator)
        return Judged(picture.mean(), -picture.mean().detach(), picture)

    monkeypatch.setitem(METHODS, "dark", Method("darkens pictures", loss, defaults={"rank": 2, "softness": 20}, falling=False))
    config = TuneConfig.of("dark", steps=2, batch=1, size=32, views=1, lr=0.01)
    learnt = tune(*models, pictures(2), PROMPT, config, Run(tmp_path))
    assert learnt.style.tensors["outNet.bias.delta"].abs().max() > 0
    assert torch.load(tmp_path / "state.pt")["optimizer"]["param_groups"][0]["lr"] == 0.01
