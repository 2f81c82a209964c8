"""The polish: what it changes, what it leaves alone, and that its critics learn."""

import copy
import io
import json
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from training.test_tokenizer import pictures

from stylerdalle import checkpoint, storage
from stylerdalle.clip.statistics import StyleClipShape, build_style_clip, channel_statistics
from stylerdalle.features.recogniser import Recogniser
from stylerdalle.images.lines import add_lines, random_moves
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.settings import LINES
from stylerdalle.training import faults, polish, polish_data
from stylerdalle.training.coded import Coded, coded_pairs
from stylerdalle.training.critic import DEPTHS
from stylerdalle.training.joint import reading_noise
from stylerdalle.training.perceptual import Features
from stylerdalle.training.polish_config import PolishConfig
from stylerdalle.training.polish_data import Bank, banks, labelled_by_style, works_by_style
from stylerdalle.training.polish_losses import Polish
from stylerdalle.translator.style import Style, new_adapter

DEVICE = torch.device(os.environ.get("STYLERDALLE_TEST_DEVICE", "cpu"))
SMALL = PolishConfig(
    steps=4, minutes=0, styles=2, batch=2, pairs=2, base=2, round_trips=2, side=6, alone=1, size=32, crops=4, neighbours=4
)
JUDGED = {"critics", "style", "text", "content", "subject", "layout", "calm", "repetition", "hue"}


def bank(seed: int) -> Bank:
    return Bank(torch.randint(256, (4, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)).to(DEVICE))


