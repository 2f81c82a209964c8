"""Method `reinforce`: the paper's (StylerDALLE, arXiv 2303.09268, section 3.3). One sample a photo, one reward for all of its
tokens, and one running baseline that starts at 0:

    L = -1/(B N) sum_k (r_k - b) sum_i log p(token i of photo k),   b <- (B b + mean reward) / (B + 1) before it is used

over the B photos of a batch and N tokens. Adam's betas and eps, the limit of the gradient's norm and the constant learning rate
are the authors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .method import Judged, Method, Painter, draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def loss(painter: Painter, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator) -> Judged:
    """-mean log p of one sample; `BaselineGradient` weights it by r - b."""
    import torch

    tokens, log_p = draw(logits, 1, generator)
    with torch.no_grad():
        picture = painter.drawn(painter.decode(tokens), photo)
        whole, crops = painter.judge(picture, photo, text, painter.crops(generator))
    return Judged(-log_p.mean(), whole.mean() + crops.mean(), picture)


class BaselineGradient:
    """The gradient of the mean over a batch of (r - b) loss + kl_weight KL, as `MeanGradient`.

    b is known only after all photos are judged. So the sum of r grad and the sum of grad are kept apart until then.
    """

    def __init__(self, tensors: Sequence[Tensor], count: int, kl_weight: float, baseline: float):
        self.tensors, self.count, self.kl_weight, self.baseline = tensors, count, kl_weight, baseline
        self.sums = [tensor.detach().new_zeros(tensor.shape) for tensor in tensors]  # of grad loss

    def add(self, judged: Judged, kl: Tensor) -> Tensor:
        import torch

        gradients = torch.autograd.grad(judged.loss, self.tensors, retain_graph=bool(self.kl_weight))
        for tensor, total, gradient in zip(self.tensors, self.sums, gradients, strict=True):
            total += gradient
            before = 0 if tensor.grad is None else tensor.grad
            tensor.grad = before + judged.reward * gradient / self.count
        if self.kl_weight:
            (self.kl_weight * kl / self.count).backward()
        return (judged.loss * judged.reward).detach()

    def finish(self, reward: float) -> float:
        baseline = (self.count * self.baseline + reward) / (self.count + 1)
        for tensor, total in zip(self.tensors, self.sums, strict=True):
            change = baseline * total / self.count
            tensor.grad = -change if tensor.grad is None else tensor.grad - change
        return baseline


REINFORCE = Method(
    "the paper's policy gradient: one sample a photo against a running baseline",
    loss,
    defaults={  # the paper's 4 epochs of COCO are 10^5 steps
        "softness": 0.0,
        "keep_lines": 0.0,
        "lr": 1e-6,
        "rank": 0,
        "batch": 16,
        "kl_weight": 0.0,
        "caption_weight": 1.0,
        "patch_weight": 0.0,
        "directional_weight": 0.0,
    },
    gradient=BaselineGradient,
    betas=(0.9, 0.98),
    eps=1e-9,
    max_norm=3.0,
    falling=False,
    library=False,  # the paper has no exemplars
)
