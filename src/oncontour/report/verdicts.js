// What a person says of each place and structure: kept in this browser under the digest of the record, saved as a file, loaded again.
// It stands in one script with viewer.js and review.js, whose scene, spots and keys it uses.

function startVerdicts(words) {
  const key = `oncontour:${words.digest}`, select = $("verdict-of"), comment = $("verdict-comment"), told = $("verdict-told");
  const choices = [...document.querySelectorAll("[data-verdict]")], signs = { fine: "✓", edited: "✎", wrong: "✗" };
  const subjects = new Map(); // id -> what is judged
  let kept = { verdicts: {}, seen: [] }, current = "";

  const say = (text) => { told.textContent = text; };
  const idOf = (one) => JSON.stringify(one.about === "place" ? [one.structure, one.first, one.last, one.codes] : [one.structure]);
  const places = words.spots.map((spot) => ({ about: "place", structure: spot.name, first: spot.of[0], last: spot.of[1], codes: spot.codes }));
  const structures = words.structures.map((name) => ({ about: "structure", structure: name }));
  for (const [title, listed] of [["Places", places], ["Structures as a whole", structures]]) {
    const group = Object.assign(document.createElement("optgroup"), { label: title });
    listed.forEach((one, n) => {
      subjects.set(idOf(one), one);
      const text = one.about === "place" ? `${n + 1}. ${one.structure}${words.spots[n].first === null ? "" : `, slice ${words.spots[n].first + 1} on`}` : one.structure;
      group.append(new Option(text, idOf(one)));
    });
    if (listed.length) select.append(group);
  }

  function read() {
    try {
      const found = JSON.parse(localStorage.getItem(key) || "null");
      if (found && typeof found.verdicts === "object") kept = { verdicts: found.verdicts, seen: found.seen || [] };
    } catch { say("This browser keeps nothing of a page from a file: save before you leave."); }
  }

  function keep() {
    try { localStorage.setItem(key, JSON.stringify(kept)); } catch { say("This browser keeps nothing of a page from a file: save before you leave."); }
  }

  function show() {
    const one = kept.verdicts[current];
    select.value = current;
    for (const button of choices) button.setAttribute("aria-pressed", Boolean(one) && one.verdict === button.dataset.verdict);
    comment.disabled = !one;
    comment.value = one ? one.comment : "";
    const count = Object.keys(kept.verdicts).length;
    $("verdict-count").textContent = `${count} of ${subjects.size} judged`;
    $("verdict-save").disabled = !count;
    document.querySelectorAll("#spots .spot").forEach((item) => mark(item.querySelector(".rank"), kept.verdicts[idOf(places[+item.dataset.spot])]));
    for (const row of rows) mark(row.querySelector("button.name"), kept.verdicts[idOf({ about: "structure", structure: row.dataset.name })]);
  }

  function mark(element, one) {
    if (one) element.dataset.sign = signs[one.verdict];
    else delete element.dataset.sign;
  }

  function about(id) {
    if (!subjects.has(id)) return;
    current = id;
    show();
  }

  function decide(verdict) {
    const before = kept.verdicts[current];
    if (before && before.verdict === verdict) delete kept.verdicts[current];
    else kept.verdicts[current] = { ...subjects.get(current), verdict, comment: before ? before.comment : "", at: new Date().toISOString() };
    keep();
    show();
  }

  function save() {
    const made = { schema: "oncontour-verdicts-1", digest: words.digest, case: words.case, saved: new Date().toISOString(), verdicts: Object.values(kept.verdicts) };
    const link = document.createElement("a"), url = URL.createObjectURL(new Blob([`${JSON.stringify(made, null, 1)}\n`], { type: "application/json" }));
    Object.assign(link, { href: url, download: `verdicts-${words.case}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    say(`${made.verdicts.length} saved`);
  }

  async function load(file) {
    try {
      const found = JSON.parse(await file.text());
      if (found.schema !== "oncontour-verdicts-1") return say("This file holds no verdicts.");
      if (found.digest !== words.digest) return say("These verdicts are of another result.");
      const known = found.verdicts.filter((one) => subjects.has(idOf(one)) && signs[one.verdict]);
      for (const one of known) kept.verdicts[idOf(one)] = { ...subjects.get(idOf(one)), verdict: one.verdict, comment: String(one.comment || ""), at: String(one.at || "") };
      keep();
      show();
      say(`${known.length} of ${found.verdicts.length} loaded`);
    } catch { say("This file holds no verdicts."); }
  }

  for (const button of choices) button.addEventListener("click", () => decide(button.dataset.verdict));
  comment.addEventListener("input", () => {
    if (kept.verdicts[current]) kept.verdicts[current].comment = comment.value;
    keep();
  });
  for (const element of [comment, select]) element.addEventListener("keydown", (event) => event.stopPropagation()); // letters are letters here
  select.addEventListener("change", () => {
    const one = subjects.get(select.value), n = places.indexOf(one);
    current = select.value;
    if (review && n >= 0) review.visit(n);
    else if (review) review.lookAt(one.structure);
    about(idOf(one));
  });
  $("verdict-save").addEventListener("click", save);
  $("verdict-load").addEventListener("click", () => $("verdict-file").click());
  $("verdict-file").addEventListener("change", (event) => event.target.files[0] && load(event.target.files[0]).then(() => { event.target.value = ""; }));

  read();
  about([...subjects.keys()][0] || "");
  return {
    aboutPlace: (n) => about(idOf(places[n])),
    aboutStructure: (name) => about(idOf({ about: "structure", structure: name })),
    of: (one) => kept.verdicts[idOf(one)],
    wasSeen: (n) => kept.seen.includes(idOf(places[n])),
    sawPlace: (n) => {
      if (kept.seen.includes(idOf(places[n]))) return;
      kept.seen.push(idOf(places[n]));
      keep();
    },
  };
}

const verdicts = startVerdicts(JSON.parse($("verdict-words").textContent));
