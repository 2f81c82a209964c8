"""The paper's CLIP score (StylerDALLE, arXiv 2303.09268, section 4), and its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..bundle import Bundle
from ..clip import scores as reward
from ..pipeline import stylize
from ..translator.sampling import Sampling
from ..translator.style import Style

RESAMPLES = 10_000
NOT_PHOTOS = ("art", "graphic", "made")  # kinds of pictures (pictures.py)


@torch.inference_mode()
def scores(
    bundle: Bundle, photo: torch.Tensor, style: Style, prompt: str, sampling: Sampling, normalise: bool = True
) -> tuple[float, float]:
    """CLIP scores of one photo -> (cosine of the stylised photo to the prompt, of the photo itself), in [-1, 1].

    As in the paper, the picture is what the tokens show, without the photo's lines.

    Args:
        photo: (1, 3, S, S) in [0, 1].
        normalise: pixels by CLIP's mean and deviation; False: as they are, as in the authors' code.
    """
    out = stylize(photo, style, bundle, sampling=sampling, keep_lines=0)
    text = reward.embed_texts(bundle.clip, [prompt])[0]
    both = torch.cat([out, photo]).to(text.device)
    first, second = reward.cosine(reward.embed_images(bundle.clip, both, normalise), text).tolist()
    return first, second


def mean(values: Sequence[float]) -> float:
    """Their mean, as a float."""
    return float(np.mean(values))


def bootstrap(values: Sequence[float], share: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (low, high) of the mean: it holds `share` of the means of RESAMPLES samples drawn with replacement."""
    rng, array = np.random.default_rng(seed), np.asarray(values)
    means = [array[rng.integers(len(array), size=len(array))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
