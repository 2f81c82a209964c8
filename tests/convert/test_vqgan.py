"""ruDALL-E's training checkpoint (the names of taming-transformers) to a tokenizer file."""

import json
from pathlib import Path

import pytest
import torch

from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.convert.registry import convert
from stylerdalle.tokenizers.vqgan import VQGAN, VQGANConfig

SMALL = VQGANConfig(
    ch=32, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(64,), resolution=256, z_channels=16, embed_dim=24, n_embed=50
)


@pytest.fixture(scope="module")
def model() -> VQGAN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VQGAN(SMALL).eval().requires_grad_(False)


def trained(state: dict[str, torch.Tensor], path: Path, legacy: bool = False) -> Path:
    """A checkpoint as a training tool writes it: not only the state dict, which includes the loss network."""
    loss = {"loss.perceptual_loss.net.slice1.0.weight": torch.zeros(4, 3, 3, 3), "loss.logvar": torch.zeros(())}
    more = {"epoch": 3, "global_step": 10, "pytorch-lightning_version": "1.2.1", "optimizer_states": [{"state": {0: loss}}]}
    torch.save({**more, "state_dict": {**state, **loss}}, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tokens_and_pixels_are_those_of_the_model(legacy, model, tmp_path):
    source, out = trained(model.state_dict(), tmp_path / "model.ckpt", legacy), tmp_path / "tokenizer.safetensors"
    assert main(["convert", "vqgan", str(source), "--output", str(out)]) == 0
    assert not [name for name in storage.shapes(out) if name.startswith("loss.")]
    ours = checkpoint.load_tokenizer(out)
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tokens = model.encode(images)
    assert len(tokens.unique()) > 1
    assert torch.equal(ours.encode(images), tokens)
    assert torch.equal(ours.decode(tokens), model.decode(tokens))


def test_rudalles_sizes_are_read_off_its_tensors(tmp_path):
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VQGAN(VQGANConfig()).state_dict().items()}
    path = trained({name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}, tmp_path / "model.ckpt")
    converted = convert("vqgan", [path])
    known = json.loads((Path(__file__).parents[2] / "weights" / "known.json").read_text())["rudalle"]
    assert converted.parameters == known["parameters"]
    assert json.loads(json.dumps(converted.arch)) == known["arch"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("quantize.embed.weight"), "quantize.embed.weight"),
        (lambda s: s.pop("decoder.up.2.attn.0.q.weight"), "missing decoder.up.2.attn.0.q.weight"),
        (lambda s: s.update({"quantize.proj.weight": torch.zeros(51, 24, 1, 1)}), r"proj.weight is \(51, 24, 1, 1\)"),
        (lambda s: s.update({"decoder.dwt.weight": torch.zeros(1)}), "unknown decoder.dwt.weight"),
        (lambda s: s.update({"encoder.conv_in.weight": torch.zeros(33, 3, 3, 3)}), "a multiple of 32"),
        (lambda s: s.clear(), "not a Gumbel VQGAN"),
    ],
)
def test_what_is_no_whole_vqgan_is_refused(change, says, model, tmp_path):
    state = dict(model.state_dict())
    change(state)
    with pytest.raises(ValueError, match=says):
        convert("vqgan", [trained(state, tmp_path / "model.ckpt")])
