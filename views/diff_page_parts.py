"""Style and behaviour of the page of a comparison."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1c20; --soft: #5a6070; --line: #d5d9e0; --hot: #f29a4a; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15171b; --ink: #e8eaee; --soft: #a3aab8; --line: #363b45; --hot: #98430f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; font-weight: 500; overflow-wrap: anywhere; }
h1 span { font-weight: 700; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }
header p, caption, dt, .legend, #found { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.5rem; margin: 0; }
dt { grid-column: 1; } dd { grid-column: 2; margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
th[scope=row] { font-weight: 400; }
.number { text-align: right; }
[style*="--heat"] { background: color-mix(in srgb, var(--hot) calc(var(--heat) * 100%), var(--ground)); }
.heat td { text-align: right; padding: .15rem .4rem; min-width: 3.6rem; border: 1px solid var(--ground); }
.heat th { border: 0; } .heat th[scope=row] { text-align: right; color: var(--soft); }
.heat thead th { vertical-align: bottom; }
.heat thead th span { writing-mode: vertical-rl; transform: rotate(180deg); }
.heat td:focus, button:focus-visible, input:focus-visible, summary:focus-visible {
  outline: 3px solid #3b7ddd; outline-offset: -1px; }
.ramp { display: inline-block; width: 10rem; height: .8em; border: 1px solid var(--line);
  background: linear-gradient(to right, var(--ground), var(--hot)); }
#detail { position: sticky; bottom: 0; margin: .5rem 0; padding: .5rem 0; background: var(--ground);
  border-top: 1px solid var(--line); min-height: 3.4rem; }
button { all: unset; cursor: pointer; font-weight: 700; } button::after { content: " ↕"; color: var(--soft); }
[aria-sort=ascending] button::after { content: " ↑"; } [aria-sort=descending] button::after { content: " ↓"; }
input { font: inherit; padding: .2rem .5rem; width: 20rem; max-width: 100%; }
"""

SCRIPT = """
"use strict";
const detail = document.getElementById("detail");
for (const table of document.querySelectorAll("table.heat")) {
  const rows = [...table.tBodies[0].rows];
  const first = table.querySelector("td[tabindex]");
  if (first) first.tabIndex = 0;
  const tell = (event) => {
    const cell = event.target.closest("td[tabindex]");
    if (cell) detail.textContent = cell.title;
  };
  table.addEventListener("pointerover", tell);
  table.addEventListener("focusin", tell);
  table.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const cell = event.target.closest("td[tabindex]");
    if (!step || !cell) return;
    event.preventDefault();
    let row = rows.indexOf(cell.parentElement), column = cell.cellIndex, next = null;
    do {
      row += step[0]; column += step[1];
      next = rows[row] && rows[row].cells[column];
    } while (next && next.tagName === "TD" && !next.hasAttribute("tabindex"));
    if (!next || !next.hasAttribute("tabindex")) return;
    cell.tabIndex = -1; next.tabIndex = 0; next.focus();
  });
}
const all = document.getElementById("all"), search = document.getElementById("search");
const found = document.getElementById("found"), body = all.tBodies[0];
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\\s+/);
  let shown = 0;
  for (const row of body.rows) {
    const name = row.cells[0].textContent.toLowerCase();
    row.hidden = !words.every((word) => name.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  found.textContent = shown === 1 ? "1 tensor" : `${shown} tensors`;
});
all.tHead.addEventListener("click", (event) => {
  const head = event.target.closest("th");
  if (!head) return;
  const column = head.cellIndex, down = head.getAttribute("aria-sort") !== "descending";
  for (const other of all.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (row) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent;
    return cell.dataset.value === "" ? -Infinity : cell.dataset.value === "inf" ? Infinity : Number(cell.dataset.value);
  };
  const compare = (a, b) => { const x = key(a), y = key(b); return x < y ? -1 : x > y ? 1 : 0; };
  const sorted = [...body.rows].sort((a, b) => (down ? -compare(a, b) : compare(a, b)));
  body.append(...sorted);
});
"""
