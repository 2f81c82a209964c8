// Shows on each StylerDALLE node, and on the subgraph nodes around it, what it said: its `ui.text` when it is done, and
// `stylerdalle.text` while it runs (nodes/host.py).
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { ComfyWidgets } from "../../../scripts/widgets.js";

const PREFIX = "StylerDALLE_"; // of our nodes' types
const NAME = "what it said"; // the widget is never saved, so it does not shift the values of a saved workflow
const MOST = 140; // px of a text that are shown; a longer one scrolls

function show(node, lines) {
  if (!node || !lines?.length) return;
  let widget = node.widgets?.find((some) => some.name === NAME);
  if (!widget) {
    widget = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false;
    widget.options.serialize = false;
    widget.options.read_only = true;
    const box = widget.inputEl ?? widget.element;
    if (box) {
      box.readOnly = true;
      box.style.opacity = 0.75;
    }
    widget.options.getMinHeight = () => widget.least;
  }
  const fit = Math.max(20, node.size[0] / 7); // characters of a row, about
  const rows = lines.reduce((sum, line) => sum + Math.ceil(Math.max(1, line.length) / fit), 0);
  widget.least = Math.min(20 + 12 * rows, MOST);
  widget.value = lines.join("\n");
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  node.setDirtyCanvas?.(true, true);
  if (window.LiteGraph?.vueNodesMode) setTimeout(() => unfold(node, widget.value), 100); // when the page has drawn it
}

// Nodes 2.0: texts share a node's spare height evenly, so the node grows until this one shows MOST px of its text.
function unfold(node, text) {
  const boxes = [...document.querySelectorAll(`[data-node-id="${node.id}"] textarea`)];
  const box = boxes.find((some) => some.readOnly && some.value === text);
  if (!box) return;
  const hidden = Math.min(box.scrollHeight, MOST) - box.clientHeight;
  if (hidden > 0) node.setSize([node.size[0], node.size[1] + hidden * boxes.length]);
}

// the nodes of an id: of 7 the node 7, of 12:7 the subgraph node 12 and in it the node 7
function path(id) {
  let graph = app.rootGraph ?? app.graph;
  return String(id)
    .split(":")
    .map((part) => {
      const node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part);
      graph = node?.subgraph;
      return node;
    });
}

const inside = new WeakMap(); // subgraph node: what each node in it said

// A subgraph node shows what the nodes in it said.
function showOutside(id, lines) {
  const outer = path(id);
  const node = outer.pop();
  if (!node?.type?.startsWith(PREFIX) || !lines?.length) return;
  for (const around of outer.filter(Boolean)) {
    if (!inside.has(around)) inside.set(around, new Map());
    inside.get(around).set(String(id), lines);
    show(around, [...inside.get(around).values()].flat());
  }
}

app.registerExtension({
  name: "StylerDALLE.text",
  setup() {
    api.addEventListener("stylerdalle.text", ({ detail }) => {
      show(path(detail.node).pop(), detail.text);
      showOutside(detail.node, detail.text);
    });
    api.addEventListener("executed", ({ detail }) => showOutside(detail.display_node ?? detail.node, detail.output?.text));
  },
  beforeRegisterNodeDef(type, definition) {
    if (!definition.name.startsWith(PREFIX)) return;
    const before = type.prototype.onExecuted;
    type.prototype.onExecuted = function (output) {
      before?.apply(this, arguments);
      show(this, output?.text);
    };
  },
});
