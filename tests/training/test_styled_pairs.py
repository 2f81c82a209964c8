"""Pairs that a bundle's own styles translate."""

from dataclasses import replace

import pytest
import tiny
import torch

from stylerdalle import checkpoint
from stylerdalle.checkpoint import write
from stylerdalle.tokenizers.tokens import Tokens
from stylerdalle.training import styled_pairs
from stylerdalle.training.teacher_pairs import read_token_pairs
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.texture import Texture
from stylerdalle.translator.translate import translate


@pytest.fixture
def files(tmp_path):
    folder = tiny.write_bundle(tmp_path / "bundle")
    style = checkpoint.load_style(folder / "styles" / "van-gogh.safetensors")
    texture = Texture(torch.zeros(1, 4, 4, dtype=torch.long), torch.ones(1))
    checkpoint.save_style(folder / "styles" / "comic.safetensors", replace(style, texture=texture))
    contents = torch.randint(512, (3, 6, 6), generator=torch.Generator().manual_seed(0))
    write(tmp_path / "contents.safetensors", {"content": contents.to(torch.uint16)}, "contents")
    return folder, tmp_path / "contents.safetensors", tmp_path / "pairs.safetensors"


def run(files, *extra: str) -> int:
    folder, contents, output = files
    given = ["--bundle", str(folder), "--contents", str(contents), "--output", str(output), "--device", "cpu"]
    return styled_pairs.main([*given, *extra])


def test_every_style_without_a_texture_translates_contents_in_its_likeliest_tokens(files):
    folder, _, output = files
    assert run(files, "--count", "2") == 0
    pairs = read_token_pairs(output)
    styles = {path.stem: checkpoint.load_style(path) for path in (folder / "styles").glob("*.safetensors")}
    plain = sorted(name for name, style in styles.items() if style.texture is None)
    assert plain and len(plain) < len(styles) and pairs.styles == tuple(plain)
    assert len(pairs.content) == 2 * len(plain)
    tokenizer = checkpoint.load_tokenizer(folder / "tokenizer.safetensors", dtype=styled_pairs.choose_dtype(torch.device("cpu")))
    translator = checkpoint.load_translator(folder / "translator.safetensors", dtype=tokenizer.dtype)
    for number, content in enumerate(pairs.content):
        style = styles[plain[number % len(plain)]].to("cpu", tokenizer.dtype)
        options = TranslateOptions(sampling=Sampling(seed=number, softness=0))
        again = translate(translator, tokenizer, Tokens(content[None], 48, 48, 512), [(style, 1.0)], options).grid[0]
        assert torch.equal(again, pairs.target[number])


def test_a_file_without_contents_is_refused_in_one_sentence(files, capsys):
    _, contents, _ = files
    write(contents, {"other": torch.zeros(1)}, "contents")
    assert run(files) == 2
    assert "holds no contents: make it anew" in capsys.readouterr().err
