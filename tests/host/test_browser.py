"""ComfyUI's own page in a headless Chromium, with a real server: templates open, equal their API-format files, and run.

Needs the Python package `playwright` (pip install playwright; none of its browsers) and a Chromium (apt-get install chromium).
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from host.formats import Graph, without_newer
from host.server import PACK, PATIENCE, Server
from PIL import Image
from tiny import write_bundle

NAME = "ComfyUI-StylerDALLE"
WORKFLOWS = PACK / "workflows"
GOLDEN = Path(__file__).with_name("golden")
TEMPLATES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
GRAPHS = {name: name.partition("-")[2].removesuffix(".app") for name in TEMPLATES}  # of the API format
SUBGRAPH = "07-stylize-subgraph"
SAVED = sorted(path.relative_to(GOLDEN).as_posix() for path in GOLDEN.glob("*/*.json"))
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium on the path: apt-get install chromium", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not there: pip install playwright")

READY = "() => Boolean(window.app?.graph && window.LiteGraph?.registered_node_types?.StylerDALLE_Load)"
OPEN = """async ([file, name]) => {
    await app.loadGraphData(JSON.parse(file), true, true, name);
    return JSON.stringify((await app.graphToPrompt()).output);
}"""
USE_TINY = "() => { app.graph._nodes.find((node) => node.type === 'StylerDALLE_Load').widgets[0].value = 'tiny'; }"
SAID = """() => Object.fromEntries(app.graph._nodes.map((node) =>
    [node.type, node.widgets?.find((widget) => widget.name === 'what it said')?.value]))"""
SHOWN = "() => Boolean(app.graph._nodes.find((node) => node.type === 'SaveImage').imgs?.length)"

SAYS = """([id, text]) => app.api.dispatchCustomEvent('executed',
    {node: id, display_node: id, output: {text}, prompt_id: 'none'})"""
OUTSIDE = "() => app.graph._nodes.find((node) => node.subgraph).widgets.find((widget) => widget.name === 'what it said')?.value"
SUBGRAPH_SAVED = """() => {
    const {widgets_values, inputs, properties} = app.graph.serialize().nodes.find((node) => String(node.id) === '8');
    return JSON.stringify([widgets_values, inputs, properties]);
}"""


@pytest.fixture(scope="module")
def server(comfy: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("browser")
    write_bundle(base / "models" / "stylerdalle" / "tiny")
    server = Server(base)
    Image.effect_mandelbrot((96, 80), (-2, -1, 1, 1), 50).convert("RGB").save(base / "input" / "photo.jpg")
    try:
        server.until(server.up)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def page(server: Server) -> Iterator[Any]:
    """ComfyUI's page, with its first dialog closed."""
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.set_default_timeout(PATIENCE * 30_000)
        page.goto(server.url)
        page.wait_for_function(READY, timeout=PATIENCE * 120_000)
        page.wait_for_timeout(3000)  # the first dialog opens after the page is ready
        page.keyboard.press("Escape")
        yield page
        browser.close()


def opened(server: Server, page: Any, file: str, name: str) -> Graph:
    """Open a UI-format file in the page -> the graph it would queue, without inputs that the page itself adds."""
    sent: Graph = json.loads(page.evaluate(OPEN, [file, name]))
    complaints = [text for text in page.locator(".p-toast-message").all_inner_texts() if "workflow" in text.lower()]
    assert not complaints
    for node in sent.values():
        known = server(f"/object_info/{node['class_type']}")[node["class_type"]]["input"]
        names = {*known["required"], *known.get("optional", {})}
        node["inputs"] = {key: value for key, value in node["inputs"].items() if key in names}
    return sent


def test_the_page_lists_every_template(server: Server, page: Any) -> None:
    assert sorted(server("/api/workflow_templates")[NAME]) == TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_what_programs_send(server: Server, page: Any, name: str) -> None:
    file = json.dumps(server(f"/api/workflow_templates/{NAME}/{name}.json"))
    sent = opened(server, page, file, name)
    if name == SUBGRAPH:  # its nodes have numbers such as 8:4, and the names that they have in the page
        sent = {number.rpartition(":")[2]: node for number, node in sent.items()}
        graph = json.loads((WORKFLOWS / "api" / "stylize.json").read_text())
        assert {n: node["class_type"] for n, node in sent.items()} == {n: node["class_type"] for n, node in graph.items()}
        for number, node in sent.items():
            plain = {key: value for key, value in node["inputs"].items() if not isinstance(value, list)}
            assert plain.items() <= graph[number]["inputs"].items()
        return
    graph = json.loads((WORKFLOWS / "api" / f"{GRAPHS[name]}.json").read_text())
    for nodes in (sent, graph):  # a node without a title of its own has its name, which depends on the language
        for node in nodes.values():
            node.pop("_meta")
    assert without_newer(sent, graph) == graph


def test_a_subgraph_node_shows_what_the_nodes_in_it_said_and_is_saved_as_before(server: Server, page: Any) -> None:
    opened(server, page, (WORKFLOWS / f"{SUBGRAPH}.json").read_text(), SUBGRAPH)
    saved = page.evaluate(SUBGRAPH_SAVED)
    for number, text in (("1", "two styles"), ("4", "style: a"), ("4", "style: b")):
        page.evaluate(SAYS, [f"8:{number}", [text]])
    assert page.evaluate(OUTSIDE) == "two styles\nstyle: b"
    assert page.evaluate(SUBGRAPH_SAVED) == saved


@pytest.mark.parametrize("name", SAVED)
def test_a_workflow_that_was_saved_once_keeps_its_values(server: Server, page: Any, name: str) -> None:
    state, _, file = name.partition("/")
    sent = opened(server, page, (GOLDEN / name).read_text(), name)
    for number, node in json.loads((GOLDEN / state / "api" / file).read_text()).items():
        assert sent[number]["class_type"] == node["class_type"]
        assert node["inputs"].items() <= sent[number]["inputs"].items(), number


def test_a_template_runs_from_the_page_and_shows_its_picture(server: Server, page: Any, tmp_path: Path) -> None:
    opened(server, page, (WORKFLOWS / "06-stylize.json").read_text(), "stylize")
    page.evaluate(USE_TINY)
    page.evaluate("() => app.queuePrompt(0, 1)")
    page.wait_for_function(SHOWN, timeout=PATIENCE * 120_000)
    page.screenshot(path=tmp_path / "stylize.png")
    (made,) = (server.base / "output").glob("StylerDALLE_*.png")
    assert Image.open(made).size == (768, 512)  # the demo photo's
    said = page.evaluate(SAID)
    assert said["StylerDALLE_Translate"].startswith("style: van-gogh") and said["StylerDALLE_Load"].startswith("tiny: ")
    saved = page.evaluate("() => app.graph.serialize().nodes.find((node) => node.type === 'StylerDALLE_Load').widgets_values")
    assert saved == ["tiny"]  # what a node said is not saved
    assert Image.open(tmp_path / "stylize.png").size == (1600, 900)
