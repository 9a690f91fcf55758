// A box for each kind of item: what it says in the picture, and to a screen reader.
"use strict";

function nodeOf(tree, item, open, size) {
  const { graph } = tree;
  const siblings = item.parent ? tree.children(item.parent) : tree.roots;
  const node = el("div", {
    class: `node ${item.kind}${item.top && !size.dense ? " card" : ""}${item.top ? " top" : ""}`,
    role: "treeitem",
    "data-id": item.id,
    "aria-level": item.level,
    "aria-setsize": siblings.length,
    "aria-posinset": siblings.indexOf(item) + 1,
    "aria-label": spoken(tree, item),
  });
  const head = el("div", { class: "head" });
  if (tree.canUnfold(item)) head.append(el("span", { class: "fold", "aria-hidden": "true" }, open ? "−" : "+"));
  head.append(el("div", { class: "words" }, ...linesOf(tree, item, size)));
  node.append(head);
  if (open && item.kind === "tensor") node.append(opEdges(tree, item));
  if (item.model) node.style.setProperty("--mark", graph.models.find((each) => each === item.model).colour);
  if (item.kind === "op") {
    const tint = tintsOf(tree, item.parent)[item.node.id];
    if (tint) node.style.setProperty("--mark", tint);
  }
  return node;
}

function linesOf(tree, item, { narrow, dense }) {
  const { graph } = tree;
  const line = (kind, ...parts) => el("div", { class: kind }, ...parts);
  if (item.kind === "model") {
    const letter = markOf(graph, item.model.mark);
    if (narrow) return [letter];
    const layers = item.model.layers ? ` · ${counted(item.model.layers, "layer")}` : "";
    return [line("title", letter, " ", el("span", {}, item.title)), line("note", `${formatBytes(item.model.bytes)}${layers}`, item.model.base ? el("span", { class: "badge" }, "base") : null)];
  }
  if (item.kind === "shard" || item.kind === "shards") {
    if (narrow) return [line("title", item.short)];
    return [line("title", item.kind === "shards" ? item.title : shortShard(item.title)), line("note", item.shard ? `${formatBytes(item.bytes)} · ${counted(item.shard.tensors, "tensor")}` : formatBytes(item.bytes))];
  }
  if (item.kind === "op") {
    const [first, second] = opLines(item.node);
    const marks = item.node.slots.map((slot) => markOf(graph, readsOf(graph, item.tensors[0])[slot].model));
    const passes = passesOf(item.program, item.node);
    return [line("title", first.trim(), ...marks.slice(0, 3).flatMap((mark) => [" ", mark]), marks.length > 3 ? "…" : null,
      passes ? el("small", { class: "passes", title: `in pass ${passes}` }, passes) : null), second ? line("note", second) : null];
  }
  const marks = el("span", { class: "from" }, ...sourcesOf(tree, item));
  if (item.top && !dense) {
    const steps = [...waysOf(graph, item.kinds).keys()];
    const made = el("span", { class: "made" }, steps.length > 2 ? `made in ${steps.length} ways` : steps.join(" · "));
    const about = item.kind === "tensor" ? shapeOf(tree, item) : counted(item.tensors.length, "tensor");
    return [
      line("title", el("span", { class: "name", title: clean(item.title) }, clean(item.title))),
      line("note", `${formatBytes(item.bytes)} · ${about}`),
      item.kind === "group" ? line("note steps", made) : null,
      line("sources", item.marks.size ? marks : el("span", { class: "note" }, "read from no model")),
      item.kind === "group" ? layerStrip(tree, item) : null,
    ];
  }
  const about = item.kind === "tensor" ? shapeOf(tree, item) : item.kind === "pattern" ? `${counted(item.tensors.length, "tensor")} · ${formatBytes(item.bytes)}` : formatBytes(item.bytes);
  return [line("title", el("span", { class: "name", title: clean(item.title) }, clean(item.title))), line("note", about), line("sources", marks)];
}

/** The steps of kinds with how many tensors are made so: kinds that differ only in numbers are one way. */
function waysOf(graph, numbers) {
  const found = new Map();
  for (const kind of graph.kinds) {
    if (numbers === null || numbers.includes(kind.number)) found.set(kind.steps, (found.get(kind.steps) ?? 0) + kind.tensors);
  }
  return found;
}

/** The edges of a tensor's op graph, below its head. */
function opEdges(tree, item) {
  const ops = opLayout(tree.programOf(item)), tints = tintsOf(tree, item);
  return svg("svg", { class: "ops", width: ops.w, height: ops.h, "aria-hidden": "true" }, ...ops.edges.map((edge) =>
    svg("path", { d: opPath(edge.points), "marker-end": "url(#arrow)", style: tints[edge.from] ? `stroke:${tints[edge.from]}` : null })));
}

