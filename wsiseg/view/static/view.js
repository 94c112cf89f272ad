// The page: panes with layers of nuclei, and what the panel and the keys do to them.

import { Pane } from "./pane.js";
import { NucleusTiles } from "./tiles.js";

const TWO = ["#00c2a8", "#ff9d00"];
const $ = (id) => document.getElementById(id);

const about = await (await fetch("about.json")).json();
const state = { mode: "outlines", before: "outlines", arrangement: "over", panes: [], leading: null };

// A result as it is shown: its classes and their colours, the least probability, and the tiles to draw now.
class Layer {
  constructor(result, number) {
    this.result = result;
    this.number = number;
    this.side = about.vectors.side;
    this.diameter = result.diameter;
    this.tiles = new NucleusTiles(number, about, redraw);
    this.tiles.failed = () => notice("Nuclei cannot be read; is wsiseg view still running?");
    this.visible = true;
    this.least = 0;
    this.one = about.results.length > 1 ? TWO[number] : null;
    this.color = TWO[number];
    this.classes = result.classes.map((each) => ({ visible: true, color: hex(each.color) }));
    this.palette = new Uint8Array(256 * 4);
    this.version = 0;
    this.drawn = [];
    this.step = null;
    this.missing = 0;
    this.changed();
  }

  get mode() {
    return this.visible ? state.mode : "off";
  }

  changed() {
    this.version++;
    this.palette.fill(0);
    this.classes.forEach(({ visible, color }, label) => {
      this.palette.set([...rgb(this.one ?? color), visible ? 255 : 0], label * 4);
    });
  }

  passes(nucleus) {
    return this.visible && this.classes[nucleus.label].visible && (nucleus.score ?? 1) >= this.least - 1e-6;
  }

  // How many of a class pass, or of all.
  count(label = null) {
    const first = Math.round(this.least * 100);
    return this.result.classes.reduce((sum, { histogram }, i) => {
      const counts = label === null ? this.visible && this.classes[i].visible : i === label;
      return counts ? sum + histogram.slice(first).reduce((a, b) => a + b, 0) : sum;
    }, 0);
  }

  // Choose what to draw of a box of level-0 pixels, and have fetched what is missing. What was drawn at another
  // zoom stays until the new tiles are all there.
  choose(scale, box) {
    const wanted = this.tiles.step(scale);
    const keys = this.tiles.meeting(wanted, box);
    const missing = keys.filter((key) => !this.tiles.held.has(key));
    this.missing = missing.length;
    const margin = 0.3 * (box.x1 - box.x0);
    this.tiles.want([...missing, ...this.tiles.meeting(wanted, box, margin)]);
    if (!missing.length || this.step === null || Math.abs(this.step - wanted) > 2) this.step = wanted;
    const at = (step) => this.tiles.meeting(step, box).map((key) => this.tiles.get(key)).filter(Boolean);
    this.drawn = at(this.step);
    if (!this.drawn.length && this.step !== wanted) {
      this.step = wanted;
      this.drawn = at(wanted);
    }
  }
}

