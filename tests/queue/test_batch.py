"""Batches on fake ComfyUI servers: every photo is done once, whatever happens to the servers."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from queue_shell import Shell

from stylerdalle.queue import batch

ROOT = Path(__file__).resolve().parents[2]


def many(shell: Shell, count: int = 24) -> dict[str, str]:
    """Write photos -> the expected outputs of all photos, {output: photo}."""
    shell.photos(*(f"many-{i:02}.png" for i in range(count)))
    names = [p.relative_to(shell.folder / "photos") for p in (shell.folder / "photos").rglob("*.*")]
    return {name.with_suffix(".png").as_posix(): name.as_posix() for name in names}


def test_each_photo_comes_out_under_its_name(shell, fake):
    server = fake()
    assert shell(server) == 0
    assert shell.outputs() == {"a.png": "a.png", "b.png": "b.jpg", "below/c.png": "below/c.png"}
    assert shell.err == ""
    assert f"3 of 3 photos are done ({server.url} 3)" in shell.said


def test_the_report_says_what_was_done_where(shell, fake):
    server = fake()
    assert shell(server, options=("--set", "3.prompt=etching")) == 0
    report = shell.report()
    row = report["results"][0]
    assert (report["photos"], report["done"], report["tried_again"]) == (3, 3, 0)
    assert report["by_server"] == {server.url: 3}
    assert report["inputs"]["node 3 (Translate v1.5)"] == {"prompt": "etching", "strength": 1.0}
    assert (row["picture"], row["server"], row["seconds"], row["outputs"]) == ("a.png", server.url, 0.25, ["a.png"])
    assert (row["error"], row["results"]) == (None, {"node 6 (Score)": {"text": ["score 0.5"]}})


def test_json_is_one_object_a_line_and_photo(shell, fake):
    assert shell(fake(), options=("--json",)) == 0
    rows = [json.loads(line) for line in shell.said.splitlines()]
    assert sorted(row["picture"] for row in rows) == ["a.png", "b.jpg", "below/c.png"]


def test_the_progress_bar_follows_the_nodes_of_a_run_and_ends_full(shell, fake, monkeypatch):
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr("stylerdalle.cli.queue.bar", lambda _: nullcontext(lambda *counts: shown.append(counts)))
    assert shell(fake(seconds=0.3), options=("--in-flight", 1)) == 0
    assert shown[-1] == (300, 300)
    assert (20, 300) in shown or (120, 300) in shown or (220, 300) in shown  # one of five nodes is done


def test_photos_that_differ_in_suffix_or_case_do_not_overwrite_each_other(shell, fake):
    shell.photos("a.jpg", "A.webp", "below/a.png")
    assert shell(fake()) == 0
    assert shell.outputs() == {
        "A.png": "A.webp",
        "a.jpg.png": "a.jpg",
        "a.png.png": "a.png",
        "b.png": "b.jpg",
        "below/a.png": "below/a.png",
        "below/c.png": "below/c.png",
    }


def test_a_photo_that_comes_later_does_not_take_the_name_of_one_that_is_done(shell, fake):
    server = fake()
    assert shell(server) == 0
    shell.photos("a.jpg")  # sorts before a.png
    assert shell(server) == 0
    assert shell.outputs()["a.png"] == "a.png"
    assert shell.outputs()["a.jpg.png"] == "a.jpg"
    assert len(server.ran) == 4


def test_several_outputs_of_a_photo_are_numbered_by_node(shell, fake):
    shell.photos("a.4-1.png")  # the name of the first output of a.png
    assert shell(fake(), options=("--set", "4.copies=2")) == 0
    assert {name: photo for name, photo in shell.outputs().items() if photo.startswith("a")} == {
        "a.4-1_.png": "a.png",
        "a.4-2.png": "a.png",
        "a.4-1.4-1.png": "a.4-1.png",
        "a.4-1.4-2.png": "a.4-1.png",
    }


def test_photos_of_one_name_on_the_server_are_not_mixed_up(shell, fake):
    shell.photos("below/a.png", "x y.png", "x_y.png")
    server = fake()
    server.files["stylerdalle-queue/a.png"] = b"somebody else's"
    assert shell(server) == 0
    assert all(name == photo for name, photo in shell.outputs().items() if name != "b.png")
    assert server.files["stylerdalle-queue/a.png"] == b"somebody else's"


def test_each_server_takes_the_next_photo_when_it_is_free(shell, fake):
    expected = many(shell)
    slow, fast = fake(), fake()
    slow.held = True  # until the other has done all but those that it has itself

    def wait() -> None:
        while not slow.prompts or len(fast.ran) < len(expected) - len(slow.prompts):
            time.sleep(0.01)
        slow.held = False

    threading.Thread(target=wait, daemon=True).start()
    assert shell(slow, fast) == 0
    assert shell.outputs() == expected
    assert len(slow.ran) + len(fast.ran) == len(expected)
    assert 1 <= len(slow.ran) < len(expected) / 2


def test_what_a_dead_server_had_is_done_by_the_other_once(shell, fake):
    expected = many(shell)
    dying, other = fake(seconds=0.1, dies_after=4), fake(seconds=0.1)
    assert shell(dying, other) == 0
    assert shell.outputs() == expected
    assert set(dying.ran + other.ran) == {Path(photo).name for photo in expected.values()}
    assert 1 <= shell.report()["tried_again"] <= 2  # one ran, one was queued behind it
    assert shell.err.count("\n") == 1 and f"{dying.url} does not answer" in shell.err


def test_a_server_that_comes_back_is_used_again(shell, fake):
    expected = many(shell, 40)
    dying, other = fake(seconds=0.01, dies_after=4, comes_back=True), fake()
    other.held = True

    def wait() -> None:
        end = time.monotonic() + 60
        while len(dying.ran) <= 5 and time.monotonic() < end:
            time.sleep(0.01)
        other.held = False

    threading.Thread(target=wait, daemon=True).start()
    assert shell(dying, other) == 0
    assert shell.outputs() == expected
    assert len(dying.ran) > 5
    assert f"{dying.url} is back" in shell.err


def test_what_others_did_meanwhile_is_withdrawn_from_a_server_that_was_out_of_reach(shell, fake):
    expected = many(shell)
    cut_off, other = fake(seconds=60), fake(seconds=0.05)

    def cut() -> None:
        while len(cut_off.prompts) < 2:
            time.sleep(0.01)
        cut_off.deaf = True
        had = {prompt["2"]["inputs"]["image"].rpartition("/")[2] for prompt in cut_off.prompts}
        while not had <= set(other.ran):
            time.sleep(0.01)
        time.sleep(0.1)
        cut_off.seconds, cut_off.deaf = 0.0, False

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    started = time.monotonic()
    assert shell(cut_off, other) == 0
    assert not thread.is_alive()
    assert time.monotonic() - started < 30  # it did not wait for its old run
    assert shell.outputs() == expected
    assert len(cut_off.cancelled) == 2
    assert Counter(row["server"] for row in shell.report()["results"])[cut_off.url] > 0  # and it went on to others


def test_a_server_whose_websocket_says_nothing_is_asked(shell, fake):
    server = fake()
    server.silent = True
    assert shell(server) == 0
    assert len(shell.outputs()) == 3


def test_a_photo_that_fails_is_tried_once_on_each_server_and_named(shell, fake):
    servers = [fake(), fake()]
    for server in servers:
        server.fails.add("b.jpg")
    assert shell(*servers) == 1
    assert set(shell.outputs()) == {"a.png", "below/c.png"}
    assert shell.err == "stylerdalle queue: b.jpg: node 3 (Translate v1.5): no memory\n"
    assert [server.ran.count("b.jpg") for server in servers] == [1, 1]
    row = next(row for row in shell.report()["results"] if row["picture"] == "b.jpg")
    assert (row["tries"], row["outputs"], row["error"]) == (2, [], "node 3 (Translate v1.5): no memory")


def test_a_photo_that_fails_on_one_server_is_done_by_another(shell, fake):
    bad, good = fake(), fake(seconds=0.02)
    bad.fails |= {"a.png", "b.jpg", "c.png"}
    assert shell(bad, good) == 0
    assert len(shell.outputs()) == 3 and shell.err == ""


def test_a_photo_has_a_bounded_number_of_tries(shell, fake, monkeypatch):
    """A photo that kills every server is given up; the others are done."""
    server = fake()
    run_once = batch.Batch._try

    async def dies(self: Any, server: Any, photo: Any) -> None:
        if photo.name == "b.jpg":
            photo.tries += 1
            raise batch.Lost(f"{server.url} does not answer (test)")
        await run_once(self, server, photo)

    monkeypatch.setattr(batch.Batch, "_try", dies)
    assert shell(server, options=("--tries", 4)) == 1
    assert set(shell.outputs()) == {"a.png", "below/c.png"}
    row = next(row for row in shell.report()["results"] if row["picture"] == "b.jpg")
    assert row["tries"] == 4


def test_photos_are_given_up_when_no_server_comes_back_and_done_by_the_same_command_later(shell, fake):
    expected = many(shell, 5)
    server = fake(seconds=0.2, dies_after=3)
    assert shell(server, options=("--wait", 0.2)) == 1
    assert len(shell.outputs()) == 3
    assert "photos were not tried" in shell.err
    server.start()
    assert shell(server) == 0
    assert shell.outputs() == expected
    assert sorted(server.ran) == sorted(Path(photo).name for photo in expected.values())
    assert shell.report()["done_before"] == 3


def test_what_a_server_ran_while_it_was_given_up_is_fetched_not_repeated(shell, fake):
    server = fake(seconds=0.5)

    def cut() -> None:
        while not server.running:
            time.sleep(0.01)
        server.deaf = True

    threading.Thread(target=cut, daemon=True).start()
    assert shell(server, options=("--wait", 0.1, "--in-flight", 3)) == 1
    assert shell.outputs() == {}
    server.deaf = False
    assert shell(server) == 0
    assert len(shell.outputs()) == 3
    assert len(server.ran) == len(set(server.ran)) == 3


def test_a_server_that_refuses_the_workflow_is_not_used_and_says_why_once(shell, fake):
    bad, good = fake(), fake()
    error = {"message": "Value not in list", "details": "prompt: 'x' not in []"}
    bad.refuses = {"error": {"message": "invalid"}, "node_errors": {"3": {"errors": [error], "class_type": "Translate"}}}
    assert shell(bad, good) == 0
    assert shell.err == (
        f"stylerdalle queue: {bad.url} refuses the workflow: node 3 (Translate v1.5): Value not in list: prompt: 'x' not in []\n"
    )


def test_where_every_server_refuses_the_workflow_it_is_bad_input_and_can_be_put_right(shell, fake):
    server = fake()
    server.refuses = {"error": {"message": "Cannot execute because node X does not exist.", "details": ""}, "node_errors": []}
    assert shell(server) == 2
    assert shell.err.count("\n") == 1 and "refuses the workflow: Cannot execute because node X does not exist." in shell.err
    server.refuses = None
    assert shell(server, options=("--set", "3.strength=0.5")) == 0


def test_settings_cannot_change_once_a_photo_is_done(shell, fake):
    server = fake()
    assert shell(server) == 0
    assert shell(server, options=("--set", "3.strength=0.5")) == 2
    assert "was begun with strength 1.0 (now 0.5) of node 3 (Translate v1.5)" in shell.err
    assert len(server.ran) == 3


def test_a_finished_batch_is_not_done_again_and_needs_no_server(shell, fake):
    server = fake()
    assert shell(server) == 0
    server.stop()
    assert shell(server) == 0
    assert len(server.ran) == 3
    assert shell.report()["done_before"] == 3


def test_only_a_changed_photo_and_a_lost_output_are_done_again(shell, fake):
    server = fake()
    assert shell(server) == 0
    (shell.folder / "photos" / "a.png").write_text("pixels of another")
    (shell.out / "b.png").unlink()
    assert shell(server) == 0
    assert (len(server.ran), server.ran.count("b.jpg"), server.ran.count("c.png")) == (5, 2, 1)
    assert shell.outputs()["a.png"] == "another"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_is_stopped_goes_on_and_does_no_photo_twice(shell, fake, number):
    expected = many(shell, 12)
    server = fake(seconds=0.15)
    command = [sys.executable, "-m", "stylerdalle", *shell.words(server)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    end = time.monotonic() + 60
    while len(server.ran) < 4:
        assert time.monotonic() < end and process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGINT:
        assert process.returncode == 130 and err.splitlines()[-1] == "stylerdalle queue: interrupted"
        assert not server.pending and server.cancelled
    elif server.pending:
        assert not server.cancelled
    assert len(shell.outputs()) < len(expected)
    assert shell(server) == 0
    assert shell.outputs() == expected
    ended = Counter(server.ran)
    twice = sum(ended.values()) - len(expected)
    assert set(ended) == {Path(photo).name for photo in expected.values()}
    assert twice <= (1 if number == signal.SIGINT else 0)  # Ctrl-C cancels the photo that runs


def test_a_journal_that_a_kill_cut_short_is_read(shell, fake):
    server = fake()
    assert shell(server) == 0
    with (shell.out / "queue.jsonl").open("ab") as stream:
        stream.write(b'{"picture": "a.png", "err')
    assert shell(server) == 0
    assert len(server.ran) == 3
    assert b'"err\n' not in (shell.out / "queue.jsonl").read_bytes()


def test_two_processes_do_not_work_on_one_folder(shell, fake):
    from stylerdalle.storage import Lock

    server = fake()
    assert shell(server) == 0
    lock = Lock(shell.out / ".queue.lock")
    assert lock.take()
    assert shell(server) == 2
    lock.release()
    assert "another stylerdalle queue works on" in shell.err


def test_a_task_that_loses_a_cancel_is_stopped_all_the_same(monkeypatch):
    """As asyncio.wait_for loses one before Python 3.12: a full disk would then never end the command."""
    monkeypatch.setattr(batch, "CANCEL_AGAIN", 0.05)

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    async def run() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await asyncio.wait_for(batch.stop(task), 10)
        assert task.cancelled()

    asyncio.run(run())
