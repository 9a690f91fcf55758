// The graph document: unpacked from the page, with its long lists as columns, and words for its numbers.
"use strict";

/** The document in the page: base64 of zlib of JSON. */
async function readDocument(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

/**
 * Columns as typed arrays, offsets as they are in the files. The page stores of an offset only how far it is from where
 * the tensor before it in the same file would end, which is nearly always 0.
 */
function unpack(data) {
  const columns = data.tensors;
  const count = columns.names.length;
  const numbers = (list) => Float64Array.from(list);
  const bytes = numbers(columns.bytes);
  const offset = numbers(columns.gap);
  const ends = new Float64Array(data.shards.length);
  for (let index = 0; index < count; index++) {
    const shard = columns.shard[index];
    offset[index] += ends[shard];
    ends[shard] = offset[index] + bytes[index];
  }
  const reads = columns.reads;
  const firstRead = new Uint32Array(count + 1);
  const readOffset = numbers(reads.gap);
  const fileEnds = new Float64Array(columns.files.length);
  for (let index = 0, at = 0; index < count; index++) {
    firstRead[index] = at;
    for (const end = at + columns.counts[index]; at < end; at++) {
      readOffset[at] += fileEnds[reads.file[at]];
      fileEnds[reads.file[at]] = readOffset[at] + bytes[index];
    }
    firstRead[index + 1] = at;
  }
  const done = numbers(data.timeline.step);
  for (let row = 1; row < done.length; row++) done[row] += done[row - 1];
  return {
    ...data,
    models: data.models.map((model, index) => ({ ...model, colour: `var(--model-${index % 8})` })),
    tensors: {
      count, bytes, offset, firstRead, readOffset,
      names: columns.names,
      lower: columns.names.map((name) => name.toLowerCase()),
      program: Uint32Array.from(columns.program),
      group: Uint32Array.from(columns.group),
      shard: Uint32Array.from(columns.shard),
      readFile: Uint32Array.from(reads.file),
      readName: reads.name,
      files: columns.files,
      sameAs: new Map(columns.same_as.filter(([, other]) => typeof other === "number")),
      sameName: new Map(columns.same_as.filter(([, other]) => typeof other === "string")),
    },
    timeline: { ...data.timeline, done },
  };
}

/** What a tensor reads: model, file, offset and name, by slot. */
function readsOf(graph, tensor) {
  const { firstRead, readFile, readOffset, readName, files, names } = graph.tensors;
  const found = [];
  for (let at = firstRead[tensor]; at < firstRead[tensor + 1]; at++) {
    const [mark, file] = files[readFile[at]];
    found.push({ model: mark, file, offset: readOffset[at], name: readName[at] || names[tensor] });
  }
  return found;
}

/** The marks of the models that a tensor reads, each once. */
function marksOf(graph, tensor) {
  const { firstRead, readFile, files } = graph.tensors;
  const found = new Set();
  for (let at = firstRead[tensor]; at < firstRead[tensor + 1]; at++) found.add(files[readFile[at]][0]);
  return found;
}

// ------------------------------------------------------------------------------------------------ words

/** A size with a binary unit and three significant digits. */
function formatBytes(size) {
  let value = size, unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; unit++; }
  if (unit === 0) return `${value} B`;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

/** A count with its thousands apart. */
function formatCount(count) {
  return String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** `1 tensor`, `4 tensors`. */
function counted(count, one, many = `${one}s`) {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

/** A duration as people say it. */
function formatSeconds(seconds) {
  if (seconds < 0.0005) return "under 1 ms";
  if (seconds < 1) return `${(seconds * 1000).toPrecision(2)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A name as visible characters: what would turn or break a line is written as its code. */
function clean(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, (letter) =>
    `\\u${letter.codePointAt(0).toString(16).padStart(4, "0")}`);
}

/** An attribute's value in few digits. */
function formatValue(value) {
  if (Array.isArray(value)) return `[${value.map(formatValue).join(", ")}]`;
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(4)));
  return typeof value === "number" ? formatCount(value) : clean(value);
}

/** The last part of a model's reference: what tells it apart where there is little room. */
function shortReference(reference) {
  return clean(reference.replace(/[\\/]+$/, "").split(/[\\/]/).pop() || reference);
}

// ------------------------------------------------------------------------------------------------ elements

/** An element; strings among its children become text, never markup. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) made.style.setProperty(name, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A long name that may be broken where its parts are, and elsewhere only if it must. */
function breakable(name) {
  return clean(name).split(/(?<=[._/-])/).flatMap((part, at) => (at ? [el("wbr"), part] : [part]));
}

/** A model's letter on its colour. */
function markOf(graph, letter) {
  const model = graph.models.find((each) => each.mark === letter);
  return el("span", { class: "mark", "--mark": model?.colour, title: model && clean(model.reference) }, letter);
}
