// The page of a comparison: the table of all tensors is searched and sorted.
"use strict";
const all = document.getElementById("all"), search = document.getElementById("search");
const found = document.getElementById("found"), body = all.tBodies[0];
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/);
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
