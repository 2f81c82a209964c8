"""The shipped workflows: workflows/api/NAME.json for programs, and the same graph in workflows/NN-NAME.json for people, where NN
is the order in which people need them. An app and a subgraph are other views of a graph that is there already."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from host.formats import Graph, as_api, declared, pictures, without_newer
from PIL import Image

PACK = Path(__file__).parents[2]
WORKFLOWS = PACK / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
FRAMES = {"video-frames": 4}
VIEWS = {"style-transfer.app": "style-transfer", "stylize-subgraph": "stylize"}  # template: the graph that it shows otherwise
# px that a node grows by what it shows after a run: its text, or a preview
GROWS = {"StylerDALLE_Translate": 90, "StylerDALLE_Load": 90, "StylerDALLE_RewardTune": 380, "StylerDALLE_SaveStyle": 90}
PAGES = {path.stem.partition("-")[2]: path for path in sorted(WORKFLOWS.glob("*.json"))}
DEMO = "stylerdalle-demo.jpg"
LANGUAGES = ("\n\n日本語\n", "\n\n中文\n")  # the parts of a note after the English one


def read(name: str) -> Graph:
    graph: Graph = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    return graph


def test_every_template_has_both_formats() -> None:
    assert sorted(PAGES) == sorted([*NAMES, *VIEWS])
    assert sorted(path.stem[:3] for path in PAGES.values()) == [f"{k:02d}-" for k in range(1, len(PAGES) + 1)]
    assert all(path.with_suffix(".jpg").is_file() for path in PAGES.values())


def test_no_thumbnail_is_shown_twice() -> None:
    pictures = {path.stem: path.with_suffix(".jpg").read_bytes() for path in PAGES.values()}
    assert len(set(pictures.values())) == len(pictures)


@pytest.mark.parametrize("name", PAGES)
def test_every_photo_is_the_demo_photo_that_the_pack_offers(name: str) -> None:
    nodes = json.loads(PAGES[name].read_text())["nodes"]
    assert [node["widgets_values"][0] for node in nodes if node["type"] == "LoadImage"] == [DEMO]


@pytest.mark.parametrize("name", PAGES)
def test_no_node_lies_on_another_even_with_what_it_shows_after_a_run(name: str) -> None:
    nodes = json.loads(PAGES[name].read_text())["nodes"]
    boxes = [(*node["pos"], node["size"][0], node["size"][1] + GROWS.get(node["type"], 0)) for node in nodes]
    for k, (x, y, w, h) in enumerate(boxes):
        for u, v, wide, high in boxes[:k]:
            assert x >= u + wide or u >= x + w or y >= v + high or v >= y + h, nodes[k]["type"]


def test_the_app_has_inputs_that_are_there() -> None:
    app, page = (json.loads(PAGES[name].read_text()) for name in ("style-transfer.app", "style-transfer"))
    shown, nodes = app["extra"]["linearData"], {str(node["id"]): node for node in app["nodes"]}
    assert app["extra"]["linearMode"] and app["nodes"] == page["nodes"] and app["links"] == page["links"]
    for node, name in shown["inputs"]:
        assert any(i["name"] == name and "widget" in i for i in nodes[node]["inputs"]), name
    assert [nodes[node]["type"] for node in shown["outputs"]] == ["SaveImage"]


def test_the_subgraph_holds_the_nodes_of_stylize(comfy: SimpleNamespace) -> None:
    page, graph = json.loads(PAGES["stylize-subgraph"].read_text()), read("stylize")
    (inner,) = page["definitions"]["subgraphs"]
    assert [node["type"] for node in page["nodes"] if node["type"] != "Note"] == ["LoadImage", inner["id"], "SaveImage"]
    links = [[i["id"], i["origin_id"], i["origin_slot"], i["target_id"], i["target_slot"], i["type"]] for i in inner["links"]]
    found = as_api(comfy, {"nodes": inner["nodes"], "links": links})
    for number, node in found.items():
        values = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
        fixed = {key: value for key, value in graph[number]["inputs"].items() if not isinstance(value, list)}
        assert node["class_type"] == graph[number]["class_type"] and values.items() <= fixed.items()


@pytest.mark.parametrize("name", NAMES)
def test_nodes_and_inputs_exist_and_links_fit(comfy: SimpleNamespace, name: str) -> None:
    graph = read(name)
    mappings = comfy.nodes.NODE_CLASS_MAPPINGS
    for number, node in graph.items():
        required, optional = declared(comfy, node["class_type"])
        assert set(required) <= set(node["inputs"]) <= {*required, *optional}, number
        for key, value in node["inputs"].items():
            if isinstance(value, list):
                source = mappings[graph[value[0]]["class_type"]]
                assert {**required, **optional}[key][0] in (source.RETURN_TYPES[value[1]], "*"), (number, key)


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_are_the_same_graph(comfy: SimpleNamespace, name: str) -> None:
    ui = json.loads(PAGES[name].read_text())
    graph = without_newer(as_api(comfy, ui), read(name))
    assert graph == {number: {k: node[k] for k in ("class_type", "inputs")} for number, node in read(name).items()}
    for node in ui["nodes"]:
        if node["type"] != "Note" and "title" in node:  # a title is saved only if it differs from the node's name
            assert node["title"] == read(name)[str(node["id"])]["_meta"]["title"]
    nodes = {node["id"]: node for node in ui["nodes"]}
    for link, source, slot, target, place, kind in ui["links"]:
        output, given = nodes[source]["outputs"][slot], nodes[target]["inputs"][place]
        assert link in output["links"] and given["link"] == link
        assert len({kind, output["type"], given["type"]} - {"*"}) == 1
    assert ui["version"] == 0.4
    assert ui["last_node_id"] == max(n["id"] for n in ui["nodes"]) and ui["last_link_id"] >= max(x[0] for x in ui["links"])


@pytest.mark.parametrize("name", PAGES)
def test_one_note_says_what_to_change_in_three_languages(name: str) -> None:
    notes = [n for n in json.loads(PAGES[name].read_text())["nodes"] if n["type"] == "Note"]
    assert [note["title"] for note in notes] == ["What to change / 変更点 / 可改之处"]
    rest = notes[0]["widgets_values"][0]
    for mark in LANGUAGES:
        part, found, rest = rest.partition(mark)
        assert found and 20 < len(part) < 500
    assert 10 < len(rest) < 500


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_makes_a_picture(comfy: SimpleNamespace, name: str) -> None:
    if not (PACK / "weights" / "mini" / "translator.safetensors").is_file():
        pytest.skip("weights/mini is not there: the bundled models are needed")
    (comfy.base / "input").mkdir(exist_ok=True)
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(comfy.base / "input" / DEMO)
    graph = read(name)
    for node in graph.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
    assert pictures(comfy, graph).shape == (FRAMES.get(name, 1), 80, 96, 3)
