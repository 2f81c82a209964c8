"""A whole bundle of small random models, for tests that need models but no quality. Made in about a second.

Example:

    bundle = stylerdalle.load_bundle(write_bundle(tmp_path), device="cpu", dtype="fp32")
"""

import io
import json
from pathlib import Path

import golden_vqgan
import numpy as np
import torch
from dall_e import Decoder, Encoder
from PIL import Image

from stylerdalle import checkpoint, storage
from stylerdalle.clip.package import clip
from stylerdalle.clip.scores import embed_texts
from stylerdalle.learn.shards import write_shard
from stylerdalle.tokenizers.dvae import DVAE
from stylerdalle.tokenizers.protocol import ImageTokenizer
from stylerdalle.tokenizers.vqgan import VQGAN
from stylerdalle.translator.hypernetwork import HyperConfig, HyperNetwork, changed
from stylerdalle.translator.identity import start_as_identity
from stylerdalle.translator.model import Translator, TranslatorConfig
from stylerdalle.translator.style import Style, new_adapter
from stylerdalle.translator.texture import Texture

STYLES = {"ukiyo-e": "a ukiyo-e print", "van-gogh": "a Van Gogh style oil painting"}
PARTS = ((checkpoint.load_translator, "translator"), (checkpoint.load_clip, "clip"))
START, END = 49406, 49407  # CLIP's marks around every text


def tokenizer() -> DVAE:
    """A dVAE of the smallest size its package allows: 512 tokens of 16 numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the package draws its weights from the global generator
        common = {"n_hid": 64, "n_blk_per_group": 1, "vocab_size": 512}
        model = DVAE(Encoder(**common), Decoder(**common, n_init=16)).eval().requires_grad_(False)
    last, first, pixels = model.encoder.blocks.output.conv, model.decoder.blocks.input, model.decoder.blocks.output.conv
    last.w -= last.w.mean(1, keepdim=True)  # random features share a large mean: without it more tokens are in use
    first.w *= 8
    pixels.w *= 8
    return model


def vqgan() -> VQGAN:
    """A Gumbel VQGAN of a downsampling of 4: 64 tokens of 16 numbers."""
    model = VQGAN(golden_vqgan.CONFIG)
    model.load_state_dict(golden_vqgan.weights({name: tensor.shape for name, tensor in model.state_dict().items()}))
    return model.eval().requires_grad_(False)


def translator(tokenizer: ImageTokenizer, upscale: int = 1, grid: int = 4) -> Translator:
    """Starts as the identity over the tokenizer's tokens."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = TranslatorConfig(
            embed_dim=tokenizer.embed_dim,
            vocab_size=tokenizer.vocab_size,
            width=32,
            heads=2,
            encoder_layers=1,
            decoder_blocks=1,
            grid=grid,
            upscale=upscale,
            texture=upscale == 1,
        )
        model = Translator(config).eval()
    start_as_identity(model, tokenizer.embed(torch.arange(tokenizer.vocab_size)))
    return model.requires_grad_(False)


def clip_model() -> torch.nn.Module:
    """The smallest CLIP that `build_model` reads back; texts without common words are far apart in it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = clip.model.CLIP(
            embed_dim=16,
            image_resolution=64,
            vision_layers=1,
            vision_width=64,
            vision_patch_size=32,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
        # a random CLIP gives one vector for all texts, that of the end mark: let the words decide
        model.token_embedding.weight.data[[START, END]] = 0
        model.positional_embedding.data.zero_()
        model.transformer.resblocks[0].attn.out_proj.weight.data.mul_(100)
    return model.eval().requires_grad_(False)


def style(translator: Translator, name: str, base_sha256: str = "", size: float = 0.5, texture: Texture | None = None) -> Style:
    """A random low-rank style, strong enough to change tokens."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    tensors = new_adapter(translator, 2, generator, texture is not None)
    tensors = {key: size * torch.randn(value.shape, generator=generator) for key, value in tensors.items()}
    return Style(tensors, STYLES.get(name, name), name, base_sha256, texture=texture)


def write_bundle(folder: Path, upscale: int = 1, tokens: ImageTokenizer | None = None) -> Path:
    """Write tokenizer (a dVAE unless given), translator, clip and two styles as a bundle's folder -> the folder."""
    folder = Path(folder)
    tokens = tokens or tokenizer()
    nat = translator(tokens, upscale)
    checkpoint.save_tokenizer(folder / "tokenizer.safetensors", tokens, licence="MIT")
    checkpoint.save_translator(folder / "translator.safetensors", nat, licence="MIT")
    checkpoint.save_clip(folder / "clip.safetensors", clip_model(), licence="MIT")
    base = storage.sha256(folder / "translator.safetensors")
    for name in STYLES:
        notes = {"method": "direct", "recipe": {"method": "direct", "steps": 0}, "licence": "MIT"}
        checkpoint.save_style(folder / "styles" / f"{name}.safetensors", style(nat, name, base), **notes)
    return folder


def write_hypernetwork(folder: Path) -> Path:
    """Write a random hypernetwork into a bundle's folder -> the file."""
    nat, model = (load(folder / f"{part}.safetensors") for load, part in PARTS)
    prompts = ["a mosaic", "a dark etching"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = HyperNetwork(HyperConfig("lora", 16, 8, 4, 2), changed(nat, "lora"), prompts)
        network.learn_scale(embed_texts(model, prompts))
        network.head.weight.data.normal_(0, 5)
    path = folder / "hypernetwork.safetensors"
    checkpoint.save_hypernetwork(path, network, folder / "translator.safetensors", folder / "clip.safetensors", licence="MIT")
    return path


WORKS = {  # artist, title, style, medium, captions, prompts
    "waves": ("Katsushika Hokusai", "The Great Wave", "ukiyo-e", "woodblock print", ["a boat in a storm"], ["a ukiyo-e print"]),
    "fuji": ("Katsushika Hokusai", "Red Fuji", "ukiyo-e", "woodblock print", ["a red mountain"], []),
    "sails": ("Utagawa Hiroshige", "Sails", "ukiyo-e", "woodblock print", ["boats at dusk"], []),
    "bridge": ("Utagawa Hiroshige", "A Bridge", "ukiyo-e", "woodblock print", ["a bridge in rain"], []),
    "dabs": ("Claude Monet", "Impression, Sunrise", "impressionism", "oil", ["an oil painting of a harbour"], []),
    "prison": ("Piranesi", "Prison", "etching", "engraving", ["an old engraving of arches"], []),
}


def write_library(path: Path) -> Path:
    """Write a library of exemplars: WORKS, in random colours -> the file."""
    samples = []
    for k, (key, (artist, title, style, medium, captions, prompts)) in enumerate(WORKS.items()):
        blocks = np.random.default_rng(k).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(blocks).resize((80, 60), Image.Resampling.NEAREST).save(stream, "WEBP", lossless=True)
        note = {"artist": artist, "title": title, "year": str(1800 + k), "style": style, "medium": medium, "caption": captions}
        note |= {
            "source": "a museum",
            "licence": "CC0",
            "died": 1850 + k,
            "kind": "art",
            "prompts": prompts,
            "file": f"{key}.png",
        }
        samples.append((key, {"webp": stream.getvalue(), "json": json.dumps(note).encode()}))
    write_shard(path, samples)
    return path
