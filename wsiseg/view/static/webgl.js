// Nuclei drawn with WebGL 2: every edge of an outline is a thin quad, made of two corners as they came from the server.

import { DENSITY, DISCS, densities } from "./tiles.js";

const COMMON = `#version 300 es
precision highp float;
uniform vec2 uOrigin;    // pixels of the canvas at which the tile begins
uniform float uScale;    // pixels per unit of the tile
uniform vec2 uSize;      // of the canvas, pixels
uniform float uLeast;    // least probability
uniform sampler2D uPalette;
vec4 place(vec2 at) { return vec4(at / uSize * vec2(2, -2) + vec2(-1, 1), 0, 1); }
const vec4 NOWHERE = vec4(2, 2, 2, 1);
vec4 colored(float label) { return texelFetch(uPalette, ivec2(int(label), 0), 0); }
`;

const LINE = `${COMMON}
layout(location = 0) in vec2 aFrom;
layout(location = 1) in float aScore;
layout(location = 2) in vec2 aInfo;    // class; 1 at a ring's last corner
layout(location = 3) in vec2 aTo;
uniform float uWidth;
out float vAcross;
out vec4 vColor;
void main() {
  vColor = colored(aInfo.x);
  if (aInfo.y > 0.5 || aScore < uLeast || vColor.a == 0.0) { gl_Position = NOWHERE; return; }
  vec2 from = uOrigin + aFrom * uScale, to = uOrigin + aTo * uScale, along = to - from;
  float len = length(along);
  along = len > 0.0 ? along / len : vec2(1, 0);
  float side = float(gl_VertexID & 1) * 2.0 - 1.0, half_ = uWidth / 2.0 + 0.5;
  // Edges reach a little beyond their corners, so that there is no gap between them.
  float beyond = uWidth * 0.3;
  vec2 end = gl_VertexID < 2 ? from - along * beyond : to + along * beyond;
  vAcross = side * half_;
  gl_Position = place(end + vec2(-along.y, along.x) * vAcross);
}`;

const LINE_INK = `#version 300 es
precision highp float;
uniform float uWidth;
in float vAcross;
in vec4 vColor;
out vec4 ink;
void main() { ink = vec4(vColor.rgb, 1) * vColor.a * clamp(uWidth / 2.0 + 0.5 - abs(vAcross), 0.0, 1.0); }`;

const AREA = `${COMMON}
layout(location = 0) in vec2 aFrom;
layout(location = 1) in float aScore;
layout(location = 2) in vec2 aInfo;
uniform float uRadius;    // pixels per unit of a disc's radius; 0 for triangles
uniform float uAlpha;
out vec4 vColor;
out float vRadius;
void main() {
  vec4 color = colored(aInfo.x);
  vColor = vec4(color.rgb, 1) * color.a * uAlpha;
  vRadius = aInfo.y * uRadius + 0.5;
  gl_PointSize = 2.0 * vRadius + 1.0;
  gl_Position = aScore < uLeast || color.a == 0.0 ? NOWHERE : place(uOrigin + aFrom * uScale);
}`;

const TRIANGLE_INK = `#version 300 es
precision highp float;
in vec4 vColor;
out vec4 ink;
void main() { ink = vColor; }`;

const DISC_INK = `#version 300 es
precision highp float;
in vec4 vColor;
in float vRadius;
out vec4 ink;
void main() {
  float from = length(gl_PointCoord - 0.5) * (2.0 * vRadius + 1.0);
  ink = vColor * clamp(vRadius + 0.5 - from, 0.0, 1.0);
}`;

const PICTURE = `${COMMON}
out vec2 vAt;
void main() {
  vAt = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  gl_Position = place(uOrigin + vAt * uScale);
}`;

const PICTURE_INK = `#version 300 es
precision highp float;
uniform sampler2D uPicture;
in vec2 vAt;
out vec4 ink;
void main() { ink = texture(uPicture, vAt); }`;

export class WebGLOverlay {
  constructor(canvas, gl, about) {
    this.canvas = canvas;
    this.about = about.vectors;
    this.gl = gl;
    this.line = program(gl, LINE, LINE_INK);
    this.triangle = program(gl, AREA, TRIANGLE_INK);
    this.disc = program(gl, AREA, DISC_INK);
    this.picture = program(gl, PICTURE, PICTURE_INK);
    this.empty = gl.createVertexArray();
    this.palettes = new Map();
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // `view`: level-0 pixel (x, y) at the canvas's corner, its pixels per level-0 pixel, and per CSS pixel.
  draw(view, layers) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    for (const layer of layers) {
      if (layer.mode === "off") continue;
      this.palette(layer);
      for (const tile of layer.drawn) this.tile(tile, layer, view);
    }
  }

