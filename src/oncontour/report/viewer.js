"use strict";
// The images and contours of one case, in three planes. Everything comes from this page; nothing is fetched.
//
// Space: u runs to the patient's left, v to posterior, w to superior, in mm from the corner of the shown box; voxel (k, j, i) is
// centred at ((i + .5) di, (j + .5) dj, (k + .5) dk). A plane shows two of the three; `at` = [k, j, i] is where the planes cut.

const $ = (id) => document.getElementById(id);
const scene = JSON.parse($("scene").textContent);
const [nk, nj, ni] = scene.shape;
const [dk, dj, di] = scene.step_mm;
const codes = new Uint8Array(nk * nj * ni);
const ready = new Uint8Array(nk);
const at = scene.start.slice();
const hidden = new Set();
let contours = scene.structures.map(() => new Map()); // structure -> slice k -> polygons [u, v, u, v, ...] in mm
let bright = null; // name under the pointer
let focus = null; // name of the structure in question, where there is a review
let review = null;
let grey = new Uint32Array(256);

window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });

// ---- unpacking

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let n = 0; n < letters.length; n++) bytes[n] = letters.charCodeAt(n);
  return bytes;
}

async function inflate(text) {
  const stream = new DecompressionStream("deflate"), writer = stream.writable.getWriter();
  writer.write(bytesOf(text.trim())).then(() => writer.close()).catch(() => {}); // what is wrong with it the reader is told
  return new Uint8Array(await new Response(stream.readable).arrayBuffer());
}

// Each code was stored as its difference from the mean of its left and upper neighbours.
function restore(bytes, first, count) {
  for (let k = 0; k < count; k++) {
    const from = k * nj * ni, to = (first + k) * nj * ni;
    for (let j = 0, n = 0; j < nj; j++) {
      for (let i = 0; i < ni; i++, n++) {
        const left = i ? codes[to + n - 1] : 0, up = j ? codes[to + n - ni] : 0;
        codes[to + n] = bytes[from + n] + ((left + up) >> 1);
      }
    }
    ready[first + k] = 1;
  }
}

function readContours(bytes) {
  const packed = JSON.parse(new TextDecoder().decode(bytes));
  contours = packed.map((polygons) => {
    const slices = new Map();
    for (const [k, steps] of polygons) {
      const points = new Float32Array(steps.length);
      for (let n = 0, u = 0, v = 0; n < steps.length; n += 2) {
        points[n] = (u += steps[n]) / 100;
        points[n + 1] = (v += steps[n + 1]) / 100;
      }
      if (!slices.has(k)) slices.set(k, []);
      slices.get(k).push(points);
    }
    return slices;
  });
}

async function unpack() {
  if (!("DecompressionStream" in window)) {
    $("loading").textContent = "This browser is too old to show the images (it needs DecompressionStream: Chrome or Edge 80, Firefox 113, Safari 16.4).";
    return;
  }
  readContours(await inflate($("contours").textContent));
  zoomToStructures(planes[0]);
  if (review) review.begin();
  const show = async (block) => {
    restore(await inflate(block.textContent), +block.dataset.first, +block.dataset.count);
    block.remove();
    draw();
  };
  await show(document.querySelector("script.block")); // the slices on show stand before this script, all others after it
  $("loading").hidden = true;
  performance.mark("first slice");
  if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  for (const block of document.querySelectorAll("script.block")) await show(block);
  performance.mark("all slices");
  document.body.dataset.ready = "true";
}

// ---- planes

// across/down: axis (0 k, 1 j, 2 i) along the screen, its direction, and the letters at its ends
const planes = [
  { id: "axial", normal: 0, across: 2, down: 1, flip: false, letters: ["i-", "i+", "j-", "j+"] },
  { id: "sagittal", normal: 2, across: 1, down: 0, flip: true, letters: ["j-", "j+", "k+", "k-"] },
  { id: "coronal", normal: 1, across: 2, down: 0, flip: true, letters: ["i-", "i+", "k+", "k-"] },
].map((plane) => {
  const size = [scene.shape[plane.across], scene.shape[plane.down]];
  const step = [scene.step_mm[plane.across], scene.step_mm[plane.down]];
  const image = document.createElement("canvas");
  [image.width, image.height] = size;
  return { ...plane, size, step, mm: [size[0] * step[0], size[1] * step[1]], image, canvas: $(plane.id), zoom: 1, middle: null };
});

