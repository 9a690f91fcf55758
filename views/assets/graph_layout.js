// Where everything stands: models, the output and shards as three columns; inside of a tensor, dagre lays out the ops.
"use strict";

const ROOMY = { model: [244, 50], group: [330, 98], single: [330, 74], shard: [164, 50], row: 32, gap: 11, between: 68, pad: 8 };
/** On a narrow page models and shards are a letter and a number, so that all three columns fit beside each other. */
const NARROW = { narrow: true, model: [42, 40], group: [242, 98], single: [242, 74], shard: [40, 40], row: 54, gap: 10, between: 20, pad: 6 };
/** Where the output has many parts each is a line, so that a pattern of slices is seen at a glance. */
const SIZES = [ROOMY, NARROW, { ...ROOMY, dense: true, group: [410, 36], single: [410, 36], gap: 5 }, { ...NARROW, dense: true, group: [242, 56], single: [242, 56], gap: 5 }];
const MOST_CARDS = 12;

/** The measures for a page of some width and a number of groups. */
function sizeFor(width, groups) {
  return SIZES[(width < 640 ? 1 : 0) + (groups > MOST_CARDS ? 2 : 0)];
}

/** Op graphs by program: tensors that are made alike look alike, and are laid out once. */
const opLayouts = new WeakMap();

function opLayout(program) {
  if (!opLayouts.has(program)) {
    const flow = new dagre.graphlib.Graph().setGraph({ rankdir: "TB", nodesep: 14, ranksep: 26, marginx: 10, marginy: 10 });
    flow.setDefaultEdgeLabel(() => ({}));
    for (const node of program.nodes) {
      const [first, second] = opLines(node);
      const letters = Math.max(first.length * 1.2 + passesOf(program, node).length, second.length * 0.95);
      flow.setNode(String(node.id), { width: Math.round(Math.min(Math.max(letters * 7 + 30, 84), 200)), height: second ? 42 : 30 });
    }
    for (const node of program.nodes) for (const source of new Set(node.inputs)) flow.setEdge(String(source), String(node.id));
    dagre.layout(flow);
    const { width, height } = flow.graph();
    const boxes = program.nodes.map((node) => {
      const { x, y, width: w, height: h } = flow.node(String(node.id));
      return { x: Math.round(x - w / 2), y: Math.round(y - h / 2), w, h };
    });
    const edges = flow.edges().map((edge) => ({ from: Number(edge.v), to: Number(edge.w), points: flow.edge(edge).points }));
    // The first model stands on the left, as it does everywhere else.
    const loads = boxes.filter((_, at) => program.nodes[at].slots.length);
    if (loads.length && loads[0].x > loads.at(-1).x) {
      for (const box of boxes) box.x = Math.round(width - box.x - box.w);
      for (const edge of edges) edge.points = edge.points.map(({ x, y }) => ({ x: width - x, y }));
    }
    opLayouts.set(program, { w: Math.ceil(width), h: Math.ceil(height), boxes, edges });
  }
  return opLayouts.get(program);
}

/** The passes that an op runs in, where there are several: `1–3`, `2, 4`. */
function passesOf(program, node) {
  if (program.passes.length < 2) return "";
  const numbers = program.passes.flatMap((pass, at) => (pass.nodes.includes(node.id) ? [at + 1] : []));
  const runs = [];
  for (const number of numbers) {
    if (runs.length && runs.at(-1)[1] === number - 1) runs.at(-1)[1] = number; else runs.push([number, number]);
  }
  return runs.map(([low, high]) => (low === high ? `${low}` : `${low}–${high}`)).join(", ");
}

/** What an op's box says: its name, and its parameters or its dtype. */
function opLines(node) {
  const attrs = Object.entries(node.attrs).map(([name, value]) => `${name} ${formatValue(value)}`).join(", ");
  const first = node.slots.length ? `${node.op}   ` : node.op;
  return [first, attrs.length > 26 ? `${attrs.slice(0, 25)}…` : attrs || (node.op === "cast" || node.slots.length || node.op === "write" ? node.dtype : "")];
}

/**
 * Boxes of all items that can be seen, by id, and the items in the order in which they are read. World units are
 * pixels at a zoom of 1.
 */
