// What a reader chose, in the address after "#": a section's name, then name=value by "&". A link
// that is copied opens the page as it was.
const state = (() => {
  const read = () => {
    const [anchor, ...pairs] = location.hash.slice(1).split("&");
    const values = new Map();
    for (const pair of pairs) {
      const at = pair.indexOf("=");
      if (at < 1) continue;
      try { values.set(decodeURIComponent(pair.slice(0, at)), decodeURIComponent(pair.slice(at + 1))); }
      catch { /* not written by this page */ }
    }
    return { anchor, values };
  };
  let { anchor, values } = read();
  const listeners = [];
  const write = () => {
    const pairs = [...values].map(([name, value]) => `&${encodeURIComponent(name)}=${encodeURIComponent(value)}`);
    try { history.replaceState(null, "", `#${anchor}${pairs.join("")}`); } catch { /* a frame without address */ }
  };
  const go = () => {
    const place = anchor && document.getElementById(anchor);
    if (!place) return;
    for (let one = place; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
    place.scrollIntoView();
  };
  addEventListener("hashchange", () => {
    const found = read();
    anchor = found.anchor;
    // A link within the page names a place alone and keeps what was chosen.
    if (found.values.size) {
      values = found.values;
      for (const tell of listeners) tell();
    } else if (values.size) write();
    go();
  });
  return {
    get: (name) => values.get(name) ?? "",
    set(name, value) {
      if (value === "") values.delete(name); else values.set(name, value);
      write();
    },
    // Calls back now, and whenever the address is changed by hand.
    follow(tell) { listeners.push(tell); tell(); },
    go,
  };
})();
