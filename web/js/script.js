// "Export diffusers script" in the menu File: the graph, or what leads to the selected nodes, as a Python file.
// A script that is dropped on the page opens the graph that it holds.
import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";

const COMMAND = "DiffusersRelay.ExportScript";
const LABEL = "Export diffusers script";
const ROUTE = "/diffusers_relay/script";
const MARK = "# relay-graph: "; // script/write.py

function tell(severity, detail) {
    app.extensionManager.toast.add({ severity, summary: LABEL, detail, life: severity === "error" ? 20000 : 4000 });
}

/** The selected nodes that run. */
function chosen(prompt) {
    const items = [...(app.canvas.selectedItems ?? Object.values(app.canvas.selected_nodes ?? {}))];
    return items.map((item) => String(item.id)).filter((id) => id in prompt);
}

function save(text, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/x-python" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function exportScript() {
    const { output, workflow } = await app.graphToPrompt();
    const body = JSON.stringify({ prompt: output, workflow, chosen: chosen(output) });
    const reply = await api.fetchApi(ROUTE, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    const text = await reply.text();
    if (!reply.ok) {
        tell("error", text);
        return;
    }
    const name = app.extensionManager.workflow?.activeWorkflow?.filename ?? "graph";
    save(text, `${name}.py`);
    tell("success", `${name}.py`);
}

/** The graph in a script; null if it holds none. */
function graphIn(text) {
    const line = text.split("\n").findLast((candidate) => candidate.startsWith(MARK));
    return line ? JSON.parse(line.slice(MARK.length)) : null;
}

async function open(file) {
    const found = graphIn(await file.text());
    if (!found) {
        tell("error", `${file.name} holds no graph: it was not written by Diffusers Relay, or its last line was removed.`);
        return;
    }
    const name = file.name.replace(/\.py$/, "");
    if (found.workflow) await app.loadGraphData(found.workflow, true, true, name);
    else await app.loadApiJson(found.prompt, name);
}

app.registerExtension({
    name: "DiffusersRelay.Script",
    commands: [{ id: COMMAND, label: LABEL, icon: "pi pi-code", function: exportScript }],
    menuCommands: [{ path: ["File"], commands: [COMMAND] }],

    setup() {
        const { handleFile } = app;
        app.handleFile = async function (file, ...others) {
            if (!file?.name?.endsWith(".py")) return handleFile.call(this, file, ...others);
            return open(file);
        };
    },
});
