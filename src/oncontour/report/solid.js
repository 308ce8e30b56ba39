// The structures in 3D: their surfaces drawn into the pixels of a canvas, nearest first, without any help of a graphics card.

const SHARPEST = 640; // pixels of the longer side while it is drawn
const solid = { canvas: $("solid"), yaw: 0.6, pitch: -0.25, zoom: 1, dx: 0, dy: 0, nets: null, middle: [0, 0, 0], reach: 1, drawn: null };

// The nets of all structures, made when 3D is first asked for, one after the other so that the page stays quick.
async function makeNets() {
  if (solid.nets) return;
  solid.nets = scene.structures.map(() => null);
  for (let n = 0; n < scene.structures.length; n++) {
    const field = coverage(contours[n]);
    if (field) solid.nets[n] = netOf(field);
    frameNets();
    draw();
    await new Promise((done) => setTimeout(done));
  }
  document.body.dataset.solid = "true";
}

// Around which point all turns, and how far it reaches.
function frameNets() {
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  solid.nets.forEach((net, n) => {
    if (!net || BODIES.test(scene.structures[n].name)) return;
    for (let p = 0; p < net.points.length; p++) {
      low[p % 3] = Math.min(low[p % 3], net.points[p]);
      high[p % 3] = Math.max(high[p % 3], net.points[p]);
    }
  });
  if (low[0] > high[0]) return;
  solid.middle = [0, 1, 2].map((x) => (low[x] + high[x]) / 2);
  solid.reach = Math.hypot(...[0, 1, 2].map((x) => high[x] - low[x])) / 2 + 5;
}

// Rows: to the right of the screen, down the screen, away from the reader. At yaw and pitch 0 one looks at the patient from the front.
function turned() {
  const [cy, sy, cp, sp] = [Math.cos(solid.yaw), Math.sin(solid.yaw), Math.cos(solid.pitch), Math.sin(solid.pitch)];
  return [[cy, sy, 0], [-sy * sp, cy * sp, -cp], [-sy * cp, cy * cp, sp]];
}

function drawSolid() {
  const pane = solid.canvas.parentElement;
  if (pane.hidden || !solid.nets) return;
  const box = solid.canvas.getBoundingClientRect(), sharp = Math.min(window.devicePixelRatio || 1, SHARPEST / Math.max(box.width, box.height, 1));
  const width = Math.max(2, Math.round(box.width * sharp)), height = Math.max(2, Math.round(box.height * sharp));
  Object.assign(solid.canvas, { width, height });
  const context = solid.canvas.getContext("2d"), image = context.createImageData(width, height);
  const view = { width, height, sharp, scale: (solid.zoom * Math.min(width, height)) / (2 * solid.reach), axes: turned() };
  const shown = scene.structures.map((structure, n) => ({ structure, n, net: solid.nets[n] })).filter(({ structure, net }) => net && isShown(structure.name) && structure.surface);
  const front = new Float32Array(width * height).fill(Infinity), whose = new Int16Array(width * height).fill(-1), light = new Uint8Array(width * height);
  for (const one of shown.filter(({ structure }) => structure.surface >= 1)) raster(one, view, front, whose, light);
  const out = new Uint8ClampedArray(image.data.buffer);
  for (let p = 0; p < whose.length; p++) {
    if (whose[p] < 0) continue;
    const { colour } = scene.structures[whose[p]];
    for (let c = 0; c < 3; c++) out[4 * p + c] = (colour[c] * light[p]) / 255;
    out[4 * p + 3] = 255;
  }
  const clear = shown.filter(({ structure }) => structure.surface < 1).map((one) => ({ ...one, far: away(view, one.net.points) })).sort((a, b) => b.far - a.far);
  for (const one of clear) blend(one, view, front, out, whose);
  context.putImageData(image, 0, 0);
  solid.drawn = { view, front, whose };
  drawMarks(context, view);
  $("empty").hidden = solid.nets.some((net) => net);
}

// How far away the middle of a net is.
function away(view, points) {
  let sum = 0;
  for (let p = 0; p < points.length; p += 3) for (let x = 0; x < 3; x++) sum += view.axes[2][x] * points[p + x];
  return (3 * sum) / points.length;
}

