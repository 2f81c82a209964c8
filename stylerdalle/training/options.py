"""Options of the trainings that the command line has, without torch: it reads them for its help."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import setting


@dataclass(frozen=True)
class TokenizerConfig:
    """Options of a tokenizer's training; the defaults are the recipe of the bundled file."""

    n_hid: int = setting(64, "width of the dVAE; its package needs 64 or more")
    n_init: int = setting(128, "channels of the decoder's input, the size of a token's embedding")
    vocab_size: int = 4096
    dim: int = setting(32, "size of a code while training; folding removes it")
    steps: int = 2750
    batch: int = 32
    size: int = setting(96, "side of a training crop, px")
    lr: float = setting(1.5e-3, "peak learning rate of AdamW; falls on a cosine to 2 %")
    free_steps: int = setting(200, "first steps without quantisation; then k-means places the codebook")
    commitment: float = 0.25
    zoom: tuple[float, float] = (0.8, 1.8)  # output px per source px: users' photos are smoother than small thumbnails
    seed: int = 0
    compile: bool = setting(False, "torch.compile: a third faster, needs a C++ compiler")


@dataclass(frozen=True)
class ClipConfig:
    """Options of CLIP's training."""

    embed_dim: int = 256
    resolution: int = setting(128, "side of the pictures that it sees, px")
    vision_width: int = setting(32, "width of the ResNet, of (2, 2, 2, 2) blocks")
    text_width: int = setting(128, "width of the text transformer; a head is 64 wide")
    text_layers: int = 3
    context: int = setting(32, "text positions to train; longer texts are read with copies of the last one")
    steps: int = 5600
    batch: int = 128
    lr: float = setting(1e-3, "peak learning rate of AdamW; falls on a cosine to 2 %")
    last_steps: int = setting(2400, "last of the steps, in which all styles are drawn alike, and pictures nearly whole")
    last_lr: float = setting(6e-4, "peak learning rate of the last steps")
    weight_decay: float = 0.05
    style_weight: float = setting(1.0, "weight of the style term beside CLIP's loss")
    least: int = setting(12, "pictures that a style needs to be a class of the style term")
    average: float = setting(0.995, "decay of the moving average of the weights, which is what is measured and saved")
    seed: int = 0
    compile: bool = setting(False, "torch.compile of the picture tower")


@dataclass(frozen=True)
class AmortiseConfig:
    """Options of amortised tuning; the defaults are the recipe of the bundled file."""

    steps: int = 1200
    prompts: int = setting(6, "prompts with pairs a step")
    batch: int = setting(4, "windows of each of them")
    rewarded: int = setting(1, "prompts a step for the reward, one photo each")
    lr: float = setting(1e-3, "peak learning rate of Adam; falls on a cosine to 2 %")
    reward_weight: float = setting(0.05, "weight of the reward's loss beside the cross-entropy")
    art_weight: float = setting(0.5, "how far the target of a prompt without pairs is moved towards pictures of art")
    per_filter: int = setting(600, "made pairs of a filter")
    per_tone: int = setting(120, "how many of them are used under a tone")
    seed: int = 0
