// The page of a report: one input's maps at a time.
"use strict";
for (const choice of document.querySelectorAll("[data-inputs]")) {
  const section = choice.closest("section");
  const show = () => {
    const wanted = choice.querySelector("input:checked").value;
    for (const part of section.querySelectorAll("[data-input]")) part.hidden = part.dataset.input !== wanted;
  };
  choice.addEventListener("change", show);
  show();
}
