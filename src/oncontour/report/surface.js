// The surface of a structure from its contours: how much of each cell they cover, and a net around what is half covered and more.
// Naive surface nets: S. F. F. Gibson, "Constrained elastic surface nets", MICCAI 1998; the vertex is the mean of the edges' crossings.

const LEAST_MM = 1, MOST_CELLS = 48, LINES = 3; // a cell is a 48th of the structure, but no smaller; lines that it is sampled by

// { n, size, cells: Float32Array 0..1, from: mm of the first cell's centre (w, v, u), step } or null where there is nothing.
function coverage(slices) {
  const held = [...slices.keys()], low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (const polygons of slices.values()) for (const points of polygons) {
    for (let p = 0; p < points.length; p++) {
      low[p % 2] = Math.min(low[p % 2], points[p]);
      high[p % 2] = Math.max(high[p % 2], points[p]);
    }
  }
  if (!held.length || low[0] > high[0]) return null;
  const first = Math.min(...held), last = Math.max(...held);
  const step = Math.max(LEAST_MM, (high[0] - low[0]) / MOST_CELLS, (high[1] - low[1]) / MOST_CELLS, ((last - first + 1) * dk) / MOST_CELLS);
  const merged = Math.max(1, Math.round(step / dk)); // slices in a layer of cells
  const size = [Math.ceil((last - first + 1) / merged) + 2, Math.ceil((high[1] - low[1]) / step) + 2, Math.ceil((high[0] - low[0]) / step) + 2];
  const cells = new Float32Array(size[0] * size[1] * size[2]);
  const corner = [first * dk - merged * dk, low[1] - step, low[0] - step];
  for (const [k, polygons] of slices) {
    const layer = 1 + Math.floor((k - first) / merged);
    for (const [row, spans] of spansByLine(polygons, corner[1], step / LINES)) {
      const base = (layer * size[1] + Math.floor(row / LINES)) * size[2];
      for (let n = 0; n + 1 < spans.length; n += 2) cover(cells, base, size[2], (spans[n] - corner[2]) / step, (spans[n + 1] - corner[2]) / step, 1 / (LINES * merged));
    }
  }
  return { size, cells, step: [merged * dk, step, step], from: corner.map((mm, axis) => mm + [merged * dk, step, step][axis] / 2) };
}

// Line -> the sorted places along u where polygons cross it; lines are `step` apart in v from `from`.
function spansByLine(polygons, from, step) {
  const lines = new Map();
  for (const points of polygons) {
    for (let p = 0, q = points.length - 2; p < points.length; q = p, p += 2) {
      const [a, b] = points[q + 1] < points[p + 1] ? [q, p] : [p, q];
      const begin = Math.ceil((points[a + 1] - from) / step - 0.5), end = Math.ceil((points[b + 1] - from) / step - 0.5);
      for (let line = begin; line < end; line++) {
        const part = (from + (line + 0.5) * step - points[a + 1]) / (points[b + 1] - points[a + 1]);
        if (!lines.has(line)) lines.set(line, []);
        lines.get(line).push(points[a] + part * (points[b] - points[a]));
      }
    }
  }
  for (const crossings of lines.values()) crossings.sort((a, b) => a - b);
  return lines;
}

// Adds `weight` times what a span from a to b (in cells) covers of each cell of a row.
function cover(cells, base, columns, a, b, weight) {
  for (let n = Math.max(0, Math.floor(a)); n < columns && n < b; n++) cells[base + n] += weight * (Math.min(b, n + 1) - Math.max(a, n));
}

// { points: Float32Array of (u, v, w) mm, quads: Uint32Array of four points each, facing outwards, normals } of the half-covered surface.
function netOf(field) {
  const { size: [nz, ny, nx], cells, from, step } = field, index = new Int32Array(nz * ny * nx).fill(-1), points = [], quads = [];
  const strides = [ny * nx, nx, 1];
  for (let z = 0; z + 1 < nz; z++) for (let y = 0; y + 1 < ny; y++) for (let x = 0; x + 1 < nx; x++) {
    const base = (z * ny + y) * nx + x;
    let count = 0, sz = 0, sy = 0, sx = 0, inner = 0;
    for (let corner = 0; corner < 8; corner++) inner += cells[base + (corner >> 2) * strides[0] + ((corner >> 1) & 1) * nx + (corner & 1)] >= 0.5;
    if (!inner || inner === 8) continue;
    for (let axis = 0; axis < 3; axis++) {
      for (let side = 0; side < 4; side++) {
        const other = [[1, 2], [0, 2], [0, 1]][axis], offset = [0, 0, 0];
        offset[other[0]] = side & 1;
        offset[other[1]] = side >> 1;
        const here = base + offset[0] * strides[0] + offset[1] * nx + offset[2], a = cells[here], b = cells[here + strides[axis]];
        if (a >= 0.5 === b >= 0.5) continue;
        offset[axis] = (0.5 - a) / (b - a);
        sz += offset[0];
        sy += offset[1];
        sx += offset[2];
        count++;
      }
    }
    index[base] = points.length / 3;
    points.push(from[2] + (x + sx / count) * step[2], from[1] + (y + sy / count) * step[1], from[0] + (z + sz / count) * step[0]);
  }
  for (let z = 0; z + 1 < nz; z++) for (let y = 0; y + 1 < ny; y++) for (let x = 0; x + 1 < nx; x++) {
    const base = (z * ny + y) * nx + x, here = [z, y, x];
    for (let axis = 0; axis < 3; axis++) {
      if (!here[(axis + 1) % 3] || !here[(axis + 2) % 3]) continue; // the rim is empty
      const a = cells[base] >= 0.5, b = cells[base + strides[axis]] >= 0.5;
      if (a === b) continue;
      const [p, q] = [strides[(axis + 1) % 3], strides[(axis + 2) % 3]], round = [index[base - p - q], index[base - q], index[base], index[base - p]];
      quads.push(...(a ? round.reverse() : round));
    }
  }
  const mesh = { points: Float32Array.from(points), quads: Uint32Array.from(quads) };
  return { ...mesh, normals: normalsOf(mesh) };
}

function normalsOf({ points, quads }) {
  const normals = new Float32Array(points.length);
  for (let n = 0; n < quads.length; n += 4) {
    const [a, b, c, d] = quads.subarray(n, n + 4), p = [0, 1, 2].map((x) => points[3 * c + x] - points[3 * a + x]), q = [0, 1, 2].map((x) => points[3 * d + x] - points[3 * b + x]);
    const normal = [p[1] * q[2] - p[2] * q[1], p[2] * q[0] - p[0] * q[2], p[0] * q[1] - p[1] * q[0]];
    for (const corner of [a, b, c, d]) for (let x = 0; x < 3; x++) normals[3 * corner + x] += normal[x];
  }
  for (let n = 0; n < normals.length; n += 3) {
    const size = Math.hypot(normals[n], normals[n + 1], normals[n + 2]) || 1;
    for (let x = 0; x < 3; x++) normals[n + x] /= size;
  }
  return normals;
}

// What a net encloses, in cc; positive where its quads face outwards.
function volumeOf({ points, quads }) {
  const at = (n) => [points[3 * n], points[3 * n + 1], points[3 * n + 2]];
  const six = (a, b, c) => a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0]);
  let sum = 0;
  for (let n = 0; n < quads.length; n += 4) {
    const [a, b, c, d] = [0, 1, 2, 3].map((corner) => at(quads[n + corner]));
    sum += six(a, b, c) + six(a, c, d);
  }
  return sum / 6000;
}
