"""Training of a small CLIP, OpenAI's `clip.model.CLIP` (ResNet, 128 px), on captioned pictures. The bundled one: style_clip.py.

The loss is CLIP's own (Radford et al. 2021, arXiv 2103.00020) plus a style term: each picture is classified among the prompts
of all common styles, which are encoded in every step, in random templates. A picture is sampled with a weight of 1/sqrt(pictures
of its style); in the last steps, 1/(pictures of its style): all styles alike. The text tower is trained on 32 positions and
extended to CLIP's 77 when saved.

Letters: B pictures; K styles that are classes; E the size of an embedding.

    stylerdalle train-clip --images SHARDS --output clip.safetensors
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip.package import clip
from ..clip.scores import MEAN, STD, embed_images, embed_texts
from ..device import autocast
from ..learn.crops import centre_crop, random_crop, to_tensor
from ..learn.loop import Descent, Loop, Numbers
from ..learn.means import average_weights
from ..learn.pictures import Picture
from ..learn.run import Run
from ..learn.schedule import learning_rate
from .options import ClipConfig

if TYPE_CHECKING:
    from clip.model import CLIP


RARE = 0.15  # sampling weight of a picture whose style is no class; a picture of a style with 100 pictures has 0.1

TEMPLATES = {
    "photo": ("a photo", "a photograph", "a real photo", "a photo of something"),
    "art": ("a {} painting", "{} style", "a painting in the style of {}", "{}", "an artwork in {} style", "{} art"),
    "graphic": ("{}", "{} style", "a picture in {} style", "{} graphics", "an example of {}"),
    "made": ("{}", "{} style", "a picture in the style of {}"),
}


def build_clip(config: ClipConfig) -> CLIP:
    """An untrained CLIP of the config's sizes. It draws its weights from torch's global generator."""
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
    """A copy with CLIP's 77 text positions: those beyond the trained ones are copies of the last."""
    tensors = dict(model.state_dict())
    positions = tensors["positional_embedding"]
    tensors["positional_embedding"] = torch.cat([positions, positions[-1:].expand(77 - len(positions), -1)])
    return clip.model.build_model(tensors).float().eval().to(positions.device)


def style_classes(pictures: Sequence[Picture], least: int) -> dict[str, str]:
    """Style -> kind, for styles with at least `least` pictures. All photos are one class, "photo"."""
    count = Counter((p.style or "photo", p.kind) for p in pictures if p.kind not in ("photo", "wallpaper"))
    classes = {style: kind for (style, kind), n in sorted(count.items()) if n >= least}
    classes["photo"] = "photo"
    return classes


def class_of(picture: Picture) -> str:
    """The picture's style, or "photo"."""
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


def texts_of(picture: Picture) -> list[str]:
    """The captions of a picture and the prompts of its style: what training draws from."""
    return [*picture.captions, *prompts_of(picture.style or "photo", picture.kind)]


def used_tokens(pictures: Sequence[Picture]) -> Tensor:
    """Numbers of the text tokens that training sees, long (N): the rows of the vocabulary that a file has to keep."""
    texts = sorted({text for picture in pictures for text in texts_of(picture)} | {p.content for p in pictures if p.content})
    found = {token for text in texts for token in clip.tokenize([text], 77, truncate=True)[0].tolist()}
    return torch.tensor(sorted(found))


def words(pictures: Sequence[Picture], least: int = 5) -> list[str]:
    """Words that captions and style prompts have at least `least` times: prompts made of them give no warning."""
    count: Counter[str] = Counter()
    for picture in pictures:
        count.update({word for text in texts_of(picture) for word in re.findall(r"[^\W\d_]+", text.lower())})
    return sorted(word for word, n in count.items() if n >= least)


