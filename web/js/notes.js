// Shows in each node of the pack what it said in its last run ("Latent converted from ..."), until it runs again.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const KEY = "relay_notes"; // in the node's UI output: nodes/checked.py
const CATEGORY = "Diffusers Relay";
const WIDGET = "relay_notes";
const HOST_TEXT = "$$node-text-preview"; // the page's own widget for progress texts
const MARGIN = 10;
const SETTLED = 300; // milliseconds after which the page has drawn a node with its notes

// The notes take no pointer events: a drag, a click or the wheel there is the node's or the canvas's.
const STYLE = `
.relay-notes { box-sizing: border-box; pointer-events: none; overflow: hidden; font-family: inherit; }
.relay-notes p { margin: 0 0 4px; padding: 0 0 0 8px; border-left: 2px solid var(--p-primary-color, #4b8bd4);
  color: var(--descrip-text, #999); font-size: 11px; line-height: 15px; white-space: pre-wrap; overflow-wrap: anywhere; }
.relay-notes p:last-child { margin-bottom: 0; }
.lg-node-widgets > .relay-notes { margin-left: 12px; }
.dom-widget:has(> .relay-notes) { pointer-events: none !important; }
`;

/**
 * node -> {widget, lines, grown, own}: the nodes that show notes.
 * grown: by how much the notes made the node higher; own: its height without them, until grown is known.
 */
const shown = new WeakMap();

function isOurs(node) {
    return String(node?.constructor?.nodeData?.category ?? "").split("/")[0] === CATEGORY;
}

/** The node of an execution id: "3", or "5:3" for node 3 in the subgraph of node 5. */
function nodeOf(executionId) {
    let graph = app.rootGraph ?? app.graph;
    let node;
    for (const id of String(executionId ?? "").split(":")) {
        node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
        graph = node?.subgraph;
    }
    return node;
}

/** Where the page keeps the node's UI output. */
function outputKey(node) {
    const graph = node.graph;
    return !graph || graph === (app.rootGraph ?? app.graph) ? String(node.id) : `${graph.id}:${node.id}`;
}

function everyNode() {
    const root = app.rootGraph ?? app.graph;
    return [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? []);
}

function paint(element, lines) {
    element.replaceChildren(
        ...lines.map((line) => {
            const paragraph = document.createElement("p");
            paragraph.textContent = line;
            return paragraph;
        }),
    );
}

/** The height of the lines at a width, measured beside the page. */
function measured(lines, width) {
    const probe = document.createElement("div");
    probe.className = "relay-notes";
    probe.style.cssText = `position: absolute; visibility: hidden; left: -10000px; width: ${width}px`;
    paint(probe, lines);
    document.body.append(probe);
    const height = probe.offsetHeight;
    probe.remove();
    return height;
}

function addWidget(node) {
    const element = document.createElement("div");
    element.className = "relay-notes";
    const widget = node.addDOMWidget(WIDGET, "relay-notes", element, {
        serialize: false, // not in the prompt
        hideInPanel: true,
        hideOnZoom: false,
        margin: MARGIN,
    });
    widget.serialize = false; // not in widgets_values
    widget.computeLayoutSize = undefined; // as high as its text, and not more
    let known = { width: -1, lines: null, height: 0 };
    widget.computeSize = () => {
        const width = node.size[0] - 2 * MARGIN;
        const { lines } = shown.get(node) ?? { lines: [] };
        if (known.width !== width || known.lines !== lines) known = { width, lines, height: measured(lines, width) };
        return [0, known.height + 2 * MARGIN];
    };
    return widget;
}

/** Replaces the notes that a node shows. */
function show(node, lines) {
    settle(node);
    const before = shown.get(node);
    if (!before && !lines.length) return;
    const own = node.size[1] - (before?.grown ?? 0);
    if (!lines.length) {
        shown.delete(node);
        node.removeWidget(before.widget);
        before.widget.element.remove();
        setHeight(node, own);
    } else {
        const widget = before?.widget ?? addWidget(node);
        shown.set(node, { widget, lines, grown: 0, own });
        paint(widget.element, lines);
        if (LiteGraph.vueNodesMode) {
            setTimeout(() => settle(node), SETTLED);
        } else {
            setHeight(node, Math.max(own, node.computeSize()[1]));
            settle(node);
        }
    }
    node.setDirtyCanvas(true, true);
}

/** In Nodes 2.0, the page finds the height of a node itself: older pages change its size, newer ones don't. */
function settle(node) {
    const state = shown.get(node);
    if (state?.own === undefined) return;
    state.grown = Math.max(0, node.size[1] - state.own);
    state.own = undefined;
    // Pages before 1.40 don't draw a widget that a node gets after its creation.
    if (LiteGraph.vueNodesMode && !state.widget.element.isConnected && node.graph === app.canvas.graph)
        document.querySelector(`[data-node-id="${node.id}"] .lg-node-widgets`)?.append(state.widget.element);
}

function setHeight(node, height) {
    if (height !== node.size[1]) node.setSize([node.size[0], height]);
}

/** A new run of the node: its notes of the run before are gone, also from the output that the page keeps. */
function clear(node) {
    show(node, []);
    const output = app.nodeOutputs?.[outputKey(node)];
    if (output) delete output[KEY];
}

function removeHostText(node) {
    const widget = node.widgets?.find((candidate) => candidate.name === HOST_TEXT);
    if (widget) node.removeWidget(widget);
}

/** After another workflow, an undo or a job of the queue was opened: what the page kept of the nodes' last runs. */
function restore() {
    for (const node of everyNode().filter(isOurs)) show(node, app.nodeOutputs?.[outputKey(node)]?.[KEY] ?? []);
}

app.registerExtension({
    name: "DiffusersRelay.Notes",

    setup() {
        const style = document.createElement("style");
        style.textContent = STYLE;
        document.head.append(style);
        api.addEventListener("executing", ({ detail }) => {
            const node = nodeOf(detail);
            if (isOurs(node)) clear(node);
        });
        // While the node runs. The page would show the last text only, and delete it at the end of the job.
        api.addEventListener("progress_text", ({ detail }) => {
            const node = nodeOf(detail.nodeId);
            if (!isOurs(node)) return;
            removeHostText(node);
            show(node, [...new Set([...(shown.get(node)?.lines ?? []), detail.text])]);
        });
    },

    beforeRegisterNodeDef(nodeType, nodeData) {
        if (String(nodeData.category).split("/")[0] !== CATEGORY) return;
        const { onExecuted, onSerialize } = nodeType.prototype;
        nodeType.prototype.onExecuted = function (output) {
            onExecuted?.call(this, output);
            show(this, [...new Set(output?.[KEY] ?? [])]);
        };
        nodeType.prototype.onSerialize = function (saved) {
            onSerialize?.call(this, saved);
            const state = shown.get(this);
            if (state) saved.size = [saved.size[0], state.own ?? saved.size[1] - state.grown];
            if (saved.widgets_values?.length === 0) {
                // A node that has no widget but its notes is saved as one that has none.
                delete saved.widgets_values;
                delete saved.widgets_values_named;
            }
        };
    },

    afterConfigureGraph: restore,
    onNodeOutputsUpdated: restore,
});
