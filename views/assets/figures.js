// Heat maps: the figure that cells show is chosen, pointer and arrow keys have them tell all of it.
"use strict";
for (const choice of document.querySelectorAll("[data-figures]")) {
  const section = choice.closest("section");
  const show = () => {
    const figure = choice.querySelector("input:checked").value;
    for (const legend of section.querySelectorAll(".legend[data-figure]")) legend.hidden = legend.dataset.figure !== figure;
    for (const table of section.querySelectorAll("table.heat")) {
      table.dataset.figure = figure;
      for (const cell of table.querySelectorAll("td[data-l]")) cell.textContent = cell.dataset[figure];
    }
  };
  choice.addEventListener("change", show);
  show();
}
for (const table of document.querySelectorAll("table.heat")) {
  const rows = [...table.tBodies[0].rows];
  const first = table.querySelector("td[tabindex]");
  if (first) first.tabIndex = 0;
  const detail = table.closest("section").querySelector(".detail");
  const tell = (event) => {
    const cell = event.target.closest("td[tabindex]");
    if (cell) detail.textContent = cell.title;
  };
  // A pointer that lies still says nothing: what scrolls beneath it is not what the keyboard asks about.
  table.addEventListener("pointermove", (event) => { if (event.movementX || event.movementY) tell(event); });
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
