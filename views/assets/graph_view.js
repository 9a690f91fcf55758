// The picture: a box an item, edges between them; only what is in view is in the page.
"use strict";

/** How far around the view boxes are kept, in world units. */
const MARGIN = 300;

class View {
  constructor(tree, canvas) {
    this.tree = tree;
    this.canvas = canvas;
    this.world = canvas.querySelector("#world");
    this.nodes = canvas.querySelector("#tree");
    this.edges = canvas.querySelector("#edges");
    this.crumbs = canvas.querySelector("#crumbs");
    this.open = new Set();
    this.shown = new Map();
    this.flows = flows(tree);
    this.most = this.flows.reduce((most, flow) => Math.max(most, flow.bytes), 1);
    this.active = tree.groups[0]?.id ?? tree.roots[0]?.id;
    this.selected = null;
    this.moment = null;
    this.whole = false;
    this.size = sizeFor(canvas.clientWidth, tree.groups.length);
    this.place();
  }

  place() { this.placed = layout(this.tree, this.open, this.size); }

  /** The part of the world in view. */
  seen() {
    const { x, y, k } = this.camera;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    return { x: -x / k, y: -y / k, w: w / k, h: h / k };
  }

  /** An item's box where it stands now. */
  boxOf(id) {
    const box = this.placed.boxes.get(id);
    return box && { ...box, y: box.y + columnShift(this.placed, box.column, this.view) };
  }

  /** The innermost item in sight that has a tensor in it. */
  visibleOf(tensor) {
    let found = null;
    for (const item of this.tree.pathTo(tensor)) {
      if (!this.placed.boxes.has(item.id)) break;
      found = item;
    }
    return found;
  }

  draw() {
    this.view = this.seen();
    const { x, y, k } = this.camera;
    this.world.style.transform = `translate(${x}px, ${y}px) scale(${k})`;
    const lit = this.lit();
    const wanted = new Map();
    let before = null;
    const shifts = [0, 1, 2].map((number) => columnShift(this.placed, number, this.view));
    for (const item of this.placed.order) {
      const box = this.placed.boxes.get(item.id);
      const top = box.y + shifts[box.column];
      const near = this.whole || item.id === this.active ||
        (top < this.view.y + this.view.h + MARGIN && top + box.h > this.view.y - MARGIN &&
         box.x < this.view.x + this.view.w + MARGIN && box.x + box.w > this.view.x - MARGIN);
      if (!near) continue;
      const node = this.node(item, box);
      wanted.set(item.id, node);
      node.style.transform = `translate(${box.x}px, ${top}px)`;
      node.style.width = `${box.w}px`;
      node.style.height = `${box.h}px`;
      node.tabIndex = item.id === this.active ? 0 : -1;
      node.setAttribute("aria-selected", String(item.id === this.selected));
      if (this.tree.canUnfold(item)) node.setAttribute("aria-expanded", String(box.open));
      node.classList.toggle("open", box.open);
      node.classList.toggle("lit", lit !== null && item.level === 1 && lit.has(item.id));
      node.classList.toggle("moment", item.id === this.moment);
      const right = before ? before.nextSibling : this.nodes.firstChild;
      if (right !== node) this.nodes.insertBefore(node, right);
      before = node;
    }
    for (const [id, node] of this.shown) if (wanted.get(id) !== node) node.remove();
    this.shown = wanted;
    this.nodes.classList.toggle("narrow", Boolean(this.size.narrow));
    this.drawEdges(lit, shifts);
    this.drawCrumbs(shifts[1]);
  }

  /** Above what is in view: the boxes around it whose heads are not. */
  drawCrumbs(shift) {
    const { y } = this.view, { boxes, order } = this.placed;
    const around = order.filter((item) => {
      const box = boxes.get(item.id);
      return box.open && box.column === 1 && box.y + shift + box.head / 2 < y && box.y + shift + box.h > y + 60;
    });
    const key = around.map((item) => item.id).join(" ");
    if (key === this.crumbs.dataset.key) return;
    this.crumbs.dataset.key = key;
    this.crumbs.hidden = !around.length;
    this.crumbs.replaceChildren(...around.map((item) => el("button", { type: "button", class: "button", onclick: () => this.ongo(item.id) }, clean(item.title))));
  }

