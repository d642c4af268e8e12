// Tables: sorted by a column, filtered by words and bounds, all columns or the deciding ones, and
// taken along as Markdown, CSV or JSON.

const plain = (text) => text.replaceAll("−", "-").replace(/(\d),(?=\d{3})/g, "$1").trim();
const NUMBER = "[+-]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[+-]?\\d+)?";
const FORMS = [
  // value (low, high); low – high; value ± error; a value alone or with words behind it
  [new RegExp(`^(${NUMBER})\\s?(%?)\\s*\\((${NUMBER})\\s?%?(?:,| to| –)\\s*(${NUMBER})\\s?%?\\)`, "i"), ["value", "", "low", "high"]],
  [new RegExp(`^(${NUMBER})\\s?(%?) – (${NUMBER})\\s?%?$`, "i"), ["low", "", "high"]],
  [new RegExp(`^(${NUMBER})\\s?(%?) ± (${NUMBER})`, "i"), ["value", "", "error"]],
  [new RegExp(`^(${NUMBER})\\s?(%?)(?![\\w.:/-])`, "i"), ["value", ""]],
];

// The numbers in a cell by part; null for text.
function parsed(text) {
  for (const [form, parts] of FORMS) {
    const found = plain(text).match(form);
    if (!found) continue;
    const scale = found[2] ? 100 : 1, numbers = {};
    parts.forEach((part, i) => { if (part) numbers[part] = Number((Number(found[i + 1]) / scale).toPrecision(12)); });
    return numbers;
  }
  return null;
}
const sortValue = (text) => { const found = parsed(text); return found ? found.value ?? found.low : null; };

// Columns of a table with one number or text each: intervals become three.
function spreadOut(headings, rows) {
  const columns = headings.map((heading, i) => {
    const cells = rows.map((row) => row[i]), known = cells.filter((cell) => cell !== "–" && cell !== "");
    const numeric = i > 0 && known.length > 0 && known.every((cell) => parsed(cell));
    if (!numeric) return [{ name: heading, of: (row) => row[i] === "–" ? null : row[i] }];
    const parts = [...new Set(known.flatMap((cell) => Object.keys(parsed(cell))))];
    return parts.map((part) => ({
      name: part === "value" ? heading : `${heading} ${part}`,
      of: (row) => parsed(row[i])?.[part] ?? null,
    }));
  }).flat();
  const taken = new Map();
  for (const column of columns) {
    const before = taken.get(column.name) ?? 0;
    taken.set(column.name, before + 1);
    if (before) column.name += ` (${before + 1})`;
  }
  return { names: columns.map((one) => one.name), rows: rows.map((row) => columns.map((one) => one.of(row))) };
}

