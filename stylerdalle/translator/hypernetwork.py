"""A style for any prompt: a network that reads CLIP's embedding of the prompt and says how the translator changes
(a hypernetwork, arXiv 1609.09106), in one pass and without tuning.

What comes out is a Style (style.py) like a tuned one: strength, mixing, saving and stacking are the same, and a picture takes
no longer. Two kinds of change:

- `lora`: one low-rank basis for all prompts, of which the prompt sets the gates: W' = W + B diag(g(prompt)) A;
- `film`: the scales and shifts of the decoder's layer norms (FiLM, arXiv 1709.07871).

With both, the output's bias gets a weighted sum of a few changes. Of the textures that the network carries (texture.py) the
prompt sets how much of each lies under the picture: shares that sum to at most 1. A new network changes nothing: its last layer
is zero, and the share of no texture near 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import setting
from .model import Translator
from .style import TUNED, WHOLE, Style
from .texture import Texture

KINDS = ("lora", "film")
LEAST = 0.1  # share of a texture under which it is left out
NEARNESS = 0.015  # difference in cosine at which a prompt counts e times less than another to settle near


@dataclass(frozen=True)
class HyperConfig:
    kind: str = "lora"
    embed_dim: int = setting(256, "of CLIP's text embeddings")
    hidden: int = 256
    rank: int = setting(68, "of the basis of each matrix, for lora")
    basis: int = setting(17, "changes that the small parameters are summed from")
    noise: float = setting(0.3, "added to the standardised embedding in training: prompts nearby shall mean nearly the same")
    settle: float = setting(0.7, "how far, in use, a prompt moves to those trained on that are nearest; 0 leaves it where it is")

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is not known: {', '.join(KINDS)}")
        for name in ("embed_dim", "hidden", "rank", "basis"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not 0 <= self.settle <= 1:
            raise ValueError(f"settle is {self.settle}: it must lie between 0 and 1")


class HyperNetwork(nn.Module):
    """CLIP text embedding (E), a unit vector -> tensors of a Style for one translator.

    Args:
        shapes: of the translator's parameters that it changes, by name; `changed` gives them.
        prompts: those it is trained on, whose embeddings `learn_scale` takes over.
        textures: long (K, T, T), tokens of textures; none if not given.
    """

    textures: Tensor
    mean: Tensor
    deviation: Tensor
    known: Tensor

    def __init__(
        self,
        config: HyperConfig,
        shapes: Mapping[str, Sequence[int]],
        prompts: Sequence[str] = (),
        textures: Tensor | None = None,
    ):
        super().__init__()
        self.config, self.prompts = config, tuple(prompts)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        small = [name for name in self.shapes if name in WHOLE]
        others = [name for name in self.shapes if name not in WHOLE]
        self.small, self.others = small, others
        # how many numbers of the last layer are for each parameter
        per = {name: config.rank if config.kind == "lora" else int(torch.Size(self.shapes[name]).numel()) for name in others}
        self.sizes = [*(config.basis for _ in small), *per.values()]
        self.trunk = nn.Sequential(
            nn.Linear(config.embed_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.hidden), nn.GELU()
        )
        self.register_buffer("textures", torch.empty(0, 1, 1, dtype=torch.long) if textures is None else textures)
        self.head = nn.Linear(config.hidden, sum(self.sizes))
        self.choice = nn.Linear(config.hidden, len(self.textures) + 1)  # the last is no texture
        for last in (self.head, self.choice):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        nn.init.constant_(self.choice.bias[-1:], 4.0)
        self.sums = nn.ParameterList(0.02 * torch.randn(config.basis, *self.shapes[name]) for name in small)
        lora = others if config.kind == "lora" else []
        self.a = nn.ParameterList(torch.randn(config.rank, self.shapes[n][1]) / self.shapes[n][1] ** 0.5 for n in lora)
        self.b = nn.ParameterList(torch.randn(self.shapes[n][0], config.rank) / config.rank for n in lora)
        self.register_buffer("mean", torch.zeros(config.embed_dim))
        self.register_buffer("deviation", torch.ones(config.embed_dim))
        self.register_buffer("known", torch.zeros(len(self.prompts), config.embed_dim))

    def forward(self, text: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """(E) -> tensors of a Style. With a generator, for training, the embedding is shaken."""
        parts = list(self.head(self.read(text, generator)).split(self.sizes))
        tensors = {}
        for i, name in enumerate(self.small):
            tensors[f"{name}.delta"] = torch.einsum("k,k...->...", parts[i], self.sums[i])
        for i, (name, part) in enumerate(zip(self.others, parts[len(self.small) :], strict=True)):
            if self.config.kind == "lora":
                tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = self.a[i], self.b[i] * part
            else:
                tensors[f"{name}.delta"] = part.view(self.shapes[name])
        return tensors

    def read(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(E) -> (hidden), what both `forward` and `choose` begin with."""
        x = ((text if generator else self.settled(text)) - self.mean) / self.deviation
        if generator:
            x = x + self.config.noise * torch.randn(x.shape, generator=generator)
        hidden: Tensor = self.trunk(x)
        return hidden

    def settled(self, text: Tensor) -> Tensor:
        """(E) or (P, E) moved towards the prompts trained on that are nearest: between known prompts the network is unsure and
        changes little, where an artist would rather see the nearest style."""
        if not self.prompts or not self.config.settle:
            return text
        near = F.normalize((text @ self.known.T / NEARNESS).softmax(-1) @ self.known, dim=-1)
        return F.normalize((1 - self.config.settle) * text + self.config.settle * near, dim=-1)

    def choose(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(E) -> log of the share of every texture, and of none, (K + 1)."""
        return self.choice(self.read(text, generator)).log_softmax(-1)

    def texture(self, text: Tensor) -> Texture | None:
        """The textures that a prompt asks for; None where it asks for none."""
        shares = self.choose(text).exp()[:-1]
        some = shares > LEAST
        return Texture(self.textures[some].long(), shares[some]) if some.any() else None

    @torch.no_grad()
    def learn_scale(self, texts: Tensor) -> None:
        """Take over the embeddings (P, E) of the prompts: their mean and spread, and what `nearest` compares with."""
        self.mean.copy_(texts.mean(0))
        self.deviation.copy_(texts.std(0).clamp(min=1e-3))
        self.known.copy_(texts)

    @torch.no_grad()
    def start_from(self, styles: Sequence[Style]) -> Tensor:
        """Fill the basis with the largest parts of the changes of tuned styles; the gates stay zero.

        Returns what the head must say for each style, as far as the basis has it (S, numbers): for `imitate`.

        Raises:
            ValueError: there are no styles, or more than the basis has room for.
        """
        config = self.config
        if not 1 <= len(styles) <= min(config.basis, config.rank):
            raise ValueError(f"{len(styles)} styles to start from: need 1 to {min(config.basis, config.rank)}")
        said = [torch.zeros(len(styles), size) for size in self.sizes]
        for i, name in enumerate(self.small):
            for k, style in enumerate(styles):
                self.sums[i][k] = style.change(name)
                said[i][k, k] = 1
        rank = config.rank // len(styles)
        for i in range(len(self.a)):
            for k, style in enumerate(styles):
                if self.others[i] not in style.names():  # it has no texture: its part of the basis stays free
                    continue
                u, s, v = torch.linalg.svd(style.change(self.others[i]).float(), full_matrices=False)
                rows = slice(k * rank, (k + 1) * rank)
                self.a[i][rows] = s[:rank, None].sqrt() * v[:rank]
                self.b[i][:, rows] = u[:, :rank] * s[:rank].sqrt()
                said[len(self.small) + i][k, rows] = 1
        return torch.cat(said, -1)

    def imitate(self, texts: Tensor, said: Tensor, choice: Tensor, steps: int = 800, lr: float = 2e-3, seed: int = 0) -> float:
        """Learn what to say for some prompts, without the translator and in seconds -> the last loss.

        Args:
            texts: (P, E), embeddings of the prompts.
            said: (P, numbers), what the head shall say for each; `start_from` gives it by style.
            choice: long (P), the texture of each, or the number of textures for none.
        """
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam([*self.trunk.parameters(), *self.head.parameters(), *self.choice.parameters()], lr)
        loss = torch.zeros(())
        for _ in range(steps):
            hidden = self.read(texts, generator)
            loss = F.mse_loss(self.head(hidden), said, reduction="sum") / len(said)
            loss = loss + F.cross_entropy(self.choice(hidden), choice)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def nearest(self, text: Tensor) -> tuple[float, str]:
        """How near an embedding (E) is to the nearest prompt trained on, a cosine in [-1, 1], and that prompt."""
        if not self.prompts:
            raise ValueError("this network knows no prompts")
        similarity, index = (self.known @ text.to(self.known)).max(0)
        return float(similarity), self.prompts[int(index)]


def changed(translator: Translator, kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters that a network of this kind changes."""
    found = {}
    for name, p in translator.named_parameters():
        norm = ".norm" in name or ".ln_final." in name
        if name.startswith(TUNED) and (name in WHOLE or (norm if kind == "film" else p.ndim == 2)):
            found[name] = tuple(p.shape)
    return found
