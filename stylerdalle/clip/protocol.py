"""What the library asks of a CLIP. The models are OpenAI's own `clip.model.CLIP`, a package without types."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class ImageTower(Protocol):
    """CLIP's image encoder."""

    input_resolution: int  # px a side of the pictures it reads


class CLIPModel(Protocol):
    """A frozen CLIP: pictures and texts to embeddings (B, E) of one space. It is an `nn.Module`."""

    visual: ImageTower
    token_embedding: nn.Embedding
    text_projection: Tensor  # (width of the text encoder, E)

    @property
    def dtype(self) -> torch.dtype:
        """Of the image encoder's weights."""

    def encode_image(self, image: Tensor) -> Tensor:
        """Normalised pictures (B, 3, side, side), side = visual.input_resolution -> (B, E)."""

    def encode_text(self, text: Tensor) -> Tensor:
        """long (B, 77), CLIP's own tokens -> (B, E)."""

    def state_dict(self) -> dict[str, Any]: ...
