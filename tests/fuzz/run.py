"""make fuzz: all targets on 20,000 inputs in all, each target in a process of its own, and a table of what happened.

    python tests/fuzz/run.py [--cases 20000] [--targets pictures models ...] [--output build/fuzz]

The workflow target needs ComfyUI (COMFYUI_DIR) and a Python that runs it (COMFYUI_PYTHON). A crash of the interpreter, a case
over 10 seconds of the processor, a process over 2 GB, and any error but one sentence are failures; their tracebacks are in the
output folder.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]

from fuzz import harness  # noqa: E402

SHARES = {"pictures": 0.35, "models": 0.25, "texts": 0.2, "pickles": 0.1, "workflows": 0.1}  # of all cases

WIDTHS = (8, 8, 9, 8, 8, 11, 9)  # of the table's columns


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz everything that reads input from outside.")
    parser.add_argument("--cases", type=int, default=20_000, help="inputs in all (default %(default)s)")
    parser.add_argument("--targets", nargs="+", choices=SHARES, default=list(SHARES), help="only these")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="folder for tracebacks (default %(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.cases, args.output)
    args.output.mkdir(parents=True, exist_ok=True)
    print(
        f"{'target':10} {'cases':>7} {'right':>7} {'refused':>8} {'failed':>7} {'s':>7} {'slowest s':>10} {'peak MB':>8}",
        flush=True,
    )
    rows = [one(name, round(args.cases * SHARES[name]), args.output) for name in args.targets]
    failed = sum(row["failed"] for row in rows) + sum(row["exit"] != 0 for row in rows)
    print(f"{sum(row['cases'] for row in rows):,} cases, {failed} failures" + (f": see {args.output}" if failed else ""))
    return int(failed > 0)


def one(name: str, cases: int, output: Path) -> dict[str, float]:
    """Run one target in a process of its own -> its row of the table, which is printed."""
    report = output / f"{name}.json"
    report.unlink(missing_ok=True)
    words = [sys.executable, __file__, "--child", name, "--cases", str(cases), "--output", str(output)]
    paths = [str(TESTS.parent), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    began = time.monotonic()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    code = subprocess.run(words, env=env, check=False).returncode
    row = {"cases": 0, "right": 0, "refused": 0, "failed": 0, "slowest": 0.0, "peak": 0.0}
    if report.is_file():
        row |= json.loads(report.read_text())
    row |= {"exit": code, "seconds": time.monotonic() - began}
    numbers = [f"{row[key]:,}" for key in ("cases", "right", "refused", "failed")]
    numbers += [f"{row['seconds']:.0f}", f"{row['slowest']:.2f}", f"{row['peak']:.0f}"]
    print(f"{name:10}" + "".join(f"{text:>{width}}" for text, width in zip(numbers, WIDTHS, strict=True)), flush=True)
    if code:
        print(f"  the process of {name} ended with exit code {code}", flush=True)
    return row


def child(name: str, cases: int, output: Path) -> int:
    """Run a target in this process; its numbers and problems go to the output folder."""
    import resource

    import torch
    from fuzz.targets import TARGETS

    torch.set_num_threads(1)
    most = 8 << 30  # address space: far more than a case may use, and less than would stop the machine
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with TARGETS[name]() as target:

        def tell(judge: harness.Judge) -> None:
            peak = max(harness.peak_megabytes(), getattr(target, "peak", lambda: 0.0)())
            report(name, judge, peak, output)

        judge = harness.run(target, cases, keep=True, tell=tell)
        tell(judge)
    return 0


def report(name: str, judge: harness.Judge, peak: float, output: Path) -> None:
    """Write the numbers and problems so far."""
    for number, (size, data) in enumerate(judge.jumps):
        if isinstance(data, bytes):
            (output / f"{name}-{size:.0f}MB-{number}.bin").write_bytes(data)
    problems, failed = dict(judge.problems), judge.kinds["failed"]
    if peak > harness.MEGABYTES:
        problems["memory"] = f"the process used {peak:.0f} MB, more than {harness.MEGABYTES}"
        failed += 1
    numbers = {"right": judge.kinds["right"], "refused": judge.kinds["refused"], "failed": failed}
    row = {"cases": judge.kinds.total(), **numbers, "slowest": judge.slowest, "peak": peak}
    (output / f"{name}.json").write_text(json.dumps(row))
    (output / f"{name}.txt").write_text("\n\n".join(f"# {kind}\n{text}" for kind, text in problems.items()))


if __name__ == "__main__":
    sys.exit(main())
