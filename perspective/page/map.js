"use strict";
// The map. Points are written into the pixels of one canvas by hand: 100,000 of them take a few milliseconds, on every
// machine, without a graphics card. Names, lines and the marked text are drawn on the canvas above.

const MARGIN = 0.06; // of the map, around the texts
const MAX_ZOOM = 120;
const MAX_STRETCH = 1.6; // of one axis against the other
const SWITCH_MILLISECONDS = 900;
const HOVER_PIXELS = 14;

class MapView {
  constructor(data, onHover, onPick) {
    this.data = data;
    this.onHover = onHover;
    this.onPick = onPick;
    this.base = document.getElementById("points");
    this.top = document.getElementById("labels");
    this.positions = new Float32Array(data.after);
    this.time = 1; // 0: before, 1: after
    const ends = [0, 1].map((axis) => {
      let low = 1;
      let high = 0;
      for (const places of [data.before, data.after]) {
        for (let i = axis; i < places.length; i += 2) {
          low = Math.min(low, places[i]);
          high = Math.max(high, places[i]);
        }
      }
      return [low, high];
    });
    this.span = ends.map(([low, high]) => Math.max(0.05, high - low));
    this.middle = ends.map(([low, high]) => (low + high) / 2);
    this.showWhole();
    this.on = null; // Uint8Array: texts that are not dimmed
    this.lines = [];
    this.marked = -1;
    this.chosen = new Set();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.top);
  }

  setColors(colors, theme) {
    this.colors = colors;
    this.theme = theme;
    this.draw();
  }

  // What is shown

  show({ on = null, lines = [], chosen = [] }) {
    Object.assign(this, { on, lines, chosen: new Set(chosen) });
    this.draw();
  }

  mark(text, moveThere = false) {
    this.marked = text;
    if (moveThere && text >= 0) {
      const [x, y] = this.toScreen(text);
      if (x < 40 || y < 40 || x > this.width - 40 || y > this.height - 40) {
        this.center = [this.positions[2 * text], this.positions[2 * text + 1]];
      }
    }
    this.draw();
  }

  switchTo(time) {
    const from = this.time;
    const duration = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : SWITCH_MILLISECONDS;
    const started = performance.now();
    this.goal = time;
    const step = (now) => {
      if (this.goal !== time) return; // switched again
      const progress = duration ? Math.min(1, Math.max(0, now - started) / duration) : 1;
      const eased = progress < 0.5 ? 4 * progress ** 3 : 1 - (2 - 2 * progress) ** 3 / 2;
      this.time = from + (time - from) * eased;
      const { before, after } = this.data;
      for (let i = 0; i < this.positions.length; i++) {
        this.positions[i] = before[i] + (after[i] - before[i]) * this.time;
      }
      this.places = null;
      this.draw();
      if (progress < 1) requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  showWhole() {
    Object.assign(this, { center: [...this.middle], zoom: 1 });
    this.draw();
  }

  showTexts(texts) {
    if (!texts.length) return;
    const xs = texts.map((i) => this.positions[2 * i]).sort((a, b) => a - b);
    const ys = texts.map((i) => this.positions[2 * i + 1]).sort((a, b) => a - b);
    const at = (values, part) => values[Math.min(values.length - 1, Math.floor(values.length * part))];
    const part = (values, axis) => (at(values, 0.95) - at(values, 0.05)) / this.span[axis];
    this.center = [at(xs, 0.5), at(ys, 0.5)];
    this.zoom = Math.min(MAX_ZOOM, Math.max(1, 0.5 / Math.max(part(xs, 0), part(ys, 1), 0.01)));
    this.draw();
  }

  // Places

  // Pixels of the screen for the width and the height of the map. It is stretched to fill the place that there is:
  // distances of t-SNE have no scale to keep.
  get scale() {
    const room = [this.width, this.height].map((pixels, axis) => (pixels * (1 - 2 * MARGIN)) / this.span[axis]);
    return room.map((pixels) => Math.min(pixels, MAX_STRETCH * Math.min(...room)) * this.zoom);
  }

  toScreen(i) {
    return this.place(this.positions[2 * i], this.positions[2 * i + 1]);
  }

  place(x, y) {
    const [scaleX, scaleY] = this.scale;
    return [(x - this.center[0]) * scaleX + this.width / 2, (this.center[1] - y) * scaleY + this.height / 2];
  }

  find(x, y) {
    let best = -1;
    let nearest = HOVER_PIXELS ** 2;
    const [scaleX, scaleY] = this.scale;
    const left = this.center[0] + (x - this.width / 2) / scaleX;
    const up = this.center[1] - (y - this.height / 2) / scaleY;
    for (let i = 0; i < this.data.cluster.length; i++) {
      if (this.on && !this.on[i]) continue;
      const distance =
        ((this.positions[2 * i] - left) * scaleX) ** 2 + ((this.positions[2 * i + 1] - up) * scaleY) ** 2;
      if (distance < nearest) [nearest, best] = [distance, i];
    }
    return best;
  }

  // Drawing

  resize() {
    this.ratio = Math.min(2, window.devicePixelRatio || 1);
    this.width = this.top.clientWidth;
    this.height = this.top.clientHeight;
    for (const canvas of [this.base, this.top]) {
      canvas.width = Math.max(1, Math.round(this.width * this.ratio));
      canvas.height = Math.max(1, Math.round(this.height * this.ratio));
    }
    this.image = null;
    this.drawNow();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    this.waiting = false;
    if (!this.colors || !this.width) return;
    const started = performance.now();
    this.drawPoints();
    this.drawTop();
    this.frameMilliseconds = performance.now() - started;
  }

  drawPoints() {
    const context = this.base.getContext("2d");
    const { width, height } = this.base;
    this.image ||= context.createImageData(width, height);
    const pixels = this.image.data;
    const [red, green, blue] = this.theme.ground;
    new Uint32Array(pixels.buffer).fill((255 << 24) | (blue << 16) | (green << 8) | red);
    const n = this.data.cluster.length;
    this.inPixels = this.scale.map((pixels) => pixels * this.ratio); // computed once, not for each point
    const crowd = Math.sqrt((this.width * this.height) / Math.max(n, 1));
    const radius = Math.min(6, Math.max(1.1, crowd * 0.16 * this.zoom ** 0.4)) * this.ratio;
    const opacity = n > 20000 ? 0.65 : 0.85;
    const disc = makeDisc(radius);
    const faint = makeDisc(radius * 0.85);
    if (this.on) {
      const { quiet } = this.colors;
      for (let i = 0; i < n; i++) if (!this.on[i]) this.blend(pixels, i, faint, quiet, 0.4);
    }
    for (let i = 0; i < n; i++) {
      if (!this.on || this.on[i]) this.blend(pixels, i, disc, this.colors.of(this.data.cluster[i]), opacity);
    }
    context.putImageData(this.image, 0, 0);
  }

  blend(pixels, i, disc, [red, green, blue], opacity) {
    const { width, height } = this.base;
    const x = Math.round((this.positions[2 * i] - this.center[0]) * this.inPixels[0] + width / 2);
    const y = Math.round((this.center[1] - this.positions[2 * i + 1]) * this.inPixels[1] + height / 2);
    const { size, alphas } = disc;
    const half = (size - 1) / 2;
    if (x < half || y < half || x >= width - half || y >= height - half) return;
    for (let row = 0; row < size; row++) {
      let at = 4 * ((y - half + row) * width + x - half);
      for (let column = 0; column < size; column++, at += 4) {
        const alpha = alphas[row * size + column] * opacity;
        if (alpha === 0) continue;
        pixels[at] += (red - pixels[at]) * alpha;
        pixels[at + 1] += (green - pixels[at + 1]) * alpha;
        pixels[at + 2] += (blue - pixels[at + 2]) * alpha;
      }
    }
  }

  drawTop() {
    const context = this.top.getContext("2d");
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    this.drawLines(context);
    this.drawNames(context);
    if (this.marked >= 0) {
      const [x, y] = this.toScreen(this.marked);
      context.beginPath();
      context.arc(x, y, 7.5, 0, 7);
      context.lineWidth = 2.5;
      context.strokeStyle = this.theme.text;
      context.stroke();
    }
  }

  drawLines(context) {
    const { before, after, cluster } = this.data;
    context.lineWidth = 1;
    context.globalAlpha = 0.5;
    for (const i of this.lines) {
      context.beginPath();
      context.moveTo(...this.place(before[2 * i], before[2 * i + 1]));
      context.lineTo(...this.place(after[2 * i], after[2 * i + 1]));
      context.strokeStyle = css(this.colors.of(cluster[i]));
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  // A name stands at the median of its texts, the largest first, where no other stands.
  drawNames(context) {
    this.places ||= this.data.members.map((texts) => (texts.length ? findMiddle(texts, this.positions) : null));
    context.font = '600 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const rank = (cluster) => (this.chosen.has(cluster) ? 1e9 : 0) + this.data.members[cluster].length;
    const order = this.places.map((_, cluster) => cluster).sort((a, b) => rank(b) - rank(a));
    const taken = [];
    this.shownNames = [];
    for (const cluster of order) {
      if (!this.places[cluster] || (this.chosen.size && !this.chosen.has(cluster))) continue;
      const [x, y] = this.place(...this.places[cluster]);
      const name = shorten(this.data.clusters[cluster].name, 30);
      const half = context.measureText(name).width / 2;
      const box = [x - half - 4, y - 9, x + half + 4, y + 9];
      if (box[0] < 2 || box[1] < 2 || box[2] > this.width - 2 || box[3] > this.height - 2) continue;
      if (taken.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
      taken.push(box);
      this.shownNames.push({ cluster, box });
      context.lineWidth = 3.5;
      context.strokeStyle = css(this.theme.ground);
      context.globalAlpha = 0.9;
      context.strokeText(name, x, y);
      context.globalAlpha = 1;
      context.fillStyle = this.theme.text;
      context.fillText(name, x, y);
    }
  }

  // Mouse, fingers, keys

  zoomBy(factor, x = this.width / 2, y = this.height / 2) {
    const zoom = Math.min(MAX_ZOOM, Math.max(0.5, this.zoom * factor));
    const before = this.scale;
    this.zoom = zoom;
    const [changeX, changeY] = this.scale.map((pixels, axis) => 1 / before[axis] - 1 / pixels);
    this.center[0] += (x - this.width / 2) * changeX;
    this.center[1] -= (y - this.height / 2) * changeY;
    this.draw();
  }

  pan(x, y) {
    const [scaleX, scaleY] = this.scale;
    this.center[0] -= x / scaleX;
    this.center[1] += y / scaleY;
    this.draw();
  }

  listen() {
    const pointers = new Map();
    let travelled = 0;
    const at = (event) => {
      const box = this.top.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.top.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.04 : 0.0016)), ...at(event));
    }, { passive: false });
    this.top.addEventListener("pointerdown", (event) => {
      this.top.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      if (pointers.size === 1) travelled = 0;
    });
    this.top.addEventListener("pointermove", (event) => {
      const now = at(event);
      const last = pointers.get(event.pointerId);
      if (!last) {
        this.hover(...now);
        return;
      }
      const [x, y] = [now[0] - last[0], now[1] - last[1]];
      travelled += Math.hypot(x, y);
      if (pointers.size === 2) {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
        const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]) || 1;
        this.zoomBy(apart(now) / apart(last), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (travelled > 4) {
        this.top.classList.add("dragged");
        this.onHover(-1);
        this.pan(x, y);
      }
      pointers.set(event.pointerId, now);
    });
    const release = (event) => {
      const place = pointers.get(event.pointerId);
      pointers.delete(event.pointerId);
      this.top.classList.remove("dragged");
      if (event.type === "pointerup" && place && travelled <= 4) this.onPick(this.find(...place), this.findName(...place));
    };
    this.top.addEventListener("pointerup", release);
    this.top.addEventListener("pointercancel", release);
    this.top.addEventListener("pointerleave", () => pointers.size || this.onHover(-1));
    this.top.addEventListener("keydown", (event) => {
      const step = 60;
      const keys = {
        ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
        ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
        "+": () => this.zoomBy(1.4), "=": () => this.zoomBy(1.4), "-": () => this.zoomBy(1 / 1.4),
        0: () => this.showWhole(), Escape: () => this.onPick(-1, null),
      };
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  hover(x, y) {
    const text = this.find(x, y);
    this.top.classList.toggle("pointing", text >= 0 || this.findName(x, y) !== null);
    this.onHover(text, x, y);
  }

  findName(x, y) {
    const found = (this.shownNames || []).find(({ box }) => x > box[0] && x < box[2] && y > box[1] && y < box[3]);
    return found ? found.cluster : null;
  }
}

// How much of each pixel a disc covers.
function makeDisc(radius) {
  const half = Math.ceil(radius);
  const size = 2 * half + 1;
  const alphas = new Float32Array(size * size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      const distance = Math.hypot(row - half, column - half);
      alphas[row * size + column] = Math.min(1, Math.max(0, radius + 0.5 - distance));
    }
  }
  return { size, alphas };
}

function findMiddle(texts, positions) {
  const middle = (offset) => {
    const values = Float32Array.from(texts, (i) => positions[2 * i + offset]).sort();
    return values[values.length >> 1];
  };
  return [middle(0), middle(1)];
}

function shorten(text, length) {
  const letters = [...text];
  return letters.length > length ? `${letters.slice(0, length - 1).join("").trimEnd()}…` : text;
}
