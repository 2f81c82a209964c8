// Shows on each StylerDALLE node what it said: its `ui.text` when it is done, and `stylerdalle.text` while it runs (nodes/host.py).
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { ComfyWidgets } from "../../../scripts/widgets.js";

const NAME = "what it said"; // the widget is never saved, so it does not shift the values of a saved workflow

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
  widget.least = Math.min(20 + 12 * rows, 140); // px; a longer text scrolls
  widget.value = lines.join("\n");
  const [width, height] = node.computeSize();
  node.setSize([Math.max(width, node.size[0]), Math.max(height, node.size[1])]);
  node.setDirtyCanvas?.(true, true);
}

// the node of an id such as 7, or 12:7 for node 7 in the subgraph node 12
function find(id) {
  let graph = app.rootGraph ?? app.graph;
  let node;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

app.registerExtension({
  name: "StylerDALLE.text",
  setup() {
    api.addEventListener("stylerdalle.text", ({ detail }) => show(find(detail.node), detail.text));
  },
  beforeRegisterNodeDef(type, definition) {
    if (!definition.name.startsWith("StylerDALLE_")) return;
    const before = type.prototype.onExecuted;
    type.prototype.onExecuted = function (output) {
      before?.apply(this, arguments);
      show(this, output?.text);
    };
  },
});
