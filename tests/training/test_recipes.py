"""The registry of styles."""

import json

import numpy as np
import pytest
from training.test_tokenizer import pictures

from stylerdalle.bundle import WEIGHTS
from stylerdalle.training import filter_names
from stylerdalle.training.prompts import read_prompts
from stylerdalle.training.registry import BUNDLED, FILTERED, STYLES, find
from stylerdalle.training.shards import pairs


def test_every_style_has_three_to_five_different_prompts():
    assert all(3 <= len(set(recipe.prompts)) == len(recipe.prompts) <= 5 for recipe in STYLES.values())


def test_the_bundled_styles_are_those_of_the_bundle_each_with_its_own_prompt():
    assert {path.stem for path in (WEIGHTS / "mini" / "styles").glob("*.safetensors")} == set(BUNDLED)
    assert len({STYLES[name].prompt for name in BUNDLED}) == len(BUNDLED)


def test_the_shipped_list_has_the_prompts_of_every_bundled_style_with_its_filter():
    filters = {prompt.text: prompt.filter for prompt in read_prompts()}
    assert all(filters[prompt] == name for name in BUNDLED for prompt in STYLES[name].prompts)


def test_a_name_is_found_in_both_spellings():
    assert find("van_gogh") is find("van-gogh") is STYLES["van-gogh"]
    assert find("van-gogh").key == "van_gogh"


def test_an_unknown_name_is_refused_with_the_names_to_choose_from():
    with pytest.raises(ValueError, match="cubist") as error:
        find("cubist")
    assert all(name in str(error.value) for name in STYLES)


def test_made_shards_have_every_style_in_the_order_of_its_stream():
    """A stream that changes, or is used twice, changes the pairs that the shipped models were trained on."""
    samples = dict(pairs(pictures(2), 1, 32))
    order = [key.removesuffix("-00000") for key in samples]
    assert order[:5] == ["pencil_sketch", "pixel_art", "pixel_art_4", "van_gogh", "ukiyo_e"] and len(order) == len(FILTERED)
    assert sorted(STYLES[name].stream for name in FILTERED) == list(range(len(FILTERED)))
    note = json.loads(samples["van_gogh-00000"]["json"])
    assert set(note) == {"kind", "style", "content", "caption", "filter"} and note["filter"] == "van_gogh"


def test_marks_are_computed_once():
    assert find("ink").marks is find("ink").marks
    assert np.array_equal(find("ink").picture(), find("pencil-sketch").picture())


def test_the_help_of_tune_lists_the_filters_of_the_registry():
    assert filter_names.FILTERED == FILTERED
