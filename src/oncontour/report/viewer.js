// The viewer's controls and keys, and its beginning: it is read last and starts everything.

function goTo(k) {
  at[0] = clamp(k, nk);
  draw();
}

function toggle(id) {
  $(id).setAttribute("aria-pressed", !pressed(id));
  draw();
}

// Which of the panes is large.
function enlarge(pane) {
  $("planes").dataset.large = pane;
  for (const button of document.querySelectorAll(".pane .enlarge")) button.hidden = button.parentElement.dataset.pane === pane;
  draw();
}

function nextLarge() {
  const panes = [...document.querySelectorAll(".pane:not([hidden])")].map((one) => one.dataset.pane);
  enlarge(panes[(panes.indexOf($("planes").dataset.large) + 1) % panes.length]);
}

function wholeImages() {
  planes.forEach(wholeImage);
}

const zoomInHand = (factor) => zoomAbout(hand, crossIn(hand), factor);
const showHelp = () => ($("help").open ? $("help").close() : $("help").showModal());

Object.assign(keys, {
  ArrowUp: () => goTo(at[0] + 1), ArrowDown: () => goTo(at[0] - 1), ArrowRight: () => goTo(at[0] + 1), ArrowLeft: () => goTo(at[0] - 1),
  PageUp: () => goTo(at[0] + 10), PageDown: () => goTo(at[0] - 10), Home: () => goTo(0), End: () => goTo(nk - 1),
  f: () => toggle("fill"), x: () => toggle("cross"), l: () => toggle("labels"), t: toggleSolid, o: nextLarge, r: wholeImages, "?": showHelp,
  g: () => take("cross"), b: () => take("window"), h: () => take("pan"), z: () => take("zoom"), m: () => take("ruler"), a: () => take("angle"),
  "+": () => zoomInHand(1.2), "=": () => zoomInHand(1.2), "-": () => zoomInHand(1 / 1.2),
  ",": () => turnPage(hand, -1), ".": () => turnPage(hand, 1),
  Delete: () => removeMeasure(measures[measures.length - 1]), Backspace: () => removeMeasure(measures[measures.length - 1]),
});
const shifted = { ArrowUp: () => stepCross(0, -1), ArrowDown: () => stepCross(0, 1), ArrowLeft: () => stepCross(-1, 0), ArrowRight: () => stepCross(1, 0) };

// Where typing is typing: a key there is no command.
const typesIn = (target) => target.matches("input:not([type=checkbox]):not(#slice), textarea, select, summary") || Boolean(target.closest("dialog[open]"));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "?" && event.target.closest("#help")) return showHelp();
  if (typesIn(event.target)) return;
  if (event.key === "Enter" && tool in SIDES && event.target.matches("canvas, body")) {
    event.preventDefault();
    return putPoint(hand, crossIn(hand));
  }
  if (event.key === "Escape" && unfinished) return dropUnfinished();
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = /^[1-9]$/.test(key) && scene.windows[key - 1] ? () => setWindow(key - 1) : (event.shiftKey && shifted[key]) || keys[key];
  if (!action) return;
  event.preventDefault();
  action();
});

$("slice").max = nk - 1;
$("slice").addEventListener("input", (event) => goTo(+event.target.value));
if ($("strip")) $("strip").addEventListener("click", (event) => {
  const box = event.target.getBoundingClientRect();
  goTo(((event.clientX - box.left - 8) / (box.width - 16)) * (nk - 1));
});
for (const id of ["fill", "cross", "labels"]) $(id).addEventListener("click", () => toggle(id));
for (const button of document.querySelectorAll("button[data-tool]")) button.addEventListener("click", () => take(button.dataset.tool));
for (const button of document.querySelectorAll(".pane .enlarge")) button.addEventListener("click", () => enlarge(button.parentElement.dataset.pane));
for (const [id, does] of [["three", toggleSolid], ["whole", wholeImages], ["keys", showHelp]]) $(id).addEventListener("click", does);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // beside it
}

// The images and all that belongs to them end where the first screen ends.
function fillScreen() {
  const viewer = document.querySelector(".viewer"), above = viewer.getBoundingClientRect().top + window.scrollY;
  document.documentElement.style.setProperty("--viewer", `${between(window.innerHeight - above - 10, 540, 980)}px`);
  draw();
}
window.addEventListener("resize", fillScreen);
fillScreen();

async function unpack() {
  if (!("DecompressionStream" in window)) {
    $("loading").textContent = "This browser is too old to show the images (it needs DecompressionStream: Chrome or Edge 80, Firefox 113, Safari 16.4).";
    return;
  }
  readContours(await inflate($("contours").textContent));
  zoomToStructures(planes[0]);
  if (review) review.begin();
  const show = async (block) => {
    restore(await inflate(block.textContent), +block.dataset.first, +block.dataset.count);
    block.remove();
    draw();
  };
  await show(document.querySelector("script.block")); // the slices on show stand before this script, all others after it
  $("loading").hidden = true;
  performance.mark("first slice");
  if (document.readyState === "loading") await new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  if (scene.dose) readDose(await inflate($("dose-codes").textContent));
  for (const block of document.querySelectorAll("script.block")) await show(block);
  performance.mark("all slices");
  document.body.dataset.ready = "true";
}

if ($("review")) review = startReview(JSON.parse($("review").textContent));
setWindow(0);
unpack().catch((error) => { $("loading").hidden = false; $("loading").textContent = `The images cannot be unpacked: ${error.message}`; });
