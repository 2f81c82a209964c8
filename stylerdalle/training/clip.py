"""How the mini CLIP was made: a genuine `clip.model.CLIP` (ResNet, 128 px) on captioned pictures.

The loss is CLIP's own (Radford et al. 2021, arXiv 2103.00020) plus a style term: every picture is classified among the
prompts of all common styles, encoded anew each step with a random template. Pictures are sampled by 1/sqrt(pictures of
their style), and for the last steps all styles alike. The text tower is trained on 32 positions and extended to CLIP's 77
when saved.

    stylerdalle train-clip --images SHARDS --output weights/mini/clip.safetensors
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..clip.package import clip
from ..clip.scores import MEAN, STD, embed_images, embed_texts
from ..learn.crops import centre_crop, random_crop, to_tensor
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import batches, schedule
from ..settings import setting

if TYPE_CHECKING:
    from clip.model import CLIP


log = logging.getLogger(__name__)
RARE = 0.15  # sampling weight of a picture whose style has too few for a class; 0.1 is that of a style with 100

TEMPLATES = {
    "photo": ("a photo", "a photograph", "a real photo", "a photo of something"),
    "art": ("a {} painting", "{} style", "a painting in the style of {}", "{}", "an artwork in {} style", "{} art"),
    "graphic": ("{}", "{} style", "a picture in {} style", "{} graphics", "an example of {}"),
    "made": ("{}", "{} style", "a picture in the style of {}"),
}


@dataclass(frozen=True)
class ClipConfig:
    """Defaults are the recipe of the shipped file."""

    embed_dim: int = 256
    resolution: int = setting(128, "px")
    vision_width: int = setting(32, "ResNet of (2, 2, 2, 2) blocks")
    text_width: int = setting(128, "its heads are 64 wide")
    text_layers: int = 3
    context: int = setting(32, "text positions trained; longer texts are read with repeated last positions")
    steps: int = 5600
    batch: int = 128
    lr: float = setting(1e-3, "AdamW, cosine to 2 %")
    last_steps: int = setting(2400, "of the steps: all styles drawn alike, pictures nearly whole")
    last_lr: float = setting(6e-4, "the same for them")
    weight_decay: float = 0.05
    style_weight: float = setting(1.0, "of the style term beside CLIP's loss")
    least: int = setting(12, "pictures a style needs to be a class of the style term")
    average: float = setting(0.995, "decay of the running mean of the weights; the mean is what is measured and saved")
    seed: int = 0
    compile: bool = setting(False, "torch.compile of the picture tower")


def build(config: ClipConfig) -> CLIP:
    """An untrained CLIP of the config's sizes."""
    return clip.model.CLIP(
        embed_dim=config.embed_dim,
        image_resolution=config.resolution,
        vision_layers=(2, 2, 2, 2),
        vision_width=config.vision_width,
        vision_patch_size=None,
        context_length=config.context,
        vocab_size=49408,
        transformer_width=config.text_width,
        transformer_heads=config.text_width // 64,
        transformer_layers=config.text_layers,
    )


def with_full_context(model: CLIP, config: ClipConfig) -> CLIP:
    """A copy that reads CLIP's 77 positions: those beyond the trained ones repeat the last."""
    tensors = dict(model.state_dict())
    positions = tensors["positional_embedding"]
    tensors["positional_embedding"] = torch.cat([positions, positions[-1:].expand(77 - len(positions), -1)])
    return clip.model.build_model(tensors).float().eval()


def style_classes(pictures: Sequence[Picture], least: int) -> dict[str, str]:
    """Style -> kind for styles with at least `least` pictures; all photos are one class, "photo"."""
    count = Counter((p.style or "photo", p.kind) for p in pictures if p.kind not in ("photo", "wallpaper"))
    classes = {style: kind for (style, kind), n in sorted(count.items()) if n >= least}
    classes["photo"] = "photo"
    return classes


