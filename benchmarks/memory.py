"""Peak memory of stylising one picture with the mini bundle on the CPU, each size in its own process.

"over" is the memory needed beyond the process, its models and the float32 input picture; "per px" is the same in bytes per pixel,
of which the float32 output picture takes 12.

Usage:

    python benchmarks/memory.py [--sizes 512 1024 8192x512] [--style "a ukiyo-e print"] [--detail 1] [--temperature 0]
        [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from stylerdalle.learn.run import draw_curve

PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
CHILD = """
import json, resource, sys, time, torch, stylerdalle
from stylerdalle.pictures import read_picture
torch.set_num_threads(1)
options = json.loads(sys.argv[1])
photo = read_picture(options["photo"])[0]
height, width = options["height"], options["width"]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MB
bundle = stylerdalle.load_bundle("mini", device="cpu")
sampling = stylerdalle.Sampling(options["temperature"])
stylerdalle.stylize(photo[..., :64, :64], options["style"], bundle, sampling=sampling)
images = torch.empty(1, 3, height, width)
for y in range(0, height, photo.shape[2]):
    for x in range(0, width, photo.shape[3]):
        images[..., y : y + photo.shape[2], x : x + photo.shape[3]] = photo[..., : height - y, : width - x]
before, started = peak(), time.perf_counter()
stylerdalle.stylize(images, options["style"], bundle, sampling=sampling, detail=options["detail"])
print(json.dumps({"before": before, "peak": peak(), "seconds": time.perf_counter() - started}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["512", "1024", "2048", "4096"], metavar="WxH", help="px; N means N x N")
    parser.add_argument("--style", default="a ukiyo-e print")
    parser.add_argument("--detail", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot of memory against megapixels")
    args = parser.parse_args()
    rows = []
    print(f"{'px':>12}{'picture MB':>12}{'before MB':>11}{'peak MB':>9}{'over MB':>9}{'per px':>7}{'seconds':>9}")
    for size in args.sizes:
        width, height = ([int(side) for side in size.split("x")] * 2)[:2]
        options = {"photo": str(PHOTO), "style": args.style, "detail": args.detail, "temperature": args.temperature}
        options |= {"width": width, "height": height}
        run = subprocess.run([sys.executable, "-c", CHILD, json.dumps(options)], check=True, capture_output=True, text=True)
        got = json.loads(run.stdout)
        over = got["peak"] - got["before"]
        row = f"{width * height * 12 / 2**20:12.0f}{got['before']:11.0f}{got['peak']:9.0f}{over:9.0f}"
        print(f"{f'{width} x {height}':>12}{row}{over * 2**20 / (width * height):7.1f}{got['seconds']:9.1f}", flush=True)
        pixels = width * height
        rows.append(
            {"megapixels": pixels / 1e6, "MB beyond models and input": over, "MB without the output": over - 12 * pixels / 2**20}
        )
    if args.plot:
        draw_curve(rows, "megapixels").save(args.plot)


if __name__ == "__main__":
    main()
