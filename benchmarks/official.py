"""The bundles `dalle` and `rudalle` right after `fetch`, at full size, with random weights of the official sizes.

Usage:

    python benchmarks/official.py identity [--bundle dalle | rudalle | mini] [--image PHOTO] [--size 256]
    python benchmarks/official.py tune [--bundle dalle | rudalle] [--method direct] [--batch 1] [--steps 3] [--recompute]
    python benchmarks/official.py memory [--bundle dalle | rudalle]

`identity` makes the translator of the codebook as `fetch` does, for mini's trained tokenizer too. It prints seconds, how many
tokens it returns, whether a photo's tokens come back, PSNR to the photo, and the peak memory of the process. `tune` runs steps
of tuning with CLIP ViT-B/32 on the CPU and prints seconds and peak memory after each stage. `memory` counts what a GPU has to
hold, without one: the operations run on tensors without numbers (torch's FakeTensor), and a hook on every operation adds up the
tensors alive at once. The working memory of kernels, and what an allocator loses between tensors, are not in it. Attention with
a gradient is counted as plain products, as on a CPU; the kernels of a GPU need less.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from tuning import peak_memory

from stylerdalle.bundle import load_bundle
from stylerdalle.clip.package import clip
from stylerdalle.convert.fetch import known
from stylerdalle.convert.identity import identity_config, identity_translator
from stylerdalle.images.files import read_picture, resized
from stylerdalle.learn.pictures import Picture
from stylerdalle.learn.run import Run
from stylerdalle.tokenizers.codec import decode, encode
from stylerdalle.tokenizers.dvae import map_pixels
from stylerdalle.tokenizers.protocol import ImageTokenizer, all_embeddings
from stylerdalle.tokenizers.registry import build
from stylerdalle.translator.identity import returned
from stylerdalle.translator.model import Translator
from stylerdalle.translator.options import TranslateOptions
from stylerdalle.translator.sampling import Sampling
from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.translator.translate import translate
from stylerdalle.tune.config import TuneConfig
from stylerdalle.tune.loop import tune
from stylerdalle.tune.objective import Objective

Models = tuple[ImageTokenizer, Translator, Any]  # and CLIP
PHOTO = Path(__file__).parent.parent / "docs" / "demo" / "photo.jpg"
PROMPT = "a ukiyo-e print"
STEPS = 2  # of tuning that are counted: the second has Adam's moments
VIT_B_32 = (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12)  # sizes of clip.model.CLIP


def tokenizer_of(name: str) -> ImageTokenizer:
    """Random weights of the official format, with which a photo has many different tokens."""
    if name == "mini":  # trained weights
        return load_bundle("mini", "cpu", "fp32").tokenizer
    torch.manual_seed(0)
    tokenizer: Any = build(known()[name].arch)
    tokenizer.eval().requires_grad_(False)
    small = resized(read_picture(PHOTO)[0], 64)[..., :64, :64]
    if name == "dalle":  # random features share a large mean, which would make one token the likeliest everywhere
        last = tokenizer.encoder.blocks.output.conv
        last.b -= last.w[:, :, 0, 0] @ tokenizer.features(map_pixels(small)).mean((0, 2, 3))
    else:
        last = tokenizer.quantize.proj
        last.bias -= last.weight[:, :, 0, 0] @ tokenizer.features(small).mean((0, 2, 3))
    return tokenizer


def clip_model() -> Any:
    torch.manual_seed(1)
    return clip.model.CLIP(*VIT_B_32).eval().requires_grad_(False)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(max(1e-12, float((a - b).square().mean())))


def identity(args: argparse.Namespace) -> None:
    """Photo to tokens, through the translator, and back."""
    tokenizer = tokenizer_of(args.bundle)
    stage("tokenizer")
    began = time.monotonic()
    translator = identity_translator(tokenizer)
    stage(f"translator of {sum(p.numel() for p in translator.parameters()):,} parameters, {time.monotonic() - began:.1f} s")
    embeddings = all_embeddings(tokenizer)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        rounded = identity_translator(tokenizer).to(dtype)
        print(f"returns {returned(rounded, embeddings):,} of {tokenizer.vocab_size:,} tokens in {dtype}", flush=True)
    image = resized(read_picture(args.image)[0], args.size)[..., : args.size, : args.size]
    tokens = encode(tokenizer, image)
    stage(f"encoded {args.size} px, {tokens.grid.unique().numel()} different tokens")
    plain = decode(tokenizer, tokens)
    stage("decoded")
    for softness in (0.0, 0.5):
        back = translate(translator, tokenizer, tokens, [], TranslateOptions(sampling=Sampling(softness=softness)))
        same = float((back.grid == tokens.grid).float().mean())
        out = decode(tokenizer, back)
        found, want = psnr(out, image), psnr(plain, image)
        stage(f"softness {softness}: {same:.2%} of the tokens return; PSNR {found:.3f} dB, of the round trip {want:.3f} dB")


def stage(text: str) -> None:
    print(f"{text}; peak {peak_memory():.0f} MB", flush=True)


def tuning(args: argparse.Namespace) -> None:
    """Steps of tuning on the CPU."""
    tokenizer = tokenizer_of(args.bundle)
    stage("tokenizer")
    translator = identity_translator(tokenizer)
    stage("translator")
    model = clip_model()
    stage("CLIP ViT-B/32")
    config = TuneConfig.of(
        args.method, steps=args.steps, batch=args.batch, held_out=1, check_every=10**6, patience=0, recompute=args.recompute
    )
    photos = [Picture(str(k), args.image.read_bytes()) for k in range(max(1, args.batch))]
    times = [time.monotonic()]

    def told(state: Any) -> None:
        times.append(time.monotonic())
        took = times[-1] - times[-2]
        stage(f"step {state.step}: loss {state.loss:.4f}, reward {state.reward:.4f}, KL {state.kl:.4f}, {took:.0f} s")

    with tempfile.TemporaryDirectory() as folder:
        tuned = tune(tokenizer, translator, model, photos, PROMPT, config, Run(folder), callback=told)
    print(f"{sum(t.numel() for t in tuned.style.tensors.values()):,} numbers tuned; held-out score {tuned.held_out}")


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at once, as a GPU's allocator would hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, ref[Any]] = {}

    def hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self.seen:
            return

        def gone(_: object) -> None:
            self.now -= size
            self.seen.pop(key, None)

        self.seen[key] = ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.hold(tensor)
        return out


def memory(args: argparse.Namespace) -> None:
    """The tables of docs/weights.md: what has to be held, by work and precision."""
    print("| work | weights | models MB | peak MB | GFLOP |\n|---|---|---|---|---|")
    for dtype in (torch.float32, torch.bfloat16):
        for recompute in (False, True):
            config = TuneConfig(batch=1, views=args.views, recompute=recompute)
            name = f"tune, a photo of 256 px{', --recompute' if recompute else ''}"
            count(name, dtype, args.bundle, partial(tuning_step, config=config))
        for side in (512, 1024):
            count(f"stylize, {side} px", dtype, args.bundle, partial(stylising, side=side))


def count(name: str, dtype: torch.dtype, bundle: str, work: Callable[[Models], None]) -> None:
    """Run `work` on models without numbers and print a row. Half precision is bfloat16 here; float16 is as large."""
    mode, live = FakeTensorMode(allow_non_fake_inputs=True), Live()
    models = emptied(models_of(bundle, dtype, with_clip=name.startswith("tune")), mode, live)
    loaded = live.peak = live.now
    with mode, live, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work(models)
    kind, operations = str(dtype).removeprefix("torch."), counter.get_total_flops() / 1e9
    operations /= STEPS if name.startswith("tune") else 1
    cells = [name, kind, f"{loaded / 2**20:,.0f}", f"{live.peak / 2**20:,.0f}", f"{operations:,.0f}"]
    print(f"| {' | '.join(cells)} |", flush=True)


def models_of(name: str, dtype: torch.dtype, with_clip: bool) -> Models:
    """Models of the official sizes whose numbers are not set."""
    with torch.device("meta"):
        tokenizer: Any = build(known()[name].arch)
        config = replace(identity_config(tokenizer), noise=0)  # noise is drawn by number; it is small
        translator, model = Translator(config), clip.model.CLIP(*VIT_B_32)
    tokenizer.to_empty(device="cpu").to(memory_format=torch.channels_last)
    return tokenizer.cast(dtype), translator.to_empty(device="cpu").to(dtype), model.to_empty(device="cpu") if with_clip else None


def emptied(models: Models, mode: FakeTensorMode, live: Live) -> Models:
    """The models, frozen, with tensors without numbers in place of theirs."""
    for model in (model for model in models if isinstance(model, torch.nn.Module)):
        model.eval().requires_grad_(False)
        for module in model.modules():
            for own in (module._parameters, module._buffers):
                for key, tensor in own.items():
                    if tensor is not None:
                        own[key] = mode.from_tensor(tensor)
                        live.hold(own[key])
    return models


def tuning_step(models: Models, config: TuneConfig) -> None:
    """The gradient of one photo, as `Objective.step` computes it, and Adam's step."""
    objective = Objective(*models, PROMPT, config)
    tensors = new_adapter(models[1], config.rank, torch.Generator().manual_seed(0))
    style = Style({name: tensor.requires_grad_(True) for name, tensor in tensors.items()})
    adam = torch.optim.Adam(style.tensors.values(), foreach=False)
    for _ in range(STEPS):
        photo = torch.rand(1, 3, config.size, config.size)
        boxes = [(0, 0, config.size)] * config.views
        with objective.autocast():
            content = objective.content(photo)
            logits = objective.logits(content, style).float()
            kl = objective.kl(logits, content)
            picture = objective.paint(logits)
            whole, crops = objective.judge(picture, photo, objective.style, boxes)
        (config.kl_weight * kl - whole.mean() - crops.mean()).backward()
        adam.step()
        adam.zero_grad(set_to_none=True)


def stylising(models: Models, side: int) -> None:
    """Encode, translate with a style, decode."""
    tokenizer, translator, _ = models
    photo = torch.rand(1, 3, side, side)
    tokens = encode(tokenizer, photo)
    tensors = {name: tensor + 0.01 for name, tensor in new_adapter(translator, 8, torch.Generator().manual_seed(0)).items()}
    stylised = translate(translator, tokenizer, tokens, [(Style(tensors), 1.0)])
    decode(tokenizer, stylised)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("identity", "tune", "memory"))
    parser.add_argument("--bundle", choices=("dalle", "rudalle", "mini"), default="dalle")
    parser.add_argument("--image", type=Path, default=PHOTO)
    parser.add_argument("--size", type=int, default=256, help="side of the photo, px")
    parser.add_argument("--method", default="direct")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--recompute", action=argparse.BooleanOptionalAction, default=False)
    args = parser.parse_args()
    {"identity": identity, "tune": tuning, "memory": memory}[args.what](args)


if __name__ == "__main__":
    main()
