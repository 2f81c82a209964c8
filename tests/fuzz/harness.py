"""One case of fuzzing, judged: the input gives a right result or one sentence, within 10 seconds of the
processor and 2 GB.

A target is a function from Hypothesis's `draw` to a kind of result: "right" or "refused". It raises whatever the library raises,
and AssertionError for a wrong result. `Judge` counts its cases and says what is wrong with them.
"""

import contextlib
import logging
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PACK = Path(__file__).resolve().parents[2]
SECONDS, MEGABYTES = 10, 2048  # of the processor, of a case; of the whole process
JUMP = 256  # MB by which a case may raise the peak without being named
PART = 500  # cases that Hypothesis runs at once: it keeps what it has drawn until then
TOLD = 100  # cases between two reports of a long run
LONGEST = 2000  # characters of a sentence: it may list what is allowed
LAST: list[Any] = [None]  # the input of the current case, where a target tells it
Target = Callable[[Callable[..., Any]], str]


class Slow(BaseException):
    """A case took longer than SECONDS. No handler of the library takes it for its own."""


@dataclass
class Judge:
    """What happened in the cases of one target.

    Attributes:
        keep: go on after a failure, and list it; otherwise raise, so that Hypothesis finds the smallest such case.
        problems: for each kind of failure the traceback of its first case.
    """

    keep: bool = False
    kinds: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)
    jumps: list[tuple[float, Any]] = field(default_factory=list)  # MB, and the input that took them

    def case(self, target: Target, draw: Callable[..., Any]) -> None:
        """Run one case and judge it."""
        began, peak = time.process_time(), peak_megabytes()
        try:
            with within(SECONDS):
                self.kinds[judged(target, draw)] += 1
        except (Exception, Slow) as error:
            if type(error).__module__.startswith("hypothesis"):
                raise
            self.kinds["failed"] += 1
            if not self.keep:
                raise
            first = error.__cause__ or error
            place = traceback.extract_tb(first.__traceback__)[-1]
            kind = f"{type(first).__name__} at {Path(place.filename).name}:{place.lineno}"
            self.problems.setdefault(kind, "".join(traceback.format_exception(error)))
        finally:
            self.slowest = max(self.slowest, time.process_time() - began)
            if peak_megabytes() > peak + JUMP and self.kinds.total() > 1:
                self.jumps.append((peak_megabytes() - peak, LAST[0]))


def judged(target: Target, draw: Callable[..., Any]) -> str:
    """The target's kind of result; "refused" for one sentence of the library's own."""
    try:
        return target(draw)
    except ValueError as error:
        check_sentence(error)
        return "refused"


def check_sentence(error: ValueError) -> None:
    """Raises AssertionError unless the pack itself has raised it, with one readable line."""
    place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = place.is_relative_to(PACK / "stylerdalle") or place.is_relative_to(PACK / "nodes")
    text = str(error)
    if not (ours and 10 < len(text) < LONGEST and "\n" not in text.strip()):
        raise AssertionError(f"not one sentence of ours, but of {place}: {text[:300]!r}") from error


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise Slow in the block after so many seconds of the processor."""

    def stop(*_: object) -> None:
        raise Slow(f"longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def run(
    target: Target, cases: int, keep: bool = False, seed: int | None = None, tell: Callable[[Judge], None] | None = None
) -> Judge:
    """Run a target on that many inputs that Hypothesis draws. With a seed the inputs are always the same.

    Args:
        tell: called after every `TOLD` cases.
    """
    judge = Judge(keep)
    logging.disable(logging.WARNING)

    def test(data: st.DataObject) -> None:
        judge.case(target, data.draw)
        if tell and judge.kinds.total() % TOLD == 0:
            tell(judge)

    phases = [Phase.generate] if keep else [Phase.generate, Phase.shrink]
    options = {"deadline": None, "database": None, "phases": phases, "suppress_health_check": list(HealthCheck)}
    try:
        while (left := cases - judge.kinds.total()) > 0:
            part = min(left, PART)
            case = settings(max_examples=part, derandomize=seed is not None, **options)(given(st.data())(test))
            case()
            if seed is not None:
                break
    finally:
        logging.disable(logging.NOTSET)
    return judge


def peak_megabytes() -> float:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


# damage, for files of any kind

EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)


@st.composite
def damage(draw: Callable[..., Any], data: bytes, head: int = 512) -> bytes:
    """Bytes changed in up to four places: most of them near the beginning, where a file's sizes are."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        near = draw(st.booleans())
        place = draw(st.integers(0, max(0, (min(size, head) if near else size) - 1)))
        length = draw(st.integers(1, 16))
        match draw(st.integers(0, 6)):
            case 0:
                data = data[:place]
            case 1:
                data = data[:place] + data[place + length :]
            case 2:
                data = data[:place] + draw(st.binary(min_size=1, max_size=16)) + data[place:]
            case 3:
                data = data[:place] + data[place : place + 32 * length] + data[place:]
            case 4:
                new = draw(st.binary(min_size=1, max_size=8))
                data = data[:place] + new + data[place + len(new) :]
            case 5:
                wide = draw(st.sampled_from((1, 2, 4, 8)))
                number = draw(st.sampled_from(EDGES)) % (1 << 8 * wide)
                data = data[:place] + number.to_bytes(wide, draw(st.sampled_from(("big", "little")))) + data[place + wide :]
            case _:
                if place < size:
                    data = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
    return data


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([*EDGES, -1, 3, 7, 1e308, -0.5, float("nan"), float("inf"), 10**30])
    | st.integers(-5, 70)
    | st.sampled_from(
        ["", "dvae", "vqgan", "lora", "[]", "{}", "a\x00b", "\x1b[31m", "é\udce9".encode(errors="replace").decode(), "9" * 50]
    )
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)