// A structure that lets through what is behind it: only its own nearest surface is laid over the others.
function blend(one, view, front, out, whose) {
  const own = new Float32Array(front.length).fill(Infinity), mine = new Int16Array(front.length).fill(-1), light = new Uint8Array(front.length);
  raster(one, view, own, mine, light);
  const { colour, surface } = one.structure;
  for (let p = 0; p < own.length; p++) {
    if (mine[p] < 0 || own[p] > front[p]) continue;
    const under = out[4 * p + 3] / 255, whole = surface + under * (1 - surface);
    for (let c = 0; c < 3; c++) out[4 * p + c] = ((colour[c] * light[p] / 255) * surface + out[4 * p + c] * under * (1 - surface)) / whole;
    out[4 * p + 3] = 255 * whole;
    if (whose[p] < 0) {
      whose[p] = one.n;
      front[p] = own[p];
    }
  }
}

// From (u, v, w) mm to the pixels and the depth.
function project(view, u, v, w) {
  const [a, b, c] = [u - solid.middle[0], v - solid.middle[1], w - solid.middle[2]], [right, down, deep] = view.axes;
  return [
    view.width / 2 + solid.dx * view.sharp + view.scale * (right[0] * a + right[1] * b + right[2] * c),
    view.height / 2 + solid.dy * view.sharp + view.scale * (down[0] * a + down[1] * b + down[2] * c),
    deep[0] * a + deep[1] * b + deep[2] * c,
  ];
}

// Draws a net: of each pixel the nearest depth, whose it is, and how light.
function raster({ n, net, structure }, view, front, whose, light) {
  const { points, normals, quads } = net, count = points.length / 3;
  const x = new Float32Array(count), y = new Float32Array(count), z = new Float32Array(count), shine = new Float32Array(count);
  const lamp = [0, 1, 2].map((i) => -view.axes[2][i] - 0.35 * view.axes[1][i] - 0.25 * view.axes[0][i]), size = Math.hypot(...lamp);
  const lit = (bright ?? focus) === structure.name ? 1.15 : 1;
  for (let p = 0; p < count; p++) {
    [x[p], y[p], z[p]] = project(view, points[3 * p], points[3 * p + 1], points[3 * p + 2]);
    const cosine = (normals[3 * p] * lamp[0] + normals[3 * p + 1] * lamp[1] + normals[3 * p + 2] * lamp[2]) / size;
    shine[p] = Math.min(255, 255 * lit * (0.25 + 0.75 * Math.max(0, cosine)));
  }
  const triangle = (a, b, c) => {
    const area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a]);
    if (!area) return;
    const left = Math.max(0, Math.ceil(Math.min(x[a], x[b], x[c]))), right = Math.min(view.width - 1, Math.floor(Math.max(x[a], x[b], x[c])));
    const top = Math.max(0, Math.ceil(Math.min(y[a], y[b], y[c]))), bottom = Math.min(view.height - 1, Math.floor(Math.max(y[a], y[b], y[c])));
    for (let py = top; py <= bottom; py++) {
      for (let px = left; px <= right; px++) {
        const pb = ((px - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (py - y[a])) / area, pc = ((x[b] - x[a]) * (py - y[a]) - (px - x[a]) * (y[b] - y[a])) / area;
        if (pb < 0 || pc < 0 || pb + pc > 1) continue;
        const depth = z[a] + pb * (z[b] - z[a]) + pc * (z[c] - z[a]), at = py * view.width + px;
        if (depth >= front[at]) continue;
        front[at] = depth;
        whose[at] = n;
        light[at] = shine[a] + pb * (shine[b] - shine[a]) + pc * (shine[c] - shine[a]);
      }
    }
  };
  for (let q = 0; q < quads.length; q += 4) {
    triangle(quads[q], quads[q + 1], quads[q + 2]);
    triangle(quads[q], quads[q + 2], quads[q + 3]);
  }
}

