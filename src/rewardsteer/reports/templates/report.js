// The report page: its parts, what printing opens, and where the reader is.
(() => {
  for (const root of document.querySelectorAll("[data-inspector]")) {
    const data = document.getElementById(root.id + "-data");
    mountInspector(root, JSON.parse(data.textContent));
  }
  document.querySelectorAll("[data-table]").forEach(mountTable);
  document.querySelectorAll("[data-samples]").forEach(mountSamples);
  document.querySelectorAll("[data-flips]").forEach(mountFlips);

  // Paper has no way to open what is folded.
  const folded = [];
  addEventListener("beforeprint", () => {
    document.body.dataset.printing = "";
    for (const one of document.querySelectorAll("details:not([open])")) {
      one.open = true;
      folded.push(one);
    }
  });
  addEventListener("afterprint", () => {
    while (folded.length) folded.pop().open = false;
    setTimeout(() => { delete document.body.dataset.printing; });
  });

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section[id]")) watch.observe(section);
  state.go();
})();