  tile(tile, layer, view) {
    if (!tile.nuclei) return;
    const { gl } = this;
    const made = this.made(tile, layer);
    const size = layer.side * 2 ** tile.step;
    const origin = [(tile.column * size - view.x) * view.scale, (tile.row * size - view.y) * view.scale];
    const unit = (2 ** tile.step / this.about.units) * view.scale;
    const use = (shader, scale) => {
      gl.useProgram(shader.program);
      gl.uniform2f(shader.uOrigin, ...origin);
      gl.uniform1f(shader.uScale, scale);
      gl.uniform2f(shader.uSize, this.canvas.width, this.canvas.height);
      gl.uniform1f(shader.uLeast, layer.least - 1e-5);
      gl.uniform1i(shader.uPalette, 0);
      return shader;
    };
    if (tile.kind === DENSITY) {
      const shader = use(this.picture, size * view.scale);
      gl.uniform1i(shader.uPicture, 1);
      gl.activeTexture(gl.TEXTURE1);
      gl.bindTexture(gl.TEXTURE_2D, made.texture);
      gl.bindVertexArray(this.empty);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      return;
    }
    if (tile.kind === DISCS) {
      const shader = use(this.disc, unit);
      gl.uniform1f(shader.uRadius, (2 ** tile.step / this.about.radius) * view.scale);
      gl.uniform1f(shader.uAlpha, 0.75);
      gl.bindVertexArray(made.areas);
      gl.drawArrays(gl.POINTS, 0, tile.rows);
      return;
    }
    if (layer.mode === "filled") {
      const shader = use(this.triangle, unit);
      gl.uniform1f(shader.uRadius, 0);
      gl.uniform1f(shader.uAlpha, 0.45);
      gl.bindVertexArray(made.areas);
      gl.drawElements(gl.TRIANGLES, tile.triangles.length, gl.UNSIGNED_INT, 0);
    }
    const shader = use(this.line, unit);
    gl.uniform1f(shader.uWidth, (view.scale < 0.4 * view.ratio ? 1.1 : 1.6) * view.ratio);
    gl.bindVertexArray(made.lines);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, tile.rows - 1);
  }

  // Buffers of a tile, or its texture for what passes now.
  made(tile, layer) {
    let made = tile.made.get(this);
    if (tile.kind === DENSITY) {
      if (made?.version !== layer.version) {
        made?.free();
        made = this.density(tile, layer);
        tile.made.set(this, made);
      }
    } else if (!made) {
      made = this.corners(tile);
      tile.made.set(this, made);
    }
    return made;
  }

  density(tile, layer) {
    const { gl } = this;
    const { cells } = this.about;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    const pixels = new Uint8Array(densities(tile, layer, cells).buffer);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, cells, cells, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    for (const [name, value] of [
      [gl.TEXTURE_MIN_FILTER, gl.LINEAR],
      [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE],
      [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
    ]) gl.texParameteri(gl.TEXTURE_2D, name, value);
    return { texture, version: layer.version, free: () => gl.deleteTexture(texture) };
  }

  corners(tile) {
    const { gl } = this;
    const corners = gl.createBuffer();
    gl.bindVertexArray(null);
    gl.bindBuffer(gl.ARRAY_BUFFER, corners);
    gl.bufferData(gl.ARRAY_BUFFER, tile.corners, gl.STATIC_DRAW);
    const attributes = (divisor) => {
      const array = gl.createVertexArray();
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, corners);
      const set = (index, count, type, normalized, offset) => {
        gl.enableVertexAttribArray(index);
        gl.vertexAttribPointer(index, count, type, normalized, 8, offset);
        gl.vertexAttribDivisor(index, divisor);
      };
      set(0, 2, gl.SHORT, false, 0);
      set(1, 1, gl.UNSIGNED_SHORT, true, 4);
      set(2, 2, gl.UNSIGNED_BYTE, false, 6);
      // The corner after this one.
      if (divisor) set(3, 2, gl.SHORT, false, 8);
      return array;
    };
    const areas = attributes(0);
    const fill = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, fill);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, tile.triangles, gl.STATIC_DRAW);
    const lines = tile.kind === DISCS ? null : attributes(1);
    gl.bindVertexArray(null);
    const free = () => {
      gl.deleteVertexArray(areas);
      gl.deleteVertexArray(lines);
      gl.deleteBuffer(corners);
      gl.deleteBuffer(fill);
    };
    return { areas, lines, free };
  }

  // Colours of the classes of a layer; those that are hidden are transparent.
  palette(layer) {
    const { gl } = this;
    let palette = this.palettes.get(layer.tiles);
    gl.activeTexture(gl.TEXTURE0);
    if (palette?.version === layer.version) {
      gl.bindTexture(gl.TEXTURE_2D, palette.texture);
      return;
    }
    palette ??= { texture: gl.createTexture() };
    palette.version = layer.version;
    this.palettes.set(layer.tiles, palette);
    gl.bindTexture(gl.TEXTURE_2D, palette.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, layer.palette);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }
}

// A program, with the places of its uniforms beside it.
function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    uniforms[name] = gl.getUniformLocation(made, name);
  }
  return { program: made, ...uniforms };
}