  node(item, box) {
    const kept = this.shown.get(item.id);
    if (kept && kept.plaitOpen === box.open && kept.plaitSize === this.size) return kept;
    const made = nodeOf(this.tree, item, box.open, this.size);
    made.plaitOpen = box.open;
    made.plaitSize = this.size;
    if (kept && kept.contains(document.activeElement)) queueMicrotask(() => made.focus({ preventScroll: true }));
    return made;
  }

  /** The items of the first level that have to do with the one selected; null where nothing is. */
  lit() {
    const item = this.tree.get(this.selected);
    if (!item) return null;
    let top = item;
    while (top.parent) top = top.parent;
    const lit = new Set([top.id]);
    const from = item.marks ? new Set([...item.marks.keys()].map((mark) => `m:${mark}`)) : null;
    const shards = item.shards ? new Set([...item.shards.keys()].map((number) => `s:${number}`)) : null;
    for (const flow of this.flows) {
      if (flow.from === top.id && (!shards || shards.has(flow.to) || flow.to === "s:all")) lit.add(flow.to);
      if (flow.to === top.id && (!from || from.has(flow.from))) lit.add(flow.from);
    }
    return lit;
  }

  drawEdges(lit, shifts) {
    const { boxes } = this.placed;
    const parts = document.createDocumentFragment();
    const leaving = new Map(), arriving = new Map();
    for (const flow of this.flows) {
      leaving.set(flow.from, (leaving.get(flow.from) ?? 0) + 1);
      arriving.set(flow.to, (arriving.get(flow.to) ?? 0) + 1);
    }
    const out = new Map(), into = new Map();
    // Edges of a box are spread over its side, so that they can be told apart.
    const port = (id, used, all) => {
      const box = boxes.get(id);
      const number = used.get(id) ?? 0;
      used.set(id, number + 1);
      return box.y + shifts[box.column] + (Math.min(box.head, box.h) * (number + 1)) / (all.get(id) + 1);
    };
    for (const flow of this.flows) {
      const from = boxes.get(flow.from), to = boxes.get(flow.to);
      const y1 = port(flow.from, out, leaving), y2 = port(flow.to, into, arriving);
      const on = lit === null ? "" : lit.has(flow.from) && lit.has(flow.to) ? " lit" : " dim";
      const model = flow.mark && this.tree.graph.models.find((each) => each.mark === flow.mark);
      parts.append(svg("path", {
        class: `flow${on}`,
        d: flowPath(from.x + from.w, y1, to.x, y2),
        style: `stroke:${model ? model.colour : "var(--edge)"};stroke-width:${(1.2 + 5 * Math.sqrt(flow.bytes / this.most)).toFixed(2)}`,
      }));
    }
    this.edges.querySelector("g").replaceChildren(parts);
  }
}

/** For each op of a tensor the mark of the only model that it depends on, besides the base; null where there are several. */
function modelsOfOps(tree, item) {
  const { graph } = tree;
  const reads = readsOf(graph, item.tensors[0]);
  const base = graph.models.find((model) => model.base)?.mark;
  const from = [];
  for (const node of tree.programOf(item).nodes) {
    const marks = new Set(node.slots.map((slot) => reads[slot]?.model));
    for (const source of node.inputs) for (const mark of from[source]) marks.add(mark);
    from[node.id] = marks;
  }
  return from.map((marks) => {
    const own = marks.size > 1 ? [...marks].filter((mark) => mark !== base) : [...marks];
    return own.length === 1 ? own[0] : null;
  });
}

/** The same as colours. */
function tintsOf(tree, item) {
  return modelsOfOps(tree, item).map((mark) => mark && tree.graph.models.find((model) => model.mark === mark)?.colour);
}
