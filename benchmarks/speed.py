"""Seconds to stylise one picture with the mini bundle: cold (a new process, with imports and loading) and warm.

Usage:

    python benchmarks/speed.py [--size 512] [--style "a ukiyo-e print"] [--repeat 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import torch

COLD = """
import time; started = time.perf_counter()
import torch, stylerdalle
stylerdalle.stylize(torch.rand(1, 3, {size}, {size}), {style!r}, bundle="mini")
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--style", default="a ukiyo-e print")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    code = COLD.format(size=args.size, style=args.style)
    cold = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout) for _ in range(3)
    ]
    import stylerdalle

    images = torch.rand(1, 3, args.size, args.size)
    for dtype in ("auto", "fp32"):
        bundle = stylerdalle.load_bundle("mini", dtype=dtype)
        stylerdalle.stylize(images, args.style, bundle)
        warm = []
        for _ in range(args.repeat):
            started = time.perf_counter()
            stylerdalle.stylize(images, args.style, bundle)
            warm.append(time.perf_counter() - started)
        where = f"{bundle.device} {bundle.dtype}, {torch.get_num_threads()} threads"
        print(f"warm, {args.size} px, {where}: median {statistics.median(warm):.2f} s of {args.repeat}")
    print(f"cold, {args.size} px: median {statistics.median(cold):.2f} s of 3 (imports, loading, first picture)")


if __name__ == "__main__":
    main()
