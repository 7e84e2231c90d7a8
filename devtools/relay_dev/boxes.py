"""Measures a workflow on a page, in either renderer: the boxes of its nodes, and which wires run behind nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relay_host.page import HostPage

SETTLE = 1200
"""Milliseconds: pictures, notes and boxes follow a little after a change."""
A_NOTE = "Converted from the space of Stable Diffusion 1.5: decoded with its VAE, and encoded again."
"""As long as what a node says while it runs."""

SHOW = """
async ({previews, text}) => {
    const paint = document.createElement('canvas');
    paint.width = paint.height = 64;
    const context = paint.getContext('2d');
    context.fillStyle = '#c84';
    context.fillRect(0, 0, 64, 64);
    const blob = await new Promise(done => paint.toBlob(done, 'image/jpeg'));
    const api = window.app.api ?? window.comfyAPI.api.api;
    for (const node of window.app.graph.nodes) {
        const id = String(node.id), run = {prompt_id: 'measured', promptId: 'measured', jobId: 'measured'};
        const denoises = (node.widgets ?? []).some(widget => widget.name === 'steps')
            && (node.outputs ?? []).some(output => ['LATENT', 'IMAGE'].includes(output.type));
        if (previews && denoises)
            api.dispatchCustomEvent('b_preview_with_metadata',
                {blob, nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id, ...run});
        if (text && node.type.startsWith('Relay')) api.dispatchCustomEvent('progress_text', {nodeId: id, text, ...run});
        if (previews && ['SaveImage', 'PreviewImage'].includes(node.type))
            api.dispatchCustomEvent('executed', {node: id, display_node: id, ...run,
                output: {images: [{filename: 'example.png', type: 'input', subfolder: ''}]}});
    }
    window.app.canvas.draw(true, true);
    return true;
}
"""
BOXES = """
() => {
    window.app.canvas.draw(true, true);
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    return Object.fromEntries(window.app.graph.nodes.map(node => {
        const [x, y, width, height] = node.boundingRect;
        // The classic renderer updates boundingRect only when it draws; the size is always that of now.
        return [node.id, [x, y, Math.max(width, node.size[0]), Math.max(height, node.size[1] + title)]];
    }));
}
"""
TITLES = "() => Object.fromEntries(window.app.graph.nodes.map(node => [node.id, node.title]))"
GROUPS = "() => Object.fromEntries(window.app.graph.groups.map(one => [one.title, [...one.pos, ...one.size]]))"
SOCKETS = """
() => Object.fromEntries(window.app.graph.nodes.map(node => [node.id, {
    least: Array.from(node.computeSize()),
    note: node.widgets?.[0]?.element?.querySelector?.('.tiptap')?.scrollHeight ?? 0,
    inputs: Object.fromEntries((node.inputs ?? []).map((one, at) => [one.name, node.getInputPos(at)[1] - node.pos[1]])),
    outputs: (node.outputs ?? []).map((one, at) => node.getOutputPos(at)[1] - node.pos[1]),
    names: (node.outputs ?? []).map(one => one.name),
}]))
"""
WIRES_BEHIND = """
({scale, inset}) => {
    const graph = window.app.graph, found = [];
    window.app.canvas.draw(true, true);
    const boxes = (BOXES)(), sides = Object.values(boxes);
    const left = Math.min(...sides.map(b => b[0])) - 100, top = Math.min(...sides.map(b => b[1])) - 400;
    const canvas = document.createElement('canvas');
    canvas.width = (Math.max(...sides.map(b => b[0] + b[2])) + 100 - left) * scale;
    canvas.height = (Math.max(...sides.map(b => b[1] + b[3])) + 400 - top) * scale;
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.lineWidth = 4;
    let painted = 0;
    for (const link of graph.links.values()) {
        context.setTransform(1, 0, 0, 1, 0, 0);
        context.clearRect(0, 0, canvas.width, canvas.height);
        context.setTransform(scale, 0, 0, scale, -left * scale, -top * scale);
        const parts = [link];
        for (let at = link.parentId; at != null; at = graph.reroutes.get(at).parentId) parts.push(graph.reroutes.get(at));
        if (!parts.every(part => part.path)) throw new Error(`the page has not painted link ${link.id}`);
        for (const part of parts) context.stroke(part.path);
        const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        for (const [id, [x, y, width, height]] of Object.entries(boxes)) {
            // A node's own wires begin and end at its sockets.
            const border = id == link.origin_id || id == link.target_id ? inset : 4;
            const from = Math.ceil((x + border - left) * scale), to = Math.floor((x + width - border - left) * scale);
            const above = Math.ceil((y + 4 - top) * scale), below = Math.floor((y + height - 4 - top) * scale);
            let hit = false;
            for (let row = above; row < below && !hit; row++)
                for (let column = from; column < to && !hit; column++) hit = pixels[row * canvas.width + column] !== 0;
            const title = one => graph.getNodeById(one).title;
            if (hit) found.push(`${title(link.origin_id)} -> ${title(link.target_id)} behind ${title(id)}`);
        }
    }
    return found;
}
""".replace("BOXES", BOXES)


@dataclass(frozen=True)
class Box:
    """What a node covers, with its title, in the graph's own units."""

    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def encloses(self, other: Box) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


def boxes(page: HostPage) -> dict[int, Box]:
    """{node id: box}"""
    return {int(key): Box(*values) for key, values in page.ask(BOXES).items()}


def titled_boxes(page: HostPage) -> dict[str, Box]:
    """{node's id and title: box}"""
    titles = page.ask(TITLES)
    return {f"{key} {titles[str(key)]}": box for key, box in boxes(page).items()}


def groups(page: HostPage) -> dict[str, Box]:
    """{heading: box}"""
    return {title: Box(*values) for title, values in page.ask(GROUPS).items()}


def sockets(page: HostPage) -> dict[int, dict[str, Any]]:
    """{node id: its least size, and where its sockets are below its position}"""
    return {int(key): values for key, values in page.ask(SOCKETS).items()}


def show_a_run(page: HostPage, *, previews: bool = True, text: str = "") -> None:
    """Gives every node what a run with previews would: the page gets the server's messages, but nothing runs."""
    page.ask(SHOW, {"previews": previews, "text": text})
    page.page.wait_for_timeout(SETTLE)


def wires_behind(page: HostPage) -> list[str]:
    """Wires that the page paints behind nodes. Nodes in the way are found in the paths that the page has painted, pixel by pixel."""
    return list(page.ask(WIRES_BEHIND, {"scale": 0.25, "inset": 26}))
