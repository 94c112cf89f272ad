// Tiles of nuclei: what is in view is fetched first, a few at a time, and what was not seen for long is forgotten.

export const OUTLINES = 0;
export const DISCS = 1;
export const DENSITY = 2;

const AT_ONCE = 3;
const MOST_BYTES = 192 * 1024 * 1024;

export class NucleusTiles {
  // `number` of the result; `about` is the server's about.json; `changed` is called when a tile has come.
  constructor(number, about, changed) {
    const { side } = about.vectors;
    this.number = number;
    this.kinds = about.results[number].kinds;
    this.side = side;
    this.rows = Math.ceil(about.slide.height / side);
    this.columns = Math.ceil(about.slide.width / side);
    this.changed = changed;
    this.failed = () => {};
    this.held = new Map();
    this.bytes = 0;
    this.coming = new Map();
    this.wanted = [];
  }

  // Step whose pixels are nearest to those of a screen with `scale` pixels per level-0 pixel.
  step(scale) {
    return Math.min(this.kinds.length - 1, Math.max(0, Math.round(-Math.log2(scale))));
  }

  // Keys of the tiles that a box of level-0 pixels meets; outlines reach beyond the tile of their centroid.
  meeting(step, { x0, y0, x1, y1 }, margin = 64) {
    const size = this.side * 2 ** step;
    const last = (count) => Math.ceil(count / 2 ** step) - 1;
    const keys = [];
    const right = Math.min(last(this.columns), Math.floor((x1 + margin) / size));
    const bottom = Math.min(last(this.rows), Math.floor((y1 + margin) / size));
    for (let row = Math.max(0, Math.floor((y0 - margin) / size)); row <= bottom; row++) {
      for (let column = Math.max(0, Math.floor((x0 - margin) / size)); column <= right; column++) {
        keys.push(`${step}/${row}/${column}`);
      }
    }
    return keys;
  }

  get(key) {
    const tile = this.held.get(key);
    if (tile) {
      // The order of a Map is that of insertion: what was seen last is forgotten last.
      this.held.delete(key);
      this.held.set(key, tile);
    }
    return tile;
  }

  // Say which tiles are wanted now, the most wanted first; what was wanted before and has not begun is not fetched.
  want(keys) {
    this.wanted = keys.filter((key) => !this.held.has(key));
    this.next();
  }

  next() {
    while (this.coming.size < AT_ONCE) {
      const key = this.wanted.find((each) => !this.coming.has(each));
      if (!key) return;
      this.coming.set(key, this.fetch(key));
    }
  }

  async fetch(key) {
    try {
      const answer = await fetch(`nuclei/${this.number}/${key}`);
      if (!answer.ok) throw new Error(answer.statusText);
      this.keep(key, opened(key, await answer.arrayBuffer()));
    } catch (error) {
      this.failed(error);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    } finally {
      this.coming.delete(key);
      this.wanted = this.wanted.filter((each) => each !== key || !this.held.has(key));
      this.next();
      this.changed();
    }
  }

  keep(key, tile) {
    this.held.set(key, tile);
    this.bytes += tile.bytes;
    for (const [old, forgotten] of this.held) {
      if (this.bytes <= MOST_BYTES || old === key) break;
      this.held.delete(old);
      this.bytes -= forgotten.bytes;
      for (const forget of forgotten.made.values()) forget.free();
    }
  }
}

// A tile as `wsiseg.view.vectors` writes it. `made` holds what each overlay made of it.
function opened(key, buffer) {
  const [step, row, column] = key.split("/").map(Number);
  const [kind, nuclei, rows, triangles] = new Uint32Array(buffer, 0, 4);
  const size = kind === DENSITY ? 4 : 8;
  return {
    step,
    row,
    column,
    kind,
    nuclei,
    rows,
    corners: kind === DENSITY ? null : new Uint8Array(buffer, 16, rows * size),
    cells: kind === DENSITY ? new Uint32Array(buffer, 16, rows) : null,
    triangles: new Uint32Array(buffer, 16 + rows * size, triangles * 3),
    bytes: buffer.byteLength,
    made: new Map(),
  };
}

// Colours of a tile of densities, (cells, cells) of premultiplied RGBA: nuclei that pass, as far as they cover a cell.
export function densities(tile, layer, cells) {
  const count = cells * cells;
  const sums = new Float32Array(count * 4);
  const least = layer.least * 255;
  for (const packed of tile.cells) {
    const color = ((packed >>> 8) & 255) * 4;
    if (!layer.palette[color + 3] || (packed & 255) < least - 0.5) continue;
    const at = (packed >>> 16) * 4;
    sums[at] += layer.palette[color];
    sums[at + 1] += layer.palette[color + 1];
    sums[at + 2] += layer.palette[color + 2];
    sums[at + 3] += 1;
  }
  const cell = (layer.side * 2 ** tile.step) / cells;
  const covers = (Math.PI * layer.diameter ** 2) / 4 / cell ** 2;
  const pixels = new Uint8ClampedArray(count * 4);
  for (let at = 0; at < count * 4; at += 4) {
    const n = sums[at + 3];
    if (!n) continue;
    const alpha = 0.75 * Math.min(1, n * covers * 1.6);
    for (let c = 0; c < 3; c++) pixels[at + c] = (sums[at + c] / n) * alpha;
    pixels[at + 3] = 255 * alpha;
  }
  return pixels;
}
