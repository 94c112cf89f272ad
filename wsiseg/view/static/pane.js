// One view of the slide with layers of nuclei over it.

import { CanvasOverlay } from "./canvas.js";
import { WebGLOverlay } from "./webgl.js";

const LENGTHS = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5].map((power) => n * 10 ** power)).sort((a, b) => a - b);
const SVG = "http://www.w3.org/2000/svg";

export class Pane {
  // `layers` are drawn, the first below; `events` has moved(pane), pointed(pane, place | null) and failed(text).
  constructor(element, about, layers, events) {
    this.about = about;
    this.layers = layers;
    this.events = events;
    this.element = element;
    this.slide = this.add("div", "slide");
    const { width, height, side, steps, name } = about.slide;
    this.viewer = OpenSeadragon({
      element: this.slide,
      drawer: "canvas",
      tileSources: {
        width,
        height,
        tileSize: side,
        minLevel: 0,
        maxLevel: steps - 1,
        getTileUrl: (level, column, row) => `slide/${steps - 1 - level}/${row}/${column}.jpg`,
      },
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "BOTTOM_RIGHT",
      navigatorSizeRatio: 0.16,
      keyboardNavEnabled: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { pinchRotate: false },
      animationTime: 0.5,
      zoomPerScroll: 1.35,
      maxZoomPixelRatio: 8,
      minZoomImageRatio: 0.5,
      visibilityRatio: 0.25,
      imageLoaderLimit: 4,
      timeout: 600000,
    });
    this.viewer.canvas.setAttribute("aria-label", `Slide ${name}`);
    this.viewer.navigator.element.classList.add("navigator");
    this.overlay = this.newOverlay();
    this.mark = document.createElementNS(SVG, "svg");
    this.mark.setAttribute("class", "mark");
    this.mark.setAttribute("aria-hidden", "true");
    this.viewer.canvas.append(this.mark);
    this.title = this.add("p", "title");
    this.bar = this.add("div", "bar");
    this.marked = [];
    this.viewer.addHandler("update-viewport", () => this.draw());
    this.viewer.addHandler("open", () => this.events.opened(this));
    this.viewer.addHandler("viewport-change", () => this.events.moved(this));
    this.viewer.addHandler("tile-load-failed", () => this.events.failed("A part of the slide cannot be read."));
    this.slide.addEventListener("pointermove", (event) => this.events.pointed(this, this.placeOf(event)));
    this.slide.addEventListener("pointerleave", () => this.events.pointed(this, null));
    this.resizer = new ResizeObserver(() => this.resize());
    this.resizer.observe(this.slide);
  }

  add(kind, name) {
    const made = document.createElement(kind);
    made.className = name;
    this.element.append(made);
    return made;
  }

  newOverlay() {
    const canvas = document.createElement("canvas");
    canvas.className = "nuclei";
    canvas.setAttribute("aria-hidden", "true");
    // Inside the viewer's own canvas, so that its navigator stays on top.
    this.viewer.canvas.append(canvas);
    const gl = location.hash === "#canvas" ? null : context(canvas, location.hash !== "#webgl");
    if (!gl) return new CanvasOverlay(canvas, this.about, this.events.again);
    // A driver that was reset took all buffers with it.
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.forget();
      this.overlay = new WebGLOverlay(canvas, gl, this.about);
      this.draw();
    });
    return new WebGLOverlay(canvas, gl, this.about);
  }

  forget() {
    for (const layer of this.layers) {
      for (const tile of layer.tiles.held.values()) {
        tile.made.get(this.overlay)?.free();
        tile.made.delete(this.overlay);
      }
    }
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { canvas } = this.overlay;
    canvas.width = Math.max(1, Math.round(this.slide.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(this.slide.clientHeight * ratio));
    this.draw();
  }

  // What is seen now: level-0 pixel at the upper left corner, and screen (CSS) pixels per level-0 pixel.
  get seen() {
    const bounds = this.viewer.viewport.getBoundsNoRotate(true);
    const { width } = this.about.slide;
    return { x: bounds.x * width, y: bounds.y * width, scale: this.slide.clientWidth / (bounds.width * width) };
  }

  // Show a level-0 pixel in the middle, at `scale` screen pixels per level-0 pixel.
  show(x, y, scale, immediately = false) {
    const { width } = this.about.slide;
    const { viewport } = this.viewer;
    viewport.zoomTo((width * scale) / this.slide.clientWidth, null, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
  }

  placeOf(event) {
    const box = this.slide.getBoundingClientRect();
    const { x, y, scale } = this.seen;
    return {
      x: x + (event.clientX - box.left) / scale,
      y: y + (event.clientY - box.top) / scale,
      left: event.clientX,
      top: event.clientY,
    };
  }

  draw() {
    if (!this.viewer.world?.getItemCount()) return;
    const { x, y, scale } = this.seen;
    const ratio = this.overlay.canvas.width / Math.max(1, this.slide.clientWidth);
    const box = { x0: x, y0: y, x1: x + this.slide.clientWidth / scale, y1: y + this.slide.clientHeight / scale };
    for (const layer of this.layers) layer.choose(scale, box);
    this.overlay.draw({ x, y, scale: scale * ratio, ratio }, this.layers);
    this.drawMark(x, y, scale);
    this.drawBar(scale);
    this.events.drawn(this, scale);
  }

  // Outlines that are told of: rings of level-0 pixels as [x, y, x, y, ...].
  setMarked(rings) {
    this.marked = rings;
    const { x, y, scale } = this.seen;
    this.drawMark(x, y, scale);
  }

  drawMark(x, y, scale) {
    if (!this.marked.length && !this.mark.firstChild) return;
    const polygons = this.marked.flatMap((ring) => {
      const points = ring.map((value, i) => ((value - (i % 2 ? y : x)) * scale).toFixed(1)).join(" ");
      return [0, 1].map(() => {
        const polygon = document.createElementNS(SVG, "polygon");
        polygon.setAttribute("points", points);
        return polygon;
      });
    });
    this.mark.replaceChildren(...polygons);
  }

  drawBar(scale) {
    const { mpp } = this.about.slide;
    const unit = mpp ? scale / mpp : scale;
    const length = LENGTHS.findLast((each) => each * unit <= Math.min(220, this.slide.clientWidth / 4)) ?? LENGTHS[0];
    const text = !mpp ? `${length.toLocaleString("en")} px` : length < 1000 ? `${length} µm` : `${length / 1000} mm`;
    const key = `${text} ${Math.round(length * unit)}`;
    if (key === this.barKey) return;
    this.barKey = key;
    const line = document.createElement("span");
    line.style.width = `${length * unit}px`;
    this.bar.replaceChildren(text, line);
  }

  close() {
    this.resizer.disconnect();
    this.forget();
    this.viewer.destroy();
    this.element.remove();
  }
}

// A context of WebGL 2; where it is to be `fast`, none that the processor plays.
function context(canvas, fast) {
  const options = { antialias: false, depth: false };
  if (fast && !hasProcessor()) return null;
  return canvas.getContext("webgl2", options);
}

// Whether a graphics processor draws, as far as the browser tells. A canvas that has had a context of one kind gives
// none of another, so that another one is asked.
function hasProcessor() {
  const gl = document.createElement("canvas").getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (!gl) return false;
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(told ? told.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}