function fit(plane) {
  const ratio = window.devicePixelRatio || 1, box = plane.canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (plane.canvas.width !== width || plane.canvas.height !== height) [plane.canvas.width, plane.canvas.height] = [width, height];
  const margin = 22 * ratio;
  const scale = plane.zoom * Math.min((width - 2 * margin) / plane.mm[0], (height - 2 * margin) / plane.mm[1]);
  const middle = plane.middle || [plane.mm[0] / 2, plane.mm[1] / 2];
  return { ratio, width, height, scale, left: width / 2 - middle[0] * scale, top: height / 2 - middle[1] * scale };
}

function paint(plane) {
  const [columns, rows] = plane.size, context = plane.image.getContext("2d");
  const data = context.createImageData(columns, rows), out = new Uint32Array(data.data.buffer);
  const stride = [nj * ni, ni, 1];
  const base = at[plane.normal] * stride[plane.normal], right = stride[plane.across], below = stride[plane.down];
  for (let row = 0, n = 0; row < rows; row++) {
    const line = plane.flip ? rows - 1 - row : row;
    for (let column = 0, from = base + line * below; column < columns; column++, from += right, n++) out[n] = grey[codes[from]];
  }
  context.putImageData(data, 0, 0);
}

function drawPlane(plane) {
  const view = fit(plane), context = plane.canvas.getContext("2d");
  paint(plane);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, view.width, view.height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(plane.image, view.left, view.top, plane.mm[0] * view.scale, plane.mm[1] * view.scale);
  if (review) review.underlay(plane, view, context);
  drawContours(plane, view, context);
  if (pressed("cross")) drawCross(plane, view, context);
  drawLetters(plane, view, context);
  drawScale(view, context);
}

function drawContours(plane, view, context) {
  const x = (a) => view.left + a * view.scale, y = (b) => view.top + (plane.flip ? plane.mm[1] - b : b) * view.scale;
  const trace = (lines, close) => {
    const path = new Path2D();
    for (const points of lines) {
      for (let p = 0; p < points.length; p += 2) path[p ? "lineTo" : "moveTo"](x(points[p]), y(points[p + 1]));
      if (close) path.closePath();
    }
    return path;
  };
  const lit = bright ?? focus;
  scene.structures.forEach((structure, n) => {
    if (hidden.has(structure.name) || (review && review.hides(structure.name))) return;
    const { areas, lines } = plane.normal === 0 ? { areas: contours[n].get(at[0]) || [], lines: null } : cut(contours[n], plane);
    const colour = structure.colour.join(" "), area = trace(areas, true);
    if (pressed("fill") && !(review && review.shadesErrors())) {
      context.fillStyle = `rgb(${colour} / ${bright === structure.name ? 0.4 : focus && focus !== structure.name ? 0.07 : 0.16})`;
      context.fill(area, "evenodd");
    }
    context.lineJoin = context.lineCap = "round";
    context.lineWidth = (lit === structure.name ? 3 : lit && focus ? 1.2 : 1.7) * view.ratio;
    context.strokeStyle = `rgb(${colour} / ${focus && lit !== structure.name ? 0.6 : 1})`;
    context.stroke(lines ? trace(lines, false) : area);
  });
}

// A structure in a sagittal or coronal plane. Where the plane cuts the polygons of a slice it passes through spans; spans of neighbouring
// slices that meet one to one are joined by straight lines, the others end at the face between the slices.
function cut(slices, plane) {
  const spans = new Map();
  for (const [k, polygons] of slices) {
    const found = spansOf(polygons, plane).map(([from, to]) => ({ k, from, to, next: null, joined: false }));
    if (found.length) spans.set(k, found);
  }
  const meet = (a, b) => a.from < b.to && b.from < a.to;
  for (const [k, here] of spans) {
    for (const span of here) {
      const others = (spans.get(k + 1) || []).filter((other) => meet(span, other));
      if (others.length === 1 && here.filter((one) => meet(one, others[0])).length === 1) {
        span.next = others[0];
        others[0].joined = true;
      }
    }
  }
  const areas = [], lines = [];
  for (const here of spans.values()) for (const span of here) if (!span.joined) areas.push(chain(span));
  for (const k of new Set([...spans.keys()].flatMap((k) => [k - 1, k]))) lines.push(...face(spans.get(k) || [], spans.get(k + 1) || [], (k + 1) * dk));
  return { areas, lines };
}

