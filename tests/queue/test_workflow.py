"""Workflow files: which are accepted, what --set and --photo-node mean, and the errors for the others."""

import json
from pathlib import Path

import pytest
from fake_comfyui import WORKFLOW, write_workflow

from stylerdalle.queue.workflow import find_node, parsed, photo_node, read_workflow, set_inputs

ROOT = Path(__file__).resolve().parents[2]
TWO = {**WORKFLOW, "9": {**WORKFLOW["2"], "_meta": {"title": "Mask photo"}}}


def test_an_api_workflow_is_read(tmp_path):
    assert read_workflow(write_workflow(tmp_path / "w.json")) == WORKFLOW


@pytest.mark.parametrize("path", sorted((ROOT / "workflows" / "api").glob("*.json")), ids=lambda path: path.stem)
def test_the_shipped_api_workflows_have_a_place_for_the_photo(path):
    workflow = read_workflow(path)
    assert workflow[photo_node(workflow)]["class_type"] == "LoadImage"


@pytest.mark.parametrize("meta", [[], "x", None, {"title": 3}])
def test_a_node_with_an_odd_title_is_found_by_its_class(tmp_path, meta):
    (tmp_path / "w.json").write_text(json.dumps({"2": {**WORKFLOW["2"], "_meta": meta}}))
    assert find_node(read_workflow(tmp_path / "w.json"), "loadimage") == "2"


def test_a_long_text_is_not_repeated_whole():
    with pytest.raises(ValueError, match="no node 'xxx") as caught:
        find_node(WORKFLOW, "x" * 5000)
    assert len(str(caught.value)) < 400


def test_a_workflow_for_the_page_is_refused_and_its_twin_named():
    path = ROOT / "workflows" / "06-stylize.json"
    with pytest.raises(ValueError, match=f"give {ROOT}/workflows/api/stylize.json"):
        read_workflow(path)


def test_a_workflow_for_the_page_without_a_twin_names_the_export(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps({"nodes": [], "links": []}))
    with pytest.raises(ValueError, match=r"Export \(API\)"):
        read_workflow(tmp_path / "w.json")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "3", '{"a": 1}', '{"2": {"class_type": "X"}}', "\xff"),
        *('{"2": {"class_type": ["X"], "inputs": {}}}', '{"2": {"class_type": "X", "inputs": []}}'),
    ],
)
def test_what_is_no_workflow_is_refused(tmp_path, text):
    (tmp_path / "w.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="API format"):
        read_workflow(tmp_path / "w.json")


@pytest.mark.parametrize("text", ["3", "Translate v1.5", "translate V1.5", "Translate"])
def test_a_node_is_found_by_id_title_or_class(text):
    assert find_node(WORKFLOW, text) == "3"


def test_nodes_that_share_a_class_are_told_apart_by_id():
    with pytest.raises(ValueError, match=r"2 nodes 'LoadImage': choose one by its id, 2, 9"):
        find_node(TWO, "LoadImage")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("3.strength=0.5", "strength", 0.5),
        ("Translate v1.5.prompt=a = b, c", "prompt", "a = b, c"),
        ('3.prompt="7"', "prompt", "7"),
        ("3.prompt=", "prompt", ""),
        ("3.strength=NaN", "strength", "NaN"),
        ("3.image=[9, 0]", "image", [9, 0]),
    ],
)
def test_set_sets_one_input_of_a_copy(text, key, value):
    changed = set_inputs(WORKFLOW, [text])
    assert changed["3"]["inputs"] == {**WORKFLOW["3"]["inputs"], key: value}
    assert {n: changed[n] for n in changed if n != "3"} == {n: WORKFLOW[n] for n in WORKFLOW if n != "3"}
    assert WORKFLOW["3"]["inputs"]["strength"] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("strength=1", "not of the form NODE.INPUT=VALUE"),
        ("3.strength", "not of the form NODE.INPUT=VALUE"),
        ("7.strength=1", r"no node '7'; it has 2 \(Photo: LoadImage\), 3 \(Translate v1.5: Translate\)"),
        ("3.size=1", r"node 3 \(Translate v1.5\) has no input 'size'; its inputs are: image, prompt, strength"),
    ],
)
def test_set_refuses_what_is_not_there_and_lists_what_is(text, message):
    with pytest.raises(ValueError, match=message):
        set_inputs(WORKFLOW, [text])


def test_values_are_json_or_texts():
    assert [parsed(text) for text in ("1", "true", "null", "van-gogh", "Infinity")] == [1, True, None, "van-gogh", "Infinity"]


def test_of_several_load_image_nodes_one_must_be_chosen():
    with pytest.raises(ValueError, match=r"2 LoadImage nodes, 2 \(Photo\), 9 \(Mask photo\): choose one with --photo-node"):
        photo_node(TWO)
    assert photo_node(TWO, "mask photo") == "9"


def test_a_node_without_an_input_for_the_photo_is_refused():
    with pytest.raises(ValueError, match="has no input 'image'"):
        photo_node(WORKFLOW, "4")
    with pytest.raises(ValueError, match="no LoadImage node"):
        photo_node({"3": WORKFLOW["3"]})
