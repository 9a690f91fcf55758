// What can be seen and unfolded: models, groups of layers, layers, patterns of names, tensors, ops, shards.
"use strict";

/** Tensors in a row that are listed one by one; more of them are folded by the pattern of their names. */
const MOST_LISTED = 24;
/** Shards that have a box each. */
const MOST_SHARDS = 12;

/**
 * The items of a graph. An item has `id`, `kind`, `title`, `level`, `parent`; those made of tensors have their indices
 * in `tensors`, in the output's order. Children are made when they are first asked for.
 */
class Tree {
  constructor(graph) {
    this.graph = graph;
    this.known = new Map();
    this.models = graph.models.map((model) => this.add({ id: `m:${model.mark}`, kind: "model", title: shortReference(model.reference), model }));
    this.groups = this.topGroups();
    this.shards = this.topShards();
    this.roots = [...this.models, ...this.groups, ...this.shards];
  }

  add(item, parent = null) {
    item.parent = parent;
    item.level = parent ? parent.level + 1 : 1;
    this.known.set(item.id, item);
    return item;
  }

  get(id) { return this.known.get(id); }

  /** The folded output: patterns that repeat stand for the groups in them, and groups that go on with one another are one. */
  topGroups() {
    const { graph } = this;
    const byGroup = graph.groups.map(() => []);
    graph.tensors.group.forEach((group, tensor) => byGroup[group].push(tensor));
    const runs = [];
    for (const group of graph.groups) {
      if (group.parent !== null) continue;
      const parts = group.times > 1 ? graph.groups.filter((each) => each.parent === group.id) : [];
      const last = runs[runs.length - 1];
      if (last && this.continues(last.groups[last.groups.length - 1], group)) last.groups.push(group);
      else runs.push({ groups: [group], parts });
      const into = runs[runs.length - 1];
      into.tensors = [...(into.tensors ?? []), ...[group, ...parts].flatMap((each) => byGroup[each.id])];
    }
    return runs.filter((run) => run.tensors.length).map(({ groups, parts, tensors }) => {
      tensors.sort((a, b) => a - b);
      const first = groups[0], last = groups[groups.length - 1];
      const title = groups.length > 1 ? `${first.stack}.${first.first_layer}–${last.last_layer}` : first.title;
      const id = `g:${first.id}`;
      const item = { id, kind: tensors.length === 1 ? "tensor" : "group", title, groups, parts, tensors, top: true };
      if (tensors.length === 1) item.title = graph.tensors.names[tensors[0]];
      item.kinds = [...new Set([...groups, ...parts].flatMap((group) => group.kinds))];
      return this.add(Object.assign(item, this.sums(tensors)));
    });
  }

  /** Whether a group is the next layers of the same models, with the same tensors and steps: only its numbers differ. */
  continues(before, group) {
    const steps = (each) => [...new Set(each.kinds.map((number) => this.graph.kinds.find((kind) => kind.number === number)?.steps))].join();
    return before.stack !== null && before.stack === group.stack && before.times === 1 && group.times === 1 &&
      steps(before) === steps(group) && before.members.length === group.members.length &&
      before.members.every((member, index) => member.name === group.members[index].name) && before.from.length === group.from.length &&
      before.from.every((given, index) => {
        const next = group.from[index], end = given.ranges[0], start = next.ranges[0];
        return given.model === next.model && end && start && start[0] === end[1] + 1;
      });
  }

