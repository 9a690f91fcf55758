// The panel: the whole plan, or everything that it says about what is selected.
"use strict";

/** Rows that a list in the panel shows; the picture and the search have the rest. */
const MOST_ROWS = 60;

class Details {
  constructor(tree, panel, { go }) {
    this.tree = tree;
    this.graph = tree.graph;
    this.title = panel.querySelector("#panel-title");
    this.body = panel.querySelector("#panel-body");
    this.go = go;
  }

  show(item) {
    const parts = item ? this[item.kind === "shards" ? "shard" : item.kind](item) : this.plan();
    this.title.replaceChildren(...(item ? this.heading(item) : ["Plan"]));
    this.body.replaceChildren(...parts.filter(Boolean));
    this.body.scrollTop = 0;
  }

  heading(item) {
    if (item.model) return [markOf(this.graph, item.model.mark), ` ${item.title}`];
    if (item.kind === "op") return [`${item.title} `, el("small", {}, "op")];
    return breakable(item.kind === "tensor" ? this.graph.tensors.names[item.tensors[0]] : item.kind === "layer" || item.kind === "pattern" ? `${item.prefix}${item.kind === "layer" ? "*" : item.title}` : item.title);
  }

  // -------------------------------------------------------------------------------------------- pieces

  size(bytes) { return [formatBytes(bytes), " ", el("small", {}, `${formatCount(bytes)} B`)]; }

  facts(pairs) {
    const list = el("dl", { class: "facts" });
    for (const [name, ...value] of pairs.filter(Boolean)) {
      if (value[0] === null || value[0] === undefined) continue;
      list.append(el("dt", {}, name), el("dd", {}, ...value.flat()));
    }
    return list;
  }

  part(title, ...content) { return el("section", {}, el("h3", {}, title), ...content); }

