"""Token pairs that a teacher painted."""

import pytest
import tiny
import torch
from training.test_teacher import encoded, teacher

from stylerdalle import checkpoint
from stylerdalle.training import teacher_pairs
from stylerdalle.training.teacher_network import load_teacher, paint, save_teacher
from stylerdalle.training.teacher_pairs import read_token_pairs


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
