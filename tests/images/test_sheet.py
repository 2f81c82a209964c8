"""Contact sheets."""

import pytest
from PIL import Image

from stylerdalle.images.sheet import GAP, LINE, main, sheet


def test_pictures_stand_in_a_row_at_one_height():
    page = sheet([Image.new("RGB", (40, 20), "red"), Image.new("RGB", (10, 20), "blue")], ["a", "b"], height=40)
    assert page.size == (80 + 20 + 3 * GAP, 40 + LINE + 2 * GAP)
    assert page.getpixel((GAP + 40, GAP + 20)) == (255, 0, 0)
    assert page.getpixel((2 * GAP + 80 + 10, GAP + 20)) == (0, 0, 255)


def test_columns_break_the_row():
    page = sheet([Image.new("RGB", (40, 40))] * 3, "abc", columns=2, height=40)
    assert page.size == (80 + 3 * GAP, 2 * (40 + LINE + GAP) + GAP)


def test_every_picture_needs_a_label():
    with pytest.raises(ValueError, match="2 pictures and 1 labels"):
        sheet([Image.new("RGB", (8, 8))] * 2, ["a"])


def test_the_command_writes_a_file_again_and_again(tmp_path, capsys):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    words = [str(tmp_path / "sheet.jpg"), str(tmp_path / "a.png"), "--labels", "a picture"]
    assert main(words) == main(words) == 0
    assert Image.open(tmp_path / "sheet.jpg").width > 500
    assert main([str(tmp_path / "sheet.jpg"), "gone.png"]) == 2
    assert "does not exist" in capsys.readouterr().err
