"""How well CLIP alone finds works: of the three nearest to "a painting in the style of STYLE", the share that has this style; and
at which place it finds a work by its own caption.

    python benchmarks/library.py [--bundle mini] [--works SHARD ...]

Words (stylerdalle/tune/library.py) find the style by its name, so there is nothing to measure for them here. If a bundle's CLIP
comes near to them, COSINE in that file can be larger, and LEAST can count the cosine too.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch

from stylerdalle import load_bundle
from stylerdalle.clip.scores import embed_texts
from stylerdalle.tune.library import embed_works, read_library

FEWEST = 3  # works of a style that counts


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="mini", help="whose CLIP is measured (default: mini)")
    parser.add_argument("--works", nargs="+", metavar="SHARD", help="works to find (default: those of the bundle's library)")
    args = parser.parse_args()
    bundle = load_bundle(args.bundle, "cpu", "fp32")
    works = [work for path in args.works or [bundle.exemplars_path] for work in read_library(path)]
    named = [work.picture.style for work in works]
    styles = [style for style, count in Counter(named).items() if count >= FEWEST]
    seen = embed_works(bundle.clip, works)  # (N, E)
    wanted = embed_texts(bundle.clip, [f"a painting in the style of {style}" for style in styles])  # (S, E)
    nearest = (wanted @ seen.T).topk(FEWEST).indices.tolist()
    hits = [sum(named[i] == style for i in row) / FEWEST for style, row in zip(styles, nearest, strict=True)]
    told = embed_texts(bundle.clip, [work.picture.captions[0] for work in works]) @ seen.T  # (N, N)
    places = (told > told.diagonal()[:, None]).sum(1) + 1
    print(f"{len(works)} works, {len(styles)} styles of {FEWEST} works or more")
    chance = sum(named.count(style) / len(works) for style in styles) / len(styles)
    print(f"of the {FEWEST} nearest works, of the style: {sum(hits) / len(hits):.3f} (chance {chance:.3f})")
    print(f"a work by its own caption: at place {int(places.float().median())} (median), chance {len(works) // 2}")


if __name__ == "__main__":
    main()