// Where the planes cut, and which way the patient lies.
function drawMarks(context, view) {
  const ratio = view.sharp;
  if (pressed("cross")) {
    const [x, y] = project(view, (at[2] + 0.5) * di, (at[1] + 0.5) * dj, (at[0] + 0.5) * dk);
    context.strokeStyle = "rgb(255 255 255 / .9)";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    context.arc(x, y, 5 * ratio, 0, 2 * Math.PI);
    context.stroke();
  }
  const origin = [34 * ratio, view.height - 34 * ratio];
  for (const [axis, end] of [[0, "i+"], [1, "j+"], [2, "k+"]]) {
    const [dx, dy] = [view.axes[0][axis], view.axes[1][axis]].map((one) => 20 * ratio * one);
    context.strokeStyle = "#f3e9c8";
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    context.moveTo(...origin);
    context.lineTo(origin[0] + dx, origin[1] + dy);
    context.stroke();
    write(context, scene.letters[end], origin[0] + 1.45 * dx, origin[1] + 1.45 * dy, 0.85 * ratio);
  }
}

// ---- what the reader does with it

// By pixels: what is in front goes with the pointer.
function turn(dx, dy) {
  solid.yaw -= dx * 0.01;
  solid.pitch = between(solid.pitch - dy * 0.01, -Math.PI / 2, Math.PI / 2);
  draw();
}

function zoomSolid(factor) {
  solid.zoom = between(solid.zoom * factor, 0.3, 12);
  draw();
}

function frontView() {
  Object.assign(solid, { yaw: 0.6, pitch: -0.25, zoom: 1, dx: 0, dy: 0 });
  draw();
}

// The surface under the pointer: { name, place: (u, v, w) } or null.
function surfaceAt(event) {
  if (!solid.drawn) return null;
  const { view, front, whose } = solid.drawn, box = solid.canvas.getBoundingClientRect();
  const x = Math.round((event.clientX - box.left) * view.sharp), y = Math.round((event.clientY - box.top) * view.sharp);
  if (x < 0 || y < 0 || x >= view.width || y >= view.height || whose[y * view.width + x] < 0) return null;
  const a = (x - view.width / 2 - solid.dx * view.sharp) / view.scale, b = (y - view.height / 2 - solid.dy * view.sharp) / view.scale, c = front[y * view.width + x] + 1.5; // mm: just inside
  return { name: scene.structures[whose[y * view.width + x]].name, place: [0, 1, 2].map((n) => solid.middle[n] + view.axes[0][n] * a + view.axes[1][n] * b + view.axes[2][n] * c) };
}

function toggleSolid() {
  const shown = !pressed("three");
  $("three").setAttribute("aria-pressed", shown);
  solid.canvas.parentElement.hidden = !shown;
  $("planes").classList.toggle("four", shown);
  if (!shown && $("planes").dataset.large === "solid") enlarge("axial");
  if (shown) makeNets();
  draw();
}

{
  const { canvas } = solid;
  let down = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (event.button === 1) event.preventDefault();
    down = { x: event.clientX, y: event.clientY, moved: false, pans: event.button > 0 };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!down) {
      const found = surfaceAt(event);
      if (found) $("probe").textContent = found.name;
      return;
    }
    const dx = event.clientX - down.x, dy = event.clientY - down.y;
    if (!down.moved && Math.hypot(dx, dy) < 4) return;
    down = { ...down, x: event.clientX, y: event.clientY, moved: true };
    if (!down.pans) return turn(dx, dy);
    solid.dx += dx;
    solid.dy += dy;
    draw();
  });
  canvas.addEventListener("pointerup", (event) => {
    const found = down && !down.moved && surfaceAt(event);
    down = null;
    if (!found) return;
    const [u, v, w] = found.place;
    [at[0], at[1], at[2]] = [clamp(w / dk - 0.5, nk), clamp(v / dj - 0.5, nj), clamp(u / di - 0.5, ni)];
    draw();
  });
  canvas.addEventListener("pointercancel", () => { down = null; });
  canvas.addEventListener("pointerleave", probe);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", frontView);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomSolid((event.deltaY || event.deltaX) < 0 ? 1.15 : 1 / 1.15);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const does = { ArrowLeft: () => turn(-12, 0), ArrowRight: () => turn(12, 0), ArrowUp: () => turn(0, -12), ArrowDown: () => turn(0, 12), "+": () => zoomSolid(1.15), "=": () => zoomSolid(1.15), "-": () => zoomSolid(1 / 1.15), r: frontView }[event.key];
    if (!does || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    event.stopPropagation();
    does();
  });
}
