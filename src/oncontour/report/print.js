// Printing: the key images of the two sheets that a person signs, drawn when they are asked for.
// It stands in one script with viewer.js, whose scene and planes it uses.

function startPrint(places) {
  const signs = { fine: "fine", edited: "edited elsewhere", wrong: "wrong" };

  function drawKeyImages() {
    const here = at.slice(), lit = focus, shown = places.filter((one) => one.at !== null);
    const wanted = shown.length ? shown : [{ at: at[0], name: null }];
    document.querySelectorAll(".key-image").forEach((figure, n) => {
      figure.hidden = n >= wanted.length;
      if (figure.hidden) return;
      const { at: slice, name, text } = wanted[n], canvas = figure.querySelector("canvas");
      canvas.getBoundingClientRect = () => ({ left: 0, top: 0, width: 420, height: 330 });
      at[0] = slice;
      focus = name;
      const plane = { ...planes[0], canvas };
      if (review && name) review.zoomTo(plane, name, slice);
      drawPlane(plane);
      figure.querySelector("figcaption").textContent = text || `slice ${slice + 1}`;
    });
    [at[0], at[1], at[2]] = here;
    focus = lit;
    planes.forEach(drawPlane); // the image of a plane is painted in one place
  }

  function tellVerdicts() {
    for (const cell of document.querySelectorAll("[data-verdict-of]")) {
      const one = verdicts.of(JSON.parse(cell.dataset.verdictOf));
      cell.textContent = one ? `${signs[one.verdict]}${one.comment ? `: ${one.comment}` : ""}` : "";
    }
  }

  window.addEventListener("beforeprint", () => {
    drawKeyImages();
    tellVerdicts();
  });
}

startPrint(JSON.parse($("print-places").textContent));
