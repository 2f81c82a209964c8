"""The registry of tokenizers: one file and one line are enough for a new one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from stylerdalle import checkpoint
from stylerdalle.tokenizers import ImageTokenizer, registry
from stylerdalle.tokenizers.codec import decode, encode


class Greys(nn.Module):
    """A tokenizer whose tokens are the mean grey levels of tiles of `downsample` px."""

    halo = 0
    embed_dim = 1

    def __init__(self, levels: int, downsample: int):
        super().__init__()
        self.vocab_size, self.downsample = levels, downsample
        self.levels = nn.Parameter(torch.linspace(0, 1, levels)[:, None])

    @classmethod
    def of(cls, arch: Mapping[str, Any]) -> Greys:
        return cls(arch["levels"], arch["downsample"])

    def arch(self) -> dict[str, Any]:
        return {"type": "greys", "levels": self.vocab_size, "downsample": self.downsample}

    @property
    def dtype(self) -> torch.dtype:
        return self.levels.dtype

    def cast(self, dtype: torch.dtype) -> Greys:
        return self.to(dtype)

    def encode(self, images: Tensor) -> Tensor:
        means = nn.functional.avg_pool2d(images.mean(1), self.downsample)
        return (means[..., None] - self.levels[:, 0].float()).abs().argmin(-1)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.levels[tokens]

    def decode(self, tokens: Tensor) -> Tensor:
        return self.decode_mixture(self.embed(tokens).movedim(-1, 1))

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        return self.decode_mixture(torch.einsum("bvhw,vd->bdhw", probabilities, self.levels))

    def decode_mixture(self, embeddings: Tensor, recompute: bool = False) -> Tensor:
        return nn.functional.interpolate(embeddings.float(), scale_factor=self.downsample).expand(-1, 3, -1, -1)


def test_a_new_tokenizer_needs_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry.TOKENIZERS, "greys", Greys.of)
    made: ImageTokenizer = Greys(5, 4)
    checkpoint.save_tokenizer(tmp_path / "t.safetensors", made)
    loaded = checkpoint.load_tokenizer(tmp_path / "t.safetensors")
    assert isinstance(loaded, Greys) and not loaded.levels.requires_grad
    images = torch.rand(2, 1, 3, 4).round().repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)
    assert torch.equal(decode(loaded, encode(loaded, images)), images)


@pytest.mark.parametrize("make", [tiny.tokenizer, tiny.vqgan])
def test_every_tokenizer_is_built_again_from_its_own_description(make):
    first = make()
    second = registry.build(first.arch())
    assert type(second) is type(first) and second.arch() == first.arch()


def test_an_unknown_type_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="type 'tea' is not known: dvae, vqgan"):
        registry.build({"type": "tea"})
