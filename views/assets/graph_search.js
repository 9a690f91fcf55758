// Search: every word has to be in a tensor's name; Enter goes to the one that is chosen.
"use strict";

const MOST_FOUND = 40;

class Search {
  constructor(graph, root, go) {
    this.graph = graph;
    this.input = root.querySelector("input");
    this.list = root.querySelector("[role=listbox]");
    this.says = root.querySelector("[role=status]");
    this.go = go;
    this.found = [];
    this.at = 0;
    this.listen(root);
  }

  /** Tensors whose names have all the words: first the ones that are called like the words, then in the output's order. */
  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return [];
    const { lower } = this.graph.tensors;
    const found = [], exact = words.join(" ");
    for (let index = 0; index < lower.length; index++) {
      if (words.every((word) => lower[index].includes(word))) found.push(index);
    }
    const same = found.findIndex((index) => lower[index] === exact);
    if (same > 0) found.unshift(...found.splice(same, 1));
    return found;
  }

  update() {
    this.found = this.find(this.input.value);
    this.at = 0;
    const options = this.found.slice(0, MOST_FOUND).map((index, at) =>
      el("div", { role: "option", id: `found-${at}`, class: "option", "aria-selected": String(at === 0) },
        el("span", {}, ...breakable(this.graph.tensors.names[index])),
        el("span", { class: "note" }, formatBytes(this.graph.tensors.bytes[index]))));
    this.list.replaceChildren(...options);
    const any = this.input.value.trim() !== "";
    const more = this.found.length > MOST_FOUND ? `, the first ${MOST_FOUND} are listed` : "";
    this.says.textContent = any ? `${this.found.length ? counted(this.found.length, "tensor") : "No tensor is called that"}${more}` : "";
    this.show(any);
  }

  show(on) {
    this.list.parentElement.hidden = !on;
    this.input.setAttribute("aria-expanded", String(on && this.found.length > 0));
    if (on && this.found.length) this.input.setAttribute("aria-activedescendant", `found-${this.at}`);
    else this.input.removeAttribute("aria-activedescendant");
  }

  step(by) {
    const shown = this.list.children;
    if (!shown.length) return;
    shown[this.at].setAttribute("aria-selected", "false");
    this.at = (this.at + by + shown.length) % shown.length;
    shown[this.at].setAttribute("aria-selected", "true");
    shown[this.at].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", `found-${this.at}`);
  }

  choose(at) {
    if (this.found[at] === undefined) return;
    this.show(false);
    this.go(this.found[at]);
  }

  listen(root) {
    this.input.addEventListener("input", () => this.update());
    this.input.addEventListener("focus", () => { if (this.input.value) this.update(); });
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") this.step(1);
      else if (event.key === "ArrowUp") this.step(-1);
      else if (event.key === "Enter") this.choose(this.at);
      else if (event.key === "Escape") {
        if (this.list.parentElement.hidden) this.input.value = "";
        this.show(false);
      } else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.choose([...this.list.children].indexOf(option));
    });
    root.addEventListener("focusout", (event) => { if (!root.contains(event.relatedTarget)) this.show(false); });
  }
}
