"""A style for any prompt: a network from CLIP's embedding of a prompt to a style's tensors (a hypernetwork, arXiv 1609.09106).

It takes one pass and no tuning. Its output is a Style (style.py) like a tuned one, with the same strength, mixing and saving.
There are two kinds:

- `lora`: one low-rank basis for all prompts; a prompt sets its gates: W' = W + B diag(g(prompt)) A;
- `film`: the scales and shifts of the decoder's layer norms (FiLM, arXiv 1709.07871).

With both, the output layer's bias gets a weighted sum of a few learnt changes. The network also holds textures (texture.py); a
prompt sets the share of each, and the shares sum to at most 1. A new network changes nothing: its last layer is zero, and the
share of "no texture" is near 1.

Letters: E numbers in a CLIP embedding, P prompts, K textures of T x T tokens, O outputs of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .model import Translator
from .sizes import HyperConfig
from .style import FULLY_CHANGED, TUNED, Style
from .texture import Texture

LEAST_SHARE = 0.1  # textures with a smaller share are left out
NEARNESS = 0.015  # temperature of the softmax over cosines that `settled` weighs the known prompts with


class HyperNetwork(nn.Module):
    """CLIP text embedding (E), a unit vector -> tensors of a Style for one translator.

    Args:
        shapes: of the translator's parameters that a style changes, by name; from `changed`.
        prompts: the prompts that it is trained on; `learn_scale` stores their embeddings.
        textures: long (K, T, T), tokens; none by default.
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
        small = [name for name in self.shapes if name in FULLY_CHANGED]
        others = [name for name in self.shapes if name not in FULLY_CHANGED]
        self.small, self.others = small, others
        # outputs of the head for each parameter
        per = {name: config.rank if config.kind == "lora" else int(torch.Size(self.shapes[name]).numel()) for name in others}
        self.sizes = [*(config.basis for _ in small), *per.values()]
        self.trunk = nn.Sequential(
            nn.Linear(config.embed_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.hidden), nn.GELU()
        )
        self.register_buffer("textures", torch.empty(0, 1, 1, dtype=torch.long) if textures is None else textures)
        self.head = nn.Linear(config.hidden, sum(self.sizes))
        self.choice = nn.Linear(config.hidden, len(self.textures) + 1)  # the last: no texture
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
        """(E) -> tensors of a Style. With a generator, for training, noise is added to the embedding."""
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
        """(E) or (P, E) -> (hidden) or (P, hidden): the trunk, shared by `forward` and `choose`."""
        x = ((text if generator else self.settled(text)) - self.mean) / self.deviation
        if generator:
            x = x + self.config.noise * torch.randn(x.shape, generator=generator).to(x.device)
        hidden: Tensor = self.trunk(x)
        return hidden

    def settled(self, text: Tensor) -> Tensor:
        """(E) or (P, E) -> the same, moved towards the nearest prompts trained on.

        Between known prompts the network is uncertain and changes little; an artist would rather see the nearest style.
        """
        if not self.prompts or not self.config.settle:
            return text
        near = F.normalize((text @ self.known.T / NEARNESS).softmax(-1) @ self.known, dim=-1)
        return F.normalize((1 - self.config.settle) * text + self.config.settle * near, dim=-1)

    def choose(self, text: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(E) -> (K + 1), the log share of every texture and of no texture."""
        return self.choice(self.read(text, generator)).log_softmax(-1)

    def textures_for(self, text: Tensor) -> Texture | None:
        """(E) -> the textures of a prompt's style, weighted by their shares; None if no share is above LEAST_SHARE."""
        shares = self.choose(text).exp()[:-1]
        some = shares > LEAST_SHARE
        return Texture(self.textures[some].long(), shares[some]) if some.any() else None

    @torch.no_grad()
    def learn_scale(self, texts: Tensor) -> None:
        """Store the embeddings (P, E) of the prompts, with their mean and standard deviation."""
        self.mean.copy_(texts.mean(0))
        self.deviation.copy_(texts.std(0).clamp(min=1e-3))
        self.known.copy_(texts)

    @torch.no_grad()
    def start_from(self, styles: Sequence[Style]) -> Tensor:
        """Fill the basis with the largest singular vectors of the changes of S tuned styles; the gates stay zero.

        Returns:
            Head targets (S, O) that reproduce the styles as far as the basis can; for `imitate`.

        Raises:
            ValueError: no styles, or more than the basis has room for.
        """
        config = self.config
        if not 1 <= len(styles) <= min(config.basis, config.rank):
            raise ValueError(f"{len(styles)} styles to start from: need 1 to {min(config.basis, config.rank)}")
        targets = [self.mean.new_zeros(len(styles), size) for size in self.sizes]
        for i, name in enumerate(self.small):
            for k, style in enumerate(styles):
                self.sums[i][k] = style.change(name)
                targets[i][k, k] = 1
        rank = config.rank // len(styles)
        for i in range(len(self.a)):
            for k, style in enumerate(styles):
                if self.others[i] not in style.names():  # such as the texture's layer: this part of the basis stays random
                    continue
                u, s, v = torch.linalg.svd(style.change(self.others[i]).float(), full_matrices=False)
                rows = slice(k * rank, (k + 1) * rank)
                self.a[i][rows] = s[:rank, None].sqrt() * v[:rank]
                self.b[i][:, rows] = u[:, :rank] * s[:rank].sqrt()
                targets[len(self.small) + i][k, rows] = 1
        return torch.cat(targets, -1)

    def imitate(self, texts: Tensor, targets: Tensor, choice: Tensor, steps: int = 800, lr: float = 2e-3, seed: int = 0) -> float:
        """Fit the head to targets by regression, without the translator; it takes seconds.

        Args:
            texts: (P, E), embeddings of prompts.
            targets: (P, O), head targets; from `start_from`.
            choice: long (P), the index of each prompt's texture, K for none.

        Returns:
            The last loss.
        """
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam([*self.trunk.parameters(), *self.head.parameters(), *self.choice.parameters()], lr)
        loss = torch.zeros(())
        for _ in range(steps):
            hidden = self.read(texts, generator)
            loss = F.mse_loss(self.head(hidden), targets, reduction="sum") / len(targets)
            loss = loss + F.cross_entropy(self.choice(hidden), choice)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def nearest(self, text: Tensor) -> tuple[float, str]:
        """(E) -> the cosine to the nearest prompt trained on, in [-1, 1], and that prompt. Raises ValueError if there is none."""
        if not self.prompts:
            raise ValueError("this hypernetwork was trained on no prompts: use another file")
        similarity, index = (self.known @ text.to(self.known)).max(0)
        return float(similarity), self.prompts[int(index)]


def changed(translator: Translator, kind: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the translator's parameters that a hypernetwork of this kind changes."""
    found = {}
    for name, p in translator.named_parameters():
        norm = ".norm" in name or ".ln_final." in name
        if name.startswith(TUNED) and (name in FULLY_CHANGED or (norm if kind == "film" else p.ndim == 2)):
            found[name] = tuple(p.shape)
    return found