function hex([r, g, b]) {
  return `#${[r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

function rgb(text) {
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
}

let waiting = false;
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const pane of state.panes) pane.draw();
  });
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => ($("notice").hidden = true), 8000);
}

// Panes: one with all layers, or one a layer that move together.

const events = {
  opened(pane) {
    if (state.start) pane.show(state.start.x, state.start.y, state.start.scale, true);
    pane.resize();
  },
  moved(pane) {
    if (state.following || state.panes.length < 2) return;
    state.following = true;
    const { viewport } = pane.viewer;
    for (const other of state.panes) {
      if (other === pane || !other.viewer.viewport) continue;
      other.viewer.viewport.zoomTo(viewport.getZoom(true), null, true);
      other.viewer.viewport.panTo(viewport.getCenter(true), true);
    }
    state.following = false;
  },
  drawn(pane, scale) {
    const { mpp } = about.slide;
    const microns = mpp ? ` · ${(mpp / scale).toPrecision(3)} µm/px` : "";
    const text = `${scale >= 0.1 ? Math.round(scale * 100) : (scale * 100).toPrecision(2)} %${microns}`;
    if ($("zoom").textContent !== text) $("zoom").textContent = text;
  },
  pointed(pane, place) {
    $("place").textContent = place
      ? `x ${Math.floor(place.x).toLocaleString("en")}  y ${Math.floor(place.y).toLocaleString("en")} px`
      : "";
    tell(pane, place);
  },
  failed: notice,
  again: redraw,
};

function arrange(arrangement) {
  const first = state.panes[0];
  if (first?.viewer.world.getItemCount()) {
    const { x, y, scale } = first.seen;
    const [w, h] = [first.slide.clientWidth, first.slide.clientHeight];
    state.start = { x: x + w / scale / 2, y: y + h / scale / 2, scale };
  }
  for (const pane of state.panes) pane.close();
  state.arrangement = arrangement;
  for (const layer of layers) layer.step = null;
  const groups = arrangement === "beside" ? layers.map((layer) => [layer]) : [layers];
  // All of them first, so that each has its size from the beginning.
  const places = groups.map(() => made("section", { className: "pane" }));
  $("panes").append(...places);
  state.panes = groups.map((group, i) => new Pane(places[i], about, group, events));
  state.panes.forEach((pane, i) => {
    pane.title.hidden = arrangement !== "beside";
    pane.title.textContent = arrangement === "beside" ? layers[i].result.name : "";
  });
  if (layers.length > 1) document.querySelector(`[name=arrangement][value=${arrangement}]`).checked = true;
}

// The nucleus under the pointer: one question at a time, the latest place next.

let asking = false;
let latest = null;

async function tell(pane, place) {
  latest = { pane, place };
  if (asking) return;
  asking = true;
  try {
    while (latest) {
      const { pane: at, place: here } = latest;
      latest = null;
      const told = here && state.mode !== "off" ? await Promise.all(at.layers.map((layer) => ask(layer, here))) : [];
      if (!latest) show(at, here, told.filter(Boolean));
    }
  } catch {
    notice("The server does not answer; is wsiseg view still running?");
  } finally {
    asking = false;
  }
}

async function ask(layer, { x, y }) {
  if (x < 0 || y < 0) return null;
  const answer = await fetch(`at/${layer.number}/${y.toFixed(2)}/${x.toFixed(2)}`);
  const nucleus = await answer.json();
  return nucleus && layer.passes(nucleus) ? { layer, nucleus } : null;
}

function show(pane, place, told) {
  for (const each of state.panes) each.setMarked(each === pane ? told.map(({ nucleus }) => nucleus.ring) : []);
  const card = $("told");
  card.hidden = !told.length;
  if (!told.length) return;
  card.replaceChildren(...told.flatMap(described));
  const [w, h] = [card.offsetWidth, card.offsetHeight];
  card.style.left = `${place.left + 18 + w > window.innerWidth ? place.left - w - 14 : place.left + 18}px`;
  card.style.top = `${Math.max(6, Math.min(place.top + 14, window.innerHeight - h - 6))}px`;
}

function described({ layer, nucleus }) {
  const title = document.createElement("h3");
  const swatch = document.createElement("i");
  swatch.style.background = layer.one ?? layer.classes[nucleus.label].color;
  const name = layer.result.classes[nucleus.label].name;
  title.append(swatch, layers.length > 1 ? `${name} (${layer.result.name})` : name);
  const table = document.createElement("table");
  const rows = [...Object.entries(nucleus.measurements), ["Centroid x, y px", `${nucleus.x.toFixed(1)}, ${nucleus.y.toFixed(1)}`]];
  for (const [key, value] of rows) {
    const row = table.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = key;
    row.append(head);
    row.insertCell().textContent = value;
  }
  return [title, table];
}

function tellMiddle() {
  const pane = state.panes[0];
  const box = pane.slide.getBoundingClientRect();
  const middle = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2 };
  tell(pane, pane.placeOf(middle));
}

// The panel.

function made(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function section(layer) {
  const several = layers.length > 1;
  const update = () => {
    layer.changed();
    fill();
    redraw();
  };
  const heading = made("h2", {});
  if (several) {
    const shown = made("input", { type: "checkbox", checked: true, ariaLabel: `Show ${layer.result.name}` });
    shown.addEventListener("change", () => { layer.visible = shown.checked; update(); });
    const color = made("input", { type: "color", value: layer.color, ariaLabel: `Colour of ${layer.result.name}` });
    color.addEventListener("input", () => {
      layer.color = color.value;
      if (layer.one) layer.one = layer.color;
      update();
    });
    heading.append(shown, color);
  }
  heading.append(layer.result.name);
  const total = made("p");
  const counts = [];
  const classes = made("ul", { className: "classes", ariaLabel: `Classes of ${layer.result.name}` });
  layer.classes.forEach((each, label) => {
    const { name } = layer.result.classes[label];
    const box = made("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => { each.visible = box.checked; update(); });
    const color = made("input", { type: "color", value: each.color, ariaLabel: `Colour of ${name}` });
    color.addEventListener("input", () => { each.color = color.value; update(); });
    const count = made("output");
    counts.push(count);
    const own = several && layer.classes.length === 1 ? [] : [color];
    classes.append(made("li", {}, made("label", {}, box, name), count, ...own));
  });
  const parts = [heading, total, classes];
  if (several && layer.classes.length > 1) {
    const one = made("input", { type: "checkbox", checked: true });
    one.addEventListener("change", () => { layer.one = one.checked ? layer.color : null; update(); });
    parts.push(made("p", { className: "one" }, made("label", {}, one, "one colour for all classes")));
  }
  const probability = layer.result.probability ? slider(layer, update) : null;
  if (probability) parts.push(probability.element);
  const fill = () => {
    const shown = layer.count();
    const all = layer.result.nuclei.toLocaleString("en");
    total.textContent = shown === layer.result.nuclei ? `${all} nuclei` : `${shown.toLocaleString("en")} of ${all} nuclei`;
    counts.forEach((count, label) => (count.textContent = layer.count(label).toLocaleString("en")));
    probability?.fill();
  };
  fill();
  return made("section", { className: "result", ariaLabel: `Result ${layer.result.name}` }, ...parts);
}

function slider(layer, update) {
  const value = made("output");
  const input = made("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, className: "least" });
  input.id = `least-${layer.number}`;
  input.addEventListener("input", () => { layer.least = Number(input.value); update(); });
  const label = made("label", {}, "Detection probability", value);
  label.htmlFor = input.id;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Histogram of detection probabilities");
  const sums = Array.from({ length: 100 }, (_, i) => layer.result.classes.reduce((sum, each) => sum + each.histogram[i], 0));
  const most = Math.max(1, ...sums);
  const bars = sums.map((sum, i) => {
    const bar = document.createElementNS(svg.namespaceURI, "rect");
    const height = sum ? Math.max(0.8, (sum / most) * 40) : 0;
    for (const [name, number] of Object.entries({ x: i, y: 40 - height, width: 0.9, height })) bar.setAttribute(name, number);
    svg.append(bar);
    return bar;
  });
  const fill = () => {
    value.textContent = layer.least ? `≥ ${layer.least.toFixed(2)}` : "all";
    bars.forEach((bar, i) => bar.setAttribute("class", i < Math.round(layer.least * 100) ? "below" : ""));
  };
  return { element: made("div", { className: "probability" }, label, svg, input), fill };
}

function setMode(mode) {
  if (mode !== "off") state.before = mode;
  state.mode = mode;
  document.querySelector(`[name=mode][value=${mode}]`).checked = true;
  if (mode === "off") tell(state.panes[0], null);
  redraw();
}

function setLeast(by) {
  for (const input of document.querySelectorAll("input.least")) {
    input.value = Number(input.value) + by;
    input.dispatchEvent(new Event("input"));
  }
}

// The keys.

function whole() {
  state.panes[0].viewer.viewport.goHome();
}

function full() {
  const pane = state.panes[0];
  const { x, y, scale } = pane.seen;
  pane.show(x + pane.slide.clientWidth / scale / 2, y + pane.slide.clientHeight / scale / 2, 1);
}

function move(dx, dy) {
  const { viewport } = state.panes[0].viewer;
  const bounds = viewport.getBounds();
  viewport.panBy(new OpenSeadragon.Point(dx * 0.15 * bounds.width, dy * 0.15 * bounds.height));
  viewport.applyConstraints();
}

function zoom(by) {
  state.panes[0].viewer.viewport.zoomBy(by);
  state.panes[0].viewer.viewport.applyConstraints();
}

const KEYS = {
  ArrowLeft: () => move(-1, 0),
  ArrowRight: () => move(1, 0),
  ArrowUp: () => move(0, -1),
  ArrowDown: () => move(0, 1),
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  0: whole,
  1: full,
  o: () => setMode("outlines"),
  f: () => setMode("filled"),
  h: () => setMode(state.mode === "off" ? state.before : "off"),
  "[": () => setLeast(-0.05),
  "]": () => setLeast(0.05),
  s: () => layers.length > 1 && arrange(state.arrangement === "over" ? "beside" : "over"),
  m: tellMiddle,
  p: () => document.body.classList.toggle("bare"),
  "?": () => $("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || $("keys").open) return;
  // Sliders, radio buttons and colours have uses of their own for these.
  if (event.key.startsWith("Arrow") && event.target.closest("#panel")) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("slide").textContent = about.slide.name;
document.title = `${about.slide.name} · wsiseg`;
$("size").textContent = `${about.slide.width.toLocaleString("en")} × ${about.slide.height.toLocaleString("en")} px${
  about.slide.mpp ? `, ${about.slide.mpp.toPrecision(3)} µm/px` : ", pixel size unknown"
}`;
const layers = about.results.map((result, number) => new Layer(result, number));
$("results").append(...layers.map(section));
$("arrangements").hidden = layers.length < 2;
for (const input of document.querySelectorAll("[name=mode]")) input.addEventListener("change", () => setMode(input.value));
for (const input of document.querySelectorAll("[name=arrangement]")) input.addEventListener("change", () => arrange(input.value));
$("whole").addEventListener("click", whole);
$("full").addEventListener("click", full);
$("help").addEventListener("click", () => $("keys").showModal());
arrange("over");

// For tests and benchmarks.
window.wsiseg = { state, layers };
