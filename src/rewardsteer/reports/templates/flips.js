// Two methods prompt by prompt: on which prompts they differ, and what each answered.
function mountFlips(box) {
  const key = box.dataset.flips, form = box.querySelector("form"), list = box.querySelector("[data-list]");
  const data = JSON.parse(document.getElementById(`${key}-data`).textContent), PAGE = 6;
  const { first, second, measure, kept } = form.elements, counts = box.querySelector("[data-counts]");
  const rest = box.querySelector(".rest"), more = box.querySelector("[data-more]");
  let length = PAGE;
  const fill = (select, names) => select.replaceChildren(...names.map((name, i) => {
    const option = make("option", "", name);
    option.value = String(i);
    return option;
  }));
  fill(first, data.methods);
  fill(second, data.methods);
  fill(measure, data.measures);
  const digits = (value) => value === null ? "–" : signed(value);

  function rows() {
    const [a, b] = [first, second].map((one) => data.values[measure.value][one.value]);
    return data.prompts.map((prompt, i) => ({ i, prompt, a: a[i], b: b[i], margin: a[i] === null || b[i] === null ? null : a[i] - b[i] }))
      .filter((row) => row.margin !== null);
  }

  function card(row, binary) {
    const fold = make("details", "sample"), head = make("summary"), marks = make("span", "marks");
    fold.id = `${key}-p${row.i}`;
    head.append(make("span", "asked", row.prompt[1]));
    if (binary) for (const [value, method] of [[row.a, first], [row.b, second]]) {
      const mark = make("span", value ? "right" : "wrong", value ? "✓" : "✗");
      mark.append(make("span", "quiet", ` ${data.methods[method.value]} ${value ? "correct" : "incorrect"}`));
      marks.append(mark);
    } else marks.append(make("span", "margin", digits(row.margin)));
    head.append(marks);
    fold.append(head);
    fold.addEventListener("toggle", () => {
      if (!fold.open || fold.querySelector(".answers")) return;
      const answers = make("div", "answers"), texts = data.responses[row.i];
      for (const method of [first.value, second.value]) {
        const side = make("div"), by = make("p", "by", data.methods[method]);
        data.measures.forEach((name, m) => by.append(make("span", "reward", `${name} ${digits(data.values[m][method][row.i])}`)));
        side.append(by, make("p", "text", texts ? texts[method] : `Not in this page: prompt ${row.prompt[0]} of the method's file.`));
        answers.append(side);
      }
      fold.append(answers);
    });
    return fold;
  }

  function draw() {
    const names = [first, second].map((one) => data.methods[one.value]), found = rows();
    const binary = found.every((row) => [0, 1].includes(row.a) && [0, 1].includes(row.b));
    const above = found.filter((row) => row.margin > 0), below = found.filter((row) => row.margin < 0);
    const better = binary ? "alone is correct" : "is higher";
    const choice = kept.value || "differ";
    fill(kept, ["they differ", `${names[0]} ${better}`, `${names[1]} ${better}`]);
    [...kept.options].forEach((option, i) => { option.value = ["differ", "above", "below"][i]; });
    kept.value = choice;
    const mean = found.length ? found.reduce((sum, row) => sum + row.margin, 0) / found.length : 0;
    counts.textContent = `${found.length} prompts: ${names[0]} ${better} on ${above.length}, ${names[1]} on ${below.length}, ` +
      `equal on ${found.length - above.length - below.length}. Mean difference ${signed(mean, 3)}.`;
    const chosen = { differ: [...above, ...below], above, below }[choice].sort((x, y) => Math.abs(y.margin) - Math.abs(x.margin) || x.i - y.i);
    list.replaceChildren(...chosen.slice(0, length).map((row) => card(row, binary)));
    rest.hidden = chosen.length <= length;
    more.textContent = `Show ${Math.min(PAGE, chosen.length - length)} more of ${chosen.length}`;
  }

  more.addEventListener("click", () => { length += PAGE; draw(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", () => {
    length = PAGE;
    state.set(`${key}.pair`, [first.value, second.value, measure.value, kept.value].join("-"));
    draw();
  });
  form.hidden = false;
  state.follow(() => {
    const [a, b, m, show] = state.get(`${key}.pair`).split("-"), known = (value, all) => value in all;
    first.value = known(a, data.methods) ? a : "0";
    second.value = known(b, data.methods) ? b : String(Math.min(1, data.methods.length - 1));
    measure.value = known(m, data.measures) ? m : "0";
    fill(kept, ["differ", "above", "below"]);
    [...kept.options].forEach((option) => { option.value = option.textContent; });
    kept.value = ["above", "below"].includes(show) ? show : "differ";
    length = PAGE;
    draw();
  });
}
