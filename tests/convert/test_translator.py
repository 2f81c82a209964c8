"""Research checkpoints of the authors to translator files, against an independent implementation of the paper."""

import math
from pathlib import Path

import pytest
import reference_nat
import torch

from stylerdalle import checkpoint
from stylerdalle.cli.main import main
from stylerdalle.convert.registry import convert
from stylerdalle.translator.model import Translator, TranslatorConfig

SIZES = {"tok_dim": 12, "width": 32, "vocab": 40, "grid": 3, "layers": 2, "blocks": 2}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return reference_nat.random_state(**SIZES)


@pytest.mark.parametrize("form", ["zip", "legacy", "wrapped", "parallel"])
def test_it_gives_the_log_probabilities_of_the_authors_code(form, state, tmp_path, capsys):
    saved = {"wrapped": {"state_dict": state, "epoch": 7}, "parallel": {f"module.{k}": v for k, v in state.items()}}.get(
        form, state
    )
    torch.save(saved, tmp_path / "nat.pt", _use_new_zipfile_serialization=form != "legacy")
    assert main(["convert", "translator", str(tmp_path / "nat.pt"), "--output", str(tmp_path / "out.safetensors")]) == 0
    assert "out.safetensors: translator of " in capsys.readouterr().out
    translator = checkpoint.load_translator(tmp_path / "out.safetensors")
    assert translator.config.decoder_input == "tiled"
    embedded = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    theirs = reference_nat.log_probabilities(state, embedded, as_in_their_code=True)
    assert theirs.std() > 0.3  # weights that matter
    assert (log_p(translator, embedded) - theirs).abs().max() < 1e-5
    assert (log_p(translator.double(), embedded) - theirs).abs().max() < 1e-12
    assert (theirs - reference_nat.log_probabilities(state, embedded)).abs().max() > 0.1  # the paper's text is another model


@torch.inference_mode()
def log_p(translator: Translator, embedded: torch.Tensor) -> torch.Tensor:
    return translator(embedded[None])[0].log_softmax(-1).double()


def test_with_the_papers_decoder_input_it_gives_the_log_probabilities_of_the_papers_text(state):
    config = TranslatorConfig(12, 40, 32, 8, 2, 2, grid=3)
    translator = Translator(config).eval()
    translator.load_state_dict(state)
    embedded = torch.randn(9, 12, generator=torch.Generator().manual_seed(1))
    assert config.decoder_input == "repeated"
    assert (log_p(translator, embedded) - reference_nat.log_probabilities(state, embedded)).abs().max() < 1e-5


def test_sizes_come_from_the_tensors_and_the_papers_count_of_parameters_is_met(tmp_path):
    for tok_dim, count in ((128, 37_914_112), (256, 37_979_648)):  # StylerDALLE-1 and -Ru
        shapes = reference_nat.shapes(tok_dim=tok_dim, width=512, vocab=8192, grid=16)
        assert sum(map(math.prod, shapes.values())) == count
    torch.save({name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}, tmp_path / "nat.pt")
    converted = convert("translator", [tmp_path / "nat.pt"])
    assert converted.parameters == 37_979_648
    wanted = {"embed_dim": 256, "vocab_size": 8192, "width": 512, "heads": 8, "grid": 16, "upscale": 2, "mlp_ratio": 2}
    wanted["decoder_input"] = "tiled"
    assert wanted.items() <= converted.arch.items()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("outNet.weight"), "outNet.weight"),
        (
            lambda s: s.pop("nat_dec.transformer.layers.5.attn.to_keys.weight"),
            "missing nat_dec.transformer.layers.5.attn.to_keys",
        ),
        (lambda s: s.update({"surplus.weight": torch.zeros(1)}), "unknown surplus.weight"),
        (lambda s: s.update({"linear_proj.weight": torch.zeros(30, 12)}), "30 must be"),
        (
            lambda s: s.update({"nat_enc.layers.1.mlp.fc1.weight": torch.zeros(32, 32)}),
            r"fc1.weight is \(32, 32\), need \(64, 32\)",
        ),
        (lambda s: s.update({"linear_proj.weight": torch.zeros(())}), "translator of the authors"),
        (lambda s: s.clear(), "no tensors"),
    ],
)
def test_what_is_no_whole_translator_is_refused(change, says, state, tmp_path):
    change(state)
    torch.save(state, tmp_path / "nat.pt")
    with pytest.raises(ValueError, match=says):
        convert("translator", [tmp_path / "nat.pt"])


def test_two_files_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "nat.pt")
    with pytest.raises(ValueError, match="is one file, not 2"):
        convert("translator", [tmp_path / "nat.pt"] * 2)


def test_the_output_is_checked_before_anything_is_read(tmp_path, capsys):
    for name, says in (("out.pt", "suffix '.pt'"), ("there.safetensors", "exists already")):
        Path(tmp_path, "there.safetensors").touch()
        assert main(["convert", "translator", "nowhere.pt", "--output", str(tmp_path / name)]) == 2
        assert says in capsys.readouterr().err