function csv(headings, rows) {
  const table = spreadOut(headings, rows);
  const field = (value) => {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    // A spreadsheet would compute a text that begins like a formula.
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [table.names, ...table.rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

function json(headings, rows) {
  const table = spreadOut(headings, rows);
  return JSON.stringify(table.rows.map((row) => Object.fromEntries(table.names.map((name, i) => [name, row[i]]))), null, 1) + "\n";
}

function markdown(headings, rows) {
  const cell = (text) => text.replace(/[\\`*[\]<>|]/g, "\\$&").replace(/(?<!\w)_|_(?!\w)/g, "\\_").replace(/\s+/g, " ");
  const line = (cells) => `| ${cells.map(cell).join(" | ")} |`;
  const rule = headings.map((_, i) => (i ? "---:" : "---"));
  return [line(headings), `| ${rule.join(" | ")} |`, ...rows.map(line)].join("\n") + "\n";
}

function save(text, name, type) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); return true; }
  catch { /* no permission, or no secure context: the old way */ }
  const area = make("textarea", "quiet");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// A row's place among those that a filter keeps: words, and bounds such as accuracy>0.9.
function keeps(filter, headings) {
  const tests = filter.toLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const bound = word.match(/^([^<>=]+)(<=|>=|<|>|=)([+-]?[\d.]+)(%?)$/);
    const names = headings.map((one) => one.toLowerCase().replace(/\s+/g, ""));
    let column = bound ? names.indexOf(bound[1]) : -1;
    if (bound && column < 0) column = names.findIndex((one) => one.startsWith(bound[1]));
    if (column < 0) return (row) => row.some((cell) => cell.toLowerCase().includes(word));
    const limit = Number(bound[3]) / (bound[4] ? 100 : 1);
    const holds = { "<": (v) => v < limit, ">": (v) => v > limit, "=": (v) => v === limit,
      "<=": (v) => v <= limit, ">=": (v) => v >= limit }[bound[2]];
    return (row) => { const value = sortValue(row[column]); return value !== null && holds(value); };
  });
  return (row) => tests.every((test) => test(row));
}

function mountTable(box) {
  const key = box.dataset.table, table = box.querySelector("table"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], headings = heads.map((one) => one.textContent);
  const given = [...body.rows], texts = new Map(given.map((row) => [row, [...row.cells].map((one) => one.textContent)]));
  const fixed = "fixed" in box.dataset, further = heads.filter((one) => one.classList.contains("further")).length;
  const bar = make("div", "tools"), message = make("span", "message");
  message.setAttribute("role", "status");
  let sorted = null, search = null, all = null, shown = given;

  const tell = (text) => { message.textContent = text; setTimeout(() => { if (message.textContent === text) message.textContent = ""; }, 4000); };
  const button = (text, label, act) => {
    const one = make("button", "", text);
    one.type = "button";
    one.setAttribute("aria-label", label);
    one.addEventListener("click", act);
    bar.append(one);
    return one;
  };

  function draw() {
    const chosen = state.get(`${key}.sort`).match(/^(\d+)([ad])$/);
    sorted = chosen && chosen[1] < heads.length ? { column: Number(chosen[1]), down: chosen[2] === "d" } : null;
    const filter = state.get(`${key}.filter`), kept = keeps(filter, headings);
    if (search && search.value !== filter) search.value = filter;
    shown = given.filter((row) => kept(texts.get(row)));
    if (sorted) {
      const value = (row) => { const text = texts.get(row)[sorted.column]; return sortValue(text) ?? text; };
      const rank = (a, b) => {
        const [x, y] = [value(a), value(b)], texty = [typeof x === "string", typeof y === "string"];
        if (texty[0] !== texty[1]) return texty[0] ? 1 : -1;  // what was not measured comes last
        const order = texty[0] ? x.localeCompare(y, "en", { numeric: true }) : x - y;
        return sorted.down ? -order : order;
      };
      shown.sort(rank);
    }
    const visible = new Set(shown);
    for (const row of given) row.hidden = !visible.has(row);
    body.append(...shown, ...given.filter((row) => !visible.has(row)));
    heads.forEach((head, i) => {
      if (sorted?.column === i) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const open = state.get(`${key}.columns`) === "all";
    box.classList.toggle("few", further > 0 && !open);
    if (all) { all.textContent = open ? "Fewer columns" : `${further} more column${further > 1 ? "s" : ""}`; all.setAttribute("aria-pressed", String(open)); }
    if (filter) tell(`${shown.length} of ${given.length} rows`);
  }

  if (!fixed && given.length > 1) heads.forEach((head, i) => {
    const one = make("button", "sort", headings[i]);
    one.type = "button";
    head.replaceChildren(one);
    one.addEventListener("click", () => {
      const numeric = given.some((row) => sortValue(texts.get(row)[i]) !== null);
      const ways = numeric && i ? ["d", "a", ""] : ["a", "d", ""];
      const now = sorted?.column === i ? ways.indexOf(sorted.down ? "d" : "a") : -1;
      const next = ways[now + 1];
      state.set(`${key}.sort`, next && `${i}${next}`);
      draw();
    });
  });
  if (!fixed && given.length > 4) {
    search = make("input");
    Object.assign(search, { type: "search", placeholder: "Filter rows" });
    search.title = "Words, or bounds on a column: farma accuracy>0.9";
    search.setAttribute("aria-label", "Filter rows: words, or bounds on a column such as accuracy>0.9");
    search.addEventListener("input", () => { state.set(`${key}.filter`, search.value); draw(); });
    bar.append(search);
  }
  if (further) all = button("", "Show all columns", () => {
    state.set(`${key}.columns`, state.get(`${key}.columns`) === "all" ? "" : "all");
    draw();
  });
  const cells = () => shown.map((row) => texts.get(row)), name = `${document.title}-${key}`.replace(/[^\w-]+/g, "-").toLowerCase();
  bar.append(message);
  button("Markdown", "Copy this table as Markdown", async () => tell(await copy(markdown(headings, cells())) ? "Copied." : "The browser refused to copy."));
  button("CSV", "Download this table as CSV", () => save(csv(headings, cells()), `${name}.csv`, "text/csv"));
  button("JSON", "Download this table as JSON", () => save(json(headings, cells()), `${name}.json`, "application/json"));
  box.insertBefore(bar, box.querySelector(".scroll"));
  state.follow(draw);
}
