"""The adversarial tuning of the tokenizer's decoder."""

import tiny
import torch
from training.test_tokenizer import pictures

from stylerdalle.learn.run import Run
from stylerdalle.training.sharpen import SharpenConfig, critic, set_gain, sharpen


def test_another_gain_is_the_same_function():
    tokenizer, tokens = tiny.tokenizer(), torch.randint(512, (1, 4, 5), generator=torch.Generator().manual_seed(0))
    before = tokenizer.decode(tokens)
    set_gain(tokenizer, 1.0)
    assert torch.allclose(tokenizer.decode(tokens), before, atol=1e-5)


def test_sharpening_changes_pictures_but_neither_tokens_nor_embeddings(tmp_path):
    tokenizer, images = tiny.tokenizer(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = tokenizer.encode(images)
    picture, embedded = tokenizer.decode(tokens), tokenizer.embed(tokens)
    gain = tokenizer.decoder.blocks.group_1.block_1.post_gain
    sharpen(tokenizer, pictures(4), [], SharpenConfig(steps=4, batch=2, size=32, alone=1), Run(tmp_path))
    assert tokenizer.decoder.blocks.group_1.block_1.post_gain == gain
    assert torch.equal(tokenizer.encode(images), tokens)
    assert torch.equal(tokenizer.embed(tokens), embedded)
    assert not torch.allclose(tokenizer.decode(tokens), picture, atol=1e-4)


def test_the_critic_judges_patches_of_8_px():
    assert critic(8)(torch.rand(2, 3, 64, 48)).shape == (2, 1, 8, 6)
