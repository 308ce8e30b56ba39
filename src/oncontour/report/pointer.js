// What the pointer and the wheel do in the planes, by the tool in hand; and what is under the pointer.

const TOOLS = ["cross", "window", "pan", "zoom", "ruler", "angle"];
const MOST_ZOOM = 24;
let tool = "cross"; // what the left button does
let hand = planes[0]; // the plane that keys move in: the last that the pointer or the keyboard was in
let pointed = null; // { plane, a, b }: under the pointer

function take(name) {
  tool = name;
  dropUnfinished();
  for (const button of document.querySelectorAll("button[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
  $("planes").dataset.tool = name;
}

// The place (a, b) in mm of a plane that a pointer is at.
function placeOf(plane, event) {
  const view = fit(plane), box = plane.canvas.getBoundingClientRect();
  const a = ((event.clientX - box.left) * view.ratio - view.left) / view.scale;
  const b = ((event.clientY - box.top) * view.ratio - view.top) / view.scale;
  return [a, plane.flip ? plane.mm[1] - b : b];
}

function moveCross(plane, [a, b]) {
  at[plane.across] = clamp(a / plane.step[0] - 0.5, plane.size[0]);
  at[plane.down] = clamp(b / plane.step[1] - 0.5, plane.size[1]);
  draw();
}

// The middle of what is seen, counted down the screen, and never outside the image.
function setMiddle(plane, x, y) {
  plane.middle = [between(x, 0, plane.mm[0]), between(y, 0, plane.mm[1])];
}

function pan(plane, dx, dy) {
  const view = fit(plane), [x, y] = plane.middle || [plane.mm[0] / 2, plane.mm[1] / 2];
  setMiddle(plane, x - (dx * view.ratio) / view.scale, y - (dy * view.ratio) / view.scale);
  draw();
}

// What is at (a, b) stays where it is on the screen.
function zoomAbout(plane, [a, b], factor) {
  const y = plane.flip ? plane.mm[1] - b : b, old = plane.zoom, middle = plane.middle || [plane.mm[0] / 2, plane.mm[1] / 2];
  plane.zoom = between(old * factor, 1, MOST_ZOOM);
  const left = old / plane.zoom;
  if (plane.zoom === 1 && factor < 1) plane.middle = null;
  else plane.middle = [a + (middle[0] - a) * left, y + (middle[1] - y) * left];
  draw();
}

function wholeImage(plane) {
  plane.zoom = 1;
  plane.middle = null;
  draw();
}

// The axial plane opens on the structures with their surroundings.
function zoomToStructures(plane, around_mm = 60) {
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (const slices of contours) for (const polygons of slices.values()) for (const points of polygons) {
    for (let p = 0; p < points.length; p++) {
      low[p % 2] = Math.min(low[p % 2], points[p] - around_mm);
      high[p % 2] = Math.max(high[p % 2], points[p] + around_mm);
    }
  }
  if (low[0] > high[0]) return;
  const whole = fit({ ...plane, zoom: 1, middle: null });
  const wanted = Math.min((whole.width - 44 * whole.ratio) / (high[0] - low[0]), (whole.height - 44 * whole.ratio) / (high[1] - low[1]));
  plane.zoom = between(wanted / whole.scale, 1, MOST_ZOOM);
  if (plane.zoom > 1) plane.middle = [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2];
}

// ---- under the pointer; where there is none, under the cross

function probe() {
  const place = pointed ? spaceOf(pointed.plane, pointed.a, pointed.b) : [(at[2] + 0.5) * di, (at[1] + 0.5) * dj, (at[0] + 0.5) * dk];
  const gy = doseAt(...place), names = structuresAt(...place), hu = greyAt(...place);
  const mm = patient(...place).map((one) => one.toFixed(1).replace("-", "−")).join(", ");
  $("probe").textContent = [hu, gy === null ? "" : `${gy.toFixed(2)} Gy`, names.join(", "), `(${mm}) mm`].filter(Boolean).join(" · ");
}

// ---- the pointer

let rolled = 0;
for (const plane of planes) {
  const canvas = plane.canvas, down = new Map(); // pointer -> { x, y } on the screen
  let doing = null, began = null; // what the pressed button does; where it was pressed

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    hand = plane;
    const turn = event.deltaY || event.deltaX;
    if (event.shiftKey || event.ctrlKey) return zoomAbout(plane, placeOf(plane, event), turn < 0 ? 1.2 : 1 / 1.2);
    rolled += event.deltaMode ? turn * 40 : turn;
    const steps = Math.trunc(rolled / 40);
    rolled -= steps * 40;
    turnPage(plane, -steps);
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    hand = plane;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (down.size > 1) { // two fingers move and spread the image, whatever the tool
      dropUnfinished();
      doing = "pinch";
      return;
    }
    doing = event.button === 2 ? "window" : event.button === 1 ? "pan" : tool;
    began = { x: event.clientX, y: event.clientY, place: placeOf(plane, event), moved: false };
    if (event.button === 1) event.preventDefault();
    if (doing === "cross") moveCross(plane, began.place);
    if (doing in SIDES) beginMeasure(plane, began.place, fit(plane));
  });

  canvas.addEventListener("pointermove", (event) => {
    const place = placeOf(plane, event), last = down.get(event.pointerId);
    pointed = { plane, a: place[0], b: place[1] };
    probe();
    if (!last) {
      if (unfinished) moveMeasure(plane, place);
      return;
    }
    const dx = event.clientX - last.x, dy = event.clientY - last.y;
    if (doing === "pinch") return pinch(event, last);
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    began.moved ||= Math.hypot(event.clientX - began.x, event.clientY - began.y) > 4;
    if (doing === "cross") moveCross(plane, place);
    if (doing === "window") dragWindow(dx, dy);
    if (doing === "pan") pan(plane, dx, dy);
    if (doing === "zoom") zoomAbout(plane, began.place, 1.01 ** -dy);
    if (doing in SIDES && (began.moved || held)) moveMeasure(plane, place);
  });

  function pinch(event, last) {
    const other = [...down].find(([id]) => id !== event.pointerId)?.[1];
    if (!other) return;
    const now = { x: event.clientX, y: event.clientY }, far = (one) => Math.hypot(one.x - other.x, one.y - other.y);
    down.set(event.pointerId, now);
    pan(plane, (now.x - last.x) / 2, (now.y - last.y) / 2);
    if (far(last) > 1) zoomAbout(plane, placeOf(plane, { clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2 }), far(now) / far(last));
  }

  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      down.delete(event.pointerId);
      if (doing in SIDES) endMeasure(plane, placeOf(plane, event), began.moved);
      if (!down.size) doing = null;
    });
  }
  canvas.addEventListener("pointerleave", () => {
    pointed = null;
    probe();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("mousedown", (event) => { if (event.button === 1) event.preventDefault(); }); // no scrolling by the middle button
  canvas.addEventListener("focus", () => { hand = plane; });
  canvas.addEventListener("dblclick", () => { if (!(tool in SIDES)) wholeImage(plane); });
}

// ---- the same by keys, in the plane in hand

function turnPage(plane, steps) {
  at[plane.normal] = clamp(at[plane.normal] + steps, scene.shape[plane.normal]);
  draw();
}

const crossIn = (plane) => [(at[plane.across] + 0.5) * plane.step[0], (at[plane.down] + 0.5) * plane.step[1]];

// Moves the cross by voxels of the plane, right and down the screen; what is seen follows it.
function stepCross(right, downwards) {
  const plane = hand, [a, b] = crossIn(plane);
  moveCross(plane, [a + right * plane.step[0], b + (plane.flip ? -1 : 1) * downwards * plane.step[1]]);
  const view = fit(plane), [x, y] = screen(plane, view), [na, nb] = crossIn(plane);
  const sx = x(na), sy = y(nb), edge = 30 * view.ratio;
  const dx = sx < edge ? edge - sx : Math.min(0, view.width - edge - sx), dy = sy < edge ? edge - sy : Math.min(0, view.height - edge - sy);
  if (plane.zoom > 1 && (dx || dy)) pan(plane, dx / view.ratio, dy / view.ratio);
  if (unfinished && isHere(unfinished, plane)) moveMeasure(plane, crossIn(plane));
}
