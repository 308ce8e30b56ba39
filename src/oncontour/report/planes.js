// Three planes: the image, what lies under and over the contours, the contours, the cross, letters and scale.

// Functions (plane, view, context) that draw under the contours and over them: dose and comparison add theirs.
const underlays = [], overlays = [];

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

const isLarge = (plane) => plane.canvas.parentElement.dataset.pane === $("planes").dataset.large;

// Screen pixels of a point (a, b) in mm of the plane: left + a scale, top + b scale; `top` counts from the other end where the plane is flipped.
function fit(plane) {
  const ratio = window.devicePixelRatio || 1, box = plane.canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
  if (plane.canvas.width !== width || plane.canvas.height !== height) [plane.canvas.width, plane.canvas.height] = [width, height];
  const margin = 22 * ratio;
  const scale = plane.zoom * Math.min(Math.max(1, width - 2 * margin) / plane.mm[0], Math.max(1, height - 2 * margin) / plane.mm[1]);
  const middle = plane.middle || [plane.mm[0] / 2, plane.mm[1] / 2];
  return { ratio, width, height, scale, left: width / 2 - middle[0] * scale, top: height / 2 - middle[1] * scale };
}

// From mm in the plane to the screen.
const screen = (plane, view) => [
  (a) => view.left + a * view.scale,
  (b) => view.top + (plane.flip ? plane.mm[1] - b : b) * view.scale,
];

// The point (u, v, w) of a place (a, b) in the plane.
function spaceOf(plane, a, b) {
  const found = [0, 0, 0]; // k, j, i
  found[plane.across] = a;
  found[plane.down] = b;
  found[plane.normal] = (at[plane.normal] + 0.5) * scene.step_mm[plane.normal];
  return [found[2], found[1], found[0]];
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
  for (const layer of underlays) layer(plane, view, context);
  const outlines = drawContours(plane, view, context);
  for (const layer of overlays) layer(plane, view, context);
  if (pressed("cross")) drawCross(plane, view, context);
  if (pressed("labels")) drawLabels(plane, view, context, outlines);
  drawMeasures(plane, view, context);
  drawLetters(plane, view, context);
  drawScale(view, context);
}

// What was drawn of each structure: { structure, areas }, for its label.
function drawContours(plane, view, context) {
  const [x, y] = screen(plane, view), drawn = [];
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
    if (!isShown(structure.name)) return;
    const { areas, lines } = plane.normal === 0 ? { areas: contours[n].get(at[0]) || [], lines: null } : cut(contours[n], plane);
    if (!areas.length) return;
    drawn.push({ structure, areas });
    const colour = structure.colour.join(" "), area = trace(areas, true), aside = focus && lit !== structure.name;
    if (pressed("fill") && structure.shade && !(review && review.shadesErrors())) {
      const shade = bright === structure.name ? Math.max(0.4, structure.shade) : focus && focus !== structure.name ? 0.45 * structure.shade : structure.shade;
      context.fillStyle = `rgb(${colour} / ${shade})`;
      context.fill(area, "evenodd");
    }
    context.lineJoin = context.lineCap = "round";
    context.lineWidth = (lit === structure.name ? 3 : aside ? (structure.given ? 0.8 : 1.2) : 1.7) * view.ratio;
    context.strokeStyle = `rgb(${colour} / ${structure.line * (aside ? (structure.given ? 0.4 : 0.6) : 1)})`;
    context.stroke(lines ? trace(lines, false) : area);
  });
  return drawn;
}

// Each structure's name beside its outline, right of it where there is room, and no name over another. The large plane has all, a small one that of the
// structure in question.
function drawLabels(plane, view, context, outlines) {
  const [x, y] = screen(plane, view), height = 14 * view.ratio, taken = [], wanted = [];
  context.font = `${11.5 * view.ratio}px system-ui, "DejaVu Sans", sans-serif`;
  for (const { structure, areas } of outlines) {
    if (!isLarge(plane) && structure.name !== (bright ?? focus)) continue;
    let right = [-Infinity, 0], left = [Infinity, 0];
    for (const points of areas) {
      for (let p = 0; p < points.length; p += 2) {
        const here = [x(points[p]), y(points[p + 1])];
        if (here[0] < 0 || here[0] > view.width || here[1] < 0 || here[1] > view.height) continue;
        if (here[0] > right[0]) right = here;
        if (here[0] < left[0]) left = here;
      }
    }
    if (right[0] < 0) continue; // all of it is out of sight
    const wide = context.measureText(structure.name).width, gap = 7 * view.ratio, fits = right[0] + gap + wide < view.width;
    const [anchor, begin] = fits ? [right, right[0] + gap] : [left, Math.max(2, left[0] - gap - wide)];
    wanted.push({ structure, anchor, begin, wide, middle: between(anchor[1], height, view.height - height), fits });
  }
  wanted.sort((a, b) => a.middle - b.middle);
  context.textBaseline = "middle";
  context.textAlign = "left";
  for (const { structure, anchor, begin, wide, middle, fits } of wanted) {
    let line = middle;
    const meets = () => taken.find((one) => Math.abs(one.line - line) < height && one.begin < begin + wide && begin < one.begin + one.wide);
    for (let tries = 0, one = meets(); one && tries < 40; tries++, one = meets()) line = one.line + height;
    taken.push({ line, begin, wide, name: structure.name });
    context.lineWidth = view.ratio;
    context.strokeStyle = context.fillStyle = `rgb(${structure.colour.join(" ")})`;
    context.beginPath();
    context.moveTo(...anchor);
    context.lineTo(fits ? begin - 2 * view.ratio : begin + wide + 2 * view.ratio, line);
    context.stroke();
    context.lineWidth = 3 * view.ratio;
    context.strokeStyle = "rgb(0 0 0 / .85)";
    context.strokeText(structure.name, begin, line);
    context.fillText(structure.name, begin, line);
  }
  plane.labels = taken.map((one) => one.name);
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

function write(context, text, x, y, ratio, align = "center", colour = "#f3e9c8") {
  context.font = `600 ${13 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "rgb(0 0 0 / .8)";
  context.strokeText(text, x, y);
  context.fillStyle = colour;
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
    drawSolid();
  });
}

// The line of the cross: slice, place, grey value.
function tell() {
  const hu = greyAt((at[2] + 0.5) * di, (at[1] + 0.5) * dj, (at[0] + 0.5) * dk);
  $("where").textContent = [`slice ${at[0] + 1} of ${nk}`, `${scene.along} ${scene.z_mm[at[0]].toFixed(1)} mm`, hu].filter(Boolean).join(" · ");
  probe();
}
