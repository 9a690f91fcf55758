// Memory over the run: what is predicted to be in use at each moment, against the predicted peak and the bound.
"use strict";

/** What a part of the output is called in so many pixels; nothing where there is no room. */
function brief(item, width) {
  const parts = clean(item.title).replace(/\.weight$/, "").split(".");
  const names = [parts.join("."), item.kind === "tensor" ? parts.at(-1) : parts.slice(-2).join("."), parts.at(-1)];
  return names.find((name) => name.length * 6.4 <= width) ?? "";
}

class Timeline {
  constructor(tree, root, { point, go }) {
    const { graph } = tree;
    this.tree = tree;
    this.graph = graph;
    this.root = root;
    this.point = point;
    this.go = go;
    this.plot = root.querySelector("#plot");
    this.says = root.querySelector("#moment");
    this.slider = root.querySelector("#slider");
    this.row = -1;
    this.spans = [];
    const { live, state, done, tensor } = graph.timeline;
    this.rows = done.length;
    this.end = this.rows ? done[this.rows - 1] : 1;
    const totals = graph.totals;
    // One process is shown: those of a machine are alike, and each goes through a part of these moments.
    this.alike = Math.max(graph.processes.filter((process) => process.machine === 0).length, 1);
    this.floor = totals.reserved_bytes / this.alike;
    this.slack = totals.slack_bytes / this.alike;
    this.peak = totals.predicted_peak_bytes / this.alike;
    this.bound = totals.budget_bytes / this.alike;
    this.above = Float64Array.from(live, (bytes, row) => bytes + state[row] + this.slack);
    // Seconds since the start, by what the plan predicts for each pass, so that they end with the time of the whole run.
    let seconds = 0;
    this.seconds = Float64Array.from(tensor, (index, row) => {
      const pass = index < 0 ? null : graph.programs[graph.tensors.program[index]].passes[graph.timeline.pass[row]];
      const before = seconds;
      seconds += pass?.predicted_seconds ?? 0;
      return before;
    }).map((before) => (seconds ? (before * (totals.predicted_seconds ?? 0)) / seconds : 0));
    // The rows of each tensor: they may be apart, as passes of neighbours take turns.
    this.rowsOf = new Map();
    tensor.forEach((index, row) => { if (index >= 0) this.rowsOf.set(index, [...(this.rowsOf.get(index) ?? []), row]); });
    this.slider.setAttribute("aria-valuemax", String(Math.max(this.rows - 1, 0)));
    this.listen();
  }

  /** Bytes at the top of the plot: the bound where it is near the peak, else a little more than the peak. */
  top() {
    const { peak, bound } = this;
    const room = Math.max(peak - this.floor, 1);
    return bound - this.floor < 2.2 * room ? Math.max(bound, peak) + room * 0.12 : peak + room * 0.45;
  }

