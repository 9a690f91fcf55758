// Pan and zoom: wheel, drag, pinch, buttons, keys. The camera is where the world's corner stands, and the zoom.
"use strict";

const LEAST_ZOOM = 0.12, MOST_ZOOM = 2.5;
/** Text is not made smaller than this when the picture is fitted: what does not fit is panned to. */
const LEAST_FIT = 0.74;

class Camera {
  constructor(view, canvas) {
    this.view = view;
    this.canvas = canvas;
    this.x = 0; this.y = 0; this.k = 1;
    this.pending = false;
    this.moved = false;
    this.fitted = true;
    this.pointers = new Map();
    view.camera = this;
    this.listen();
  }

  /** Draw once in the next frame. */
  changed() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.view.draw(); });
  }

  pan(dx, dy) { this.x += dx; this.y += dy; this.fitted = false; this.keep(); this.changed(); }

  /** Zoom by a factor around a point of the canvas. */
  zoom(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const k = Math.min(Math.max(this.k * factor, LEAST_ZOOM), MOST_ZOOM);
    this.x = px - ((px - this.x) * k) / this.k;
    this.y = py - ((py - this.y) * k) / this.k;
    this.k = k;
    this.fitted = false;
    this.keep();
    this.changed();
  }

  /** Some of the picture stays in view. */
  keep() {
    const { w, h } = this.view.placed, edge = 60;
    this.x = Math.min(Math.max(this.x, edge - w * this.k), this.canvas.clientWidth - edge);
    this.y = Math.min(Math.max(this.y, edge - h * this.k), this.canvas.clientHeight - edge);
  }

  /** All of the picture, or, where that would be too small to read, all of its width from the top. */
  fit() {
    const { w, h } = this.view.placed;
    const { clientWidth, clientHeight } = this.canvas;
    const room = clientWidth < 640 ? 10 : 28;
    const { narrow } = this.view.size;
    const below = narrow ? 48 : 0;  // the buttons
    const across = (clientWidth - 2 * room) / w, down = (clientHeight - 2 * room - below) / h;
    const whole = Math.min(across, down);
    this.k = whole < LEAST_FIT ? Math.min(across, 1) : Math.min(whole, 1.15);
    this.x = (clientWidth - w * this.k) / 2;
    this.y = h * this.k > clientHeight - 2 * room - below ? room : (clientHeight - below - h * this.k) / 2;
    this.fitted = true;
    this.changed();
  }

  /** The size of the canvas that is in sight: on a narrow page the details lie over it. */
  room() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    const sheet = document.querySelector("#panel.raised");
    if (!sheet || getComputedStyle(sheet).position !== "fixed") return { w, h };
    if (sheet.offsetWidth < innerWidth) return { w: Math.max(innerWidth - sheet.offsetWidth, 80), h };
    return { w, h: Math.max(Math.min(h, innerHeight - sheet.offsetHeight - this.canvas.getBoundingClientRect().top), 80) };
  }

  /** Whether details lie over a part of the canvas. */
  covered() {
    const { w, h } = this.room();
    return w < this.canvas.clientWidth || h < this.canvas.clientHeight;
  }

  /** Move as little as it takes to have a box in view; `middle` puts it half-way down, `whole` makes it fit across. */
  show(id, { middle = false, whole = false } = {}) {
    this.view.view = this.view.seen();
    const box = this.view.boxOf(id);
    if (!box) return;
    const { w, h } = this.room();
    if (middle && this.k < 0.8) this.zoom(0.9 / this.k);
    if (whole && box.w * this.k > w - 24) this.zoom(Math.max((w - 24) / box.w, 0.6) / this.k);
    const left = box.x * this.k + this.x, top = box.y * this.k + this.y;
    const inset = this.view.tree.get(id).parent ? 56 : 12;  // below the crumbs
    const width = Math.min(box.w * this.k, w - 24), height = Math.min(box.h * this.k, h - inset - 12);
    const { x, y } = this;
    if (left < 12) this.x += 12 - left; else if (left + width > w - 12) this.x -= left + width - (w - 12);
    if (middle) this.y += Math.max((h - box.h * this.k) / 2, 24) - top;
    else {
      if (top < inset) this.y += inset - top; else if (top + height > h - 12) this.y -= top + height - (h - 12);
    }
    this.keep();
    this.fitted &&= x === this.x && y === this.y;
    this.view.draw();
  }

  listen() {
    const { canvas, pointers } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      if (event.shiftKey) { this.pan(-event.deltaX * lines, -event.deltaY * lines); return; }
      const { left, top } = canvas.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - left, event.clientY - top);
    }, { passive: false });

    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest(".controls")) return;
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      this.moved = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x, dy = event.clientY - last.y;
      if (!this.moved && Math.hypot(dx, dy) < 5) return;
      if (!this.moved) { this.moved = true; canvas.setPointerCapture(event.pointerId); canvas.classList.add("moving"); }
      if (pointers.size === 1) this.pan(dx, dy);
      else {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
        const before = Math.hypot(last.x - other.x, last.y - other.y);
        const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
        const { left, top } = canvas.getBoundingClientRect();
        this.pan(dx / 2, dy / 2);
        if (before > 0) this.zoom(after / before, (event.clientX + other.x) / 2 - left, (event.clientY + other.y) / 2 - top);
      }
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    const up = (event) => {
      pointers.delete(event.pointerId);
      if (!pointers.size) canvas.classList.remove("moving");
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    // What ends a drag is no click.
    canvas.addEventListener("click", (event) => { if (this.moved) { event.stopPropagation(); this.moved = false; } }, true);
  }
}