  table(heads, rows, kind = "") {
    return el("div", { class: `wide ${kind}` }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[cell].flat())))))));
  }

  link(tensor, text) {
    return el("button", { type: "button", class: "link", onclick: () => this.go(tensor) }, ...breakable(text));
  }

  /** A list of buttons, cut where it is long. */
  list(tensors, nameOf) {
    const more = tensors.length - MOST_ROWS;
    return el("ul", { class: "names" },
      ...tensors.slice(0, MOST_ROWS).map((tensor) => el("li", {}, this.link(tensor, nameOf(tensor)))),
      more > 0 ? el("li", { class: "note" }, `and ${formatCount(more)} more`) : null);
  }

  /** Where stored tensors are; the name only where it is not `known`. */
  sources(reads, known = null) {
    return el("ul", { class: "files" }, ...reads.map((read) => el("li", {}, markOf(this.graph, read.model), " ", el("span", {}, ...breakable(read.file)),
      el("div", { class: "note break" }, read.name === known ? null : el("div", {}, ...breakable(read.name)), `offset ${formatCount(read.offset)}`, read.bytes === undefined ? null : ` · ${formatCount(read.bytes)} B`))));
  }

  marks(marks) {
    return [...marks].flatMap(([mark, bytes]) => [el("span", { class: "given" }, markOf(this.graph, mark), ` ${formatBytes(bytes)}`), " "]);
  }

  shardsOf(shards) {
    const numbers = [...shards.keys()].sort((a, b) => a - b);
    if (numbers.length === 1) return breakable(this.graph.shards[numbers[0]].name);
    return numbers.length > 6 ? `${numbers.length} of ${this.graph.shards.length}` : `${numbers.map((number) => number + 1).join(", ")} of ${this.graph.shards.length}`;
  }

  ways(numbers) {
    const ways = [...waysOf(this.graph, numbers)];
    return el("ul", { class: "ways" },
      ...ways.slice(0, 12).map(([steps, tensors]) => el("li", {}, steps, numbers === null ? el("small", {}, ` ${counted(tensors, "tensor")}`) : null)),
      ways.length > 12 ? el("li", { class: "note" }, `and ${ways.length - 12} more`) : null);
  }

  // -------------------------------------------------------------------------------------------- what is selected

  plan() {
    const { graph } = this, { totals, recipe } = graph;
    return [
      el("p", { class: "summary" }, el("b", {}, recipe.method), ` – ${recipe.summary}`),
      graph.warnings.length ? el("section", { class: "warnings" }, el("h3", {}, counted(graph.warnings.length, "warning")), el("ul", {}, ...graph.warnings.map((text) => el("li", {}, clean(text))))) : null,
      this.part("Models", el("ul", { class: "models" }, ...graph.models.map((model) => el("li", {}, markOf(graph, model.mark), " ", el("b", {}, clean(model.reference)), model.base ? el("span", { class: "badge" }, "base") : null,
        el("div", { class: "note" }, [model.layers ? counted(model.layers, "layer") : null, counted(model.tensors, "tensor"), formatBytes(model.bytes), model.dtypes.join(" ")].filter(Boolean).join(" · ")))))),
      this.part("What it takes", this.facts([
        ["read", this.size(totals.bytes_read)],
        ["passes", `at most ${totals.passes} over a tensor`],
        ["write", this.size(totals.bytes_written)],
        ["tensors", formatCount(totals.tensors)],
        ["disk needed", this.size(totals.disk_needed_bytes)],
        ["predicted peak", this.size(totals.predicted_peak_bytes)],
        ["bound", this.size(totals.budget_bytes)],
        ["least bound", this.size(totals.minimum_memory_bytes)],
        ["reserved", this.size(totals.reserved_bytes)],
        ["arenas", `${counted(totals.workers, "worker")} × ${formatBytes(totals.arena_bytes)}`],
        totals.state_bytes ? ["states", this.size(totals.state_bytes)] : null,
        ["slack", this.size(totals.slack_bytes)],
        totals.predicted_seconds ? ["predicted time", formatSeconds(totals.predicted_seconds)] : null,
        graph.processes.length ? ["processes", formatCount(graph.processes.length)] : null,
        ...graph.devices.map((device) => ["device", `${device.name}, peak ${formatBytes(device.predicted_peak_bytes)}`]),
        ["seed", String(recipe.seed)],
      ])),
      this.part("How tensors are made", this.ways(null)),
      el("details", {}, el("summary", {}, "Recipe"), el("pre", { tabindex: 0 }, recipe.text), el("p", { class: "note break" }, `sha256 ${recipe.sha256}`)),
      el("p", { class: "note" }, `Plait ${graph.version}. The page fetches nothing. Laid out by dagre (MIT licence, in the source of this page).`),
    ];
  }

  model(item) {
    const { model } = item;
    return [
      this.facts([
        ["reference", clean(model.reference)],
        ["revision", model.revision],
        ["role", model.base ? "base model" : "input"],
        ["layers", model.layers ? formatCount(model.layers) : null],
        ["tensors", formatCount(model.tensors)],
        ["size", this.size(model.bytes)],
        ["dtypes", model.dtypes.join(", ")],
      ]),
      this.part(counted(model.files.length, "file"), this.table(["file", "bytes"], model.files.slice(0, MOST_ROWS).map((file) => [clean(file.name), formatCount(file.bytes)])),
        model.files.length > MOST_ROWS ? el("p", { class: "note" }, `and ${model.files.length - MOST_ROWS} more`) : null),
    ];
  }

  shard(item) {
    const tensors = this.tree.tensorsOf(item);
    return [
      this.facts([
        ["size", this.size(item.bytes)],
        ["tensors", formatCount(tensors.length)],
      ]),
      item.shard ? this.part("Tensors", this.list(tensors, (tensor) => this.graph.tensors.names[tensor])) : null,
    ];
  }

  group(item) {
    const { groups, parts = [] } = item;
    const depth = item.kind === "group" ? depthRows(this.tree, item) : [];
    return [
      this.facts([
        ["tensors", formatCount(item.tensors.length)],
        ["writes", this.size(item.bytes)],
        item.marks.size ? ["reads once", this.marks(item.marks)] : null,
        item.shards.size ? ["shards", this.shardsOf(item.shards)] : null,
      ]),
      groups ? this.part("From", this.table(["output", "models and layers"], (parts.length ? parts : [{ title: item.title, from: givenOf(this.tree, item).map(({ mark, layers }) => ({ model: mark, layers })) }]).map((group) => [clean(group.title),
        group.from.flatMap((given) => [el("span", { class: "given" }, markOf(this.graph, given.model), ` ${given.layers}`), " "])]), "from"),
        parts.length ? el("p", { class: "note" }, `${groups[0].times} times, each time further on`) : null) : null,
      depth.length ? this.part("Parameters, layer by layer", el("ul", { class: "files" }, ...depth)) : null,
      item.kinds ? this.part("How it is made", this.ways(item.kinds)) : null,
      item.kind !== "group" ? this.part("Tensors", this.list(item.tensors, (tensor) => this.graph.tensors.names[tensor].slice((item.prefix ?? "").length))) : null,
    ];
  }

  layer(item) { return this.group(item); }

  pattern(item) { return this.group(item); }

  tensor(item) {
    const { graph, tree } = this, [tensor] = item.tensors;
    const { tensors } = graph;
    const program = tree.programOf(item), write = program.nodes.at(-1);
    const kind = graph.kinds.find((each) => each.number === program.kind);
    const first = tensors.sameAs.get(tensor) ?? tensor;
    const equal = [first, ...[...tensors.sameAs].filter(([, of]) => of === first).map(([other]) => other)].filter((other) => other !== tensor);
    const slots = tree.slotBytes(tensors.program[tensor]);
    const numbered = program.nodes.filter((node) => Object.keys(node.attrs).length);
    const models = modelsOfOps(tree, item);
    return [
      this.facts([
        ["shape", write.shape.join(" × ") || "scalar"],
        ["dtype", write.dtype],
        ["space", write.space],
        ["written", this.size(tensors.bytes[tensor])],
        ["into", breakable(graph.shards[tensors.shard[tensor]].name)],
        ["at offset", formatCount(tensors.offset[tensor])],
        ["read", this.size(program.bytes_read)],
        ["same as", tensors.sameName.has(tensor) ? breakable(tensors.sameName.get(tensor)) : null],
        ["device", program.device],
        ["arena", this.size(program.passes.reduce((most, pass) => Math.max(most, pass.arena_bytes), 0))],
        program.state_bytes ? ["kept between passes", this.size(program.state_bytes)] : null,
        program.working_bytes ? ["between passes, for a while", this.size(program.working_bytes)] : null,
        program.predicted_seconds ? ["predicted time", formatSeconds(program.predicted_seconds)] : null,
      ]),
      kind ? this.part("How it is made", el("p", {}, kind.steps)) : null,
      this.part("Sources", tensors.firstRead[tensor] === tensors.firstRead[tensor + 1] ? el("p", { class: "note" }, "Nothing is read.")
        : this.sources(readsOf(graph, tensor).map((read, slot) => ({ ...read, bytes: Math.round(slots[slot] ?? 0) })), tensors.names[tensor])),
      numbered.length ? this.part("Parameters", this.table(["", "op", "values"], numbered.map((node) => {
        const mark = models[node.id];
        return [mark ? markOf(graph, mark) : "", node.op, Object.entries(node.attrs).map(([name, value]) => `${name} ${formatValue(value)}`).join(", ")];
      }), "params")) : null,
      this.part(counted(program.passes.length, "pass", "passes"), el("ol", { class: "steps-list" }, ...program.passes.map((pass) => el("li", {},
        [`reads ${formatBytes(pass.bytes_read)}`, `arena ${formatBytes(pass.arena_bytes)}`, typeof pass.predicted_seconds === "number" && !pass.optional ? formatSeconds(pass.predicted_seconds) : null].filter(Boolean).join(" · "),
        el("div", { class: "note" }, [`tiles of ${counted(pass.tile_elements, "element")}`, pass.granularity === "element" ? null : `cut by ${pass.granularity}`, pass.sampled ? "a sample" : null, pass.optional ? "only if a guess was wrong" : null].filter(Boolean).join(" · ")))))),
      equal.length ? this.part("Equal tensors", el("p", { class: "note" }, "Made once and written under each of these names."), this.list(equal, (other) => tensors.names[other])) : null,
    ];
  }

  op(item) {
    const { node, program } = item;
    const reads = readsOf(this.graph, item.tensors[0]);
    return [
      this.facts([
        ["of", this.link(item.tensors[0], this.graph.tensors.names[item.tensors[0]])],
        ["shape", node.shape.join(" × ") || "scalar"],
        ["dtype", node.dtype],
        ["space", node.space],
        ["locality", node.locality],
        node.bytes === null ? null : [node.op === "write" ? "writes" : "reads", this.size(node.bytes)],
        ...Object.entries(node.attrs).map(([name, value]) => [name, Array.isArray(value) || typeof value !== "number" ? formatValue(value) : String(value)]),
        ["in passes", passesOf(program, node) || null],
        ["takes", node.inputs.map((source) => program.nodes[source].op).join(", ") || null],
      ]),
      node.slots.length ? this.part("Source", this.sources(node.slots.map((slot) => reads[slot]))) : null,
    ];
  }
}