/** A stripe a layer, in the colours of the models that it reads, each as high as its share of the bytes. */
function layerStrip(tree, item) {
  const layers = tree.children(item).filter((each) => each.kind === "layer");
  if (!layers.length) return null;
  const gap = Math.min(0.16, layers.length * 0.004);
  const parts = layers.flatMap((layer, at) => {
    const sum = [...layer.marks.values()].reduce((a, b) => a + b, 0);
    let y = 0;
    return [...layer.marks].map(([mark, bytes]) => {
      const height = sum ? bytes / sum : 0;
      const part = svg("rect", { x: at + gap / 2, y, width: 1 - gap, height, style: `fill:${tree.graph.models.find((each) => each.mark === mark)?.colour}` });
      y += height;
      return part;
    });
  });
  return svg("svg", { class: "strip", viewBox: `0 0 ${layers.length} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...parts);
}

function shapeOf(tree, item) {
  const { shape, dtype } = tree.programOf(item).nodes.at(-1);
  return `${shape.join(" × ") || "scalar"} ${shortDtype(dtype)}`;
}

function shortDtype(name) {
  return name.replace("bfloat", "bf").replace("float", "f");
}

/** `model-00001-of-00004.safetensors` as `shard 1 of 4`. */
function shortShard(name) {
  const match = /-0*(\d+)-of-0*(\d+)\./.exec(name);
  return match ? `shard ${match[1]} of ${match[2]}` : clean(name);
}

/** The marks of the models with their layers; models that give the same layers share the words. */
function sourcesOf(tree, item) {
  const byLayers = new Map();
  for (const { mark, layers } of givenOf(tree, item)) byLayers.set(layers, [...(byLayers.get(layers) ?? []), mark]);
  return [...byLayers].map(([layers, marks]) => el("span", { class: "given" }, ...marks.flatMap((mark) => [markOf(tree.graph, mark), " "]), layers));
}

/** Models with their layers, as the groups say; a single layer says the ones that its tensors come from. */
function givenOf(tree, item) {
  if (item.groups) {
    const found = new Map();
    for (const group of item.groups) for (const given of group.from) found.set(given.model, [...(found.get(given.model) ?? []), given]);
    return [...found].map(([mark, given]) => ({ mark, layers: given.length === 1 ? given[0].layers : `${given[0].ranges[0][0]}–${given.at(-1).ranges[0][1]}` }));
  }
  const stack = topOf(item).groups[0].stack;
  const found = new Map([...item.marks.keys()].map((mark) => [mark, new Set()]));
  if (item.kind === "layer" && stack !== null) {
    for (const tensor of item.tensors.slice(0, 64)) {
      for (const read of readsOf(tree.graph, tensor)) {
        const number = read.name.startsWith(`${stack}.`) ? Number.parseInt(read.name.slice(stack.length + 1), 10) : Number.NaN;
        if (!Number.isNaN(number)) found.get(read.model)?.add(number);
      }
    }
  }
  return [...found].map(([mark, layers]) => ({ mark, layers: [...layers].join(" ") }));
}

function topOf(item) {
  let top = item;
  while (top.parent) top = top.parent;
  return top;
}

/** What a screen reader says of an item. */
function spoken(tree, item) {
  const { graph } = tree;
  const models = (marks) => (marks?.size ? `, from ${[...marks.keys()].join(", ")}` : "");
  switch (item.kind) {
    case "model": return `Model ${item.model.mark}: ${clean(item.model.reference)}${item.model.base ? ", base" : ""}, ${formatBytes(item.model.bytes)}`;
    case "shard": return `Shard ${clean(item.title)}, ${formatBytes(item.bytes)}`;
    case "shards": return `${item.title}, ${formatBytes(item.bytes)}`;
    case "op": {
      const [, second] = opLines(item.node), { op, slots, dtype, space } = item.node;
      const from = [...new Set(slots.map((slot) => readsOf(graph, item.tensors[0])[slot].model))].join(", ");
      return [from ? `${op} ${from}` : op, second === dtype ? "" : second, `${dtype} ${space}`].filter(Boolean).join(", ");
    }
    case "tensor": return `${clean(item.title)}, ${shapeOf(tree, item)}, ${formatBytes(item.bytes)}${models(item.marks)}`;
    default: return `${clean(item.title)}, ${counted(item.tensors.length, "tensor")}, ${formatBytes(item.bytes)}${models(item.marks)}`;
  }
}
