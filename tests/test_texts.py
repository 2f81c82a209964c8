"""Texts that people enter: weights that are meant and those that are not, typos, characters that control a terminal."""

import io
import logging
import sys

import pytest

from stylerdalle.cli.console import Formatter, printable, report, say, set_up_output
from stylerdalle.cli.main import main
from stylerdalle.resolve import blend, check_prompt, warn_of_unknown_words
from stylerdalle.settings import ROOT, command, did_you_mean
from stylerdalle.training.prompts import read_prompts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a pencil sketch:0.7, ukiyo-e:0.3", [("a pencil sketch", 0.7), ("ukiyo-e", 0.3)]),
        ("ukiyo-e : .5", [("ukiyo-e", 0.5)]),
        ("ink:2,mosaic", [("ink", 2.0), ("mosaic", 1.0)]),
        ("a poster of 1970:0.7, ink:0", [("a poster of 1970", 0.7), ("ink", 0.0)]),
        ("style 2:1, ink:1", [("style 2", 1.0), ("ink", 1.0)]),
    ],
)
def test_weights_are_read(text, parts):
    assert blend(text, ["Style 2"]) == parts


@pytest.mark.parametrize(
    "text",
    [
        "a street at 10:30, at night",
        "a poster in 16:9",
        "a film still, 1:2.35",
        "ratio 2.35:1",
        "(a castle:1.3), fog",
        "one: two",
    ],
)
def test_a_time_a_ratio_and_brackets_are_words(text):
    assert blend(text) == [(text, 1.0)]


def test_brackets_are_remarked(caplog):
    blend("a (castle:1.3)")
    assert "a weight is written without brackets" in caplog.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ink:2.5, mosaic:1", "weight 2.5 of 'ink' is out of range: 0 to 2"),
        ("ink:-0.5", "weight -0.5 of 'ink' is out of range"),
        ("ink:nan", "weight nan of 'ink'"),
        ("ink:1e9", "weight 1e9 of 'ink'"),
        ("ink:inf, mosaic", "weight inf of 'ink'"),
        ("ink:0,7, mosaic:0,3", "weight 0,7 has a comma: write 0.7"),
    ],
)
def test_a_weight_that_cannot_be_meant_is_refused_in_one_sentence(text, says):
    with pytest.raises(ValueError, match=says) as caught:
        blend(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["x" * 5000 + ":7", "ink:" + "9" * 5000, "ink:0," + "7" * 5000])
def test_a_long_text_is_not_repeated_whole(text):
    with pytest.raises(ValueError, match="the weight") as caught:
        blend(text)
    assert len(str(caught.value)) < 400


def test_typos_are_met_with_a_proposal(capsys, tmp_path):
    assert did_you_mean("ukioye", ["ukiyo-e", "mosaic"]) == " (did you mean 'ukiyo-e'?)"
    assert did_you_mean("UKIYO-E", ["ukiyo-e"]) == did_you_mean("steel", ["ukiyo-e"]) == ""
    for words, hint in {
        ("stylise",): "'stylize'",
        ("stylize", "a.jpg", "--style", "x", "--output", "o.png", "--strenght", "1"): "'--strength'",
        ("tune", "--style", "x", "--images", "p", "--output", "o", "--preset", "papr-1"): "'paper-1'",
        ("stylize", "a.jpg", "--style", "x", "--output", str(tmp_path / "o.png"), "--bundle", "mni"): "'mini'",
    }.items():
        assert main(words) == 2
        error = capsys.readouterr().err
        assert f"did you mean {hint}?" in error and error.count("\n") == 1


def test_a_word_that_clip_does_not_know_is_met_with_one_that_it_knows(monkeypatch, caplog):
    monkeypatch.setattr("stylerdalle.storage.read_metadata", lambda path: {"words": "a watercolour painting"})
    assert warn_of_unknown_words("clip", "a watercolor painting") == ["watercolor"]
    assert "'watercolor' (did you mean 'watercolour'?)" in caplog.text


def test_nothing_printed_controls_the_terminal(capsys):
    evil = "a\x1b]0;title\x07\x9b31m\u202eb.jpg"
    assert printable(evil) == r"a\x1b]0;title\x07\x9b31m\u202eb.jpg"
    assert printable("Größe 写真 é.png") == "Größe 写真 é.png"
    say(evil)
    report("stylize", ValueError(f"{evil} is damaged"))
    out, err = capsys.readouterr()
    line = Formatter("%(message)s").format(logging.LogRecord("x", logging.WARNING, "", 0, "%s", (evil,), None))
    for text in (out, err, line):
        assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert check_prompt("an\x1b ink\u200b drawing\x00") == "an ink drawing"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_that_lacks_the_letters_of_a_name_prints_it_all_the_same(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    set_up_output(logging.WARNING)
    say("写真 caf\udce9.png: done")
    stream.flush()
    assert b".png: done" in stream.buffer.getvalue()


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf[watercolour]\n", b"[watercolour]\r\n"])
def test_a_byte_order_mark_and_line_ends_of_windows_change_no_list_of_prompts(tmp_path, data):
    path = tmp_path / "prompts.txt"
    end = b"\r\n" if b"\r" in data else b"\n"
    path.write_bytes(data + b"a watercolour painting | watercolour" + end + b"an ink drawing | ink" + end)
    found = read_prompts(path)
    assert [(p.text, p.family) for p in found] == [("a watercolour painting", "watercolour"), ("an ink drawing", "watercolour")]


def test_commands_in_messages_are_those_that_the_reader_can_run():
    assert command("styles --near TEXT") == "`stylerdalle styles --near TEXT`"
    in_comfyui = command("styles --near TEXT", hosted=True)
    assert in_comfyui == f"`python -m stylerdalle styles --near TEXT` (with ComfyUI's Python, in {ROOT})"
