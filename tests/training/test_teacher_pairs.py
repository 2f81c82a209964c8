"""Token pairs that a teacher painted."""

from collections import Counter
from pathlib import Path

import pytest
import tiny
import torch
from training.test_teacher import encoded, seeded, teacher

from stylerdalle import checkpoint
from stylerdalle.training import contents, teacher_pairs
from stylerdalle.training.coded import Coded, painted_pairs
from stylerdalle.training.contents import read_contents
from stylerdalle.training.teacher_network import load_teacher, paint, save_teacher
from stylerdalle.training.teacher_pairs import contents_source, read_painted, read_token_pairs
from stylerdalle.training.teacher_styles import MANNERS, without_cast
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


@pytest.fixture
def shared(tmp_path):
    """A teacher, a tokenizer and a file of three contents; runs teacher_pairs over them."""
    save_teacher(tmp_path / "teacher.safetensors", teacher())
    checkpoint.save_tokenizer(tmp_path / "tokenizer.safetensors", tiny.tokenizer())
    (tmp_path / "photo.png").write_bytes(encoded("photo").data)
    files = [f"--{name}={tmp_path / name}.safetensors" for name in ("tokenizer", "contents", "teacher")]
    given = ["--images", str(tmp_path / "photo.png"), files[0], "--output", str(tmp_path / "contents.safetensors")]
    assert contents.main([*given, "--count", "3", "--size", "32", "--device", "cpu"]) == 0

    def run(*extra, output="pairs.safetensors"):
        code = teacher_pairs.main([*files, "--device", "cpu", "--output", str(tmp_path / output), *extra])
        return code, tmp_path / output

    return run


def test_contents_are_written_once_and_every_style_paints_them_all(shared):
    code, path = shared("--count", "3")
    pairs, found = (
        read_token_pairs(path),
        read_contents(path.parent / "contents.safetensors", path.parent / "tokenizer.safetensors"),
    )
    assert code == 0 and found.shape == (3, 4, 4)
    assert len({tuple(content.flatten().tolist()) for content in found}) == 3
    for style in range(3):
        own = pairs.content[pairs.style == style]
        assert sorted(own.flatten(1).tolist()) == sorted(found.flatten(1).tolist())
    assert not torch.equal(pairs.content[0], pairs.content[1])  # each style begins at another content


def test_contents_are_used_equally_often():
    whole = torch.arange(30).view(30, 1, 1)
    drawn, other = ([int(contents_source(whole, 4, seed).draw(n)) for n in range(60)] for seed in (0, 1))
    assert set(Counter(drawn).values()) == {2}
    assert all(len(set(drawn[style::4])) == 15 for style in range(4))
    assert drawn != other


def test_a_pair_over_contents_can_be_painted_again_from_its_seed_whatever_the_batch(shared):
    _, path = shared("--count", "2", "--batch", "4")
    _, single = shared("--count", "2", "--batch", "1", output="single.safetensors")
    pairs, alone = read_token_pairs(path), read_token_pairs(single)
    assert pairs.seed.tolist() == alone.seed.tolist() == list(range(6))
    assert torch.equal(pairs.content, alone.content)
    assert (pairs.target == alone.target).float().mean() > 0.9  # bfloat16 rounds with the batch
    model = load_teacher(path.parent / "teacher.safetensors")
    dtype = teacher_pairs.choose_dtype(torch.device("cpu"))
    tokenizer = checkpoint.load_tokenizer(path.parent / "tokenizer.safetensors", dtype=dtype)
    for number in range(6):
        picture = paint(model, tokenizer.decode(alone.content[number : number + 1]).float(), ["abc"[number % 3]], seed=number)
        assert torch.equal(tokenizer.encode(picture)[0], alone.target[number])


def test_pairs_over_contents_are_continued_and_no_more_are_made_than_asked_for(shared):
    once = read_token_pairs(shared("--count", "3", "--batch", "3", output="whole.safetensors")[1])
    for count in (1, 3, 3):
        _, path = shared("--count", str(count), "--batch", "3")
    assert all(torch.equal(a, b) for a, b in zip(once[:4], read_token_pairs(path)[:4], strict=True))


def test_pairs_over_contents_are_not_continued_with_photos(shared, capsys):
    folder = shared("--count", "1")[1].parent
    files = [f"--{name}={folder / name}.safetensors" for name in ("tokenizer", "teacher")]
    given = ["--images", str(folder / "photo.png"), *files, "--output", str(folder / "pairs.safetensors")]
    assert teacher_pairs.main([*given, "--size", "32", "--device", "cpu"]) == 2
    assert "another recipe: delete it" in capsys.readouterr().err


