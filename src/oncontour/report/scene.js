"use strict";
// What travels in the page: images, contours and dose of one case. Everything comes from this page; nothing is fetched.
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
let dose = null; // once unpacked: scene.dose with `codes`
let bright = null; // name under the pointer
let focus = null; // name of the structure in question, where there is a review
let review = null;
const keys = {}; // key -> what it does

window.addEventListener("error", (event) => { document.body.dataset.error = event.message; });

const pressed = (id) => $(id)?.getAttribute("aria-pressed") === "true";
const clamp = (value, size) => Math.max(0, Math.min(size - 1, Math.round(value)));
const between = (value, low, high) => Math.max(low, Math.min(high, value));

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
  contours = JSON.parse(new TextDecoder().decode(bytes)).map(slicesOf);
}

// Polygons of one structure, as they travel, by slice.
function slicesOf(polygons) {
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
}

// Each code was stored as its difference from its left neighbour, small numbers of either sign as small ones, low bytes before high ones.
function readDose(bytes) {
  const columns = scene.dose.shape[2], size = bytes.length / 2, found = new Uint16Array(size);
  for (let n = 0; n < size; n++) {
    const folded = bytes[n] | (bytes[size + n] << 8);
    found[n] = (n % columns ? found[n - 1] : 0) + (folded & 1 ? -((folded + 1) >> 1) : folded >> 1);
  }
  dose = { ...scene.dose, codes: found };
}

// ---- what is at a place

// Dose in Gy at a point in mm, linear between the dose's own voxels; null where there is none.
function doseAt(u, v, w) {
  if (!dose) return null;
  const low = [], part = [];
  for (const [axis, mm] of [w, v, u].entries()) {
    const at = (mm - dose.from_mm[axis]) / dose.step_mm[axis], last = dose.shape[axis] - 1;
    if (at < -0.5 || at > last + 0.5) return null;
    low.push(between(Math.floor(at), 0, Math.max(0, last - 1)));
    part.push(between(at - low[axis], 0, last ? 1 : 0));
  }
  let sum = 0;
  for (let corner = 0; corner < 8; corner++) {
    let weight = 1, n = 0;
    for (let axis = 0; axis < 3; axis++) {
      const upper = (corner >> axis) & 1;
      weight *= upper ? part[axis] : 1 - part[axis];
      n = n * dose.shape[axis] + Math.min(low[axis] + upper, dose.shape[axis] - 1);
    }
    if (!weight) continue;
    if (dose.codes[n] === dose.none) return null;
    sum += weight * dose.codes[n];
  }
  return sum * dose.gy;
}

// Whether (u, v) lies inside polygons: even-odd, as they are filled.
function inside(polygons, u, v) {
  let crossed = false;
  for (const points of polygons) {
    for (let p = 0, q = points.length - 2; p < points.length; q = p, p += 2) {
      if (points[p + 1] > v !== points[q + 1] > v && u < points[p] + ((v - points[p + 1]) / (points[q + 1] - points[p + 1])) * (points[q] - points[p])) crossed = !crossed;
    }
  }
  return crossed;
}

// Names of the shown structures that hold a point, by their contours on the slice that it lies in.
function structuresAt(u, v, w) {
  const k = Math.floor(w / dk);
  return scene.structures.filter((one, n) => isShown(one.name) && inside(contours[n].get(k) || [], u, v)).map((one) => one.name);
}

const isShown = (name) => !hidden.has(name) && !(review && review.hides(name));

// LPS mm of a point (u, v, w).
function patient(u, v, w) {
  return [0, 1, 2].map((x) => scene.corner_mm[x] + scene.axes[0][x] * w + scene.axes[1][x] * v + scene.axes[2][x] * u);
}

// The grey value of the voxel that holds a point, in words; "" where there is none yet.
function greyAt(u, v, w) {
  const [k, j, i] = [Math.floor(w / dk), Math.floor(v / dj), Math.floor(u / di)];
  if (k < 0 || j < 0 || i < 0 || k >= nk || j >= nj || i >= ni || !ready[k]) return "";
  const code = codes[(k * nj + j) * ni + i], sign = code === 0 ? "≤" : code === scene.levels.length - 1 ? "≥" : "≈"; // the ends hold all beyond
  return `${sign} ${scene.levels[code]} ${scene.unit}`.trim();
}