function spansOf(polygons, plane) {
  const axis = plane.normal === 2 ? 0 : 1, crossings = []; // which of u, v is constant in the plane
  const where = (at[plane.normal] + 0.5) * scene.step_mm[plane.normal];
  for (const points of polygons) {
    for (let p = 0, q = points.length - 2; p < points.length; q = p, p += 2) {
      const a = points[q + axis], b = points[p + axis];
      if (a < where !== b < where) crossings.push(points[q + 1 - axis] + ((where - a) / (b - a)) * (points[p + 1 - axis] - points[q + 1 - axis]));
    }
  }
  crossings.sort((a, b) => a - b);
  return crossings.flatMap((from, n) => (n % 2 || n + 1 >= crossings.length ? [] : [[from, crossings[n + 1]]]));
}

// The area of spans that follow one another, from the lower face of the first slice to the upper face of the last.
function chain(span) {
  const up = [span.from, span.k * dk], down = [[span.to, span.k * dk]];
  for (; span.next; span = span.next) {
    up.push(span.from, (span.k + 0.5) * dk);
    down.push([span.to, (span.k + 0.5) * dk]);
  }
  up.push(span.from, (span.k + 0.5) * dk, span.from, (span.k + 1) * dk);
  down.push([span.to, (span.k + 0.5) * dk], [span.to, (span.k + 1) * dk]);
  return up.concat(down.reverse().flat());
}

// Lines between the middles of two neighbouring slices whose common face is at w.
function face(below, above, w) {
  const lines = [], ends = [], half = dk / 2;
  for (const span of below) {
    if (span.next) lines.push([span.from, w - half, span.next.from, w + half], [span.to, w - half, span.next.to, w + half]);
    else ends.push(span.from, span.to);
    if (!span.next) lines.push([span.from, w - half, span.from, w], [span.to, w - half, span.to, w]);
  }
  for (const span of above.filter((one) => !one.joined)) {
    ends.push(span.from, span.to);
    lines.push([span.from, w, span.from, w + half], [span.to, w, span.to, w + half]);
  }
  ends.sort((a, b) => a - b); // pairs of sorted ends: what one side covers and the other does not
  for (let n = 0; n + 1 < ends.length; n += 2) lines.push([ends[n], w, ends[n + 1], w]);
  return lines;
}

function drawCross(plane, view, context) {
  const x = (at[plane.across] + 0.5) * plane.step[0], y = (at[plane.down] + 0.5) * plane.step[1];
  const sx = view.left + x * view.scale, sy = view.top + (plane.flip ? plane.mm[1] - y : y) * view.scale, gap = (focus ? 40 : 14) * view.ratio;
  context.strokeStyle = "rgb(150 200 225 / .55)";
  context.lineWidth = view.ratio;
  context.beginPath();
  for (const [a, b, c, d] of [[0, sy, sx - gap, sy], [sx + gap, sy, view.width, sy], [sx, 0, sx, sy - gap], [sx, sy + gap, sx, view.height]]) {
    context.moveTo(a, b);
    context.lineTo(c, d);
  }
  context.stroke();
}