function layout(tree, open, size) {
  const boxes = new Map(), order = [];

  function measure(item) {
    const isOpen = open.has(item.id);
    const stripe = !size.dense && item.kind === "group" && tree.children(item)[0].kind === "layer" ? 14 : 0;
    const [w, least] = item.kind === "model" ? size.model
      : item.kind === "shard" || item.kind === "shards" ? size.shard
      : item.top ? (item.kind === "tensor" ? size.single : size.group)
      : [0, size.row];
    const h = least + stripe;
    if (!isOpen) return { item, w: w || rowWidth(item, size), h, head: h, below: [] };
    if (item.kind === "tensor") {
      tree.children(item);
      const ops = opLayout(tree.programOf(item));
      return { item, w: Math.max(w || rowWidth(item, size), ops.w + 2 * size.pad), h: h + ops.h + size.pad, head: h, below: [], ops };
    }
    const below = tree.children(item).map(measure);
    const gap = 4;
    const inner = below.reduce((sum, each) => sum + each.h + gap, 0);
    const widest = below.reduce((most, each) => Math.max(most, each.w), 0);
    return { item, w: Math.max(w, widest + 2 * size.pad), h: h + inner + size.pad, head: h, below, gap };
  }

  function place(found, x, y, w, column) {
    const { item } = found;
    boxes.set(item.id, { x, y, w, h: found.h, head: found.head, column, open: open.has(item.id) });
    order.push(item);
    if (found.ops) {
      const left = x + Math.round((w - found.ops.w) / 2), top = y + found.head;
      item.children.forEach((child, at) => {
        const { x: dx, y: dy, w: width, h } = found.ops.boxes[at];
        boxes.set(child.id, { x: left + dx, y: top + dy, w: width, h, head: h, column, open: false });
        order.push(child);
      });
    }
    let at = y + found.head;
    for (const each of found.below) {
      place(each, x + size.pad, at, w - 2 * size.pad, column);
      at += each.h + found.gap;
    }
  }

  function column(items, x, number) {
    const measured = items.map(measure);
    const w = measured.reduce((most, each) => Math.max(most, each.w), 0);
    const h = measured.reduce((sum, each) => sum + each.h + size.gap, -size.gap);
    let y = 0;
    for (const each of measured) {
      place(each, x, y, w, number);
      y += each.h + size.gap;
    }
    return { x, w, h: Math.max(h, 0) };
  }

  const models = column(tree.models, 0, 0);
  const output = column(tree.groups, models.x + models.w + size.between, 1);
  const shards = column(tree.shards, output.x + output.w + size.between, 2);
  return { boxes, order, columns: [models, output, shards], w: shards.x + shards.w, h: Math.max(models.h, output.h, shards.h) };
}

function rowWidth(item, size) {
  return size.narrow ? 200 : Math.min(Math.max(190 + item.title.length * 7.2, 300), 560);
}

/**
 * How far down the columns of models and shards stand: in the middle of the output where that is small, else beside
 * what is in view, so that where a layer comes from stays in sight.
 */
function columnShift(placed, number, view) {
  const height = placed.columns[number].h;
  if (number === 1) return Math.max((placed.h - placed.columns[1].h) / 2, 0);
  const middle = placed.h <= view.h ? placed.h / 2 : Math.min(Math.max(view.y + view.h / 2, view.h / 2), placed.h - view.h / 2);
  return Math.min(Math.max(middle - height / 2, 0), Math.max(placed.h - height, 0));
}

/** A path that leaves to the right and arrives from the left. */
function flowPath(x1, y1, x2, y2) {
  const bend = Math.max((x2 - x1) / 2, 12);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

/** A smooth path along the points that dagre gives an edge. */
function opPath(points) {
  const [first, ...rest] = points;
  let path = `M${first.x} ${first.y}`;
  rest.forEach((point, at) => {
    const next = rest[at + 1];
    path += next ? `Q${point.x} ${point.y} ${(point.x + next.x) / 2} ${(point.y + next.y) / 2}` : `L${point.x} ${point.y}`;
  });
  return path;
}

/** Edges between the columns: what groups read from models and write into shards, with the bytes. */
function flows(tree) {
  const found = [];
  for (const group of tree.groups) {
    for (const [mark, bytes] of group.marks) found.push({ from: `m:${mark}`, to: group.id, bytes, mark });
    const into = tree.shards.length === 1 && tree.shards[0].kind === "shards" ? new Map([["s:all", group.bytes]])
      : new Map([...group.shards].sort(([a], [b]) => a - b).map(([number, bytes]) => [`s:${number}`, bytes]));
    for (const [id, bytes] of into) found.push({ from: group.id, to: id, bytes, mark: null });
  }
  return found;
}
