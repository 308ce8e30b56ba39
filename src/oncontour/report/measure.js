// Ruler and angle: places in millimetres of a plane, on the slice where they were put.

const SIDES = { ruler: 2, angle: 3 }; // how many points each has
const GRIP = 9; // pixels from a point within which it is taken hold of
const measures = []; // { tool, plane (id), slice, points: [[a, b], ...] }
let unfinished = null; // the one whose last point still follows the pointer
let held = null; // { measure, n }: the point that is being dragged

const length = (measure) => Math.hypot(measure.points[1][0] - measure.points[0][0], measure.points[1][1] - measure.points[0][1]);

// Degrees at the middle point, 0 to 180.
function degrees({ points: [a, corner, b] }) {
  const [p, q] = [[a[0] - corner[0], a[1] - corner[1]], [b[0] - corner[0], b[1] - corner[1]]];
  return (Math.atan2(Math.abs(p[0] * q[1] - p[1] * q[0]), p[0] * q[0] + p[1] * q[1]) * 180) / Math.PI;
}

const isWhole = (measure) => measure !== unfinished || measure.points.length === SIDES[measure.tool];
const said = (measure) => (measure.tool === "ruler" ? `${length(measure).toFixed(1)} mm` : `${degrees(measure).toFixed(1)}°`);
const isHere = (measure, plane) => measure.plane === plane.id && measure.slice === at[plane.normal];

// A press of the pointer: takes hold of a point that is there, or puts the next one.
function beginMeasure(plane, point, view) {
  const near = GRIP * view.ratio / view.scale;
  if (!unfinished) {
    for (const measure of measures.filter((one) => isHere(one, plane))) {
      const n = measure.points.findIndex((one) => Math.hypot(one[0] - point[0], one[1] - point[1]) < near);
      if (n >= 0) {
        held = { measure, n };
        return;
      }
    }
  }
  putPoint(plane, point);
}

// The next point of a measurement, fixed; the one after it follows the pointer.
function putPoint(plane, point) {
  if (unfinished && (unfinished.plane !== plane.id || unfinished.slice !== at[plane.normal])) dropUnfinished();
  if (!unfinished) {
    unfinished = { tool, plane: plane.id, slice: at[plane.normal], points: [point] };
    measures.push(unfinished);
  } else {
    unfinished.points[unfinished.points.length - 1] = point;
  }
  if (unfinished.points.length === SIDES[unfinished.tool]) unfinished = null;
  else unfinished.points.push(point);
  listMeasures();
  draw();
}

function moveMeasure(plane, point) {
  if (held) held.measure.points[held.n] = point;
  else if (unfinished && isHere(unfinished, plane)) unfinished.points[unfinished.points.length - 1] = point;
  else return;
  listMeasures();
  draw();
}

// The pointer was let go: where it was dragged, that is the next point.
function endMeasure(plane, point, moved) {
  if (held) held = null;
  else if (unfinished && moved) putPoint(plane, point);
}

function dropUnfinished() {
  if (unfinished) measures.splice(measures.indexOf(unfinished), 1);
  unfinished = held = null;
  listMeasures();
  draw();
}

function removeMeasure(measure) {
  const n = measures.indexOf(measure);
  if (n < 0) return;
  measures.splice(n, 1);
  if (measure === unfinished) unfinished = null;
  held = null;
  listMeasures();
  draw();
}

function drawMeasures(plane, view, context) {
  const [x, y] = screen(plane, view);
  for (const measure of measures.filter((one) => isHere(one, plane))) {
    const points = measure.points.map(([a, b]) => [x(a), y(b)]);
    for (const [width, colour] of [[4, "rgb(0 0 0 / .7)"], [1.8, "#5dff9b"]]) {
      context.lineWidth = width * view.ratio;
      context.strokeStyle = colour;
      context.lineCap = "round";
      context.beginPath();
      points.forEach((point, n) => context[n ? "lineTo" : "moveTo"](...point));
      for (const point of points) {
        context.moveTo(point[0] + 3.5 * view.ratio, point[1]);
        context.arc(...point, 3.5 * view.ratio, 0, 2 * Math.PI);
      }
      context.stroke();
    }
    if (!isWhole(measure)) continue;
    const [ax, ay] = points[1];
    const left = ax > view.width - 90 * view.ratio;
    write(context, said(measure), ax + (left ? -10 : 10) * view.ratio, between(ay - 12 * view.ratio, 12 * view.ratio, view.height - 12 * view.ratio), view.ratio, left ? "right" : "left", "#5dff9b");
  }
}

// The list beside the images: what was measured where; a click goes there, a second button removes it.
function listMeasures() {
  const done = measures.filter(isWhole);
  $("measured").hidden = !done.length;
  $("measures").replaceChildren(...done.map((measure) => {
    const plane = planes.find((one) => one.id === measure.plane), item = document.createElement("li");
    const go = Object.assign(document.createElement("button"), { type: "button", textContent: `${measure.tool === "ruler" ? "Ruler" : "Angle"} ${said(measure)}`, title: `${plane.id}, slice ${measure.slice + 1}: go there` });
    const remove = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: "Remove" });
    remove.setAttribute("aria-label", `Remove ${go.textContent}`);
    go.addEventListener("click", () => {
      at[plane.normal] = measure.slice;
      draw();
    });
    remove.addEventListener("click", () => removeMeasure(measure));
    item.append(go, remove);
    return item;
  }));
}
