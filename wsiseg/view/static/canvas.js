// Nuclei drawn on a plain canvas, where there is no graphics processor: WebGL in software takes five times as long.
//
// Every tile is drawn once, into a picture of its own, a few milliseconds a frame; to move the view is to move
// pictures. Where the view is near there are few nuclei, and they are drawn anew in every frame.

import { DENSITY, DISCS, densities } from "./tiles.js";

const BUDGET = 7; // milliseconds of a frame
const NEAR = 1.5; // canvas pixels per level-0 pixel
const PICTURES = 96; // of which each is at most 2 MB or so

// Drawn by the processor, and not by a graphics processor that it plays.
const PLAIN = { willReadFrequently: true };

export class CanvasOverlay {
  // `again` is called when there is more to draw.
  constructor(canvas, about, again) {
    this.canvas = canvas;
    this.about = about.vectors;
    this.again = again;
    this.context = canvas.getContext("2d", PLAIN);
    this.pictures = new Map();
    this.busy = false;
  }

  // `view`: level-0 pixel (x, y) at the canvas's corner, its pixels per level-0 pixel, and per CSS pixel.
  draw(view, layers) {
    const { context, canvas } = this;
    const still = view.scale === this.scale;
    this.scale = view.scale;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const jobs = [];
    for (const layer of layers) {
      if (layer.mode === "off") continue;
      for (const tile of layer.drawn) if (tile.nuclei) this.tile(tile, layer, view, still, jobs);
    }
    const end = performance.now() + BUDGET;
    for (const job of jobs) {
      if (performance.now() > end) break;
      job.work(end);
    }
    // Finished drawings take their place in the next frame.
    this.busy = jobs.length > 0 || !still;
    if (this.busy) this.again();
  }

  tile(tile, layer, view, still, jobs) {
    const size = layer.side * 2 ** tile.step;
    const left = (tile.column * size - view.x) * view.scale;
    const top = (tile.row * size - view.y) * view.scale;
    const { context } = this;
    if (tile.kind === DENSITY) {
      context.drawImage(this.density(tile, layer), left, top, size * view.scale, size * view.scale);
      return;
    }
    if (view.scale > NEAR) {
      const box = { x0: -left, y0: -top, x1: this.canvas.width - left, y1: this.canvas.height - top };
      context.setTransform(1, 0, 0, 1, left, top);
      new Drawing(tile, layer, view, this.about, context).within(box);
      context.setTransform(1, 0, 0, 1, 0, 0);
      return;
    }
    const of = `${layer.version} ${layer.mode} ${view.ratio}`;
    const held = this.pictures.get(tile) ?? {};
    this.pictures.delete(tile);
    this.pictures.set(tile, held);
    const current = (drawing) => drawing?.of === of && drawing.scale === view.scale;
    if (!current(held.done) && !current(held.begun) && (still || !held.begun)) {
      held.begun = new Drawing(tile, layer, view, this.about, null, of);
    }
    if (held.begun?.finished) {
      held.done = held.begun;
      held.begun = null;
    }
    if (held.begun) jobs.push(held.begun);
    // Until the first is finished, what there is of it.
    const shown = held.done ?? held.begun;
    if (shown?.canvas) {
      const ratio = view.scale / shown.scale;
      const [x, y] = [left + shown.left * ratio, top + shown.top * ratio];
      const same = ratio === 1;
      context.drawImage(
        shown.canvas,
        same ? Math.round(x) : x,
        same ? Math.round(y) : y,
        shown.canvas.width * ratio,
        shown.canvas.height * ratio,
      );
    }
    for (const [old] of this.pictures) {
      if (this.pictures.size <= PICTURES || layer.drawn.includes(old)) break;
      this.pictures.delete(old);
    }
  }

  density(tile, layer) {
    let made = tile.made.get(this);
    if (made?.version !== layer.version) {
      const { cells } = this.about;
      const canvas = new OffscreenCanvas(cells, cells);
      const pixels = densities(tile, layer, cells);
      for (let at = 0; at < pixels.length; at += 4) {
        // A canvas wants colours that are not multiplied.
        for (let c = 0; c < 3 && pixels[at + 3]; c++) pixels[at + c] = (pixels[at + c] * 255) / pixels[at + 3];
      }
      canvas.getContext("2d").putImageData(new ImageData(pixels, cells, cells), 0, 0);
      made = { canvas, version: layer.version, free: () => {} };
      tile.made.set(this, made);
    }
    return made.canvas;
  }
}

