"use strict";
// The token inspector: records of rewardsteer.evaluation.inspection_records.Inspection, shown one at a time.
// Everything that comes from a model is put on the page as text, never as markup.

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

const glyphs = (text) =>
  text.replace(/ /g, "·").replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/\r/g, "␍") || "∅";
const spoken = (text) =>
  text === "" ? "empty" : text.replace(/ /g, " space ").replace(/\n/g, " line break ").trim();
const signed = (value, digits = 2) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
const percent = (value) =>
  value > 0 && value < 0.001 ? "<0.1 %" : (100 * value).toFixed(value > 0.9995 ? 0 : 1) + " %";

const MODES = {
  reward: { name: "reward", of: (tokens, i) => tokens[i].reward, show: signed },
  change: {
    name: "change of reward", show: signed,
    of: (tokens, i) => (i && tokens[i].reward !== null ? tokens[i].reward - tokens[i - 1].reward : null),
  },
  similarity: { name: "similarity to the goal", of: (tokens, i) => tokens[i].similarity, show: signed },
  moved: { name: "moved by guidance", of: (tokens, i) => tokens[i].moved, show: percent },
};

// Where a value lies between the ends of its scale, −1 … 1; 0 is the middle, which has no colour.
function scaleOf(values, mode, stop) {
  const known = values.filter((value) => value !== null);
  const low = Math.min(...known), high = Math.max(...known);
  if (mode === "moved") return { low: 0, middle: 0, high: Math.max(high, 0.1) };
  let middle = low < 0 && high > 0 ? 0 : (low + high) / 2;
  if (stop && stop.signal === mode) middle = stop.threshold;
  return { low: Math.min(low, middle), middle, high: Math.max(high, middle) };
}

function shareOf(value, scale) {
  if (value === null) return 0;
  const reach = value < scale.middle ? scale.middle - scale.low : scale.high - scale.middle;
  return reach ? (value - scale.middle) / reach : 0;
}

