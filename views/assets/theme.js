// Light or dark: what the system says, until the button with data-theme-toggle is pressed; remembered where allowed.
"use strict";
(() => {
  const root = document.documentElement;
  const asked = matchMedia("(prefers-color-scheme: dark)");
  try {
    const kept = localStorage.getItem("plait-theme");
    if (kept === "light" || kept === "dark") root.dataset.theme = kept;
  } catch { /* A page that is opened as a file may have no storage. */ }
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : asked.matches);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-toggle]");
    if (!button) return;
    const tell = () => button.setAttribute("aria-pressed", String(dark()));
    button.addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      try { localStorage.setItem("plait-theme", root.dataset.theme); } catch { /* as above */ }
      tell();
    });
    asked.addEventListener("change", tell);
    tell();
  });
})();