  draw() {
    const { width, height } = this.plot.getBoundingClientRect();
    if (!width || !this.rows) return;
    this.width = width;
    const { timeline: { state, done } } = this.graph;
    // What was in use before takes the lowest part whatever its size: the axis is cut there.
    const base = Math.round(height * 0.78), high = 4, top = this.top();
    this.y = (bytes) => base - ((bytes - this.floor) / (top - this.floor)) * (base - high);
    this.x = (bytes) => (bytes / this.end) * width;
    const all = [], states = [];
    const columns = Math.max(Math.floor(width), 1);
    // A column of pixels shows the most of the moments in it.
    for (let column = 0, row = 0; column < columns; column++) {
      const until = ((column + 1) / columns) * this.end;
      let most = 0, held = 0;
      for (let at = row; at < this.rows; at++) {
        most = Math.max(most, this.above[at]);
        held = Math.max(held, state[at] + this.slack);
        if (done[at] >= until) { row = at; break; }
      }
      all.push([column, this.y(this.floor + most)]);
      states.push([column, this.y(this.floor + held)]);
    }
    const area = (points) => `M0 ${base}${points.map(([x, y]) => `L${x} ${y.toFixed(1)}L${x + 1} ${y.toFixed(1)}`).join("")}L${columns} ${base}Z`;
    const peak = this.y(this.peak);
    const inside = this.bound <= top;
    const bound = inside ? this.y(this.bound) : high;
    const parts = [
      svg("rect", { class: "reserved", x: 0, y: base, width, height: height - base }),
      svg("path", { class: "live", d: area(all) }),
      svg("path", { class: "held", d: area(states) }),
      svg("rect", { class: "slack", x: 0, y: this.y(this.floor + this.slack), width, height: base - this.y(this.floor + this.slack) }),
      svg("path", { class: "cut", d: `M0 ${base + 3}H${width}` }),
      svg("g", { id: "spans" }),
      svg("path", { class: "peak", d: `M0 ${peak}H${width}` }),
      inside ? svg("path", { class: "bound", d: `M0 ${bound}H${width}` }) : "",
      svg("rect", { id: "cursor", y: 0, height, width: 2, x: -9 }),
    ];
    this.plot.querySelector("svg").replaceChildren(...parts);
    const label = (kind, y, text) => el("span", { class: `label ${kind}`, "--y": `${y}px` }, text);
    const of = this.alike > 1 ? `, each of ${this.alike} processes` : "";
    const apart = inside && Math.abs(peak - bound) < 15 ? 15 - Math.abs(peak - bound) : 0;
    this.plot.querySelector(".labels").replaceChildren(
      label("bound", inside ? bound : high, `bound ${formatBytes(this.bound)}${inside ? "" : " ↑"}${of}`),
      label("peak", Math.max(peak, inside ? bound : high + 13) + (inside ? apart : 0), `predicted peak ${formatBytes(this.peak)}`),
      label("reserved", base, `reserved ${formatBytes(this.floor)} before the first tensor`),
    );
    this.drawParts();
    this.drawSpans();
    this.mark(this.row, false);
  }

  /** Below the plot: which part of the output it is for. */
  drawParts() {
    const spans = this.tree.groups.flatMap((item) => this.spansOf(item.tensors).map(([from, to]) => ({ item, from, to })));
    spans.sort((a, b) => a.from - b.from);
    // Parts that share tensors share their time: the first of them has it here.
    spans.forEach((span, at) => { if (at) span.from = Math.max(span.from, spans[at - 1].to); span.to = Math.max(span.to, span.from); });
    this.plot.querySelector(".parts").replaceChildren(...spans.filter(({ from, to }) => this.x(to) - this.x(from) >= 2).map(({ item, from, to }) =>
      el("span", { "--x": `${this.x(from).toFixed(1)}px`, "--w": `${(this.x(to) - this.x(from)).toFixed(1)}px` }, brief(item, this.x(to) - this.x(from) - 12))));
  }

