// Another set of contours, as dashed outlines, and what lies in one of the two sets and not in the other.
// It stands in one script with viewer.js, whose scene, contours, planes and keys it uses.

function startCompare(packed) {
  const sets = scene.structures.map(() => new Map());
  const element = $("compare"), shade = $("differences");
  let name = "the other contours";

  (async () => {
    const words = JSON.parse(new TextDecoder().decode(await inflate(packed)));
    name = words.as;
    words.outlines.forEach((outlines, n) => { if (outlines) sets[n] = slicesOf(outlines); });
    document.body.dataset.compared = sets.filter((slices) => slices.size).length;
    draw();
  })();

  const path = (plane, view, lines, close) => {
    const made = new Path2D(), x = (a) => view.left + a * view.scale;
    const y = (b) => view.top + (plane.flip ? plane.mm[1] - b : b) * view.scale;
    for (const points of lines) {
      for (let p = 0; p < points.length; p += 2) made[p ? "lineTo" : "moveTo"](x(points[p]), y(points[p + 1]));
      if (close) made.closePath();
    }
    return made;
  };
  const shapeOf = (slices, plane) => (plane.normal === 0 ? { areas: slices.get(at[0]) || [], lines: null } : cut(slices, plane));
  const isShown = (structure) => !hidden.has(structure.name) && !(review && review.hides(structure.name));

  // Filled by the even-odd rule, both outlines together cover what one of the two holds and the other does not.
  function shadeDifference(plane, view, context, ours, theirs) {
    const both = path(plane, view, [...ours, ...theirs], true);
    for (const [side, colour] of [[ours, "rgb(255 120 40 / .55)"], [theirs, "rgb(60 170 255 / .55)"]]) {
      context.save();
      context.clip(path(plane, view, side, true), "evenodd");
      context.fillStyle = colour;
      context.fill(both, "evenodd");
      context.restore();
    }
  }

  function over(plane, view, context) {
    scene.structures.forEach((structure, n) => {
      if (!sets[n].size || !isShown(structure)) return;
      const theirs = shapeOf(sets[n], plane);
      if (pressed("differences")) shadeDifference(plane, view, context, shapeOf(contours[n], plane).areas, theirs.areas);
      if (!pressed("compare")) return;
      const lines = theirs.lines ? path(plane, view, theirs.lines, false) : path(plane, view, theirs.areas, true);
      context.setLineDash([5 * view.ratio, 4 * view.ratio]);
      context.lineCap = "butt";
      for (const [width, colour] of [[3.2, "rgb(0 0 0 / .65)"], [1.6, `rgb(${structure.colour.join(" ")})`]]) {
        context.lineWidth = width * view.ratio;
        context.strokeStyle = colour;
        context.stroke(lines);
      }
      context.setLineDash([]);
    });
  }

  keys.c = () => toggle("compare");
  keys.d = () => toggle("differences");
  element.addEventListener("click", keys.c);
  shade.addEventListener("click", keys.d);
  overlays.push(over);
}

if ($("compared")) startCompare($("compared").textContent);
