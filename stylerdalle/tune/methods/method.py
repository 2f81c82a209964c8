"""What a tuning method is: how the adapter follows the reward. Every method is one `Method`, in a file of its own.

These files import torch in functions only, because the command line lists the methods in its help.

Letters: k pictures painted of one photo; h x w tokens; V tokens in the vocabulary; S px a side; C crops that CLIP sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...clip.scores import Box


class Options(Protocol):
    """The options of methods in `TuneConfig`."""

    @property
    def samples(self) -> int: ...

    @property
    def normalise_advantage(self) -> bool: ...

    @property
    def colour_weight(self) -> float: ...


class Painter(Protocol):
    """What a method asks of the models; `Objective` is one."""

    @property
    def config(self) -> Options: ...

    def paint(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (1, h, w, V) -> a picture (1, 3, S, S) in [0, 1], differentiable."""

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (k, h, w) -> pictures (k, 3, S, S) in [0, 1]."""

    def drawn(self, pictures: Tensor, photo: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (k, 3, S, S) with the lines of their photo (1, 3, S, S), as stylised pictures have them."""

    def crops(self, generator: torch.Generator) -> list[Box]:
        """Random boxes of a picture for CLIP to see."""

    def judge(self, pictures: Tensor, photo: Tensor, text: Tensor, boxes: list[Box]) -> tuple[Tensor, Tensor]:
        """Pictures (k, 3, S, S) of a photo (1, 3, S, S) -> their rewards as a whole (k) and of each box (C, k)."""


@dataclass(frozen=True)
class Judged:
    """A method's loss and reward for one photo."""

    loss: Tensor  # a scalar, to minimise
    reward: Tensor  # a scalar, the mean of the pictures, without a gradient
    pictures: Tensor  # that were judged, (k, 3, S, S)


class Loss(Protocol):
    """A method's loss for one photo."""

    def __call__(self, painter: Painter, logits: Tensor, photo: Tensor, text: Tensor, generator: torch.Generator, /) -> Judged:
        """
        Args:
            logits: of the stylised tokens, (1, h, w, V), float32.
            photo: (1, 3, S, S) in [0, 1].
            text: CLIP's embedding of the caption reward's text, (E).
            generator: for every random number.
        """


class Gradient(Protocol):
    """Adds up the gradient of a batch, photo by photo, in the memory of one photo."""

    def add(self, judged: Judged, kl: Tensor) -> Tensor:
        """Add the gradient of one photo -> its loss, a scalar. `kl` is KL(adapter || base), a scalar."""

    def finish(self, reward: float) -> float:
        """Called when all photos of all processes are judged, with their mean reward -> the baseline for the next step."""


class MeanGradient:
    """The gradient of the mean over a batch of loss + kl_weight KL.

    Args:
        tensors: of the adapter.
        count: photos of the batch, in all processes.
        baseline: passed on, for methods that have none.
    """

    def __init__(self, tensors: Sequence[Tensor], count: int, kl_weight: float, baseline: float):
        self.count, self.kl_weight, self.baseline = count, kl_weight, baseline

    def add(self, judged: Judged, kl: Tensor) -> Tensor:
        loss = judged.loss + self.kl_weight * kl
        (loss / self.count).backward()
        return loss.detach()

    def finish(self, reward: float) -> float:
        return self.baseline


@dataclass(frozen=True)
class Method:
    """A tuning method."""

    summary: str  # for help texts
    loss: Loss
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of TuneConfig, where they differ from its own
    gradient: Callable[[Sequence[Tensor], int, float, float], Gradient] = MeanGradient  # as the arguments of MeanGradient
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam
    eps: float = 1e-8  # of Adam
    max_norm: float = 1.0  # of the gradient, which is scaled down to it
    falling: bool = True  # the learning rate follows --warm and --decay; else it is constant
    library: bool = True  # works of the bundle's library are its exemplars where the prompt alone is given

    def optimizer(self, tensors: Iterable[Tensor], lr: float) -> torch.optim.Adam:
        """The optimiser of the adapter's tensors."""
        import torch

        return torch.optim.Adam(tensors, lr=lr, betas=self.betas, eps=self.eps)

    def rate(self, step: int, steps: int, warm: int, decay: str) -> float:
        """The share of the peak learning rate at a step of the reward, in [0, 1]."""
        from ...learn.schedule import learning_rate

        return learning_rate(step, steps, warm, decay=decay) if self.falling else 1.0


def draw(logits: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` samples from softmax(logits), logits (1, h, w, V) -> tokens and their log p, (count, h, w) each."""
    import torch

    from ...translator.sampling import gumbel

    log_p = logits.log_softmax(-1)
    with torch.no_grad():
        tokens = torch.cat([(logits + gumbel(logits, generator)).argmax(-1) for _ in range(count)])
    return tokens, log_p.expand(count, -1, -1, -1).gather(-1, tokens[..., None])[..., 0]