// The nuclei of a tile being drawn at one scale: into `context`, or a canvas of its own.
class Drawing {
  constructor(tile, layer, view, about, context, of) {
    this.scale = view.scale;
    this.of = of;
    this.filled = layer.mode === "filled";
    this.palette = layer.palette.slice();
    this.least = (layer.least - 1e-5) * 65535;
    this.unit = (2 ** tile.step / about.units) * view.scale;
    this.radius = (2 ** tile.step / about.radius) * view.scale;
    this.discs = tile.kind === DISCS;
    this.width = (view.scale < 0.4 * view.ratio ? 1.1 : 1.6) * view.ratio;
    this.count = tile.rows;
    this.places = new Int16Array(tile.corners.buffer, tile.corners.byteOffset, tile.rows * 4);
    this.scores = new Uint16Array(tile.corners.buffer, tile.corners.byteOffset, tile.rows * 4);
    this.bytes = tile.corners;
    this.boxes = context ? boxes(tile) : null;
    this.at = 0;
    this.context = context;
    this.finished = false;
  }

  begin() {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < this.count; i++) {
      x0 = Math.min(x0, this.places[4 * i]);
      x1 = Math.max(x1, this.places[4 * i]);
      y0 = Math.min(y0, this.places[4 * i + 1]);
      y1 = Math.max(y1, this.places[4 * i + 1]);
    }
    const margin = 2 * this.width + (this.discs ? 255 * this.radius : 0);
    this.left = Math.floor(x0 * this.unit - margin);
    this.top = Math.floor(y0 * this.unit - margin);
    this.canvas = document.createElement("canvas");
    this.canvas.width = Math.ceil(x1 * this.unit + margin) - this.left;
    this.canvas.height = Math.ceil(y1 * this.unit + margin) - this.top;
    this.context = this.canvas.getContext("2d", PLAIN);
    this.context.translate(-this.left, -this.top);
  }

  // Go on until the moment `end`.
  work(end) {
    if (!this.context) this.begin();
    this.color = -1;
    for (let done = 0; this.at < this.count; done++) {
      if (done % 8 === 7 && performance.now() > end) return;
      const first = this.at;
      let last = first;
      if (!this.discs) while (!this.bytes[8 * last + 7]) last++;
      this.at = last + 1;
      this.nucleus(first, last);
    }
    this.finished = true;
  }

  // Only what may be seen in a box of canvas pixels, at once.
  within({ x0, y0, x1, y1 }) {
    this.color = -1;
    const [left, top, right, bottom] = [x0, y0, x1, y1].map((side) => side / this.unit);
    for (let i = 0; i < this.boxes.length; i += 6) {
      const [first, last, x, y, u, v] = this.boxes.subarray(i, i + 6);
      if (u >= left && x <= right && v >= top && y <= bottom) this.nucleus(first, last);
    }
  }

  nucleus(first, last) {
    const label = this.bytes[8 * first + 6];
    if (this.scores[4 * first + 2] < this.least || !this.palette[4 * label + 3]) return;
    const { context } = this;
    if (label !== this.color) {
      this.color = label;
      const [r, g, b] = this.palette.subarray(4 * label, 4 * label + 3);
      context.strokeStyle = `rgb(${r} ${g} ${b})`;
      context.fillStyle = `rgb(${r} ${g} ${b} / ${this.discs ? 0.75 : 0.45})`;
      context.lineWidth = this.width;
      context.lineJoin = "round";
    }
    context.beginPath();
    if (this.discs) this.disc(first);
    else this.ring(first, last);
  }

  ring(first, last) {
    const { context, places, unit } = this;
    context.moveTo(places[4 * first] * unit, places[4 * first + 1] * unit);
    for (let i = first + 1; i < last; i++) context.lineTo(places[4 * i] * unit, places[4 * i + 1] * unit);
    context.closePath();
    if (this.filled) context.fill();
    context.stroke();
  }

  disc(i) {
    const { context, places, unit } = this;
    context.arc(places[4 * i] * unit, places[4 * i + 1] * unit, this.bytes[8 * i + 7] * this.radius, 0, 7);
    context.fill();
  }
}

// First and last corner and x0, y0, x1, y1 of every nucleus of a tile, in its units; worked out once.
function boxes(tile) {
  if (tile.boxes) return tile.boxes;
  const places = new Int16Array(tile.corners.buffer, tile.corners.byteOffset, tile.rows * 4);
  const found = [];
  let first = 0;
  let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < tile.rows; i++) {
    const [x, y] = [places[4 * i], places[4 * i + 1]];
    [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x), Math.max(y1, y)];
    if (tile.kind === DISCS) [x0, y0, x1, y1] = [x0 - 512, y0 - 512, x1 + 512, y1 + 512];
    if (tile.kind === DISCS || tile.corners[8 * i + 7]) {
      found.push(first, i, x0, y0, x1, y1);
      first = i + 1;
      [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    }
  }
  tile.boxes = Int32Array.from(found);
  return tile.boxes;
}
