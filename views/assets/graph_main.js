// Puts the page together: data, picture, panel, search, timeline, and the keys.
"use strict";

class Page {
  constructor(graph) {
    const find = (selector) => document.querySelector(selector);
    this.graph = graph;
    this.canvas = find("#canvas");
    this.panel = find("#panel");
    this.tree = new Tree(graph);
    this.view = new View(this.tree, this.canvas);
    this.camera = new Camera(this.view, this.canvas);
    const go = (tensor) => this.reveal(tensor);
    this.details = new Details(this.tree, this.panel, { go });
    this.search = new Search(graph, find("#search"), go);
    this.timeline = new Timeline(this.tree, find("#timeline"), { go, point: (tensor) => this.point(tensor) });
    this.head();
    this.details.show(null);
    this.view.ongo = (id) => { this.glide(); this.focus(id); };
    if (graph.tensor) this.view.open.add(this.tree.groups[0].id);
    this.view.place();
    this.listen(find);
    this.resize();
    this.timeline.draw();
    this.camera.fit();
    this.view.draw();
  }

  head() {
    const { graph } = this, { totals, recipe } = graph;
    document.querySelector("#method").textContent = recipe.method;
    const facts = [
      ["tensors", formatCount(totals.tensors)],
      ["read", formatBytes(totals.bytes_read)],
      ["write", formatBytes(totals.bytes_written)],
      ["peak", `${formatBytes(totals.predicted_peak_bytes)} of ${formatBytes(totals.budget_bytes)}`],
      totals.predicted_seconds ? ["time", formatSeconds(totals.predicted_seconds)] : null,
    ].filter(Boolean);
    document.querySelector("#totals").append(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    document.querySelector("#legend").append(...this.tree.models.map((item) =>
      el("li", {}, el("button", { type: "button", class: "chip", onclick: () => this.select(item.id, { middle: true }) }, markOf(graph, item.model.mark), ` ${item.title}`, item.model.base ? el("small", {}, " base") : null))));
    if (graph.warnings.length) {
      const button = document.querySelector("#overview");
      button.append(" ", el("span", { class: "count" }, String(graph.warnings.length)));
      button.setAttribute("aria-label", `Plan, ${counted(graph.warnings.length, "warning")}`);
      button.classList.add("warn");
    }
  }

  // -------------------------------------------------------------------------------------------- what happens

  announce(text) { document.querySelector("#announce").textContent = text; }

  /** Unfold or fold; what was pointed at stays where it is. */
  toggle(item) {
    if (!this.tree.canUnfold(item)) return;
    const opening = !this.view.open.has(item.id);
    const before = this.view.boxOf(item.id);
    if (opening) this.view.open.add(item.id); else this.view.open.delete(item.id);
    this.replace();
    const after = this.view.boxOf(item.id);
    if (before && after) {
      this.camera.x += (before.x - after.x) * this.camera.k;
      this.camera.y += (before.y - after.y) * this.camera.k;
    }
    this.view.draw();
    if (opening) { this.glide(); this.camera.show(item.id, { whole: true }); }
    this.announce(opening ? `Unfolded, ${counted(this.tree.children(item).length, item.kind === "tensor" ? "op" : "part")}` : "Folded");
  }

  /** Lay out again after something was unfolded or folded. */
  replace() {
    this.view.place();
    if (!this.view.placed.boxes.has(this.view.active)) {
      let item = this.tree.get(this.view.active);
      while (item && !this.view.placed.boxes.has(item.id)) item = item.parent;
      this.view.active = item?.id ?? this.view.placed.order[0].id;
    }
    this.view.view = this.view.seen();
  }

  /** The next move of the picture is seen as one. */
  glide() {
    const { world } = this.view;
    world.classList.add("gliding");
    clearTimeout(this.gliding);
    this.gliding = setTimeout(() => world.classList.remove("gliding"), 260);
  }

  /** Select an item: its details, its place in time, what it has to do with. */
  select(id, { middle = false, sheet = true } = {}) {
    const item = this.tree.get(id);
    this.view.selected = item ? id : null;
    if (item) this.view.active = id;
    this.details.show(item ?? null);
    this.panel.classList.toggle("raised", Boolean(item) && sheet);
    document.body.classList.toggle("selected", Boolean(item));
    this.timeline.span(item ? this.tree.tensorsOf(item) : []);
    this.remember(item);
    if (item && middle) { this.glide(); this.camera.show(id, { middle: true }); }
    else if (item && this.camera.covered()) { this.glide(); this.camera.show(id); }
    this.view.draw();
  }

  /** The address says which tensor is shown: it can be kept, and loaded again. */
  remember(item) {
    const name = item?.kind === "tensor" ? `#${encodeURIComponent(this.graph.tensors.names[item.tensors[0]])}` : "#";
    try { history.replaceState(null, "", name); } catch { /* not everywhere */ }
  }

  /** Go to the tensor that the address names. */
  recall() {
    let name = "";
    try { name = decodeURIComponent(location.hash.slice(1)); } catch { /* not ours */ }
    const tensor = name ? this.graph.tensors.names.indexOf(name) : -1;
    if (tensor >= 0) this.reveal(tensor);
  }

  /** Unfold all that a tensor is in, go there and select it. */
  reveal(tensor) {
    const path = this.tree.pathTo(tensor);
    if (!path.length) return;
    for (const item of path.slice(0, -1)) this.view.open.add(item.id);
    const item = path.at(-1);
    this.view.place();
    this.select(item.id, { middle: true });
    this.focus(item.id);
    this.announce(`${clean(this.graph.tensors.names[tensor])} selected`);
  }

  /** Show whose moment it is. */
  point(tensor) {
    const item = tensor === null ? null : this.view.visibleOf(tensor);
    this.view.moment = item?.id ?? null;
    this.camera.changed();
  }

  focus(id) {
    this.view.active = id;
    this.camera.show(id);
    this.view.shown.get(id)?.focus({ preventScroll: true });
  }

  close() {
    const had = this.panel.contains(document.activeElement);
    this.select(null);
    this.panel.classList.remove("raised");
    if (had) this.focus(this.view.active);
  }

  // -------------------------------------------------------------------------------------------- events

  resize() {
    if (this.view.whole) return;
    const size = sizeFor(this.canvas.clientWidth, this.tree.groups.length);
    if (size !== this.view.size) {
      this.view.size = size;
      this.view.place();
      this.camera.fitted = true;
    }
    if (this.camera.fitted) this.camera.fit(); else this.camera.changed();
  }

  listen(find) {
    const { canvas, camera, view } = this;
    const itemAt = (event) => this.tree.get(event.target.closest(".node")?.dataset.id);
    canvas.addEventListener("click", (event) => {
      const item = itemAt(event);
      if (!item) {
        if (view.selected && !event.target.closest("button")) this.close();
        return;
      }
      if (event.target.closest(".fold")) { view.active = item.id; this.toggle(item); } else this.select(item.id);
      view.shown.get(item.id)?.focus({ preventScroll: true });
    });
    canvas.addEventListener("dblclick", (event) => { const item = itemAt(event); if (item && !event.target.closest(".fold")) this.toggle(item); });
    find("#zoom-in").addEventListener("click", () => camera.zoom(1.3));
    find("#zoom-out").addEventListener("click", () => camera.zoom(1 / 1.3));
    find("#fit").addEventListener("click", () => { this.glide(); camera.fit(); });
    find("#fold-all").addEventListener("click", () => { view.open.clear(); this.replace(); this.glide(); camera.fit(); this.announce("All folded"); });
    find("#close").addEventListener("click", () => this.close());
    find("#overview").addEventListener("click", () => {
      this.select(null);
      this.panel.classList.add("raised");
      this.details.title.focus();
    });
    find("#keys").addEventListener("click", () => find("#help").showModal());
    new ResizeObserver(() => this.resize()).observe(canvas);
    document.addEventListener("keydown", (event) => this.key(event, find));
    this.printing();
  }

  key(event, find) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || find("#help").open) return;
    const { target } = event;
    if (target.matches("input, textarea")) return;
    const arrow = { ArrowUp: [0, 1], ArrowDown: [0, -1], ArrowLeft: [1, 0], ArrowRight: [-1, 0] }[event.key];
    const item = target.closest("#tree") && this.tree.get(target.dataset.id);
    if (event.key === "/") find("#search input").select();
    else if (event.key === "?") find("#help").showModal();
    else if (event.key === "+" || event.key === "=") this.camera.zoom(1.25);
    else if (event.key === "-" || event.key === "−") this.camera.zoom(0.8);
    else if (event.key === "0") { this.glide(); this.camera.fit(); }
    else if (event.key === "Escape") this.close();
    else if (arrow && (event.shiftKey || target === document.body)) this.camera.pan(arrow[0] * 80, arrow[1] * 80);
    else if (!item || !this.walk(event.key, item)) return;
    event.preventDefault();
  }

  /** Keys in the tree, as trees have them. False where a key is not for it. */
  walk(key, item) {
    const { order } = this.view.placed;
    const at = order.indexOf(item), isOpen = this.view.open.has(item.id);
    const to = (next) => { if (next) this.focus(next.id); };
    if (key === "ArrowDown") to(order[at + 1]);
    else if (key === "ArrowUp") to(order[at - 1]);
    else if (key === "Home") to(order[0]);
    else if (key === "End") to(order.at(-1));
    else if (key === "ArrowRight") { if (isOpen) to(this.tree.children(item)[0]); else this.toggle(item); }
    else if (key === "ArrowLeft") { if (isOpen) this.toggle(item); else to(item.parent); }
    else if (key === " ") this.toggle(item);
    else if (key === "Enter") { this.select(item.id); this.details.title.focus(); }
    else return false;
    return true;
  }

  /** On paper all of the picture is there, as wide as the page. */
  printing() {
    let kept = null;
    addEventListener("beforeprint", () => {
      const { placed } = this.view;
      kept = { x: this.camera.x, y: this.camera.y, k: this.camera.k };
      Object.assign(this.camera, { x: 0, y: 0, k: Math.min(680 / placed.w, 1) });
      this.canvas.style.height = `${Math.ceil(placed.h * this.camera.k) + 8}px`;
      this.view.whole = true;
      this.view.draw();
    });
    addEventListener("afterprint", () => {
      Object.assign(this.camera, kept);
      this.canvas.style.height = "";
      this.view.whole = false;
      this.view.draw();
    });
  }
}

/** Tensors that an item is about: those in it, in a shard, or made from a model. */
Tree.prototype.tensorsOf = function tensorsOf(item) {
  if (item.tensors) return item.tensors;
  const all = Array.from({ length: this.graph.tensors.count }, (_, tensor) => tensor);
  if (item.model) return all.filter((tensor) => marksOf(this.graph, tensor).has(item.model.mark));
  return all.filter((tensor) => item.numbers.includes(this.graph.tensors.shard[tensor]));
};

(async () => {
  const store = document.querySelector("#data");
  try {
    const graph = unpack(await readDocument(store.textContent));
    store.remove();
    window.plaitPage = new Page(graph);
    document.body.classList.remove("loading");
    window.plaitPage.recall();
  } catch (error) {
    document.querySelector("#totals").textContent = `This browser cannot show the graph (${error.message}). It takes Chrome or Edge 123, Firefox 120, Safari 17.5, or newer.`;
    throw error;
  }
})();