  topShards() {
    const { shards } = this.graph;
    const one = (shard, number, parent) =>
      this.add({ id: `s:${number}`, kind: "shard", title: shard.name, short: String(number + 1), shard, numbers: [number], bytes: shard.bytes }, parent);
    if (shards.length <= MOST_SHARDS) return shards.map((shard, number) => one(shard, number, null));
    const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0);
    const all = this.add({ id: "s:all", kind: "shards", title: `${formatCount(shards.length)} shards`, short: `${shards.length}`, bytes, numbers: shards.map((_, number) => number) });
    all.children = shards.map((shard, number) => one(shard, number, all));
    return [all];
  }

  /** Bytes, models (bytes read from each) and shards (bytes written to each) of tensors. */
  sums(tensors) {
    const { graph } = this;
    const { bytes, shard, firstRead, readFile, files, program } = graph.tensors;
    const marks = new Map(), shards = new Map();
    let total = 0;
    for (const tensor of tensors) {
      total += bytes[tensor];
      shards.set(shard[tensor], (shards.get(shard[tensor]) ?? 0) + bytes[tensor]);
      const slots = this.slotBytes(program[tensor]);
      for (let at = firstRead[tensor], slot = 0; at < firstRead[tensor + 1]; at++, slot++) {
        const mark = files[readFile[at]][0];
        marks.set(mark, (marks.get(mark) ?? 0) + (slots[slot] ?? 0));
      }
    }
    return { bytes: total, marks: new Map(graph.models.filter((model) => marks.has(model.mark)).map((model) => [model.mark, marks.get(model.mark)])), shards };
  }

  /** What a program's loads read once, by slot. */
  slotBytes(number) {
    const program = this.graph.programs[number];
    if (!program.slots) {
      program.slots = [];
      for (const node of program.nodes) {
        for (const slot of node.slots) program.slots[slot] = (program.slots[slot] ?? 0) + (node.bytes ?? 0) / node.slots.length;
      }
    }
    return program.slots;
  }

  canUnfold(item) {
    return ["group", "layer", "pattern", "tensor", "shards"].includes(item.kind);
  }

  children(item) {
    if (!item.children) {
      if (item.kind === "group") item.children = this.layersOf(item) ?? this.listed(item, item.tensors);
      else if (item.kind === "layer") item.children = this.listed(item, item.tensors);
      else if (item.kind === "pattern") item.children = item.tensors.map((tensor) => this.tensor(item, tensor));
      else if (item.kind === "tensor") item.children = this.ops(item);
      else item.children = [];
    }
    return item.children;
  }

  /** The layers of a group of several; null where there is one, or none. */
  layersOf(group) {
    const { stack } = group.groups[0];
    if (stack === null) return null;
    const layers = new Map();
    for (const tensor of group.tensors) {
      const number = Number.parseInt(this.graph.tensors.names[tensor].slice(stack.length + 1), 10);
      if (!layers.has(number)) layers.set(number, []);
      layers.get(number).push(tensor);
    }
    if (layers.size < 2) return null;
    return [...layers].map(([number, tensors]) => this.add(
      { id: `${group.id}/l:${number}`, kind: "layer", title: `layer ${number}`, number, tensors, prefix: `${stack}.${number}.`, ...this.sums(tensors) }, group));
  }

  /** Tensors one by one; where they are many, those whose names differ in numbers only are one pattern. */
  listed(parent, tensors) {
    if (tensors.length <= MOST_LISTED) return tensors.map((tensor) => this.tensor(parent, tensor));
    const { names, program } = this.graph.tensors;
    const patterns = new Map();
    for (const tensor of tensors) {
      const key = `${patternOf(this.inner(parent, tensor))} ${program[tensor]}`;
      if (!patterns.has(key)) patterns.set(key, []);
      patterns.get(key).push(tensor);
    }
    return [...patterns.values()].flatMap((found, number) => {
      if (found.length < 3) return found.map((tensor) => this.tensor(parent, tensor));
      const title = patternTitle(found.map((tensor) => this.inner(parent, tensor)));
      const item = { id: `${parent.id}/p:${number}`, kind: "pattern", title, tensors: found, prefix: names[found[0]].slice(0, names[found[0]].length - this.inner(parent, found[0]).length), ...this.sums(found) };
      return [this.add(item, parent)];
    });
  }

  /** A tensor's name inside of its layer. */
  inner(parent, tensor) {
    let at = parent;
    while (at && at.prefix === undefined) at = at.parent;
    const name = this.graph.tensors.names[tensor];
    const { stack, first_layer: layer } = parent.groups?.[0] ?? {};
    const prefix = at?.prefix ?? (stack ? `${stack}.${layer}.` : "");
    return name.startsWith(prefix) ? name.slice(prefix.length) : name;
  }

  tensor(parent, tensor) {
    return this.add({ id: `t:${tensor}`, kind: "tensor", title: this.inner(parent, tensor), tensors: [tensor], ...this.sums([tensor]) }, parent);
  }

  ops(item) {
    const program = this.programOf(item);
    return program.nodes.map((node) => this.add({ id: `${item.id}/o:${node.id}`, kind: "op", title: node.op, node, program, tensors: item.tensors }, item));
  }

  programOf(item) { return this.graph.programs[this.graph.tensors.program[item.tensors[0]]]; }

  /** The items from the top down to a tensor's own. */
  pathTo(tensor) {
    const path = [];
    let among = this.groups;
    for (;;) {
      const next = among.find((item) => item.tensors?.includes(tensor));
      if (!next) return path;
      path.push(next);
      if (next.kind === "tensor") return path;
      among = this.children(next);
    }
  }
}

/** A name with its numbers left open: `mlp.experts.#.up_proj.weight`. */
function patternOf(name) {
  return name.replace(/(^|\.)\d+(?=\.|$)/g, "$1#");
}

/** `mlp.experts.0–383.up_proj.weight`: names that differ in numbers as one, each number from the least to the largest. */
function patternTitle(names) {
  const parts = names.map((name) => name.split("."));
  return parts[0].map((part, place) => {
    if (!/^\d+$/.test(part)) return part;
    const numbers = parts.map((each) => Number(each[place]));
    const low = numbers.reduce((a, b) => Math.min(a, b)), high = numbers.reduce((a, b) => Math.max(a, b));
    return low === high ? part : `${low}–${high}`;
  }).join(".");
}