def class_of(picture: Picture) -> str:
    return "photo" if picture.kind in ("photo", "wallpaper") else picture.style


def prompts_of(style: str, kind: str) -> list[str]:
    """The style's name in every template of its kind."""
    return [template.format(style) for template in TEMPLATES.get(kind, TEMPLATES["made"])]


def caption_of(picture: Picture, rng: np.random.Generator) -> str:
    """One of the picture's captions, or its style in a template where it has none."""
    if picture.captions and rng.random() < 0.8:
        return picture.captions[rng.integers(len(picture.captions))]
    prompts = prompts_of(picture.style or "photo", picture.kind if picture.style else "photo")
    prompt = prompts[rng.integers(len(prompts))]
    return f"{prompt} of {picture.content}" if picture.content and rng.random() < 0.5 else prompt


def words(pictures: Sequence[Picture], least: int = 5) -> list[str]:
    """Words of captions and styles seen at least `least` times: what prompts can be made of without a warning."""
    count: Counter[str] = Counter()
    for picture in pictures:
        texts = [*picture.captions, *prompts_of(picture.style or "photo", picture.kind)]
        count.update({word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())})
    return sorted(word for word, n in count.items() if n >= least)


def normalised(images: Tensor) -> Tensor:
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def train(
    pictures: Sequence[Picture], valid: Sequence[Picture], config: ClipConfig, run: Run, minutes_between_saves: float = 5
) -> CLIP:
    """Train from `run`'s state (or anew) to config.steps -> a CLIP with 77 positions."""
    torch.manual_seed(config.seed)  # clip's modules draw their initial weights from the global generator
    model = build(config).train()
    model.to(memory_format=torch.channels_last)
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    mean_model = deepcopy(model).eval().requires_grad_(False)
    first = 0
    if state := run.load(asdict(config)):
        model.load_state_dict(state["model"])
        mean_model.load_state_dict(state["mean_model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        log.info("resumed at step %d", first)
    visual = torch.compile(model.visual) if config.compile else model.visual
    classes = style_classes(pictures, config.least)
    names = list(classes)
    place = {name: i for i, name in enumerate(names)}
    count = Counter(class_of(p) for p in pictures)
    main_steps = config.steps - config.last_steps
    edges = []  # of the main steps, and of the last
    for power, rare in ((0.5, RARE), (1.0, RARE / 10)):
        weight = np.array([count[class_of(p)] ** -power if class_of(p) in place else rare for p in pictures])
        edges.append(np.cumsum(weight / weight.sum()))

    def make(step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        last = step >= main_steps
        chosen = [pictures[i] for i in np.searchsorted(edges[last], rng.random(config.batch)).clip(max=len(pictures) - 1)]
        crops = []
        for picture in chosen:
            image = picture.open()
            share = rng.uniform(0.7 if last else 0.55, 1.0)  # of the shortest side
            zoom = config.resolution / (share * min(image.size))
            crops.append(random_crop(image, config.resolution, rng, (zoom, zoom)))
        texts = [caption_of(p, rng) for p in chosen]
        for name in names:
            prompts = prompts_of(name, classes[name])
            texts.append(prompts[rng.integers(len(prompts))])
        labels = torch.tensor([place.get(class_of(p), -100) for p in chosen])
        # a caption shared by two pictures of a batch is no wrong answer for either
        index = {text: i for i, text in reversed(list(enumerate(texts[: len(chosen)])))}
        same = torch.tensor([index[text] for text in texts[: len(chosen)]])
        return to_tensor(crops), clip.tokenize(texts, config.context, truncate=True), labels, same

    def save(step: int) -> None:
        state = {"model": model.state_dict(), "mean_model": mean_model.state_dict()}
        run.save({**state, "optimizer": optimizer.state_dict(), "step": step})

    mean = {"contrast": 0.0, "style": 0.0}
    started = saved = time.monotonic()
    for step, (images, texts, labels, same) in enumerate(batches(make, config.seed, first, config.steps), first):
        last = step >= main_steps
        rate = config.last_lr * schedule(step - main_steps, config.last_steps) if last else config.lr * schedule(step, main_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            seen = F.normalize(visual(normalised(images)).float(), dim=-1)
            said = F.normalize(model.encode_text(texts).float(), dim=-1)
        captions, styles = said[: len(images)], said[len(images) :]
        scale = model.logit_scale.exp().clamp(max=100)
        logits = scale * seen @ captions.t()  # (B, B)
        target = (same[:, None] == same[None]).float()
        target = target / target.sum(1, keepdim=True)
        contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target))
        style = F.cross_entropy(scale * seen @ styles.t(), labels, ignore_index=-100, label_smoothing=0.1)
        (contrast + config.style_weight * style).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        accumulate(mean_model, model, min(config.average, (step + 1) / (step + 10)))
        for key, value in (("contrast", contrast), ("style", style)):
            mean[key] += 0.05 * (value.item() - mean[key])
        if (step + 1) % 50 == 0:
            full = with_full_context(mean_model, config)
            accuracy = style_accuracy(full, [p for p in valid if class_of(p) in place and p.kind in ("art", "graphic")], classes)
            speed = (step + 1 - first) * config.batch / (time.monotonic() - started)
            log.info(
                "step %d %s valid %.3f, %.0f pictures/s", step + 1, {k: round(v, 3) for k, v in mean.items()}, accuracy, speed
            )
            run.log(step=step + 1, valid_accuracy=accuracy, **mean)
        if time.monotonic() - saved > 60 * minutes_between_saves:
            save(step + 1)
            saved = time.monotonic()
    save(config.steps)
    return with_full_context(mean_model, config)


@torch.no_grad()
def accumulate(mean_model: nn.Module, model: nn.Module, decay: float) -> None:
    """mean_model <- decay * mean_model + (1 - decay) * model, weights and running statistics alike."""
    new = model.state_dict()
    for name, tensor in mean_model.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(new[name], 1 - decay)
        else:
            tensor.copy_(new[name])


@torch.inference_mode()
def style_accuracy(model: CLIP, pictures: Sequence[Picture], classes: dict[str, str]) -> float:
    """Macro top-1: pictures classified among `classes` (style -> kind) by the mean text embedding of the style's prompts.

    Returns:
        the mean over the styles that occur in `pictures` of the share of their pictures classified right.
    """
    names = list(classes)
    ensemble = torch.stack([embed_prompts(model, prompts_of(name, kind)) for name, kind in classes.items()])  # (K, E)
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for i in range(0, len(pictures), 64):
        some = pictures[i : i + 64]
        side = model.visual.input_resolution
        views = [np.asarray(centre_crop(p.open(), side)) for p in some]
        index = (embed_images(model, to_tensor(views)) @ ensemble.t()).argmax(1)
        for picture, got in zip(some, index.tolist(), strict=True):
            seen[class_of(picture)] += 1
            right[class_of(picture)] += names[got] == class_of(picture)
    return sum(right[name] / seen[name] for name in seen) / max(1, len(seen))


def embed_prompts(model: CLIP, prompts: Sequence[str]) -> Tensor:
    """Prompt ensemble: the normalised mean of the prompts' unit text embeddings, (E)."""
    return F.normalize(embed_texts(model, prompts).mean(0), dim=-1)


def bench_classes(pictures: Sequence[Picture], train: Sequence[Picture], most: int = 24) -> dict[str, str]:
    """The `most` commonest styles of `pictures` (held-out art and graphics) -> kind; ties go to the commoner in `train`."""
    art = [p for p in pictures if p.kind in ("art", "graphic") and p.style]
    count, common = Counter(p.style for p in art), Counter(p.style for p in train)
    kind = {p.style: p.kind for p in art}
    order = sorted(count, key=lambda style: (-count[style], -common[style], style))
    return {style: kind[style] for style in order[:most]}
