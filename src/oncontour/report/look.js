// How things look: the window of grey values, and each structure's colour, outline, shade and surface.

// ---- window

const grey = new Uint32Array(256); // code -> colour on the screen
const range = { low: 0, high: 1 };

// Grey values from `low` (black) to `high` (white).
function setRange(low, high) {
  const least = (scene.levels[scene.levels.length - 1] - scene.levels[0]) / 2000 || 1e-6;
  const middle = (low + high) / 2, half = Math.max(least, high - low) / 2;
  [range.low, range.high] = [middle - half, middle + half];
  for (let code = 0; code < 256; code++) {
    const value = scene.levels[Math.min(code, scene.levels.length - 1)];
    const g = between(Math.round((255 * (value - range.low)) / (2 * half)), 0, 255);
    grey[code] = 0xff000000 | (g << 16) | (g << 8) | g;
  }
  const digits = 2 * half < 20 ? 2 : 0;
  if (document.activeElement !== $("level")) $("level").value = middle.toFixed(digits);
  if (document.activeElement !== $("width")) $("width").value = (2 * half).toFixed(digits);
  [...$("windows").children].forEach((button, n) => {
    const preset = scene.windows[n];
    button.setAttribute("aria-pressed", Math.abs(preset.low - range.low) < least / 10 && Math.abs(preset.high - range.high) < least / 10);
  });
  draw();
}

const setWindow = (n) => setRange(scene.windows[n].low, scene.windows[n].high);

// To the right wider, up brighter, the faster the wider the window is.
function dragWindow(dx, dy) {
  const step = Math.max(range.high - range.low, 1e-3) / 300, half = Math.max((range.high - range.low) / 2 + (dx * step) / 2, 1e-3);
  const middle = (range.low + range.high) / 2 + dy * step;
  setRange(middle - half, middle + half);
}

scene.windows.forEach(({ name, low, high }, n) => {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: name, title: `${low} to ${high} ${scene.unit} (${n + 1})` });
  button.addEventListener("click", () => setWindow(n));
  $("windows").append(button);
});
for (const id of ["level", "width"]) {
  $(id).addEventListener("input", () => {
    const level = parseFloat($("level").value), width = parseFloat($("width").value);
    if (Number.isFinite(level) && width > 0) setRange(level - width / 2, level + width / 2);
  });
  $(id).addEventListener("blur", () => setRange(range.low, range.high));
}

// ---- structures

const BODIES = /^(body|external|skin)/i, TARGETS = /^(ptv|ctv|gtv|itv|igtv)/i;

// What is drawn at first: `line` and `shade` in the planes, `surface` in 3D, each from 0 to 1.
for (const structure of scene.structures) {
  structure.given = document.querySelector(`tr[data-name="${CSS.escape(structure.name)}"]`)?.hasAttribute("data-given") ?? false;
  Object.assign(structure, firstLook(structure));
}

function firstLook(structure) {
  structure.first ??= structure.colour;
  const surface = BODIES.test(structure.name) ? 0.15 : TARGETS.test(structure.name) ? 0.45 : 1;
  return { colour: structure.first, line: 1, shade: 0.16, surface };
}

const rows = [...document.querySelectorAll("tr[data-name]")];
const structureOf = (name) => scene.structures.find((one) => one.name === name);

// Every swatch of a structure shows its colour: those of the table, of the strips and of the places.
function recolour(structure) {
  const colour = `rgb(${structure.colour.join(" ")})`;
  for (const swatch of document.querySelectorAll(`[data-swatch="${CSS.escape(structure.name)}"]`)) swatch.style.background = colour;
  draw();
}

let styled = null; // the structure whose look is being changed

function openLook(structure, button) {
  styled = structure;
  $("look-name").textContent = structure.name;
  $("look-colour").value = `#${structure.colour.map((one) => one.toString(16).padStart(2, "0")).join("")}`;
  for (const part of ["line", "shade", "surface"]) $(`look-${part}`).value = Math.round(100 * structure[part]);
  const box = button.getBoundingClientRect();
  $("look").showModal();
  const room = $("look").getBoundingClientRect();
  $("look").style.left = `${between(box.right + 8, 8, window.innerWidth - room.width - 8)}px`;
  $("look").style.top = `${between(box.top - 8, 8, window.innerHeight - room.height - 8)}px`;
}

$("look-colour").addEventListener("input", (event) => {
  styled.colour = [1, 3, 5].map((n) => parseInt(event.target.value.slice(n, n + 2), 16));
  recolour(styled);
});
for (const part of ["line", "shade", "surface"]) {
  $(`look-${part}`).addEventListener("input", (event) => {
    styled[part] = event.target.value / 100;
    draw();
  });
}
$("look-first").addEventListener("click", () => {
  Object.assign(styled, firstLook(styled));
  recolour(styled);
  $("look").close();
});

for (const row of rows) {
  const name = row.dataset.name, box = row.querySelector("input"), structure = structureOf(name);
  box.addEventListener("change", () => {
    hidden[box.checked ? "delete" : "add"](name);
    draw();
  });
  row.addEventListener("pointerenter", () => { bright = name; draw(); });
  row.addEventListener("pointerleave", () => { bright = null; draw(); });
  row.querySelector(".swatch").addEventListener("click", (event) => openLook(structure, event.currentTarget));
  row.querySelector(".name").addEventListener("click", () => {
    if (structure.centre) [at[0], at[1], at[2]] = structure.centre;
    if (review) review.ask(name);
    draw();
  });
}
$("all").addEventListener("change", (event) => {
  for (const row of rows) {
    row.querySelector("input").checked = event.target.checked;
    hidden[event.target.checked ? "delete" : "add"](row.dataset.name);
  }
  draw();
});