function mountInspector(root, records) {
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const list = part("tokens"), strip = part("strip"), detail = part("detail"), pick = part("pick");
  let record = null, mode = "reward", chosen = 0, tokens = [], bars = [];

  function available() {
    return Object.keys(MODES).filter((name) =>
      record.tokens.some((_, i) => MODES[name].of(record.tokens, i) !== null));
  }

  function drawModes() {
    const modes = available();
    if (!modes.includes(mode)) mode = modes.includes("reward") ? "reward" : modes[0];
    part("modes").replaceChildren(...modes.map((name) => {
      const label = make("label"), input = make("input");
      Object.assign(input, { type: "radio", name: root.id + "-mode", value: name, checked: name === mode });
      input.addEventListener("change", () => { mode = name; paint(); show(chosen); });
      label.append(input, make("span", "", MODES[name].name));
      return label;
    }));
  }

  function drawTokens() {
    tokens = record.tokens.map((token, i) => {
      const option = make("span", "token");
      option.setAttribute("role", "option");
      option.id = `${root.id}-token-${i}`;
      option.append(make("span", "glyph", glyphs(token.text)));
      if (record.stop && record.stop.index === i) {
        const flag = make("span", "flag", "■ filter stops");
        flag.setAttribute("aria-hidden", "true");
        option.append(flag);
      }
      if (record.stop && record.stop.index !== null && i > record.stop.index) option.classList.add("after");
      option.addEventListener("focus", () => choose(i, false));
      option.addEventListener("click", () => choose(i, true));
      option.addEventListener("mouseenter", () => show(i));
      return option;
    });
    const children = [];
    tokens.forEach((option, i) => {
      children.push(option);
      if (record.tokens[i].text.includes("\n")) children.push(make("br"));
    });
    list.replaceChildren(...children);
    bars = record.tokens.map((_, i) => {
      const bar = make("span");
      bar.append(make("i"));
      bar.addEventListener("click", () => choose(i, true));
      bar.addEventListener("mouseenter", () => show(i));
      if (record.stop && record.stop.index === i) bar.classList.add("stop");
      return bar;
    });
    strip.replaceChildren(...bars);
  }

  function describe(i) {
    const token = record.tokens[i], said = [`token ${i + 1} of ${tokens.length}: ${spoken(token.text)}`];
    for (const name of available()) {
      const value = MODES[name].of(record.tokens, i);
      if (value !== null) said.push(`${MODES[name].name} ${MODES[name].show(value)}`);
    }
    if (record.stop && record.stop.index === i) said.push("the filter stops here");
    if (tokens[i].classList.contains("after")) said.push("after the filter's stop");
    return said.join(", ");
  }

  function paint() {
    const values = record.tokens.map((_, i) => MODES[mode].of(record.tokens, i));
    const scale = scaleOf(values, mode, record.stop);
    values.forEach((value, i) => {
      const share = shareOf(value, scale);
      for (const element of [tokens[i], bars[i]]) {
        element.style.setProperty("--share", Math.abs(share).toFixed(3));
        element.classList.toggle("low", share < 0);
      }
      tokens[i].setAttribute("aria-label", describe(i));
    });
    const show = MODES[mode].show, ends = part("scale").querySelectorAll("b");
    ends[0].textContent = scale.low < scale.middle ? show(scale.low) : "";
    ends[1].textContent = show(scale.middle);
    ends[2].textContent = show(scale.high);
    part("scale").classList.toggle("one-sided", scale.low === scale.middle);
    list.setAttribute("aria-label", `Tokens of the completion, coloured by ${MODES[mode].name}`);
  }

  function column(title, alternatives, taken, show, widths) {
    const box = make("div", "column"), rows = make("ol");
    box.append(make("h3", "", title));
    if (!alternatives.length) {
      box.append(make("p", "none", "this method guides no tokens"));
      return box;
    }
    alternatives.forEach((one, i) => {
      const row = make("li"), bar = make("span", "bar");
      bar.style.setProperty("--width", widths(one.value).toFixed(4));
      if (i && one.rank > alternatives[i - 1].rank + 1) row.classList.add("far");
      row.append(make("span", "rank", String(one.rank)), make("span", "glyph", glyphs(one.text)), bar,
        make("span", "value", show(one.value)));
      if (one.token_id === taken) {
        row.classList.add("taken");
        row.append(make("span", "mark", "taken"));
      }
      rows.append(row);
    });
    box.append(rows);
    return box;
  }

  function show(i) {
    const token = record.tokens[i];
    tokens.forEach((option, at) => option.classList.toggle("shown", at === i));
    bars.forEach((bar, at) => bar.classList.toggle("shown", at === i));
    const head = make("p", "head"), facts = make("dl");
    head.append(make("span", "glyph", glyphs(token.text)), make("span", "place", `token ${i + 1} of ${tokens.length}`));
    const fact = (name, value) => {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      facts.append(pair);
    };
    if (token.reward !== null)
      fact("reward", signed(token.reward) + (i ? ` (${signed(token.reward - record.tokens[i - 1].reward)})` : ""));
    if (token.similarity !== null) fact("similarity to the goal", signed(token.similarity, 3));
    if (token.moved !== null)
      fact("moved by guidance", `${percent(token.moved)} of the probability, KL ${token.kl.toFixed(3)} nats`);
    const columns = make("div", "columns"), rewards = token.reward_model.map((one) => one.value);
    const low = Math.min(...rewards), reach = Math.max(...rewards) - low || 1;
    const itself = (value) => value;
    columns.append(
      column("policy", token.policy, token.token_id, percent, itself),
      column("reward model", token.reward_model, token.token_id, signed, (value) => (value - low) / reach),
      column("both", token.guided, token.token_id, percent, itself));
    const parts = [head, facts, columns];
    if (record.stop && record.stop.index !== null && i >= record.stop.index) {
      const rule = `${record.stop.signal} below ${signed(record.stop.threshold, 3)}`;
      parts.splice(2, 0, make("p", "note", i === record.stop.index
        ? `A filter (${rule}) stops here.` : `A filter (${rule}) would have stopped before this token.`));
    }
    detail.replaceChildren(...parts);
  }

  function choose(i, focus) {
    chosen = i;
    tokens.forEach((option, at) => {
      option.tabIndex = at === i ? 0 : -1;
      option.setAttribute("aria-selected", String(at === i));
    });
    show(i);
    if (focus) tokens[i].focus();
  }

  // The token nearest above or below, as in a text editor.
  function vertical(step) {
    const from = tokens[chosen].getBoundingClientRect(), middle = (from.left + from.right) / 2;
    let best = chosen, line = null, distance = Infinity;
    for (let i = chosen + step; i >= 0 && i < tokens.length; i += step) {
      const box = tokens[i].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < 4) continue;
      if (line === null) line = box.top;
      if (Math.abs(box.top - line) >= 4) break;
      const away = Math.abs((box.left + box.right) / 2 - middle);
      if (away < distance) [best, distance] = [i, away];
    }
    return best;
  }

  list.addEventListener("keydown", (event) => {
    const last = tokens.length - 1;
    const places = {
      ArrowRight: () => Math.min(chosen + 1, last), ArrowLeft: () => Math.max(chosen - 1, 0),
      ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1), Home: () => 0, End: () => last,
      PageDown: () => Math.min(chosen + 10, last), PageUp: () => Math.max(chosen - 10, 0),
    };
    if (!(event.key in places) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    choose(places[event.key](), true);
  });
  for (const place of [list, strip]) place.addEventListener("mouseleave", () => record && show(chosen));

  function open(index) {
    record = records[index];
    part("prompt").textContent = record.prompt;
    const verdict = part("verdict");
    verdict.textContent = record.is_correct === null ? "" : record.is_correct ? "✓ correct" : "✗ incorrect";
    verdict.className = record.is_correct ? "right" : "wrong";
    part("method").textContent = record.method === "none" ? "policy alone" : record.method;
    drawModes();
    drawTokens();
    paint();
    const moved = record.tokens.map((token) => token.moved === null ? 0 : token.moved);
    const stop = record.stop && record.stop.index !== null ? record.stop.index : -1;
    choose(stop >= 0 ? stop : moved.indexOf(Math.max(...moved)), false);
  }

  // Where the prompts begin to differ: chat templates let all of them begin alike.
  function differing() {
    const [first, ...others] = records.map((one) => one.prompt);
    let end = 0;
    while (end < first.length && others.every((one) => one[end] === first[end])) end += 1;
    return end < first.length ? first.slice(0, end).search(/\S*$/) : 0;
  }

  function list_records() {
    const begin = records.length > 1 ? differing() : 0;
    pick.replaceChildren(...records.map((one, i) => {
      const told = one.prompt.slice(begin).trim().slice(0, 60);
      const option = make("option", "", one.label || `${one.id}: ${told}`);
      option.value = String(i);
      return option;
    }));
    part("picker").hidden = records.length < 2;
  }

  pick.addEventListener("change", () => open(Number(pick.value)));
  list_records();
  root.hidden = !records.length;
  if (records.length) open(0);
  return {
    add(one) {
      records.unshift(one);
      list_records();
      root.hidden = false;
      open(0);
    },
  };
}