  /** The moment at which the run has done as many bytes. */
  rowAt(bytes) {
    const { done } = this.graph.timeline;
    let low = 0, high = this.rows - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (done[middle] < bytes) low = middle + 1; else high = middle;
    }
    return low;
  }

  /** Point at a moment: the cursor, its figures, and the box of its tensor. */
  mark(row, tell = true) {
    this.row = row;
    const cursor = this.plot.querySelector("#cursor");
    if (row < 0 || !cursor) {
      cursor?.setAttribute("x", -9);
      this.says.replaceChildren(el("span", { class: "hint" }, "Point at a moment to see what is in memory, and for what."));
      if (tell) this.point(null);
      return;
    }
    const { timeline, tensors, totals, programs } = this.graph;
    const from = row ? timeline.done[row - 1] : 0;
    const x = this.x(from), width = Math.max(this.x(timeline.done[row]) - x, 2);
    cursor.setAttribute("x", Math.min(x, this.width - 2));
    cursor.setAttribute("width", width);
    const tensor = timeline.tensor[row];
    const passes = tensor >= 0 ? programs[tensors.program[tensor]].passes.length : 1;
    const words = [
      formatBytes(this.floor + this.above[row]),
      `${formatBytes(timeline.live[row])} live${timeline.state[row] ? `, ${formatBytes(timeline.state[row])} kept` : ""}`,
      passes > 1 ? `pass ${timeline.pass[row] + 1} of ${passes}` : null,
      counted(timeline.workers[row], "worker"),
      `${((100 * timeline.done[row]) / this.end).toFixed(0)} % done`,
      totals.predicted_seconds ? `after about ${formatSeconds(this.seconds[row])}` : null,
    ].filter(Boolean);
    const name = tensor >= 0 ? clean(tensors.names[tensor]) : "";
    this.says.replaceChildren(el("b", {}, words[0]),
      ...(tensor >= 0 ? [" · ", el("button", { type: "button", class: "link", onclick: () => this.go(tensor) }, name)] : []), ` · ${words.slice(1).join(" · ")}`);
    this.slider.setAttribute("aria-valuenow", String(row));
    this.slider.setAttribute("aria-valuetext", `${name}: ${words.join(", ")}`);
    if (tell) this.point(tensor >= 0 ? tensor : null);
  }

  /** When tensors are under way, as ranges of bytes done; ranges that all but touch are one. */
  spansOf(tensors) {
    const { sameAs } = this.graph.tensors, { done } = this.graph.timeline;
    const rows = new Set();
    for (const tensor of tensors) for (const row of this.rowsOf.get(sameAs.get(tensor) ?? tensor) ?? []) rows.add(row);
    const spans = [];
    for (const row of [...rows].sort((a, b) => a - b)) {
      const start = row ? done[row - 1] : 0, last = spans[spans.length - 1];
      if (last && start <= last[1] + this.end / 4000) last[1] = done[row];
      else spans.push([start, done[row]]);
    }
    return spans;
  }

  /** Bands behind the curve for what is selected. */
  span(tensors) {
    this.spans = this.spansOf(tensors);
    this.drawSpans();
  }

  drawSpans() {
    const group = this.plot.querySelector("#spans");
    if (!group || !this.x) return;
    const { height } = this.plot.getBoundingClientRect();
    group.replaceChildren(...this.spans.map(([from, to]) =>
      svg("rect", { class: "span", x: this.x(from).toFixed(1), y: 0, width: Math.max(this.x(to) - this.x(from), 3).toFixed(1), height })));
  }

  listen() {
    const { slider } = this;
    const at = (event) => {
      const { left, width } = slider.getBoundingClientRect();
      return this.rowAt((Math.min(Math.max((event.clientX - left) / width, 0), 1)) * this.end);
    };
    slider.addEventListener("pointermove", (event) => this.mark(at(event)));
    slider.addEventListener("pointerdown", (event) => this.mark(at(event)));
    // A finger that is lifted leaves the moment where it is: the name beside its figures goes to the tensor.
    slider.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch" && document.activeElement !== slider) this.mark(-1); });
    slider.addEventListener("blur", (event) => { if (!this.says.contains(event.relatedTarget)) this.mark(-1); });
    slider.addEventListener("focus", () => { if (this.row < 0) this.mark(0); });
    slider.addEventListener("click", (event) => { if (event.pointerType !== "touch") this.jump(); });
    slider.addEventListener("keydown", (event) => {
      const page = Math.max(Math.round(this.rows / 20), 1);
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: page, PageDown: -page, Home: -this.rows, End: this.rows }[event.key];
      if (step) this.mark(Math.min(Math.max(this.row + step, 0), this.rows - 1));
      else if (event.key === "Enter" || event.key === " ") this.jump();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  jump() {
    const tensor = this.row >= 0 ? this.graph.timeline.tensor[this.row] : -1;
    if (tensor >= 0) this.go(tensor);
  }
}