def normalised(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same with CLIP's mean and standard deviation, channels_last."""
    mean, std = (images.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


class Sampler:
    """Draws the pictures and texts of a step.

    Args:
        pictures: to learn from.
        classes: style -> kind, as of `style_classes`.
    """

    def __init__(self, pictures: Sequence[Picture], classes: dict[str, str], config: ClipConfig):
        self.pictures, self.classes, self.config = pictures, classes, config
        self.index = {style: i for i, style in enumerate(classes)}
        count = Counter(class_of(p) for p in pictures)
        self.cumulative = []  # shares of the pictures, in the main steps and in the last
        for power, rare in ((0.5, RARE), (1.0, RARE / 10)):
            weight = np.array([count[class_of(p)] ** -power if class_of(p) in self.index else rare for p in pictures])
            self.cumulative.append(np.cumsum(weight / weight.sum()))

    def batch(self, step: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(pictures (B, 3, S, S), texts (B + K, context), classes (B), captions (B)) of a step.

        The texts are a caption of each picture, then a prompt of each class. A picture without a class has class -100. Pictures
        with the same number in the last tensor have the same caption.
        """
        last = step >= self.config.steps - self.config.last_steps
        drawn = np.searchsorted(self.cumulative[last], rng.random(self.config.batch)).clip(max=len(self.pictures) - 1)
        chosen = [self.pictures[i] for i in drawn.tolist()]
        crops = [self._crop(picture, last, rng) for picture in chosen]
        texts = [caption_of(p, rng) for p in chosen]
        first = {text: i for i, text in reversed(list(enumerate(texts)))}
        same = torch.tensor([first[text] for text in texts])
        for style, kind in self.classes.items():
            prompts = prompts_of(style, kind)
            texts.append(prompts[rng.integers(len(prompts))])
        labels = torch.tensor([self.index.get(class_of(p), -100) for p in chosen])
        return to_tensor(crops), clip.tokenize(texts, self.config.context, truncate=True), labels, same

    def _crop(self, picture: Picture, last: bool, rng: np.random.Generator) -> np.ndarray:
        image = picture.open()
        share = rng.uniform(0.7 if last else 0.55, 1.0)  # of the shortest side
        zoom = self.config.resolution / (share * min(image.size))
        return random_crop(image, self.config.resolution, rng, (zoom, zoom))


def new_optimizer(model: CLIP, config: ClipConfig) -> torch.optim.AdamW:
    """AdamW that decays weights, but not biases and other vectors."""
    plain = [p for p in model.parameters() if p.ndim < 2]
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))


def losses(model: CLIP, seen: Tensor, read: Tensor, labels: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """(CLIP's symmetric contrastive loss, cross-entropy of the styles).

    Args:
        seen: unit embeddings of the pictures, (B, E).
        read: unit embeddings of their captions and of the classes' prompts, (B + K, E).
        labels: class of each picture, (B).
        same: pictures with the same number have the same caption, (B): each is a right answer for the others.
    """
    captions, styles = read[: len(seen)], read[len(seen) :]
    scale = model.logit_scale.exp().clamp(max=100)
    logits = scale * seen @ captions.t()  # (B, B)
    target = (same[:, None] == same[None]).float()
    target = target / target.sum(1, keepdim=True)
    contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target))
    style = F.cross_entropy(scale * seen @ styles.t(), labels, ignore_index=-100, label_smoothing=0.1)
    return contrast, style


def train(
    pictures: Sequence[Picture],
    valid: Sequence[Picture],
    config: ClipConfig,
    run: Run,
    minutes_between_saves: float = 5,
    device: torch.device | str = "cpu",
) -> CLIP:
    """Train to config.steps, from `run`'s state if it has one -> a CLIP with 77 text positions, on the CPU.

    Args:
        pictures: to learn from.
        valid: to measure how many art and graphics are classified right.

    Raises:
        ValueError: `run` has a state of other options, or the loss is not finite.
    """
    torch.manual_seed(config.seed)  # clip's modules draw their initial weights from the global generator
    model = build_clip(config).train()
    model.to(device).to(memory_format=torch.channels_last)
    optimizer = new_optimizer(model, config)
    mean_model = deepcopy(model).eval().requires_grad_(False)
    main_steps = config.steps - config.last_steps

    def rate(step: int) -> float:
        if step < main_steps:
            return config.lr * learning_rate(step, main_steps)
        return config.last_lr * learning_rate(step - main_steps, config.last_steps)

    state = {"model": model, "mean_model": mean_model, "optimizer": optimizer}
    descents = [Descent(optimizer, rate, list(model.parameters()))]
    loop = Loop(run, config.steps, config.seed, state, descents, minutes_between_saves, report_every=50)
    loop.resume(asdict(config))
    visual = torch.compile(model.visual) if config.compile else model.visual
    classes = style_classes(pictures, config.least)
    judged = [p for p in valid if class_of(p) in classes and p.kind in ("art", "graphic")]

    def learn(step: int, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Numbers:
        images, texts, labels, same = (part.to(device) for part in batch)
        with autocast(images.device):
            seen = F.normalize(visual(normalised(images)).float(), dim=-1)
            read = F.normalize(model.encode_text(texts).float(), dim=-1)
        contrast, style = losses(model, seen, read, labels, same)
        (contrast + config.style_weight * style).backward()
        return {"contrast": contrast.item(), "style": style.item()}

    def after(step: int, numbers: Numbers) -> Numbers:
        average_weights(mean_model, model, min(config.average, (step + 1) / (step + 10)))
        return {}

    def measure() -> Numbers:
        return {"valid_accuracy": style_accuracy(with_full_context(mean_model, config), judged, classes)}

    loop.train(Sampler(pictures, classes, config).batch, learn, after, measure)
    return with_full_context(mean_model, config).cpu()


@torch.inference_mode()
def style_accuracy(model: CLIP, pictures: Sequence[Picture], classes: dict[str, str]) -> float:
    """Macro-averaged top-1 accuracy of zero-shot style classification, in [0, 1].

    Args:
        pictures: the mean is over the styles that they have.
        classes: style -> kind; a style is represented by the mean text embedding of its prompts.
    """
    names = list(classes)
    ensemble = torch.stack([embed_prompts(model, prompts_of(name, kind)) for name, kind in classes.items()])  # (K, E)
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for i in range(0, len(pictures), 64):
        some = pictures[i : i + 64]
        side = model.visual.input_resolution
        views = [np.asarray(centre_crop(p.open(), side)) for p in some]
        index = (embed_images(model, to_tensor(views).to(ensemble.device)) @ ensemble.t()).argmax(1)
        for picture, got in zip(some, index.tolist(), strict=True):
            seen[class_of(picture)] += 1
            right[class_of(picture)] += names[got] == class_of(picture)
    return sum(right[name] / seen[name] for name in seen) / max(1, len(seen))


def embed_prompts(model: CLIP, prompts: Sequence[str]) -> Tensor:
    """The prompts as an ensemble: the normalised mean of their unit text embeddings, (E)."""
    return F.normalize(embed_texts(model, prompts).mean(0), dim=-1)


def bench_classes(pictures: Sequence[Picture], train: Sequence[Picture], most: int = 24) -> dict[str, str]:
    """Style -> kind, for the `most` most frequent styles of `pictures`, held-out art and graphics.

    Of two that are equally frequent, the one that is more frequent in `train`.
    """
    art = [p for p in pictures if p.kind in ("art", "graphic") and p.style]
    count, common = Counter(p.style for p in art), Counter(p.style for p in train)
    kind = {p.style: p.kind for p in art}
    order = sorted(count, key=lambda style: (-count[style], -common[style], style))
    return {style: kind[style] for style in order[:most]}
