"""Every layout in which OpenAI's CLIP is published is converted to one: cosines equal those of the `clip` package."""

import warnings
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import save_file

from stylerdalle import checkpoint, storage
from stylerdalle.cli.main import main
from stylerdalle.clip.package import clip
from stylerdalle.convert.registry import convert

# OpenAI's name: that of transformers
LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
LAYER |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
TOP = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "logit_scale": "logit_scale",
}
for kind in ("weight", "bias"):
    TOP[f"visual.ln_pre.{kind}"] = f"vision_model.pre_layrnorm.{kind}"
    TOP[f"visual.ln_post.{kind}"] = f"vision_model.post_layernorm.{kind}"
    TOP[f"ln_final.{kind}"] = f"text_model.final_layer_norm.{kind}"


def transformers_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """OpenAI's tensors as `openai/clip-vit-base-patch32` has them."""
    out = {name: state[ours] for ours, name in TOP.items()}
    out["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    out["text_projection.weight"] = state["text_projection"].T.contiguous()
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for i in range(2):
            old, new = f"{ours}.resblocks.{i}", f"{theirs}.encoder.layers.{i}"
            for kind in ("weight", "bias"):
                for a, b in LAYER.items():
                    out[f"{new}.{b}.{kind}"] = state[f"{old}.{a}.{kind}"]
                for part, tensor in zip("qkv", state[f"{old}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    out[f"{new}.self_attn.{part}_proj.{kind}"] = tensor.contiguous()
        out[f"{theirs}.embeddings.position_ids"] = torch.arange(77)[None]
    return out


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Two layers in each tower, several heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return clip.model.CLIP(32, 64, 2, 128, 32, 77, 49408, 128, 2, 2).eval().requires_grad_(False)


def traced(model: torch.nn.Module, path: Path) -> None:
    """A TorchScript archive with the three sizes that OpenAI's contains too."""
    for name, value in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 49408)):
        model.__dict__.pop(name, None)
        model.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.trace(model, (torch.zeros(1, 3, 64, 64), torch.zeros(1, 77, dtype=torch.long)), check_trace=False)
        script.half().save(str(path))


def write(layout: str, model: torch.nn.Module, folder: Path) -> Path:
    state = model.state_dict()
    path = folder / ("model.safetensors" if "safetensors" in layout else "model.pt")
    if layout == "TorchScript":
        copy = clip.model.CLIP(32, 64, 2, 128, 32, 77, 49408, 128, 2, 2)
        copy.load_state_dict(state)
        traced(copy.eval().requires_grad_(False), path)
    elif layout.startswith("transformers"):
        tensors = transformers_layout(state)
        save_file(tensors, path) if "safetensors" in layout else torch.save(tensors, path)
    else:
        save_file(state, path) if "safetensors" in layout else torch.save(state, path)
    return path


@torch.inference_mode()
def cosines(model: torch.nn.Module) -> torch.Tensor:
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = model.encode_image(images), model.encode_text(clip.tokenize(["a photo", "a ukiyo-e print of a wave"]))
    return torch.nn.functional.cosine_similarity(one[:, None], other[None], dim=-1)


LAYOUTS = ["TorchScript", "OpenAI safetensors", "OpenAI state dict", "transformers safetensors", "transformers bin"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cosines_are_those_of_the_package(layout, model, tmp_path):
    source, out = write(layout, model, tmp_path), tmp_path / "clip.safetensors"
    assert main(["convert", "clip", str(source), "--output", str(out)]) == 0
    ours = checkpoint.load_clip(out)
    theirs = model
    if layout == "TorchScript":  # fp16, as OpenAI's: what its rounding changes is not the conversion's doing
        theirs = clip.model.build_model(torch.jit.load(source).state_dict()).float()
    assert cosines(theirs).std() > 0.01
    assert (cosines(ours) - cosines(theirs)).abs().max() < 1e-5
    assert storage.read_metadata(out)["arch"] == '{"type": "clip", "image_resolution": 64}'
    assert storage.shapes(out) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_precision_stays_that_of_the_file(model, tmp_path):
    assert {t.dtype for t in convert("clip", [write("TorchScript", model, tmp_path)]).tensors.values()} == {torch.float16}
    assert {t.dtype for t in convert("clip", [write("transformers bin", model, tmp_path)]).tensors.values()} == {torch.float32}


def test_a_resnet_clip_is_taken_too(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        resnet = clip.model.CLIP(16, 64, (1, 1, 1, 1), 16, None, 77, 600, 64, 1, 1)
    torch.save(resnet.state_dict(), tmp_path / "RN.pt")
    assert convert("clip", [tmp_path / "RN.pt"]).arch == {"type": "clip", "image_resolution": 64}


@pytest.mark.parametrize(
    ("layout", "lost", "says"),
    [
        ("OpenAI", "visual.proj", "not a CLIP with the names"),
        ("OpenAI", "transformer.resblocks.1.ln_2.bias", "transformer.resblocks.1.ln_2.bias"),
        ("transformers", "text_model.encoder.layers.1.self_attn.k_proj.weight", "layers.1.self_attn.k_proj.weight is missing"),
        ("transformers", "text_model.encoder.layers.1.mlp.fc1.bias", "transformer.resblocks.1.mlp.c_fc.bias"),
    ],
)
def test_a_clip_that_is_not_whole_is_refused(layout, lost, says, model, tmp_path):
    state = model.state_dict() if layout == "OpenAI" else transformers_layout(model.state_dict())
    torch.save({name: tensor for name, tensor in state.items() if name != lost}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=says):
        convert("clip", [tmp_path / "model.pt"])


def test_another_model_is_refused(tmp_path):
    torch.save(tiny.tokenizer().encoder.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="not a CLIP with the names of OpenAI or transformers"):
        convert("clip", [tmp_path / "model.pt"])
