"""`stylerdalle fetch` from a server on this machine with small models in the official formats."""

import io
import json
import logging
import math
import os
import pickle
import re
from pathlib import Path

import loopback
import pytest
import tiny
import torch
from dall_e import Decoder, Encoder

from stylerdalle import bundle as bundles
from stylerdalle import checkpoint, load_bundle, storage
from stylerdalle.cli.main import main
from stylerdalle.clip.package import clip
from stylerdalle.convert import download as downloads
from stylerdalle.convert import identity
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.translator.model import TranslatorConfig
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.translate import TranslateOptions, translate

ARCH = {"type": "dvae", "n_hid": 64, "n_blk_per_group": 1, "vocab_size": 512, "n_init": 16}


def saved(what: object) -> bytes:
    stream = io.BytesIO()
    torch.save(what, stream)
    return stream.getvalue()


def small_sizes(tokenizer) -> TranslatorConfig:
    """In place of the paper's sizes, which take seconds."""
    sizes = {"width": 64, "heads": 2, "encoder_layers": 1, "decoder_blocks": 1, "grid": 4, "upscale": 1}
    return TranslatorConfig(tokenizer.embed_dim, tokenizer.vocab_size, **sizes, texture=True, noise=2)


class Site:
    """Servers of the encoder, the decoder and the CLIP, and a known.json that points to them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.capsys = folder, capsys
        self.dvae, self.model = tiny.tokenizer(), tiny.clip_model()
        files = (self.dvae.encoder, self.dvae.decoder, self.model.state_dict())
        self.encoder, self.decoder, self.clip = (loopback.Server(saved(file)) for file in files)
        self.table = {
            "dalle": {
                "title": "a small dVAE",
                "kind": "dvae",
                "files": [[{"url": f"{self.encoder.url}/encoder.pkl"}], [{"url": f"{self.decoder.url}/decoder.pkl"}]],
                "into": ["dalle/tokenizer.safetensors"],
                "arch": ARCH,
                "parameters": sum(p.numel() for p in self.dvae.state_dict().values()),
                "licence": "modified MIT",
            },
            "clip": {
                "title": "a small CLIP",
                "kind": "clip",
                "files": [[{"url": f"{self.clip.url}/clip.pt"}]],
                "into": ["dalle/clip.safetensors", "rudalle/clip.safetensors"],
                "arch": {"type": "clip", "image_resolution": 64},
                "parameters": sum(p.numel() for p in self.model.state_dict().values()),
                "licence": "MIT",
            },
        }
        self.write()

    def write(self) -> None:
        (self.folder / "known.json").write_text(json.dumps(self.table))

    def __call__(self, *words: object) -> str:
        """Run a command that must succeed -> its output."""
        self.capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = self.capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    def refuses(self, *words: object) -> str:
        """Run a command that must fail as bad input and write nothing -> its message."""
        before = self.there()
        self.capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        out, err = self.capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert self.there() == before
        return err

    def there(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file() and p.name != "known.json")

    def asked(self) -> int:
        return len(self.encoder.asked) + len(self.decoder.asked) + len(self.clip.asked)


@pytest.fixture
def site(tmp_path, monkeypatch, capsys):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(bundles, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(downloads, "RETRY_PAUSE", 0)
    monkeypatch.setattr(identity, "identity_config", small_sizes)
    logging.getLogger("stylerdalle").setLevel(logging.NOTSET)  # commands that train turn it up for the whole process
    (tmp_path / "weights").mkdir()
    site = Site(tmp_path / "weights", capsys)
    yield site
    for server in (site.encoder, site.decoder, site.clip):
        server.close()


def test_after_fetching_the_bundle_is_whole_and_gives_a_photo_back(site, tmp_path):
    for step in ("dalle", "clip"):
        with pytest.raises(ValueError, match=f"`stylerdalle fetch {step}`"):
            load_bundle("dalle")
        said = site("fetch", step)
        assert ("it returns 512 of 512 tokens as they are" in said) == (step == "dalle")
    bundle = load_bundle("dalle", "cpu", "fp32")
    images = torch.rand(1, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    tokens = encode(bundle.tokenizer, images)
    assert torch.equal(tokens.grid, encode(site.dvae, images).grid)
    back = translate(bundle.translator, bundle.tokenizer, tokens, [], TranslateOptions(sampling=Sampling(softness=0)))
    assert torch.equal(back.grid, tokens.grid)
    assert torch.equal(decode(bundle.tokenizer, back), decode(site.dvae, tokens))
    assert bundle.clip.visual.input_resolution == 64
    assert site.there() == [
        *(f"dalle/{part}.safetensors" for part in ("clip", "tokenizer", "translator")),
        "rudalle/clip.safetensors",
    ]


def test_a_translator_that_is_there_stays_unless_it_was_made_of_another_codebook(site):
    path = site.folder / "dalle" / "translator.safetensors"
    checkpoint.save_translator(path, tiny.translator(site.dvae), recipe={"command": "pretrain"})
    trained = path.read_bytes()
    assert "made of" not in site("fetch", "dalle")
    site("fetch", "dalle", "--overwrite")
    assert path.read_bytes() == trained
    path.unlink()
    assert "made of the tokenizer's codebook" in site("fetch", "dalle")  # nothing is downloaded: the tokenizer is there
    made = path.read_bytes()
    assert "made of" not in site("fetch", "dalle")
    other = {**storage.read_recipe(path), "tokenizer_sha256": "0" * 64}
    checkpoint.save_translator(path, checkpoint.load_translator(path), recipe=other, licence="modified MIT")
    assert "made of the tokenizer's codebook" in site("fetch", "dalle")
    assert path.read_bytes() == made  # the same numbers each time


def test_where_a_file_came_from_is_said_and_kept_in_it(site):
    said = site("fetch", "dalle")
    metadata = storage.read_metadata(site.folder / "dalle" / "tokenizer.safetensors")
    assert metadata["licence"] == "modified MIT"
    for source, server in zip(json.loads(metadata["source"]), (site.encoder, site.decoder), strict=True):
        assert source["url"] == f"{server.url}/{source['file']}"
        assert source["bytes"] == len(server.data)
        assert f"{source['url']}: {source['bytes']:,} bytes, sha256 {source['sha256']}\n" in said
    assert "tokenizer.safetensors: tokenizer of 10.9 MB (n_hid 64" in said


def test_a_second_time_nothing_is_downloaded(site):
    site("fetch", "dalle")
    site("fetch", "clip")
    before = site.asked()
    assert "tokenizer of" in site("fetch", "dalle")
    (site.folder / "rudalle" / "clip.safetensors").unlink()
    site("fetch", "clip")
    assert site.asked() == before
    assert os.path.samefile(site.folder / "dalle" / "clip.safetensors", site.folder / "rudalle" / "clip.safetensors")
    site("fetch", "clip", "--overwrite")
    assert site.asked() == before + 1


def test_what_a_killed_command_left_of_its_downloads_is_removed_where_the_file_is_there(site):
    site("fetch", "clip")
    left = site.folder / "dalle" / ".fetch"
    left.mkdir()
    for name in ("clip-0-0.part", "clip-0-1.part.json", "dalle-0-0.part"):  # of its file, a note alone, another command's
        (left / name).write_bytes(b"half")
    site("fetch", "clip")
    assert os.listdir(left) == ["dalle-0-0.part"]
    (left / "dalle-0-0.part").rename(left / "clip-0-0.part")
    site("fetch", "clip")
    assert not left.exists()


def test_it_goes_where_it_is_told_to(site, tmp_path):
    said = site("fetch", "clip", "--to", tmp_path / "elsewhere" / "mine")
    assert os.listdir(tmp_path / "elsewhere" / "mine") == ["clip.safetensors"]
    assert str(tmp_path / "elsewhere" / "mine" / "clip.safetensors") in said
    assert site.there() == []


def test_files_downloaded_by_hand_are_taken_and_left_where_they_are(site, tmp_path):
    files = tmp_path / "decoder.pkl", tmp_path / "encoder.pkl"
    for file, server in zip(files, (site.decoder, site.encoder), strict=True):
        file.write_bytes(server.data)
    site("fetch", "dalle", "--from", *files)
    assert site.asked() == 0
    assert all(file.is_file() for file in files)
    checkpoint.load_tokenizer(site.folder / "dalle" / "tokenizer.safetensors")
    site.table["dalle"]["files"][0][0]["sha256"] = "0" * 64
    site.write()
    says = site.refuses("fetch", "dalle", "--overwrite", "--from", *files)
    assert "encoder.pkl is damaged or another file: its sha256 is" in says
    assert "encoder.pkl does not exist" in site.refuses(
        "fetch", "dalle", "--overwrite", "--from", tmp_path / "no" / "encoder.pkl"
    )


def test_the_next_address_is_tried_and_all_are_named_where_none_has_it(site):
    good = site.table["clip"]["files"][0][0]
    site.table["clip"]["files"][0] = [{"url": f"{site.decoder.url}/other.pt", "sha256": "0" * 64}, good]
    site.write()
    assert f"clip.pt: {len(site.clip.data):,} bytes" in site("fetch", "clip")
    site.clip.acts = [loopback.answers(404)]
    says = site.refuses("fetch", "clip", "--overwrite")
    assert "/other.pt sent another file" in says
    assert "/clip.pt answers 404 Not Found: try later, or give files downloaded by hand with --from" in says


def test_an_address_that_fails_costs_the_next_one_nothing_of_what_came(site):
    site.table["clip"]["files"][0].insert(0, {"url": f"{site.decoder.url}/gone.pt"})
    site.write()
    site.decoder.acts, site.clip.acts = [loopback.answers(404)], [loopback.breaks(10_000_000), loopback.breaks(0)]
    assert main(["fetch", "clip"]) == 2
    assert "run the same command again to continue" in site.capsys.readouterr().err
    site.clip.acts, site.clip.asked = [loopback.good], []
    site("fetch", "clip")
    ((_, asked),) = site.clip.asked
    assert asked is not None
    assert site.there() == ["dalle/clip.safetensors", "rudalle/clip.safetensors"]


def test_a_download_that_broke_off_is_gone_on_with(site):
    half = len(site.decoder.data) // 2
    site.decoder.acts = [loopback.breaks(half), loopback.breaks(0)]
    assert main(["fetch", "dalle"]) == 2
    assert "run the same command again to continue" in site.capsys.readouterr().err
    assert [name for name in site.there() if name.endswith(".part")] == [
        "dalle/.fetch/dalle-0-0.part",
        "dalle/.fetch/dalle-1-0.part",
    ]
    site.decoder.acts, site.decoder.asked, site.encoder.asked = [loopback.good], [], []
    site("fetch", "dalle")
    assert site.encoder.asked == []  # it was there as a whole
    ((_, asked),) = site.decoder.asked
    assert half - downloads.BLOCK <= int(asked.removeprefix("bytes=").removesuffix("-")) <= half
    assert site.there() == ["dalle/tokenizer.safetensors", "dalle/translator.safetensors"]


class Touch:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch canary",)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (saved({"w": torch.zeros(3)}), "but got: something else, decoder"),
        (saved(tiny.tokenizer().encoder)[:5000], "damaged"),
        (pickle.dumps(Touch(), 2), "asks for posix.system"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (saved(Encoder(n_hid=64, n_blk_per_group=2, vocab_size=512)), "missing decoder|missing"),
    ],
)
def test_a_wrong_file_is_refused_removed_and_asked_for_again(body, says, site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right, site.encoder.data = site.encoder.data, body
    said = site.refuses("fetch", "dalle")
    assert re.search(says, said)
    assert "the download was removed" in said
    assert not Path("canary").exists()
    site.encoder.data = right
    site("fetch", "dalle")


def test_a_model_of_another_size_is_refused(site):
    small = {"n_hid": 64, "n_blk_per_group": 1, "vocab_size": 520}
    site.encoder.data, site.decoder.data = saved(Encoder(**small)), saved(Decoder(**small, n_init=16))
    assert "this is not a small dVAE, but 2,7" in site.refuses("fetch", "dalle")


def test_something_else_in_its_place_is_not_replaced_unasked(site):
    checkpoint.save_tokenizer(site.folder / "dalle" / "tokenizer.safetensors", tiny.tokenizer(), licence="mine")
    assert "exists and is not a small dVAE" in site.refuses("fetch", "dalle")
    (site.folder / "dalle" / "tokenizer.safetensors").write_bytes(b"junk")
    assert "exists and is not a small dVAE" in site.refuses("fetch", "dalle")
    assert site.asked() == 0
    site("fetch", "dalle", "--overwrite")
    checkpoint.load_tokenizer(site.folder / "dalle" / "tokenizer.safetensors")


def test_a_name_that_is_not_known_is_refused_with_those_that_are(site):
    assert "'dall-e' are not known: dalle, clip" in site.refuses("fetch", "dall-e")


def test_the_table_states_what_the_official_models_are():
    from stylerdalle.convert.fetch import known
    from stylerdalle.tokenizers.vqgan import VQGAN

    table = known()
    meta = torch.device("meta")
    with meta:
        vit = clip.model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)
        models = {"dalle": [Encoder(device=meta), Decoder(device=meta)], "clip": [vit]}
        models["rudalle"] = [VQGAN.of(table["rudalle"].arch)]
    assert table.keys() == models.keys()
    for name, what in table.items():
        states = [model.state_dict() for model in models[name]]
        assert what.parameters == sum(math.prod(tensor.shape) for state in states for tensor in state.values())
        assert all(path.split("/")[0] in bundles.OFFICIAL for path in what.into)
        for address in (address for addresses in what.files for address in addresses):
            assert address.url.startswith("https://")
            assert address.sha256 is None or re.fullmatch("[0-9a-f]{64}", address.sha256)
