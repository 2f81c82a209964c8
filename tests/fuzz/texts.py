"""Texts: prompts with weights, lists of prompts, captions, values of --set, workflows, notes of pictures."""

import json
import os
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from fuzz.harness import JSON
from fuzz.models import place, valid
from hypothesis import strategies as st

import stylerdalle
from stylerdalle.learn.prepare import read_captions
from stylerdalle.queue.workflow import find_node, parsed, read_workflow, set_inputs
from stylerdalle.resolve import MAX_WEIGHT, StyleFinder, blend, check_prompt
from stylerdalle.training.prompts import read_prompts

WORDS = (
    "ukiyo-e",
    "van-gogh",
    "a Van Gogh style oil painting",
    "ink",
    "mosaic",
    "写真",
    "é",
    "10",
    "16:9",
    "a.safetensors",
    "",
    " ",
)
SIGNS = (
    ":",
    ",",
    "(",
    ")",
    "0.7",
    ".5",
    "0,7",
    "-1",
    "1e9",
    "nan",
    "inf",
    "2.5",
    "\n",
    "\t",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "\u200b",
    "\ud800",
)
PIECES = (
    st.sampled_from(WORDS) | st.sampled_from(SIGNS) | st.text(max_size=12) | st.sampled_from(("x" * 1200, "a," * 400, "9" * 400))
)
TEXT = st.lists(PIECES, max_size=9).map("".join)


@cache
def finder(name: str) -> StyleFinder:
    """Of a bundle that takes any prompt, or of one that knows its styles only."""
    valid()
    folder = place() / "bundle"
    bundle = stylerdalle.load_bundle(folder, device="cpu", dtype="fp32")
    if name == "closed":
        object.__setattr__(bundle, "hypernetwork_path", None)
    return StyleFinder(bundle)


def texts(draw: Callable[..., Any]) -> str:
    """The target: every text has a meaning that keeps its promises, or one sentence."""
    return draw(st.sampled_from((weights, weights, style, listed, captions, values, workflow)))(draw)


def weights(draw: Callable[..., Any]) -> str:
    text = draw(TEXT)
    parts = blend(text, ["van-gogh"])
    assert parts and all(0 <= weight <= MAX_WEIGHT for _, weight in parts)
    if len(parts) == 1 and ":" not in text:
        assert parts == [(text, 1.0)]
    cleaned = check_prompt(text)
    assert cleaned == check_prompt(cleaned) and not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in cleaned)
    return "right"


def style(draw: Callable[..., Any]) -> str:
    which = finder(draw(st.sampled_from(("open", "closed"))))
    which.found.clear()
    found = which.find(draw(TEXT), draw(st.sampled_from(("", "", "dark", "\x00"))))
    assert found.tensors and all(tensor.isfinite().all() for tensor in found.tensors.values())
    return "right"


def listed(draw: Callable[..., Any]) -> str:
    path = place() / f"{os.getpid()}.txt"
    lines = (
        st.sampled_from(("[a]", "[b, held out]", "# c", "ink | ink", "mist | | red", "a||b", "x | nothing", "|", "\ufeff")) | TEXT
    )
    text = "\n".join(draw(st.lists(lines, max_size=5)))
    path.write_bytes(text.encode(draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16"))), errors="surrogatepass"))
    prompts = read_prompts(path)
    assert prompts and all(prompt.text for prompt in prompts)
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    return "right"


def captions(draw: Callable[..., Any]) -> str:
    path = place() / f"{os.getpid()}.json"
    notes: Any = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "A dog."}]}
    match draw(st.integers(0, 3)):
        case 0:
            notes = draw(JSON)
        case 1:
            notes[draw(st.sampled_from(("images", "annotations")))] = draw(JSON)
        case 2:
            notes["images"][0][draw(st.sampled_from(("id", "file_name")))] = draw(JSON)
        case _:
            notes["annotations"][0][draw(st.sampled_from(("image_id", "caption")))] = draw(JSON)
    path.write_text(json.dumps(notes))
    found = read_captions(path)
    assert all(isinstance(text, str) for some in found.values() for text in some)
    return "right"


def values(draw: Callable[..., Any]) -> str:
    text = draw(TEXT | JSON.map(json.dumps))
    json.dumps(parsed(text), allow_nan=False)
    return "right"


def workflow(draw: Callable[..., Any]) -> str:
    path = place() / f"{os.getpid()}.json"
    node: Any = {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "Photo"}}
    whole: Any = {"2": node}
    match draw(st.integers(0, 3)):
        case 0:
            whole = draw(JSON)
        case 1:
            whole[draw(st.sampled_from(("2", "3", "nodes")))] = draw(JSON)
        case _:
            node[draw(st.sampled_from(("class_type", "inputs", "_meta")))] = draw(JSON)
    path.write_text(json.dumps(whole))
    read = read_workflow(path)
    place_of = draw(st.sampled_from(("2", "Photo", "LoadImage", "")) | TEXT)
    find_node(read, place_of)
    set_inputs(read, [f"{place_of}.image={draw(TEXT)}"])
    return "right"
