"""Lists of prompts, and the one that is shipped."""

import pytest

from stylerdalle.training.prompts import read_prompts


def test_a_list_is_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(
        "# mine\na sketch\n\n[wash]\na wash | watercolour\n a blue wash|watercolour | blue \n"
        "[tiles, held out]\na mosaic\n[ours]\nhatched | pencil_sketch\nhatches | pencil-sketch\n"
    )
    found = read_prompts(path)
    assert [(p.text, p.family, p.filter, p.tone, p.held_out) for p in found] == [
        ("a sketch", "a sketch", "", "", False),
        ("a wash", "wash", "watercolour", "", False),
        ("a blue wash", "wash", "watercolour", "blue", False),
        ("a mosaic", "tiles", "", "", True),
        ("hatched", "ours", "pencil-sketch", "", False),
        ("hatches", "ours", "pencil-sketch", "", False),
    ]
    assert [p.paired for p in found] == [False, True, True, False, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a | tea", "line 1.*filters: .*charcoal"),
        ("a | ink | tea", "line 1.*tones: .*sepia"),
        ("a | ink | red | more", "is not `prompt"),
        ("a\na", "line 2: the list already has this prompt"),
        ("| ink", "the prompt is missing"),
        ("# nothing\n", "has no prompt"),
    ],
)
def test_a_bad_list_is_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_prompts(path)


def test_a_list_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a list of prompts"):
        read_prompts(tmp_path / "none.txt")


def test_the_shipped_list_holds_out_whole_families():
    prompts = read_prompts()
    seen, held_out = ([p for p in prompts if p.held_out == kept] for kept in (False, True))
    assert len(seen) >= 200 and len(held_out) == 30
    assert not {p.family for p in seen} & {p.family for p in held_out}
    assert not {p.text.lower() for p in seen} & {p.text.lower() for p in held_out}
