// The dose in the images, as isodose lines and as a wash, with a legend, and the DVH with values under the pointer.
// It stands in one script with viewer.js, whose scene, planes and keys it uses.

function startDose(words) {
  const levels = words.levels, on = levels.map(() => true), [, sj, si] = scene.dose.shape, stride = [sj * si, si, 1];
  const gyOf = (code) => (code === dose.none ? NaN : code * dose.gy);

  // Gy in a plane of the viewer, row by row, on the dose's grid: interpolated across the plane, NaN where there is none; null beyond the grid.
  function slab(plane) {
    const mm = (at[plane.normal] + 0.5) * scene.step_mm[plane.normal];
    const where = (mm - dose.from_mm[plane.normal]) / dose.step_mm[plane.normal], size = dose.shape[plane.normal];
    if (where < -0.5 || where > size - 0.5) return null;
    const below = Math.max(0, Math.min(size - 1, Math.floor(where))), above = Math.min(size - 1, below + 1);
    const part = Math.max(0, Math.min(1, where - below)), columns = dose.shape[plane.across], rows = dose.shape[plane.down];
    const values = new Float32Array(columns * rows);
    for (let row = 0, n = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, n++) {
        const from = row * stride[plane.down] + column * stride[plane.across];
        const a = gyOf(dose.codes[from + below * stride[plane.normal]]);
        values[n] = part < 1e-3 ? a : a + part * (gyOf(dose.codes[from + above * stride[plane.normal]]) - a);
      }
    }
    return { values, columns, rows };
  }

  // Marching squares: where the straight line between two neighbours passes the level.
  function isoline({ values, columns, rows }, level, to) {
    const path = new Path2D();
    for (let row = 0; row + 1 < rows; row++) {
      for (let column = 0; column + 1 < columns; column++) {
        const n = row * columns + column, a = values[n], b = values[n + 1], c = values[n + columns + 1], d = values[n + columns];
        if (!(a >= 0 && b >= 0 && c >= 0 && d >= 0)) continue;
        const kind = (a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3);
        if (!kind || kind === 15) continue;
        const cross = (p, q) => (level - p) / (q - p);
        const top = () => [column + cross(a, b), row], right = () => [column + 1, row + cross(b, c)];
        const bottom = () => [column + cross(d, c), row + 1], left = () => [column, row + cross(a, d)];
        const high = (a + b + c + d) / 4 >= level; // of two ways through a saddle that of the middle
        const lines = {
          1: [[left, top]], 2: [[top, right]], 3: [[left, right]], 4: [[right, bottom]], 6: [[top, bottom]], 7: [[left, bottom]],
          5: high ? [[left, bottom], [top, right]] : [[left, top], [right, bottom]],
          10: high ? [[left, top], [right, bottom]] : [[left, bottom], [top, right]],
        }[kind > 7 && kind !== 10 ? 15 - kind : kind];
        for (const [from, end] of lines) {
          path.moveTo(...to(...from()));
          path.lineTo(...to(...end()));
        }
      }
    }
    return path;
  }

  const placed = (plane, view) => (column, row) => {
    const u = dose.from_mm[plane.across] + column * dose.step_mm[plane.across], v = dose.from_mm[plane.down] + row * dose.step_mm[plane.down];
    return [view.left + u * view.scale, view.top + (plane.flip ? plane.mm[1] - v : v) * view.scale];
  };

  function wash(plane, view, context, { values, columns, rows }) {
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const data = new ImageData(columns, rows), shown = levels.filter((_, n) => on[n]);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const gy = values[row * columns + column], level = shown.find((one) => gy >= one.gy);
        if (level) data.data.set([...level.colour, 95], 4 * ((plane.flip ? rows - 1 - row : row) * columns + column));
      }
    }
    canvas.getContext("2d").putImageData(data, 0, 0);
    const to = placed(plane, view), [x0, y0] = to(-0.5, plane.flip ? rows - 0.5 : -0.5), [x1, y1] = to(columns - 0.5, plane.flip ? -0.5 : rows - 0.5);
    context.imageSmoothingEnabled = true;
    context.drawImage(canvas, x0, y0, x1 - x0, y1 - y0);
  }

  function over(plane, view, context) {
    if (!dose || !(pressed("isodose") || pressed("wash"))) return;
    const found = slab(plane);
    if (!found) return;
    if (pressed("wash")) wash(plane, view, context, found);
    if (!pressed("isodose")) return;
    levels.forEach((level, n) => {
      if (!on[n]) return;
      const line = isoline(found, level.gy, placed(plane, view));
      context.lineWidth = 1.5 * view.ratio;
      context.strokeStyle = `rgb(${level.colour.join(" ")})`;
      context.stroke(line);
    });
  }

  const legend = $("isodoses");
  levels.forEach((level, n) => {
    const button = document.createElement("button"), line = document.createElement("i");
    Object.assign(button, { type: "button", title: "Show or hide this isodose" });
    button.setAttribute("aria-pressed", true);
    line.style.background = `rgb(${level.colour.join(" ")})`;
    button.append(line, `${level.gy.toFixed(1)} Gy`, Object.assign(document.createElement("small"), { textContent: `${level.percent} %` }));
    button.addEventListener("click", () => {
      on[n] = !on[n];
      button.setAttribute("aria-pressed", on[n]);
      draw();
    });
    legend.append(button);
  });
  legend.append(Object.assign(document.createElement("span"), { textContent: words.prescription_gy ? `% of ${words.prescription_gy} Gy, the highest prescription` : "% of the largest dose" }));
  const showLegend = () => { legend.hidden = !(pressed("isodose") || pressed("wash")); };
  for (const [id, key] of [["isodose", "i"], ["wash", "w"]]) {
    keys[key] = () => { toggle(id); showLegend(); };
    $(id).addEventListener("click", keys[key]);
  }
  showLegend();
  overlays.push(over);
}

