"""OpenAI's pickled encoder and decoder to one tokenizer file: the same tokens and pixels as the `dall_e` package."""

import json
import os
from pathlib import Path

import pytest
import tiny
import torch
from dall_e import Decoder, Encoder, map_pixels, unmap_pixels

from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.convert.registry import convert

YOUNG = ("recompute_scale_factor", "_backward_pre_hooks", "_is_full_backward_hook", "_forward_hooks_with_kwargs")
YOUNG += ("_forward_hooks_always_called", "_forward_pre_hooks_with_kwargs", "_state_dict_pre_hooks")
YOUNG += ("_load_state_dict_post_hooks",)


def pickled(folder: Path, encoder: Encoder, decoder: Decoder, legacy: bool = False) -> list[Path]:
    """Whole modules as torch of 2021 pickled them: without attributes that modules got later."""
    paths = [folder / "encoder.pkl", folder / "decoder.pkl"]
    for path, half in zip(paths, (encoder, decoder), strict=True):
        for module in half.modules():
            for name in YOUNG:
                module.__dict__.pop(name, None)
        torch.save(half, path, _use_new_zipfile_serialization=not legacy)
    return paths


def halves(**sizes: int) -> tuple[Encoder, Decoder]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        n_init = sizes.pop("n_init", 128)
        return Encoder(**sizes), Decoder(**sizes, n_init=n_init)


@torch.inference_mode()
def assert_same(path: Path, encoder: Encoder, decoder: Decoder, side: int) -> None:
    """The converted tokenizer against the package's modules, in float32."""
    ours = checkpoint.load_tokenizer(path)
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    tokens = encoder(map_pixels(images)).argmax(1)
    assert len(tokens.unique()) > 1
    assert torch.equal(ours.encode(images), tokens)
    one_hot = torch.nn.functional.one_hot(tokens, encoder.vocab_size).permute(0, 3, 1, 2).float()
    pixels = unmap_pixels(torch.sigmoid(decoder(one_hot)[:, :3]))
    torch.testing.assert_close(ours.decode(tokens), pixels, atol=1e-5, rtol=0)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tokens_are_those_of_the_package(legacy, tmp_path, capsys):
    original = tiny.tokenizer()
    encoder, decoder = halves(n_hid=64, n_blk_per_group=1, vocab_size=512, n_init=16)
    encoder.load_state_dict(original.encoder.state_dict())
    decoder.load_state_dict(original.decoder.state_dict())
    first, second = pickled(tmp_path, encoder, decoder, legacy)
    out = tmp_path / "tokenizer.safetensors"
    assert main(["convert", "dvae", str(second), str(first), "--output", str(out)]) == 0  # in either order
    assert_same(out, original.encoder, original.decoder, 32)
    source = json.loads(storage.read_metadata(out)["source"])
    assert [(s["file"], s["sha256"]) for s in source] == [(p.name, storage.sha256(p)) for p in (second, first)]


@pytest.mark.skipif("STYLERDALLE_FULL_SIZE" not in os.environ, reason="0.8 GB of files: STYLERDALLE_FULL_SIZE=1 runs it")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tokens_of_the_full_size_are_those_of_the_package(legacy, tmp_path):
    encoder, decoder = halves()
    paths = pickled(tmp_path, encoder, decoder, legacy)
    converted = convert("dvae", paths)
    assert converted.parameters == 53_786_240 + 43_829_766
    converted.save(tmp_path / "tokenizer.safetensors")
    again = halves()  # what was pickled lacks attributes that it needs to run today
    assert_same(tmp_path / "tokenizer.safetensors", *again, 64)


def test_two_blocks_a_group_are_counted(tmp_path):
    paths = pickled(tmp_path, *halves(n_hid=64, n_blk_per_group=2, vocab_size=512, n_init=16))
    assert convert("dvae", paths).arch == {"type": "dvae", "n_hid": 64, "n_blk_per_group": 2, "vocab_size": 512, "n_init": 16}


def test_what_are_not_two_halves_of_one_dvae_is_refused(tmp_path):
    paths = pickled(tmp_path, *halves(n_hid=64, n_blk_per_group=1, vocab_size=512, n_init=16))
    others = pickled(tmp_path / "..", *halves(n_hid=64, n_blk_per_group=1, vocab_size=520, n_init=16))
    torch.save({"w": torch.zeros(3)}, tmp_path / "other.pt")
    for files, says in (
        (paths[:1], "but got: encoder;"),
        (paths[:1] * 2, "but got: encoder, encoder;"),
        ([*paths, paths[0]], "but got: encoder, decoder, encoder;"),
        ([paths[0], tmp_path / "other.pt"], "but got: encoder, something else;"),
        ([paths[0], others[1]], r"decoder.blocks.input.w is \(16, 520, 1, 1\), need \(16, 512, 1, 1\)"),
    ):
        with pytest.raises(ValueError, match=says):
            convert("dvae", files)


def test_a_module_that_lacks_a_layer_is_refused(tmp_path):
    encoder, decoder = halves(n_hid=64, n_blk_per_group=1, vocab_size=512, n_init=16)
    del encoder.blocks.group_3.block_1.res_path.conv_2
    with pytest.raises(ValueError, match=r"missing encoder.blocks.group_3.block_1.res_path.conv_2.w"):
        convert("dvae", pickled(tmp_path, encoder, decoder))