function write(context, text, x, y, ratio, align = "center") {
  context.font = `600 ${13 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "rgb(0 0 0 / .8)";
  context.strokeText(text, x, y);
  context.fillStyle = "#f3e9c8";
  context.fillText(text, x, y);
}

function drawLetters(plane, view, context) {
  const edge = 11 * view.ratio, [left, right, top, bottom] = plane.letters.map((end) => scene.letters[end]);
  write(context, left, edge, view.height / 2, view.ratio);
  write(context, right, view.width - edge, view.height / 2, view.ratio);
  write(context, top, view.width / 2, edge, view.ratio);
  write(context, bottom, view.width / 2, view.height - edge, view.ratio);
}

function drawScale(view, context) {
  const length = [100, 50, 20, 10, 5].find((mm) => mm * view.scale < view.width / 4) || 5;
  const y = view.height - 10 * view.ratio, x = 10 * view.ratio;
  context.strokeStyle = "#f3e9c8";
  context.lineWidth = 1.5 * view.ratio;
  context.beginPath();
  context.moveTo(x, y - 4 * view.ratio);
  context.lineTo(x, y);
  context.lineTo(x + length * view.scale, y);
  context.lineTo(x + length * view.scale, y - 4 * view.ratio);
  context.stroke();
  context.font = `${11 * view.ratio}px system-ui, "DejaVu Sans", sans-serif`;
  context.textAlign = "left";
  context.textBaseline = "bottom";
  context.fillStyle = "#f3e9c8";
  context.fillText(`${length / 10} cm`, x + 4 * view.ratio, y - 3 * view.ratio);
}

// Which slices hold each structure: one thin bar a structure, under the slider.
function drawStrip() {
  if (review) return review.mark();
  const canvas = $("strip"), ratio = window.devicePixelRatio || 1, shown = scene.structures.slice(0, 24), bar = 3;
  const width = Math.round(canvas.getBoundingClientRect().width * ratio), thumb = 8 * ratio; // the slider's ends lie half a thumb inside
  canvas.style.height = `${shown.length * (bar + 1)}px`;
  [canvas.width, canvas.height] = [Math.max(1, width), Math.max(1, shown.length * (bar + 1) * ratio)];
  const context = canvas.getContext("2d"), wide = (width - 2 * thumb) / Math.max(1, nk - 1);
  shown.forEach((structure, n) => {
    context.fillStyle = `rgb(${structure.colour.join(" ")} / ${hidden.has(structure.name) ? 0.25 : 1})`;
    for (const k of contours[n].keys()) context.fillRect(thumb + (k - 0.5) * wide, n * (bar + 1) * ratio, wide + 0.5, bar * ratio);
  });
  context.fillStyle = "rgb(255 255 255 / .9)";
  context.fillRect(thumb + at[0] * wide - ratio / 2, 0, ratio, canvas.height);
}

let waiting = false;
function draw() {
  $("slice").value = at[0];
  tell();
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    planes.forEach(drawPlane);
    drawStrip();
  });
}

// ---- what the user does

const pressed = (id) => $(id).getAttribute("aria-pressed") === "true";
const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.round(value)));

function tell() {
  const code = codes[(at[0] * nj + at[1]) * ni + at[2]], sign = code === 0 ? "≤" : code === scene.levels.length - 1 ? "≥" : "≈"; // the ends hold all beyond
  const hu = ready[at[0]] ? `${sign} ${scene.levels[code]} ${scene.unit}` : "";
  $("where").textContent = [`slice ${at[0] + 1} of ${nk}`, `${scene.along} ${scene.z_mm[at[0]].toFixed(1)} mm`, hu].filter(Boolean).join(" · ");
}

function setWindow(n) {
  const { low, high } = scene.windows[n];
  for (let code = 0; code < 256; code++) {
    const value = scene.levels[Math.min(code, scene.levels.length - 1)];
    const g = Math.max(0, Math.min(255, Math.round((255 * (value - low)) / (high - low))));
    grey[code] = 0xff000000 | (g << 16) | (g << 8) | g;
  }
  [...$("windows").children].forEach((button, m) => button.setAttribute("aria-pressed", m === n));
  draw();
}

function goTo(k) {
  at[0] = clamp(k, nk);
  draw();
}

function toggle(id) {
  $(id).setAttribute("aria-pressed", !pressed(id));
  draw();
}

function pointTo(plane, event) {
  const view = fit(plane), box = plane.canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) * view.ratio - view.left) / view.scale;
  const y = ((event.clientY - box.top) * view.ratio - view.top) / view.scale;
  return [x, plane.flip ? plane.mm[1] - y : y, y];
}

function moveCross(plane, event) {
  const [x, y] = pointTo(plane, event);
  at[plane.across] = clamp(x / plane.step[0] - 0.5, plane.size[0]);
  at[plane.down] = clamp(y / plane.step[1] - 0.5, plane.size[1]);
  draw();
}

function zoomAt(plane, event, factor) {
  const [x, , y] = pointTo(plane, event), old = plane.zoom, middle = plane.middle || [plane.mm[0] / 2, plane.mm[1] / 2];
  plane.zoom = Math.max(1, Math.min(12, old * factor));
  const kept = old / plane.zoom;
  plane.middle = plane.zoom === 1 ? null : [x + (middle[0] - x) * kept, y + (middle[1] - y) * kept];
  draw();
}

// The axial plane opens on the structures with their surroundings; a double click shows all of it.
function zoomToStructures(plane, around_mm = 60) {
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (const slices of contours) for (const polygons of slices.values()) for (const points of polygons) {
    for (let p = 0; p < points.length; p++) {
      low[p % 2] = Math.min(low[p % 2], points[p] - around_mm);
      high[p % 2] = Math.max(high[p % 2], points[p] + around_mm);
    }
  }
  if (low[0] > high[0]) return;
  const whole = fit(plane), wanted = Math.min((whole.width - 44 * whole.ratio) / (high[0] - low[0]), (whole.height - 44 * whole.ratio) / (high[1] - low[1]));
  plane.zoom = Math.max(1, Math.min(12, wanted / whole.scale));
  if (plane.zoom > 1) plane.middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
}

let rolled = 0;
for (const plane of planes) {
  const canvas = plane.canvas;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const turn = event.deltaY || event.deltaX;
    if (event.shiftKey || event.ctrlKey) return zoomAt(plane, event, turn < 0 ? 1.2 : 1 / 1.2);
    rolled += event.deltaMode ? turn * 40 : turn;
    const steps = Math.trunc(rolled / 40);
    rolled -= steps * 40;
    at[plane.normal] = clamp(at[plane.normal] - steps, scene.shape[plane.normal]);
    draw();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    moveCross(plane, event);
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && moveCross(plane, event));
  canvas.addEventListener("dblclick", () => {
    plane.zoom = 1;
    plane.middle = null;
    draw();
  });
}

scene.windows.forEach(({ name, low, high }, n) => {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: name, title: `${low} to ${high} ${scene.unit} (${n + 1})` });
  button.addEventListener("click", () => setWindow(n));
  $("windows").append(button);
});
$("slice").max = nk - 1;
$("slice").addEventListener("input", (event) => goTo(+event.target.value));
if ($("strip")) $("strip").addEventListener("click", (event) => {
  const box = event.target.getBoundingClientRect();
  goTo(((event.clientX - box.left - 8) / (box.width - 16)) * (nk - 1));
});
for (const id of ["fill", "cross"]) $(id).addEventListener("click", () => toggle(id));

const rows = [...document.querySelectorAll("tr[data-name]")];
for (const row of rows) {
  const name = row.dataset.name, box = row.querySelector("input"), n = scene.structures.findIndex((s) => s.name === name);
  box.addEventListener("change", () => {
    hidden[box.checked ? "delete" : "add"](name);
    draw();
  });
  row.addEventListener("pointerenter", () => { bright = name; draw(); });
  row.addEventListener("pointerleave", () => { bright = null; draw(); });
  row.querySelector("button").addEventListener("click", () => {
    if (scene.structures[n].centre) [at[0], at[1], at[2]] = scene.structures[n].centre;
    draw();
  });
}
$("all").addEventListener("change", (event) => {
  for (const row of rows) {
    row.querySelector("input").checked = event.target.checked;
    hidden[event.target.checked ? "delete" : "add"](row.dataset.name);
  }
  draw();
});

const keys = {
  ArrowUp: () => goTo(at[0] + 1), ArrowDown: () => goTo(at[0] - 1), ArrowRight: () => goTo(at[0] + 1), ArrowLeft: () => goTo(at[0] - 1),
  PageUp: () => goTo(at[0] + 10), PageDown: () => goTo(at[0] - 10), Home: () => goTo(0), End: () => goTo(nk - 1),
  f: () => toggle("fill"), x: () => toggle("cross"),
};
if ($("review")) review = startReview(JSON.parse($("review").textContent));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("summary")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = /^[1-9]$/.test(key) && scene.windows[key - 1] ? () => setWindow(key - 1) : keys[key];
  if (!action) return;
  event.preventDefault();
  action();
});
window.addEventListener("resize", draw);

setWindow(0);
unpack().catch((error) => { $("loading").hidden = false; $("loading").textContent = `The images cannot be unpacked: ${error.message}`; });
