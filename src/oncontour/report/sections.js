// Structures in sagittal and coronal planes, cut from their axial polygons.

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
