"""Directions in CLIP's space from pictures of art, for prompts that have no made pairs: a text alone says little of how a
picture should look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip import scores as reward
from ..clip.protocol import CLIPModel
from ..learn.crops import at_least, to_tensor
from ..learn.pictures import Picture
from ..learn.run import Run, save_tensors

NEAREST = 24  # pictures of art whose mean stands for a prompt


@torch.inference_mode()
def art_targets(model: CLIPModel, pictures: Sequence[Picture], texts: Tensor, most: int = 6000, seed: int = 0) -> Tensor | None:
    """What the pictures of art have in common whose captions are nearest to each text; None without art.

    The mean of all image embeddings is subtracted, for it is far from any text.

    Args:
        pictures: those that are no photos and have captions count, at most `most` of them.
        texts: unit embeddings of P texts, (P, E).

    Returns:
        Unit vectors, (P, E).
    """
    art = [p for p in pictures if p.kind != "photo" and p.captions]
    if not art:
        return None
    chosen = np.random.default_rng(seed).permutation(len(art))[:most]
    captions, images = [], []
    for part in np.array_split(chosen, max(1, len(chosen) // 64)):
        some = [art[i] for i in part]
        captions.append(reward.embed_texts(model, [p.captions[0] for p in some]))
        size = model.visual.input_resolution
        crops = to_tensor([np.asarray(at_least(p.open(), size).resize((size, size))) for p in some])
        images.append(reward.embed_images(model, crops.to(texts.device)))
    seen = torch.cat(images)  # (N, E)
    nearest = (texts @ torch.cat(captions).T).topk(min(NEAREST, len(seen)), -1).indices  # (P, NEAREST)
    return F.normalize(seen[nearest].mean(1) - seen.mean(0), dim=-1)


def stored_art_targets(model: CLIPModel, art: Sequence[Picture], prompts: list[str], texts: Tensor, run: Run) -> Tensor | None:
    """`art_targets`, which take minutes, read from the run's folder if they were computed before, and kept there."""
    path = run.folder / "art.pt"
    stored = torch.load(path, weights_only=True) if path.is_file() and run.resume else {}
    if stored.get("prompts") != prompts:
        stored = {"prompts": prompts, "targets": None if (found := art_targets(model, art, texts)) is None else found.cpu()}
        save_tensors(path, stored)
    targets: Tensor | None = stored["targets"]
    return None if targets is None else targets.to(texts.device)
