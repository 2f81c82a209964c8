"""Token pairs that a teacher painted."""

import pytest
import tiny
import torch
from training.test_teacher import encoded, teacher

from stylerdalle import checkpoint
from stylerdalle.training import teacher_pairs
from stylerdalle.training.coded import Coded, painted_pairs
from stylerdalle.training.teacher_network import load_teacher, paint, save_teacher
from stylerdalle.training.teacher_pairs import read_token_pairs
from stylerdalle.translator.model import TranslatorConfig
from stylerdalle.translator.noise import noise_field


@pytest.fixture
def made(tmp_path):
    save_teacher(tmp_path / "teacher.safetensors", teacher())
    checkpoint.save_tokenizer(tmp_path / "tokenizer.safetensors", tiny.tokenizer())
    (tmp_path / "photo.png").write_bytes(encoded("photo").data)

    def run(*extra):
        files = {"images": "photo.png", "teacher": "teacher.safetensors", "tokenizer": "tokenizer.safetensors"}
        given = [part for key, name in files.items() for part in (f"--{key}", str(tmp_path / name))]
        arguments = [*given, "--output", str(tmp_path / "pairs.safetensors"), "--size", "32", "--device", "cpu"]
        return teacher_pairs.main([*arguments, *extra]), tmp_path

    return run


def test_pairs_of_all_styles_are_written_and_read_back(made):
    code, folder = made("--count", "2")
    pairs = read_token_pairs(folder / "pairs.safetensors")
    assert code == 0
    assert pairs.content.shape == pairs.target.shape == (6, 4, 4)
    assert pairs.style.tolist() == [0, 1, 2, 0, 1, 2]
    assert pairs.styles == ("a", "b", "c")


def test_a_pair_can_be_painted_again_from_its_content_and_its_seed(made):
    _, folder = made("--count", "1")
    pairs = read_token_pairs(folder / "pairs.safetensors")
    model = load_teacher(folder / "teacher.safetensors")
    tokenizer = checkpoint.load_tokenizer(folder / "tokenizer.safetensors", dtype=teacher_pairs.choose_dtype(torch.device("cpu")))
    picture = paint(model, tokenizer.decode(pairs.content[1:2]).float(), ["b"], seed=int(pairs.seed[1]))
    assert torch.equal(tokenizer.encode(picture)[0], pairs.target[1])


def test_a_file_is_continued_as_if_it_had_been_made_at_once(made):
    _, folder = made("--count", "3")
    once = read_token_pairs(folder / "pairs.safetensors")
    (folder / "pairs.safetensors").unlink()
    made("--count", "1")
    made("--count", "3")
    again = read_token_pairs(folder / "pairs.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(once[:4], again[:4], strict=True))


def test_pairs_by_another_seed_are_not_mixed_in(made, capsys):
    made("--count", "1")
    code, _ = made("--count", "2", "--seed", "1")
    assert code == 2
    assert "another recipe: delete it" in capsys.readouterr().err


def test_the_file_stays_within_its_megabytes(made):
    _, folder = made("--megabytes", "0.001")
    assert len(read_token_pairs(folder / "pairs.safetensors").content) == 12  # of 69 bytes each, in rounds of three


def test_another_kind_of_file_is_refused(made):
    _, folder = made("--count", "1")
    with pytest.raises(ValueError, match="holds a teacher, not a pairs"):
        read_token_pairs(folder / "teacher.safetensors")


def test_windows_cut_from_painted_pairs_have_the_noise_they_were_painted_with(made):
    _, folder = made("--count", "1", "--size", "48")  # 6 x 6 tokens: windows of 4 begin at 0 and 2
    pairs = read_token_pairs(folder / "pairs.safetensors")
    coded = painted_pairs(pairs, "b", 4)
    config = TranslatorConfig(embed_dim=16, grid=4, texture=True, noise=2)
    noise = noise_field(6, 6, torch.Generator().manual_seed(int(pairs.seed[1])))[0]
    assert len(coded) == 4 and coded.texture is None
    assert torch.equal(coded.content[3].view(4, 4), pairs.content[1, 2:, 2:])
    assert torch.equal(coded.target[1].view(4, 4), pairs.target[1, :4, 2:])
    under = coded.rows(torch.tensor([3])).under(None, config, torch.device("cpu"))
    assert under.shape == (1, 16, 18) and not under[..., :16].any()
    assert torch.allclose(under[0, :, 16:].T.view(2, 4, 4), noise[:, 2:, 2:], atol=2e-3)


def test_made_pairs_are_read_with_noise_that_tells_nothing():
    coded = Coded(*torch.zeros(2, 3, 16, dtype=torch.long), torch.tensor([[0, 0], [1, 2], [1, 2]]), None)
    noisy, plain = TranslatorConfig(embed_dim=16, grid=4, texture=True, noise=2), TranslatorConfig(embed_dim=16, grid=4)
    first, second, third = coded.under(None, noisy, torch.device("cpu"))
    assert torch.equal(second, third) and not torch.equal(first, second)
    assert coded.under(None, plain, torch.device("cpu")) is None


def test_a_style_that_was_not_painted_is_refused(made):
    _, folder = made("--count", "1")
    pairs = read_token_pairs(folder / "pairs.safetensors")
    with pytest.raises(ValueError, match="no painted pairs of anime: they are of a, b, c"):
        painted_pairs(pairs, "anime", 4)
    with pytest.raises(ValueError, match="1 painted pairs of a, of 4 x 4 tokens: need one of 8 x 8"):
        painted_pairs(pairs, "a", 8)
