"""Any prompt, negative prompts, and styles for parts of a picture, in a real ComfyUI with tiny random models."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture
def photo() -> torch.Tensor:
    return torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def paint(run: Run, photo: torch.Tensor) -> Callable[..., torch.Tensor]:
    """paint(prompt=..., ...) -> the stylised photo, with the bundle that accepts any prompt."""
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="prompted")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)

    def execute(**inputs: Any) -> torch.Tensor:
        (out,) = run("StylerDALLE_Translate", translator=translator, tokens=tokens, **inputs)
        picture: torch.Tensor = run("StylerDALLE_Detokenize", tokenizer=tokenizer, tokens=out)[0]
        return picture

    return execute


def test_other_prompts_give_other_pictures(paint: Callable[..., torch.Tensor]) -> None:
    one, two, away = (
        paint(**words) for words in ({"prompt": "a mosaic"}, {"prompt": "tea"}, {"prompt": "tea", "negative": "a mosaic"})
    )
    assert not torch.equal(one, two) and not torch.equal(two, away)


def test_a_style_and_other_words_are_laid_over_each_other(run: Run, paint: Callable[..., torch.Tensor]) -> None:
    (style,) = run("StylerDALLE_LoadStyle", style="prompted/styles/ukiyo-e.safetensors")
    both, plain = paint(prompt="a mosaic", style=style), paint(prompt="", style=style)
    assert not torch.equal(both, plain) and not torch.equal(both, paint(prompt="a mosaic"))


def test_the_node_says_how_near_the_prompt_is(comfy: SimpleNamespace, run: Run, photo: torch.Tensor) -> None:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="prompted")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    node = comfy.nodes.NODE_CLASS_MAPPINGS["StylerDALLE_Translate"]
    fixed = {"strength": 1.0, "temperature": 0.0, "top_k": 0, "seed": 0}
    with torch.inference_mode():
        out = node.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(translator=translator, tokens=tokens, prompt="a mosaic", **fixed)
    near = "1.00 near to 'a mosaic'"
    assert out.ui == {"text": [f"style: a mosaic ({near})"], "style": ["a mosaic"], "near": [near], "seed": [0]}


def test_a_region_changes_its_part_alone(run: Run, photo: torch.Tensor) -> None:
    tokenizer, translator, _ = run("StylerDALLE_Load", bundle="prompted")
    (tokens,) = run("StylerDALLE_Tokenize", tokenizer=tokenizer, image=photo)
    right = torch.zeros(1, 64, 96)
    right[..., 48:] = 1
    (regions,) = run("StylerDALLE_StyleRegion", mask=right, prompt="ukiyo-e")
    mosaic, other, both = (
        run("StylerDALLE_Translate", translator=translator, tokens=tokens, **words)[0].grid
        for words in ({"prompt": "a mosaic"}, {"prompt": "ukiyo-e"}, {"prompt": "a mosaic", "regions": regions})
    )
    assert torch.equal(both, torch.cat([mosaic[..., :6], other[..., 6:]], -1)) and not torch.equal(mosaic, other)


def test_a_later_region_lies_over_the_ones_before(run: Run, paint: Callable[..., torch.Tensor]) -> None:
    everywhere = torch.ones(1, 8, 8)
    (first,) = run("StylerDALLE_StyleRegion", mask=everywhere, prompt="tea")
    (second,) = run("StylerDALLE_StyleRegion", mask=everywhere, prompt="ukiyo-e", regions=first)
    torch.testing.assert_close(paint(prompt="a mosaic", regions=second), paint(prompt="ukiyo-e"))


def test_a_region_without_a_style_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match="enter a prompt, or connect a STYLE"):
        run("StylerDALLE_StyleRegion", mask=torch.ones(1, 8, 8), prompt=" ")