// ---- the DVH: a line at a dose, by pointer or by the slider, and what every structure has there

function startDvh(curves) {
  const svg = $("dvh").querySelector("svg"), slider = $("dvh-gy"), body = $("dvh-values");
  const [left, bottom, right, top] = svg.dataset.axes.split(" ").map(Number), [most] = svg.dataset.most.split(" ").map(Number);
  const { width, height } = svg.viewBox.baseVal;
  const line = document.createElementNS(svg.namespaceURI, "line");
  for (const [name, value] of Object.entries({ y1: (1 - top) * height, y2: (1 - bottom) * height, stroke: "#111", "stroke-width": 0.8 })) line.setAttribute(name, value);
  svg.append(line);
  slider.max = most;

  // % of the volume with at least so much: a straight line between two points, all of it below the least dose.
  const above = ({ gy, percent }, dose) => {
    if (dose <= gy[0]) return 100;
    if (dose > gy[gy.length - 1]) return 0;
    let n = 1;
    while (gy[n] < dose) n++;
    return percent[n - 1] + ((dose - gy[n - 1]) / (gy[n] - gy[n - 1] || 1)) * (percent[n] - percent[n - 1]);
  };

  const cells = curves.map((curve) => {
    const row = document.createElement("tr"), box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    box.setAttribute("aria-label", `Show the curve of ${curve.name}`);
    const swatch = Object.assign(document.createElement("i"), { className: "swatch" });
    swatch.style.background = `rgb(${curve.colour.join(" ")})`;
    const cell = (...children) => {
      const made = document.createElement("td");
      made.append(...children);
      row.append(made);
      return made;
    };
    cell(box);
    cell(swatch, ` ${curve.name}`);
    const percent = cell(), cc = cell();
    percent.className = cc.className = "n";
    box.addEventListener("change", () => {
      const drawn = svg.querySelector(`[id="dvh-${curve.n}"]`);
      if (drawn) drawn.style.display = box.checked ? "" : "none";
    });
    body.append(row);
    return { curve, percent, cc };
  });

  function tell(dose) {
    slider.value = dose;
    $("dvh-at").textContent = `${(+slider.value).toFixed(1)} Gy`;
    const x = (left + (slider.value / most) * (right - left)) * width;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    for (const { curve, percent, cc } of cells) {
      const part = above(curve, +slider.value);
      percent.textContent = part.toFixed(1);
      cc.textContent = ((part / 100) * curve.dosed_cc).toFixed(2);
    }
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), part = ((event.clientX - box.left) / box.width - left) / (right - left);
    if (part >= 0 && part <= 1) tell(part * most);
  });
  slider.addEventListener("input", () => tell(+slider.value));
  slider.addEventListener("keydown", (event) => event.stopPropagation()); // arrows move the slider here, not the slice
  tell(most / 2);
}

if ($("dose-scene")) startDose(JSON.parse($("dose-scene").textContent));
if ($("dvh-curves")) startDvh(JSON.parse($("dvh-curves").textContent));
