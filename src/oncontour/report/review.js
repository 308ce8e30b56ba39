// The review: a strip of slices a structure, the places to look at, worst first, and the map of probable errors.
// It stands in one script with scene.js, planes.js and viewer.js, whose scene, contours, planes and keys it uses.

function startReview(words) {
  const { strips, spots } = words;
  const maps = new Map(); // structure -> { from, shape, steps } once unpacked
  const seen = new Set();
  let current = -1;

  const element = (tag, more = {}, ...children) => {
    const { data, ...rest } = more, made = Object.assign(document.createElement(tag), rest);
    Object.assign(made.dataset, data || {});
    made.append(...children);
    return made;
  };
  const number = (value) => value.toFixed(2);
  const swatch = ({ name, colour }) => {
    const made = element("i", { className: "swatch", data: { swatch: name } });
    made.style.background = `rgb(${(structureOf(name)?.colour || colour).join(" ")})`;
    return made;
  };
  const percent = words.coverage ? ` (${Math.round(100 * words.coverage)} %)` : "";
  const titles = (codes) => codes.map((code) => words.codes[code] || code).join(", ");
  const place = (spot) => {
    if (spot.first === null) return spot.at === null ? "" : "as a whole";
    if (spot.first === spot.last) return `slice ${spot.first + 1}`;
    const where = `slices ${spot.first + 1}–${spot.last + 1}`;
    if (spot.dsc === null || spot.at === null) return where;
    return where + (spot.most === spot.at ? `, worst ${spot.at + 1}` : `, worst ${spot.at + 1}, most predicted wrong on ${spot.most + 1}`);
  };

  // ---- strips

  // Below 0.80 the darker the worse, so that the worst part stands out where all of a structure is bad.
  const depth = (dsc) => {
    const p = Math.max(0, Math.min(1, (0.8 - dsc) / 0.5)), mix = (a, b) => Math.round(a + (b - a) * p);
    return `rgb(${mix(246, 176)} ${mix(150, 30)} ${mix(84, 0)})`;
  };
  const pointer = [];
  const cellOf = new Map(); // name -> slice -> { cell, node }
  const shownCells = (strip) => {
    const track = element("div", { className: "cells" }), wide = 100 / Math.max(1, nk - 1), found = new Map();
    for (const cell of strip.cells) {
      const kind = cell.class || (cell.dsc === null ? "none" : cell.dsc < 0.8 ? "bad" : cell.dsc < 0.95 ? "medium" : "good");
      const node = element("b", { className: `cell ${kind}${cell.codes.length ? " marked" : ""}`, data: { s: cell.s } });
      node.style.left = `${cell.s * wide - wide / 2}%`;
      node.style.width = `calc(${wide}% + .3px)`;
      if (kind === "bad" && cell.dsc !== null) node.style.background = depth(cell.dsc);
      found.set(cell.s, { cell, node });
      track.append(node);
    }
    cellOf.set(strip.name, found);
    const line = element("u");
    pointer.push(line);
    track.append(line);
    return track;
  };

  for (const strip of strips) {
    const lowest = strip.cells.filter((cell) => cell.dsc !== null).sort((a, b) => a.dsc - b.dsc)[0];
    const name = element("button", { type: "button", className: "name", title: `${strip.name}: its worst slice` }, swatch(strip), element("span", { textContent: strip.name }));
    const track = element("div", { className: "lane" }, shownCells(strip));
    const value = element("span", { className: "lowest", textContent: lowest ? number(lowest.dsc) : "–", title: lowest ? "the lowest predicted DSC of its slices" : `not scored: ${strip.why || "no score"}` });
    const row = element("div", { className: "track strip", data: { name: strip.name } }, name, track, value);
    row.setAttribute("aria-label", lowest ? `${strip.name}: lowest predicted DSC ${number(lowest.dsc)} on slice ${lowest.s + 1}` : `${strip.name}: not scored`);
    name.addEventListener("click", () => lookAt(strip.name));
    const slice = (event) => {
      const box = track.firstChild.getBoundingClientRect();
      return clamp(((event.clientX - box.left) / box.width) * (nk - 1), nk);
    };
    track.addEventListener("pointerdown", (event) => {
      track.setPointerCapture(event.pointerId);
      focusOn(strip.name, slice(event), { zoom: false });
    });
    track.addEventListener("pointermove", (event) => {
      if (event.buttons) focusOn(strip.name, slice(event), { zoom: false });
      showTip(strip, slice(event), event);
    });
    track.addEventListener("pointerleave", () => { $("tip").hidden = true; });
    $("strips").append(row);
  }

  function describe(strip, s) {
    const found = cellOf.get(strip.name).get(s);
    if (!found) return `slice ${s + 1}: not contoured`;
    const { cell } = found, parts = [];
    if (cell.dsc !== null) parts.push(`DSC ${number(cell.dsc)}` + (cell.lower === null ? "" : `, at least ${number(cell.lower)}${percent}`));
    else parts.push(strip.scored ? "no number for this slice" : "not scored");
    const most = (upper) => (upper === null ? "" : `, at most ${upper.toFixed(1)}`);
    if (cell.cm2 !== null) parts.push(`about ${cell.cm2.toFixed(1)} cm² wrong${most(cell.upper_cm2)}`);
    if (cell.mm !== null) parts.push(`surface ${cell.mm} mm off${most(cell.upper_mm)}`);
    if (cell.codes.length) parts.push(titles(cell.codes));
    return `slice ${s + 1}: ${parts.join(" · ")}`;
  }

  function showTip(strip, s, event) {
    const tip = $("tip"), box = tip.parentElement.getBoundingClientRect();
    tip.textContent = `${strip.name}, ${describe(strip, s)}`;
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - box.top - tip.offsetHeight - 10}px`;
  }

  const legend = [["good", "0.95 and more"], ["medium", "0.80 to 0.95"], ["bad", "below 0.80, the darker the worse"], ["none", "not scored"], ["none marked", "a rule found something"]];
  const scored = strips.some((strip) => strip.scored);
  for (const [kind, text] of legend.slice(scored ? 0 : 3)) $("legend").append(element("span", {}, element("b", { className: `cell ${kind}` }), text));
  if (scored) $("legend").prepend(element("span", { textContent: "Predicted DSC of a slice:" }));

  // ---- places to look at

  const items = spots.map((spot, n) => {
    const score = spot.wrong_cm2 === null ? "" : `${spot.wrong_cm2.toFixed(1)} cm²`, most = (upper) => (upper === null ? "" : `, ≤ ${upper.toFixed(1)}`);
    const bound = spot.wrong_cm2 === null ? "" : [`${most(spot.upper_cm2).slice(2)}`, spot.mm === null ? "" : `${spot.mm} mm${most(spot.upper_mm)}`].filter(Boolean).join(" · ");
    const why = [...(spot.texts.length ? spot.texts : ["Much is predicted wrong."]), spot.dsc === null ? "" : `DSC ${number(spot.dsc)}` + (spot.lower === null ? "." : `, ≥ ${number(spot.lower)}.`)].join(" ").trim();
    const button = element("button", { type: "button", className: "spot", data: { spot: n } },
      element("span", { className: "rank", textContent: n + 1 }), swatch(spot),
      element("span", { className: "what" }, element("strong", { textContent: spot.name }), element("em", { textContent: place(spot) }), element("span", { className: "why", textContent: why, title: why })),
      element("span", { className: spot.wrong_cm2 !== null && spot.wrong_cm2 < words.flag_cm2 ? "score quiet" : "score" }, element("strong", { textContent: score }), element("em", { textContent: bound })));
    button.addEventListener("click", () => visit(n));
    const item = element("li", {}, button);
    (n < words.listed ? $("spots") : $("folded")).append(item);
    return button;
  });

  function visit(n) {
    if (!spots.length) return;
    current = (n + spots.length) % spots.length;
    seen.add(current);
    verdicts.sawPlace(current);
    const folded = items[current].closest("details");
    if (folded) folded.open = true;
    items.forEach((item, m) => {
      item.setAttribute("aria-current", m === current);
      item.classList.toggle("seen", seen.has(m));
    });
    const list = $("spots"), item = items[current];
    if (current < words.listed && (item.offsetTop < list.scrollTop || item.offsetTop + item.offsetHeight > list.scrollTop + list.clientHeight)) list.scrollTop = item.offsetTop - 40;
    focusOn(spots[current].name, spots[current].at ?? at[0], { spot: true });
    verdicts.aboutPlace(current);
  }

  // A structure's worst slice.
  function lookAt(name) {
    const n = spots.findIndex((spot) => spot.name === name && spot.first !== null);
    if (n >= 0) return visit(n);
    const cells = strips.find((strip) => strip.name === name)?.cells || [];
    const worst = cells.filter((cell) => cell.dsc !== null).sort((a, b) => a.dsc - b.dsc)[0] || cells[cells.length >> 1];
    focusOn(name, worst ? worst.s : at[0]);
  }

  // The structure in question is another one, wherever the planes cut.
  function ask(name) {
    focus = name;
    current = -1;
    items.forEach((item) => item.removeAttribute("aria-current"));
    verdicts.aboutStructure(name);
  }

  function focusOn(name, s, { zoom = true, spot = false } = {}) {
    if (spot) focus = name;
    else ask(name);
    at[0] = clamp(s, nk);
    const n = scene.structures.findIndex((structure) => structure.name === name);
    const box = extent(n, at[0]);
    if (box && zoom) {
      at[2] = clamp((box[0] + box[2]) / 2 / di - 0.5, ni);
      at[1] = clamp((box[1] + box[3]) / 2 / dj - 0.5, nj);
      zoomTo(planes[0], box);
    }
    draw();
  }

  // (u, v) from and to of a structure on a slice, or on the nearest slice that has it.
  function extent(n, s) {
    const slices = n < 0 ? [] : [...contours[n].keys()].sort((a, b) => Math.abs(a - s) - Math.abs(b - s));
    if (!slices.length) return null;
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (const points of contours[n].get(slices[0])) {
      for (let p = 0; p < points.length; p++) {
        box[p % 2] = Math.min(box[p % 2], points[p]);
        box[2 + (p % 2)] = Math.max(box[2 + (p % 2)], points[p]);
      }
    }
    return box;
  }

  // Near enough to judge an outline, with its surroundings.
  function zoomTo(plane, box, around_mm = 60, least_mm = 170) {
    const whole = fit({ ...plane, zoom: 1, middle: null }), margin = 44 * whole.ratio;
    const across = Math.max(box[2] - box[0] + 2 * around_mm, least_mm), down = Math.max(box[3] - box[1] + 2 * around_mm, least_mm);
    const wanted = Math.min((whole.width - margin) / across, (whole.height - margin) / down);
    plane.zoom = between(wanted / whole.scale, 1, MOST_ZOOM);
    plane.middle = plane.zoom === 1 ? null : [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2];
  }

  function leave() {
    focus = null;
    current = -1;
    items.forEach((item) => item.removeAttribute("aria-current"));
    if (pressed("solo")) $("solo").setAttribute("aria-pressed", false);
    draw();
  }

  // ---- the line above the images

  function tellQuestion() {
    const strip = strips.find((one) => one.name === focus);
    const line = $("question");
    line.replaceChildren();
    if (!strip && focus) {
      const structure = structureOf(focus);
      line.append(swatch(structure), " ", element("strong", { textContent: focus }), " ", element("span", { textContent: `slice ${at[0] + 1}: ${structure.given ? "came with the CT, not looked at here" : "not looked at here"}` }));
      return;
    }
    if (!strip) {
      line.append(spots.length ? `${spots.length} places to look at: press N for the worst` : "Nothing is flagged");
      return;
    }
    if (current >= 0) line.append(element("em", { textContent: `${current + 1} of ${spots.length}` }), " ");
    line.append(swatch(strip), " ", element("strong", { textContent: strip.name }), " ", element("span", { textContent: describe(strip, at[0]) }));
  }

  // ---- error maps

  async function unpackMaps() {
    for (const map of words.maps) maps.set(map.name, { ...map, steps: await inflate(map.text) });
    if (shadesErrors()) draw();
  }
  const shadesErrors = () => Boolean($("errors")) && pressed("errors");
  const errorColours = Array.from({ length: 16 }, (_, step) => {
    const p = step / 15, mix = (a, b, c) => Math.round(p < 0.5 ? a + (b - a) * 2 * p : b + (c - b) * (2 * p - 1));
    const alpha = step ? Math.round(255 * (0.25 + 0.4 * p)) : 0;
    return (alpha << 24) | (mix(140, 110, 150) << 16) | (mix(30, 70, 235) << 8) | mix(130, 240, 255);
  });

  function underlay(plane, view, context) {
    if (!shadesErrors()) return;
    for (const [name, map] of maps) {
      if (hidden.has(name) || (focus && name !== focus)) continue;
      const normal = at[plane.normal] - map.from[plane.normal];
      if (normal < 0 || normal >= map.shape[plane.normal]) continue;
      const columns = map.shape[plane.across], rows = map.shape[plane.down], canvas = element("canvas", { width: columns, height: rows });
      const data = new ImageData(columns, rows), out = new Uint32Array(data.data.buffer);
      const stride = [map.shape[1] * map.shape[2], map.shape[2], 1];
      for (let row = 0, n = 0; row < rows; row++) {
        const from = normal * stride[plane.normal] + (plane.flip ? rows - 1 - row : row) * stride[plane.down];
        for (let column = 0; column < columns; column++, n++) out[n] = errorColours[map.steps[from + column * stride[plane.across]]];
      }
      canvas.getContext("2d").putImageData(data, 0, 0);
      const left = map.from[plane.across] * plane.step[0], height = rows * plane.step[1];
      const top = plane.flip ? plane.mm[1] - map.from[plane.down] * plane.step[1] - height : map.from[plane.down] * plane.step[1];
      context.imageSmoothingEnabled = true;
      context.drawImage(canvas, view.left + left * view.scale, view.top + top * view.scale, columns * plane.step[0] * view.scale, height * view.scale);
    }
  }

  // ---- what viewer.js asks

  function mark() {
    for (const line of pointer) line.style.left = `${(at[0] / Math.max(1, nk - 1)) * 100}%`;
    for (const row of document.querySelectorAll(".strip")) row.classList.toggle("current", row.dataset.name === focus);
    tellQuestion();
  }

  keys.n = () => visit(current + 1);
  keys.p = () => visit(current < 0 ? spots.length - 1 : current - 1);
  keys.s = () => toggle("solo");
  keys.Escape = leave;
  $("next").addEventListener("click", keys.n);
  $("previous").addEventListener("click", keys.p);
  $("solo").addEventListener("click", keys.s);
  if ($("errors")) {
    keys.e = () => toggle("errors");
    $("errors").addEventListener("click", keys.e);
    const scale = element("span", { className: "scale" }, "Error map: wrongly in or out, ", element("b"), " 10 % to 100 %");
    scale.querySelector("b").style.background = `linear-gradient(90deg, ${errorColours.slice(1).map((c) => `rgb(${c & 255} ${(c >> 8) & 255} ${(c >> 16) & 255})`).join(",")})`;
    $("legend").append(scale);
  }
  unpackMaps();

  return {
    underlay, mark, shadesErrors, ask,
    begin: () => {
      items.forEach((item, n) => { if (verdicts.wasSeen(n)) seen.add(n); });
      if (spots.length) visit(0);
      else draw();
    },
    visit, lookAt,
    zoomTo: (plane, name, s) => {
      const box = extent(scene.structures.findIndex((structure) => structure.name === name), s);
      if (box) zoomTo(plane, box);
    },
    hides: (name) => Boolean(focus) && name !== focus && pressed("solo"),
  };
}
