"use strict";
// Planning and today's CT, side by side, in squares, or their difference; contours as planned, propagated and direct.
// ``inflate`` is the viewer's; everything else stands alone. Planes: [normal axis, across, down, whether superior is up] of k, j, i.
document.addEventListener("DOMContentLoaded", async () => {
  const get = (id) => document.getElementById(id);
  const box = get("compare"), words = JSON.parse(get("compare-words").textContent);
  const [nk, nj, ni] = words.shape, step = words.step_mm, stride = [nj * ni, ni, 1];
  const PLANES = { axial: [0, 2, 1, false], coronal: [1, 2, 0, true], sagittal: [2, 1, 0, true] };
  const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" }; // at the left, right, upper and lower edge: the grid is upright
  const GREY = [-200, 300], MOST = 300, SQUARES = 8;
  const DASH = { planned: [5, 4], propagated: [], direct: [1.5, 2.5] };
  const state = { mode: "side", planning: "deformed", plane: "axial" };
  const at = words.start.slice(), images = {};
  let outlines = {};
  if (!("DecompressionStream" in window)) return;

  for (const name of ["today", "setup", "deformed"]) {
    const held = get(`compare-${name}`), bytes = await inflate(held.textContent);
    held.remove();
    for (let n = 0; n < bytes.length; n++) if (n % ni) bytes[n] += bytes[n - 1];
    images[name] = bytes;
  }
  const packed = JSON.parse(new TextDecoder().decode(await inflate(get("compare-contours").textContent)));
  for (const [kind, structures] of Object.entries(packed)) {
    outlines[kind] = structures.map((polygons) => {
      const slices = new Map();
      for (const [k, steps] of polygons) {
        const points = [];
        for (let n = 0, u = 0, v = 0; n < steps.length; n += 2) points.push([(u += steps[n]) / 100, (v += steps[n + 1]) / 100]);
        if (!slices.has(k)) slices.set(k, []);
        slices.get(k).push(points);
      }
      return slices;
    });
  }

  const hu = (code) => words.hu[0] + code * (words.hu[1] - words.hu[0]) / 255;
  const grey = (code) => Math.max(0, Math.min(255, Math.round(255 * (hu(code) - GREY[0]) / (GREY[1] - GREY[0]))));
  const GREYS = Uint8Array.from({ length: 256 }, (_, code) => grey(code));

  function difference(today, planning) { // red: today denser; white: alike
    const part = Math.max(-1, Math.min(1, (hu(today) - hu(planning)) / MOST)), rest = Math.round(255 * (1 - Math.abs(part)));
    return part > 0 ? [255, rest, rest] : [rest, rest, 255];
  }

  function picture(kind) { // "planning", "today", "squares" or "difference" of the plane on show
    const [normal, across, down, up] = PLANES[state.plane];
    const columns = words.shape[across], rows = words.shape[down], base = at[normal] * stride[normal];
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d"), data = context.createImageData(columns, rows), out = data.data;
    const side = Math.ceil(Math.max(columns * step[across], rows * step[down]) / SQUARES), planning = images[state.planning];
    for (let r = 0, n = 0; r < rows; r++) {
      const line = base + (up ? rows - 1 - r : r) * stride[down];
      for (let c = 0; c < columns; c++, n += 4) {
        const v = line + c * stride[across], odd = (Math.floor(r * step[down] / side) + Math.floor(c * step[across] / side)) % 2;
        const one = kind === "difference" ? difference(images.today[v], planning[v]) : null;
        const g = one ? 0 : GREYS[(kind === "planning" || (kind === "squares" && odd) ? planning : images.today)[v]];
        [out[n], out[n + 1], out[n + 2], out[n + 3]] = one ? [...one, 255] : [g, g, g, 255];
      }
    }
    context.putImageData(data, 0, 0);
    return canvas;
  }

  function draw() {
    const [normal, across, down] = PLANES[state.plane];
    const mm = [words.shape[across] * step[across], words.shape[down] * step[down]];
    const kinds = state.mode === "side" ? ["planning", "today"] : [state.mode];
    const canvas = get("compare-canvas"), ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), gap = 6 * ratio;
    const scale = Math.min((width - gap * (kinds.length - 1)) / kinds.length / mm[0], 560 * ratio / mm[1]);
    const height = Math.round(mm[1] * scale);
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    canvas.style.height = `${height / ratio}px`;
    const context = canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const used = kinds.length * mm[0] * scale + gap * (kinds.length - 1);
    kinds.forEach((kind, n) => {
      const left = (width - used) / 2 + n * (mm[0] * scale + gap);
      context.imageSmoothingEnabled = true;
      context.drawImage(picture(kind), left, 0, mm[0] * scale, height);
      if (state.plane === "axial") lines(context, left, scale, ratio);
      letters(context, left, mm[0] * scale, height, ratio, kind === "difference");
      context.fillStyle = kind === "difference" ? "#222" : "#f3e9c8";
      context.font = `${12 * ratio}px system-ui, sans-serif`;
      const how = state.planning === "setup" ? "set up" : "deformed";
      const title = { planning: `planning, ${how}`, today: "today", squares: `today and planning (${how})`, difference: `today less planning (${how})` };
      context.fillText(title[kind], left + 6 * ratio, 16 * ratio);
    });
    const slider = get("compare-slice");
    slider.max = words.shape[normal] - 1;
    slider.value = at[normal];
    get("compare-where").textContent = state.plane === "axial" ? `z = ${words.z_mm[at[0]]} mm` : `slice ${at[normal] + 1} of ${words.shape[normal]}`;
    for (const button of box.querySelectorAll("button")) {
      if (button.dataset.key) button.setAttribute("aria-pressed", String(state[button.dataset.key] === button.dataset.value));
    }
  }

  function letters(context, left, width, height, ratio, onWhite) {
    const edge = 10 * ratio, [l, r, t, b] = LETTERS[state.plane];
    context.save();
    context.fillStyle = onWhite ? "#222" : "#f3e9c8";
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    [context.textAlign, context.textBaseline] = ["center", "middle"];
    for (const [letter, x, y] of [[l, edge, height / 2], [r, width - edge, height / 2], [t, width / 2, 3 * edge], [b, width / 2, height - edge]]) {
      context.fillText(letter, left + x, y);
    }
    context.restore();
  }

  function lines(context, left, scale, ratio) {
    for (const kind of Object.keys(DASH)) {
      if (!get(`compare-${kind}`)?.checked) continue;
      context.setLineDash(DASH[kind].map((part) => part * ratio));
      outlines[kind].forEach((slices, n) => {
        const dark = state.mode === "difference" ? 0.7 : 1;
        context.strokeStyle = `rgb(${words.structures[n].colour.map((part) => Math.round(part * dark)).join(",")})`;
        context.lineWidth = (kind === "direct" ? 2 : 1.4) * ratio;
        for (const points of slices.get(at[0]) || []) {
          context.beginPath();
          points.forEach(([u, v], m) => context[m ? "lineTo" : "moveTo"](left + u * scale, v * scale));
          context.closePath();
          context.stroke();
        }
      });
    }
    context.setLineDash([]);
  }

  function go(index) {
    const normal = PLANES[state.plane][0];
    at[normal] = Math.max(0, Math.min(words.shape[normal] - 1, index));
    draw();
  }

  box.addEventListener("click", (event) => {
    const { key, value } = event.target.dataset;
    if (key) { state[key] = value; draw(); }
  });
  for (const place of document.querySelectorAll("button[data-z]")) {
    place.addEventListener("click", () => {
      state.plane = "axial";
      const far = words.z_mm.map((z) => Math.abs(z - Number(place.dataset.z)));
      go(far.indexOf(Math.min(...far)));
      box.scrollIntoView({ block: "center" });
    });
  }
  box.addEventListener("change", draw);
  get("compare-slice").addEventListener("input", (event) => go(Number(event.target.value)));
  get("compare-canvas").addEventListener("wheel", (event) => {
    event.preventDefault();
    go(at[PLANES[state.plane][0]] + (event.deltaY < 0 ? 1 : -1));
  }, { passive: false });
  window.addEventListener("resize", draw);
  draw();
  box.dataset.ready = "true";
});
