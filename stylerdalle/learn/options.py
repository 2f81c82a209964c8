"""Options of pretraining, without torch: the command line reads them for its help."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import DECAYS, check_decoder_input, check_finite, setting


@dataclass(frozen=True)
class PretrainConfig:
    """Options of pretraining; the defaults are the recipe of the bundled same-grid translator."""

    upscale: int = setting(1, "1: masked-token modelling in place; 2: half-resolution tokens to full-resolution ones (paper)")
    width: int = 256
    heads: int = 8
    encoder_layers: int = 2
    decoder_blocks: int = 2
    grid: int = setting(16, "source tokens a side; a training crop has downsample (8) * grid * upscale px a side")
    dropout: float = 0.1
    texture: bool = setting(True, "room for styles with a texture, which changes nothing yet; always off with upscale 2")
    decoder_input: str = setting(
        "repeated",
        "with upscale 2: repeated, every token 2 x 2 in place (the paper's text); tiled: columns tiled (the authors' code)",
    )
    identity: bool = setting(True, "start as the identity over the codebook; off: random weights (paper)")
    augment: bool = setting(True, "random places, zooms and mirroring; off: centre crop (paper)")
    steps: int = 260
    epochs: float = setting(0, "passes over all pictures, in place of --steps; 0: --steps of pictures drawn at random")
    batch: int = 16
    accumulate: int = setting(1, "parts of a process's share of a batch, worked through one by one: less memory, same result")
    lr: float = setting(3e-4, "peak learning rate of AdamW (weight decay 0.01)")
    warm: int = setting(50, "first steps, in which the learning rate rises")
    decay: str = setting("cosine", "of the learning rate: cosine to 2 %, or linear to 0")
    kept_weight: float = setting(1.0, "weight of visible tokens; with a small one the translator forgets the identity")
    whole: float = setting(0.25, "share of pictures of which no token is hidden, as in use")
    neighbours: int = setting(16, "codes that share a soft target, the target itself included; 1: hard targets")
    softness: float = setting(0.25, "spread of a soft target, in mean squared distances to the nearest code; 0: hard targets")
    seed: int = 0

    def __post_init__(self) -> None:
        check_finite(self)
        if self.decay not in DECAYS:
            raise ValueError(f"decay {self.decay!r} is not known: {', '.join(DECAYS)}")
        check_decoder_input(self.decoder_input)
        if self.decoder_input == "tiled" and self.identity:
            raise ValueError("a translator with tiled columns cannot start as the identity: add --no-identity")
        if self.accumulate < 1:
            raise ValueError(f"accumulate {self.accumulate} is not possible: 1 is whole batches, 2 is halves")