@pytest.fixture
def polisher(tmp_path):
    """Of two styles: one with works, and one with a texture and pairs that a filter made."""
    tokenizer = tiny.tokenizer()
    translator = reading_noise(tiny.translator(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = build_style_clip(
            StyleClipShape(image_resolution=32, read=DEPTHS, hidden=8, embed_dim=16, text_width=64, text_layers=1)
        )
        blocks = [[(torch.randn(8, 3 if k == 0 else 8, 3, 3) * 0.1, torch.zeros(8))] for k in range(4)]
    comic = coded_pairs(tokenizer, pictures(2), "comic", 32, 4, tmp_path)
    painted = Coded(comic.content, comic.target, comic.places, None)
    styles = {
        "van-gogh": Style(new_adapter(translator, 2, torch.Generator().manual_seed(0)), "a Van Gogh style oil painting"),
        "comic": Style(new_adapter(translator, 2, torch.Generator().manual_seed(1), True), "a comic", texture=comic.texture),
    }
    parts = [part.to(DEVICE) for part in (tokenizer, translator, model.eval().requires_grad_(False), Features(blocks))]
    moved = {name: style.to(DEVICE, torch.float32) for name, style in styles.items()}
    pairs = {"van-gogh": painted, "comic": comic}
    torch.manual_seed(4)
    return Polish(parts[0], parts[1], moved, parts[2], parts[3], pairs, {"van-gogh": bank(0)}, bank(1), SMALL)


def test_all_learn_but_the_tokens_stay_what_they_are(polisher, tmp_path):
    before = copy.deepcopy(polisher.tokenizer.state_dict()), copy.deepcopy(polisher.translator.state_dict())
    adapters = {name: {k: t.clone() for k, t in style.tensors.items()} for name, style in polisher.styles.items()}
    critic = copy.deepcopy(polisher.critic.state_dict())
    rows: list[dict[str, float]] = []
    polish.polish(polisher, Run(tmp_path / "run"), lambda done, numbers: rows.append(dict(numbers)))
    after = polisher.tokenizer.state_dict()
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[0][name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert not any(name.startswith("decoder.blocks.input") for name in changed)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(5)).to(DEVICE)
    assert torch.equal(polisher.tokenizer.encode(images), polisher.shown.encode(images))
    assert not torch.equal(
        polisher.tokenizer.decode(polisher.tokenizer.encode(images)), polisher.shown.decode(polisher.shown.encode(images))
    )
    assert any(not torch.equal(t, before[1][name]) for name, t in polisher.translator.state_dict().items())
    for name, style in polisher.styles.items():
        assert any(not torch.equal(t, adapters[name][k]) for k, t in style.tensors.items())
    assert any(not torch.equal(t, critic[name]) for name, t in polisher.critic.state_dict().items())
    assert set(rows[0]) == {"marks", "kept", "base", "critic", "fidelity"}  # the critics are alone
    assert set(rows[1]) == set(rows[0]) | JUDGED
    assert all(np.isfinite(value) for row in rows for value in row.values())


def test_styles_learn_alone_where_the_other_rates_are_0(polisher, tmp_path):
    config = replace(SMALL, lr=0, decoder_lr=0, base=0, round_trips=0)
    parts = (polisher.tokenizer, polisher.translator, polisher.styles, polisher.clip, polisher.features, polisher.draws.pairs)
    alone = Polish(*parts, {"van-gogh": bank(0)}, bank(1), config, {"van-gogh": bank(7)})
    assert alone.draws.rows == {"van-gogh": (0, 8), "": (8, 12)}  # the critics see works and labelled pictures
    before = copy.deepcopy(alone.tokenizer.state_dict()), copy.deepcopy(alone.translator.state_dict())
    adapter = {k: t.clone() for k, t in alone.styles["van-gogh"].tensors.items()}
    rows: list[dict[str, float]] = []
    polish.polish(alone, Run(tmp_path / "run"), lambda done, numbers: rows.append(dict(numbers)))
    for module, had in zip((alone.tokenizer, alone.translator), before, strict=True):
        assert all(torch.equal(tensor, had[name]) for name, tensor in module.state_dict().items())
    assert any(not torch.equal(t, adapter[k]) for k, t in alone.styles["van-gogh"].tensors.items())
    assert set(rows[-1]) == {"marks", "kept", "critic"} | JUDGED
    write_bundle(alone, tmp_path / "in")
    polish.save(alone, tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))  # only styles, which still belong to the bundle's translator
    style = checkpoint.load_style(tmp_path / "out" / "styles" / "van-gogh.safetensors")
    assert style.base_sha256 == storage.sha256(tmp_path / "in" / "translator.safetensors")


def test_the_decoder_learns_alone_where_the_other_rates_are_0(polisher, tmp_path):
    config = replace(SMALL, lr=0, adapter_lr=0, base=0)
    parts = (polisher.tokenizer, polisher.translator, polisher.styles, polisher.clip, polisher.features, polisher.draws.pairs)
    alone = Polish(*parts, {"van-gogh": bank(0)}, bank(1), config)
    before = copy.deepcopy(alone.tokenizer.state_dict()), copy.deepcopy(alone.translator.state_dict())
    adapter = {k: t.clone() for k, t in alone.styles["van-gogh"].tensors.items()}
    polish.polish(alone, Run(tmp_path / "run"))
    assert all(torch.equal(t, before[1][name]) for name, t in alone.translator.state_dict().items())
    assert all(torch.equal(t, adapter[k]) for k, t in alone.styles["van-gogh"].tensors.items())
    assert any(not torch.equal(t, before[0][name]) for name, t in alone.tokenizer.state_dict().items())


def test_styles_are_kept_in_part(polisher, tmp_path):
    adapter = {k: t.clone() for k, t in polisher.styles["van-gogh"].tensors.items()}
    polisher.config = replace(SMALL, kept_styles=1.0)
    polish.polish(polisher, Run(tmp_path / "run"))
    for key, tensor in polisher.styles["van-gogh"].tensors.items():
        torch.testing.assert_close(tensor.detach(), adapter[key])


def test_some_photos_are_plain(polisher):
    parts = (polisher.tokenizer, polisher.translator, polisher.styles, polisher.clip, polisher.features, polisher.draws.pairs)
    crops = bank(1).crops.clone()
    crops[2] = 128
    whole = Polish(*parts, {"van-gogh": bank(0)}, Bank(crops), replace(SMALL, plain=1.0))
    assert set(whole.draws.photos(8, np.random.default_rng(0))) == {2}
    mixed = Polish(*parts, {"van-gogh": bank(0)}, Bank(crops), replace(SMALL, plain=0.25))
    found = mixed.draws.photos(16, np.random.default_rng(0))
    assert set(found[:4]) == {2} and set(found[4:]) != {2}


def test_contents_are_the_tokens_of_the_photos_they_are_judged_beside(polisher):
    drawn = polisher.batch(0, np.random.default_rng(0)).drawn
    photos = polisher.crops[drawn.photos.to(DEVICE)].float() / 255
    assert (polisher.tokenizer.encode(photos).cpu() == drawn.contents).float().mean() > 0.9  # they are read in bfloat16


def test_pictures_have_lines_and_bends_as_in_use(polisher):
    drawn = polisher.batch(0, np.random.default_rng(0)).drawn
    photos, hard = polisher.crops[drawn.photos.to(DEVICE)].float() / 255, drawn.hard.to(DEVICE)
    photos[:, :, :24] = 0.5  # plain: marks move there
    logits = torch.randn(len(photos), 6, 6, 512, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    moves = random_moves(48, 48, torch.Generator().manual_seed(9)).to(DEVICE)
    assert drawn.moves.shape == (len(photos), *moves.shape[1:])
    assert not torch.equal(drawn.moves[0], drawn.moves[1])
    bare = polisher.paint(logits, hard, torch.full_like(photos, 0.5), torch.zeros_like(moves))
    painted = polisher.paint(logits, hard, photos, moves)
    assert (painted - bare)[:, :, :12].abs().mean() > 0.01
    torch.testing.assert_close(painted.clamp(0, 1), add_lines(bare.clamp(0, 1), photos, LINES, seed=9), atol=2e-3, rtol=1e-3)


def test_a_decoder_is_kept_in_part():
    old, new = tiny.tokenizer(), tiny.tokenizer()
    for tensor in new.decoder.parameters():
        tensor += 1
    polish.between(new.decoder.parameters(), old.decoder.parameters(), 0.25)
    assert all(torch.allclose(a, b + 0.75) for a, b in zip(new.decoder.parameters(), old.decoder.parameters(), strict=True))


def test_critics_learn_to_tell_works_from_made_pictures(polisher):
    optimizer = torch.optim.Adam(polisher.critic.parameters(), lr=2e-3)
    real, made = bank(0).draw(4, np.random.default_rng(0)), 0.3 * bank(2).draw(4, np.random.default_rng(0))
    style = torch.ones(4, dtype=torch.long, device=DEVICE)
    seen = [polisher.critic.look(images) for images in (real, made)]
    for _ in range(40):
        optimizer.zero_grad()
        polisher.critic.hinge(seen[0], style, seen[1], style).backward()
        optimizer.step()
    scores = [polisher.critic(some, style).mean() for some in seen]
    assert scores[0] > scores[1] + 0.5


def test_a_run_that_is_resumed_ends_as_an_unbroken_one(polisher, tmp_path):
    other = copy.deepcopy(polisher)
    polish.polish(polisher, Run(tmp_path / "whole"))

    class Stop(Exception):
        pass

    def stop(done: int, numbers: object) -> None:
        if done == 2:
            raise Stop

    again = copy.deepcopy(other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(polish, "Loop", lambda *args, **options: _saving(*args, **options))
        with pytest.raises(Stop):
            polish.polish(other, Run(tmp_path / "broken"), stop)
    polish.polish(again, Run(tmp_path / "broken"))
    for one, two in zip(polisher.translator.parameters(), again.translator.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def _saving(*args, **options):
    """A loop that saves after every step."""
    from stylerdalle.learn.loop import Loop

    return Loop(*args, **{**options, "minutes_between_saves": 0})


def write_bundle(polisher, folder) -> None:
    """The files that a polish begins with."""
    for name, model, write in (
        ("translator", polisher.translator, checkpoint.save_translator),
        ("tokenizer", polisher.tokenizer, checkpoint.save_tokenizer),
    ):
        write(folder / f"{name}.safetensors", model, licence="MIT", recipe={"command": "joint"})
    for name, style in polisher.styles.items():
        checkpoint.save_style(folder / "styles" / f"{name}.safetensors", style, licence="MIT")


def test_saved_files_belong_together(polisher, tmp_path):
    write_bundle(polisher, tmp_path / "in")
    polish.save(polisher, tmp_path / "in", tmp_path / "out")
    base = storage.sha256(tmp_path / "out" / "translator.safetensors")
    for name in polisher.styles:
        style = checkpoint.load_style(tmp_path / "out" / "styles" / f"{name}.safetensors")
        assert style.base_sha256 == base and style.prompt == polisher.styles[name].prompt
        assert (style.texture is None) == (polisher.styles[name].texture is None)
    recipe = storage.read_metadata(tmp_path / "out" / "tokenizer.safetensors")["recipe"]
    assert '"joint"' in recipe and '"polish"' in recipe
    polish.save(polisher, tmp_path / "out", tmp_path / "again")
    assert {"polish", "polish 2"} < set(json.loads(storage.read_metadata(tmp_path / "again" / "tokenizer.safetensors")["recipe"]))
    assert checkpoint.load_tokenizer(tmp_path / "out" / "tokenizer.safetensors").vocab_size == 512


def test_works_are_found_by_their_keys():
    works = [Picture(key, b"") for key in ("art_vg01", "shard/art_vg02", "art_mo01", "art_zz01")]
    found = works_by_style(works, ["van-gogh", "impressionism", "comic", "klimt"])
    assert {name: [p.key for p in some] for name, some in found.items()} == {
        "van-gogh": ["art_vg01", "shard/art_vg02"],
        "impressionism": ["art_mo01"],
    }
    with pytest.raises(ValueError, match="none of the styles comic"):
        works_by_style(works, ["comic"])


def test_labelled_pictures_are_found_by_their_style():
    art = [
        Picture(str(k), b"", style=style, kind=kind)
        for k, (style, kind) in enumerate([("cubism", "art"), ("cubism", "photo"), ("x", "art")])
    ]
    found = labelled_by_style(art, ["cubism", "fauvism", "comic"])
    assert {name: [p.key for p in some] for name, some in found.items()} == {"cubism": ["0"]}


def test_works_in_black_and_white_are_grey():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    works = {name: [Picture("a", file.getvalue())] for name in ("ink", "fauvism")}
    found = banks(works, 32, 2, (1.0, 1.0), 0, torch.device("cpu"))
    assert torch.equal(found["ink"].crops[:, 0], found["ink"].crops[:, 2]) and found["ink"].crops.shape == (2, 3, 32, 32)
    assert not torch.equal(found["fauvism"].crops[:, 0], found["fauvism"].crops[:, 2])


def test_all_weights_of_the_loss_are_options():
    assert {"critics", "style", "text", "recognised", "content", "layout", "marks", "kept"} <= set(asdict(PolishConfig()))


def test_other_options_are_named_and_a_bad_one_is_refused_in_one_sentence():
    assert polish.numbers_of(["lr=2e-4", "pairs=12"]) == {"lr": 2e-4, "pairs": 12}
    for text in ("nothing=1", "lr", "pairs=1.5", "zoom=0.4"):
        with pytest.raises(ValueError, match=f"--set {text}: give NAME=NUMBER with one of"):
            polish.numbers_of([text])


def test_the_recogniser_asks_for_what_is_a_styles_own():
    def pictures(red: float, count: int = 16) -> torch.Tensor:
        noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(round(10 * red)))
        return noise + torch.tensor([red, 0, 0]).view(3, 1, 1)

    recogniser = Recogniser(["pale", "red"], [3])
    recogniser.fit([channel_statistics([pictures(red)]) for red in (0, 1)])
    shown, red = torch.rand(16, 6, generator=torch.Generator().manual_seed(0)), torch.ones(16, dtype=torch.long)
    right, wrong = pictures(1.2), pictures(0.2).requires_grad_(True)
    assert recogniser([right], red, shown) < 0.5 < 0.7 < recogniser([wrong], red, shown)
    recogniser([wrong], red, shown).backward()
    step = wrong.grad.mean((0, 2, 3))
    assert step[0] < 0 and step[0].abs() > 2 * step[1:].abs().max()  # more red is what it asks for


def test_the_polish_learns_what_the_recogniser_asks_for(polisher, tmp_path):
    parts = (polisher.tokenizer, polisher.translator, polisher.styles, polisher.clip, polisher.features, polisher.draws.pairs)
    classes = iter([("van-gogh", bank(3)), ("photo", bank(4))])
    asked = Polish(*parts, {"van-gogh": bank(0)}, bank(1), replace(SMALL, recognised=0.5), classes=classes)
    assert polisher.recogniser is None
    rows: list[dict[str, float]] = []
    polish.polish(asked, Run(tmp_path / "run"), lambda done, numbers: rows.append(dict(numbers)))
    assert "recognised" not in rows[0] and rows[1]["recognised"] > 0


def test_classes_are_styles_photos_and_other_labels_of_many_pictures(monkeypatch):
    monkeypatch.setattr(polish_data, "LEAST", 2)
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 30, 30)).save(file, "png")
    names = [("art_fa01", ""), ("a", "fauvism"), ("b", "rococo"), ("c", "rococo"), ("d", "emoji"), ("e", "pixel art")]
    art = [Picture(key, file.getvalue(), style=style, kind="graphic" if key == "e" else "art") for key, style in names]
    photo = Picture("p", file.getvalue(), kind="photo")
    config = replace(SMALL, crops=3, zoom=(1.0, 1.0), labelled_zoom=(1.0, 1.0), recognised=1.0)
    sizes = (["fauvism", "pixel-art"], 32, config, torch.device("cpu"))
    works, labelled, classes, seen = polish.crops_of([*art, photo], [photo], *sizes)
    assert set(works) == {"fauvism", "pixel-art"} and set(labelled) == {"fauvism"} and len(seen.crops) == 24
    counts = {name: len(some.crops) for name, some in classes}
    assert counts == {"fauvism": 6, "pixel-art": 3, "photo": 6, "rococo": 3}
    assert not polish.crops_of([*art, photo], [photo], sizes[0], 32, replace(config, recognised=0.0), sizes[3])[2]


def test_marks_in_plain_places_count_where_works_are_calm():
    plain, busy = torch.full((1, 3, 64, 64), 0.5), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    limit, everywhere = faults.calm(plain).view(1), faults.plain_places(plain)
    assert everywhere.all() and not faults.plain_places(busy).any()
    assert faults.calm_loss(plain, everywhere, limit) == 0 and faults.calm_loss(busy, 0 * everywhere, limit) == 0
    assert faults.calm_loss(busy, everywhere, limit) > 1
    assert faults.calm_loss(busy, everywhere, faults.calm(busy).view(1)) < 0.1  # a style of marks everywhere


def test_what_repeats_from_token_to_token_is_seen():
    generator, plain = torch.Generator().manual_seed(0), torch.ones(4, 6, 6)
    token, noise = torch.rand(1, 3, 8, 8, generator=generator), torch.rand(4, 3, 96, 96, generator=generator)
    repeated = 0.5 * noise + 0.5 * token.repeat(1, 1, 12, 12)
    assert faults.repetition_loss(noise, plain) < 0.05
    assert faults.repetition_loss(repeated, plain) > 0.5
    assert faults.repetition_loss(repeated, 0 * plain) == 0  # the photo's own pattern
    strokes = torch.linspace(0, 30, 96).sin().expand(4, 3, 96, 96)  # wider than a token
    assert faults.repetition_loss(strokes, plain) < 0.3


def test_hues_far_from_the_photos_cost():
    def sky(*rgb: float) -> torch.Tensor:
        return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, 32, 32)

    photo = sky(0.3, 0.5, 0.9)
    assert faults.hue_loss(photo, photo) == 0 and faults.hue_loss(sky(0.1, 0.2, 0.4), photo) == 0  # darker
    assert faults.hue_loss(sky(0.2, 0.7, 0.8), photo) < 0.1 < 0.3 < faults.hue_loss(sky(0.5, 0.5, 0.5), photo)  # turquoise, grey
    assert faults.hue_loss(sky(0.8, 0.7, 0.2), photo) > 1
    assert faults.hue_loss(sky(0.8, 0.7, 0.2), sky(0.5, 0.5, 0.5)) < 0.1  # a grey sky may be yellow


@pytest.mark.skipif(DEVICE.type != "cuda", reason="CUDA graphs need CUDA")
def test_a_recorded_step_gives_the_gradients_of_the_plain_one(polisher):
    polisher.tokenizer.decoder.requires_grad_(True)
    polisher.translator.requires_grad_(True)
    tensors = [tensor.requires_grad_(True) for style in polisher.styles.values() for tensor in style.tensors.values()]
    learning = [*tensors, *polisher.translator.parameters()]  # the critic's spectral norms move with every call

    def gradients() -> list[torch.Tensor]:
        found = [torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone() for tensor in learning]
        for tensor in (*learning, *polisher.tokenizer.decoder.parameters(), *polisher.critic.parameters()):
            tensor.grad = None
        return found

    for step in (2, 3):  # the second is a replay of what the first has recorded
        batch = polisher.batch(step, np.random.default_rng(step))
        polisher.learn(step, batch)
        recorded = gradients()
        polisher.add_gradients([polisher.styles[n] for n in batch.names], True, *(x.to(DEVICE) for x in batch.tensors()))
        for one, two in zip(recorded, gradients(), strict=True):
            assert (one - two).norm() <= 0.05 * two.norm() + 1e-6
    assert polisher._recorded[True].graph is not None
