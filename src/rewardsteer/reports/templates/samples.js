// Completions side by side: searched, filtered, ordered; a few at first.
function mountSamples(box) {
  const key = box.dataset.samples, FIRST = 8;
  const cards = [...box.querySelectorAll("details.sample")], form = box.querySelector("form");
  const count = box.querySelector("[data-count]"), order = box.querySelector("[data-cards]");
  const rest = box.querySelector(".rest"), more = box.querySelector("[data-more]");
  const { words, kept, order: sorting } = form.elements, methods = [...form.querySelectorAll("[name=method]")];
  let whole = false;
  form.hidden = false;

  function hits(card, sought, shown) {
    let hit = !sought || card.querySelector(".asked").textContent.toLowerCase().includes(sought);
    const verdicts = new Set();
    for (const answer of card.querySelectorAll("[data-method]")) {
      answer.hidden = !shown.has(answer.dataset.method);
      if (answer.hidden) continue;
      if (answer.dataset.right) verdicts.add(answer.dataset.right);
      if (sought && answer.querySelector(".text")?.textContent.toLowerCase().includes(sought)) hit = true;
    }
    if (kept.value === "differ") return hit && verdicts.size > 1;
    if (kept.value === "right") return hit && verdicts.has("yes");
    if (kept.value === "wrong") return hit && verdicts.has("no");
    return hit;
  }
  const spread = (card) => {
    const rewards = [...card.querySelectorAll("[data-reward]")].map((one) => Number(one.dataset.reward));
    return Math.max(...rewards) - Math.min(...rewards);
  };

  function draw() {
    order.append(...(sorting.value === "spread" ? [...cards].sort((a, b) => spread(b) - spread(a)) : cards));
    const shown = new Set(methods.filter((one) => one.checked).map((one) => one.value));
    let visible = 0;
    for (const card of order.children) {
      card.hidden = !hits(card, words.value.toLowerCase(), shown);
      visible += !card.hidden;
      card.classList.toggle("later", !whole && !card.open && visible > FIRST);
    }
    count.textContent = `${visible} of ${cards.length} prompts`;
    rest.hidden = whole || visible <= FIRST;
    more.textContent = `Show all ${visible}`;
  }
  const keep = () => {
    const off = methods.filter((one) => !one.checked).map((one) => one.value).join(".");
    state.set(`${key}.words`, words.value);
    state.set(`${key}.kept`, kept.value === "all" ? "" : kept.value);
    state.set(`${key}.order`, sorting.value === "given" ? "" : sorting.value);
    state.set(`${key}.without`, off);
    draw();
  };
  form.addEventListener("input", keep);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { whole = true; draw(); });
  for (const card of cards) card.addEventListener("toggle", () => {
    const open = cards.filter((one) => one.open).map((one) => one.id.split("-s").pop());
    if (document.body.dataset.printing === undefined) state.set(`${key}.open`, open.join("."));
  });
  state.follow(() => {
    const has = (select, value) => [...select.options].some((one) => one.value === value);
    words.value = state.get(`${key}.words`);
    kept.value = has(kept, state.get(`${key}.kept`)) ? state.get(`${key}.kept`) : "all";
    sorting.value = state.get(`${key}.order`) === "spread" ? "spread" : "given";
    const off = new Set(state.get(`${key}.without`).split(".")), open = new Set(state.get(`${key}.open`).split("."));
    for (const one of methods) one.checked = !off.has(one.value);
    for (const card of cards) card.open = open.has(card.id.split("-s").pop());
    draw();
  });
}
