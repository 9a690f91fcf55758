// Parameters over the depth of a group: what the recipe's gradients and filters come to, layer by layer.
"use strict";

/**
 * The numbers that ops of a group's layers have, as series over the layers: of `op`, `name` (the attribute) and `mark`
 * (the model it is for, or null), with the tensors that have these values, and how many there are in a layer. Only
 * fractions: counts follow from shapes.
 */
function seriesOf(tree, group) {
  const layers = tree.children(group).filter((item) => item.kind === "layer");
  const found = new Map();
  layers.forEach((layer, at) => {
    for (const { inner, tensors } of alikeIn(tree, layer)) {
      const item = { kind: "tensor", tensors };
      const marks = modelsOfOps(tree, item);
      for (const node of tree.programOf(item).nodes) {
        for (const [name, value] of Object.entries(node.attrs)) {
          if (typeof value !== "number") continue;
          const key = JSON.stringify([inner, node.op, name, marks[node.id]]);
          if (!found.has(key)) found.set(key, { inner, count: tensors.length, op: node.op, name, mark: marks[node.id], values: new Array(layers.length).fill(null) });
          found.get(key).values[at] = value;
        }
      }
    }
  });
  const alike = [];
  for (const { inner, count, ...series } of found.values()) {
    if (series.values.every((value) => value === null || Number.isInteger(value))) continue;
    const same = alike.find((other) => close(other, series));
    if (same) { same.inners.push(inner); same.count += count; } else alike.push({ ...series, inners: [inner], count });
  }
  return { layers, series: alike };
}

/** Whether two series are of the same and have the same values; shares of elements are rounded by each shape. */
function close(a, b) {
  const high = a.values.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
  return a.op === b.op && a.name === b.name && a.mark === b.mark &&
    a.values.every((value, at) => (value === null) === (b.values[at] === null) && Math.abs((value ?? 0) - (b.values[at] ?? 0)) <= 0.003 * high);
}

/** A layer's tensors, those together whose names differ in numbers only and that have the same op graph. */
function alikeIn(tree, layer) {
  const { names, program } = tree.graph.tensors;
  const patterns = new Map();
  for (const tensor of layer.tensors) {
    const inner = patternOf(names[tensor].slice(layer.prefix.length));
    if (!patterns.has(inner)) patterns.set(inner, new Map());
    const byProgram = patterns.get(inner);
    if (!byProgram.has(program[tensor])) byProgram.set(program[tensor], []);
    byProgram.get(program[tensor]).push(tensor);
  }
  return [...patterns].flatMap(([inner, byProgram]) => [...byProgram.values()].map((tensors, number) => ({ inner: number ? `${inner} (${number + 1})` : inner, tensors })));
}

/** The series as rows of small bars, from 0 to the largest. */
function depthRows(tree, group) {
  const { layers, series } = seriesOf(tree, group);
  return series.slice(0, 16).map(({ op, name, mark, values, inners, count }) => {
    const known = values.filter((value) => value !== null);
    const low = Math.min(...known), high = Math.max(...known);
    const model = tree.graph.models.find((each) => each.mark === mark);
    const bars = values.map((value, at) => {
      const height = value === null || high <= 0 ? 0 : Math.max(value, 0) / high;
      return svg("rect", { x: at + 0.1, y: 1 - height, width: 0.8, height });
    });
    const words = low === high ? formatValue(low) : `${formatValue(known[0])} … ${formatValue(known.at(-1))}`;
    const of = inners.length === 1 ? inners[0] : count === layers[0].tensors.length ? "all tensors" : `${formatCount(count)} of ${counted(layers[0].tensors.length, "tensor")} a layer`;
    return el("li", {},
      el("div", {}, mark ? markOf(tree.graph, mark) : null, ` ${op} ${name} `, el("b", {}, words)),
      svg("svg", { class: "bars", viewBox: `0 0 ${layers.length} 1`, preserveAspectRatio: "none", role: "img",
        "aria-label": `${op} ${name}, layer by layer: ${values.map((value) => (value === null ? "none" : formatValue(value))).join(", ")}`,
        style: model ? `--mark:${model.colour}` : null }, ...bars),
      el("div", { class: "note break" }, ...breakable(of)));
  });
}