def test_contents_of_another_tokenizer_are_refused_in_one_sentence(shared, capsys):
    folder = shared("--count", "1")[1].parent
    checkpoint.save_tokenizer(folder / "tokenizer.safetensors", tiny.vqgan())
    assert shared("--count", "1", output="other.safetensors")[0] == 2
    error = capsys.readouterr().err
    assert "contents.safetensors is of another tokenizer than" in error and error.count("\n") == 1


def test_a_size_that_is_no_multiple_of_the_tokenizers_is_refused(shared, capsys):
    folder = shared("--count", "1")[1].parent
    given = ["--images", str(folder / "photo.png"), "--tokenizer", str(folder / "tokenizer.safetensors"), "--size", "36"]
    assert contents.main([*given, "--output", str(folder / "more.safetensors"), "--device", "cpu"]) == 2
    assert "3000 crops of 36 px: need one or more, of a multiple of 8 px" in capsys.readouterr().err


def written(folder: Path, name: str, styles: tuple[str, ...], content: torch.Tensor, tokenizer: str = "t") -> Path:
    """A file of one pair a style, whose target is its content."""
    number = torch.arange(len(styles))
    tokens = content.to(torch.uint16)
    tensors = {"content": tokens, "target": tokens.clone(), "style": number, "seed": number.clone()}
    checkpoint.write(folder / name, tensors, "pairs", styles=list(styles), tokenizer_sha256=tokenizer)
    return folder / name


def test_a_style_that_several_files_have_takes_the_pairs_of_the_last(tmp_path):
    numbers = torch.arange(4).view(4, 1, 1).expand(4, 2, 2)
    paths = [written(tmp_path, "one", ("a", "b"), numbers[:2]), written(tmp_path, "two", ("c", "a"), numbers[2:])]
    for order, expected in ((paths, {"a": 3, "b": 1, "c": 2}), (paths[::-1], {"a": 0, "b": 1, "c": 2})):
        pairs = read_painted(order)
        assert len(pairs.content) == 3
        assert {pairs.styles[int(s)]: int(c[0, 0]) for s, c in zip(pairs.style, pairs.target, strict=True)} == expected
    assert read_painted([]) is None


def test_pair_files_of_different_tokenizers_or_sizes_are_refused(tmp_path):
    numbers = torch.zeros(1, 2, 2)
    first = written(tmp_path, "one", ("a",), numbers)
    with pytest.raises(ValueError, match="other and .*one hold pairs of different tokenizers"):
        read_painted([first, written(tmp_path, "other", ("a",), numbers, "u")])
    with pytest.raises(ValueError, match="large and .*one hold pairs of different sizes"):
        read_painted([first, written(tmp_path, "large", ("a",), torch.zeros(1, 3, 3))])


def test_only_styles_of_works_in_black_and_white_are_made_grey():
    grey = next(name for name, manner in MANNERS.items() if manner.grey)
    images = torch.rand(3, 3, 4, 4, generator=seeded())
    out = without_cast(images, ["van-gogh", grey, "of no works"])
    assert torch.equal(out[0], images[0]) and torch.equal(out[2], images[2])
    assert torch.equal(out[1, 0], out[1, 1]) and not torch.equal(out[1], images[1])


def test_only_the_named_styles_of_a_teacher_are_painted(shared, capsys):
    _, path = shared("--count", "2", "--styles", "c", "a", "--batch", "1")
    pairs = read_token_pairs(path)
    assert pairs.styles == ("c", "a") and pairs.style.tolist() == [0, 1, 0, 1]
    model = load_teacher(path.parent / "teacher.safetensors")
    dtype = teacher_pairs.choose_dtype(torch.device("cpu"))
    tokenizer = checkpoint.load_tokenizer(path.parent / "tokenizer.safetensors", dtype=dtype)
    picture = paint(model, tokenizer.decode(pairs.content[:1]).float(), ["c"], seed=0)
    assert torch.equal(tokenizer.encode(picture)[0], pairs.target[0])
    assert shared("--count", "1", "--styles", "nobody", output="other.safetensors")[0] == 2
    assert "no style nobody: choose from a, b, c" in capsys.readouterr().err
