// Values of plots and matrices: where a reader points, touches, or goes with the arrow keys.
(() => {
  const told = document.querySelector("[data-told]"), REACH = 28;
  if (!told) return;
  let chosen = null;

  function show(spot, text, box) {
    if (chosen !== spot) {
      chosen?.classList.remove("pointed");
      chosen = spot;
      chosen.classList.add("pointed");
      told.replaceChildren(...text.split("\n").map((line, i) => make(i ? "span" : "b", "", line)));
      told.hidden = false;
    }
    place(box);
  }
  function place(box) {
    const size = told.getBoundingClientRect(), room = document.documentElement.clientWidth;
    const left = Math.min(Math.max(box.left + box.width / 2 - size.width / 2, 8), Math.max(room - size.width - 8, 8));
    const above = box.top - size.height - 10;
    told.style.left = `${left}px`;
    told.style.top = `${above < 8 ? box.bottom + 10 : above}px`;
  }
  function hide() {
    chosen?.classList.remove("pointed");
    chosen = null;
    told.hidden = true;
  }

  for (const plot of document.querySelectorAll("[data-plot]")) {
    const spots = [...plot.querySelectorAll(".tips circle")];
    if (!spots.length) continue;
    const texts = new Map(spots.map((spot) => {
      const title = spot.querySelector("title"), text = title.textContent;
      title.remove();  // else the browser shows it a second time
      return [spot, text];
    }));
    const point = (spot) => show(spot, texts.get(spot), spot.getBoundingClientRect());
    const nearest = (event) => {
      let best = null, least = REACH;
      for (const spot of spots) {
        const box = spot.getBoundingClientRect();
        const away = Math.hypot(event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
        if (away < least) [best, least] = [spot, away];
      }
      return best;
    };
    for (const kind of ["pointermove", "pointerdown"]) plot.addEventListener(kind, (event) => {
      const spot = nearest(event);
      if (spot) point(spot); else hide();
    });
    plot.addEventListener("pointerleave", hide);
    plot.tabIndex = 0;
    plot.setAttribute("aria-description", "Arrow keys go from value to value.");
    let at = -1;
    plot.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const last = spots.length - 1;
      const next = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
      if (event.key === "Escape") hide();
      if (next === undefined) return;
      event.preventDefault();
      at = next;
      point(spots[at]);
    });
    plot.addEventListener("blur", hide);
  }

  for (const table of document.querySelectorAll("table.matrix")) {
    const over = (event) => {
      const cell = event.target.closest("[data-tip]");
      if (cell) show(cell, cell.dataset.tip, cell.getBoundingClientRect()); else hide();
    };
    table.addEventListener("pointerover", over);
    table.addEventListener("pointerdown", over);
    table.addEventListener("pointerleave", hide);
    const cells = [...table.querySelectorAll("[data-tip]")];
    cells.forEach((cell, i) => {
      cell.tabIndex = i ? -1 : 0;
      cell.setAttribute("aria-description", cell.dataset.tip);
      cell.addEventListener("focus", () => show(cell, cell.dataset.tip, cell.getBoundingClientRect()));
      cell.addEventListener("blur", hide);
    });
    table.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      let row = cell.parentElement.rowIndex, column = cell.cellIndex, next = null;
      do {
        row += step[0];
        column += step[1];
        next = table.rows[row]?.cells[column];
      } while (next && next.tagName === "TD" && !("tip" in next.dataset));
      if (!next || next.tagName !== "TD") return;
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
  // What has the focus keeps its values while the page moves to it.
  addEventListener("scroll", () => {
    const focus = document.activeElement;
    if (!chosen || focus === document.body || !focus?.contains(chosen)) return hide();
    place(chosen.getBoundingClientRect());
  }, { passive: true, capture: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
