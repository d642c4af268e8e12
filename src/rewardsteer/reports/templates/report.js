// The report page: filters of the completions, inspectors, and what printing opens.
(() => {
  for (const root of document.querySelectorAll("[data-inspector]")) {
    const data = document.getElementById(root.id + "-data");
    mountInspector(root, JSON.parse(data.textContent));
  }

  for (const box of document.querySelectorAll("[data-samples]")) {
    const cards = [...box.querySelectorAll("article")], form = box.querySelector("form");
    const count = box.querySelector("[data-count]"), order = box.querySelector("[data-cards]");
    form.hidden = false;
    const apply = () => {
      const words = form.elements.words.value.toLowerCase(), kept = form.elements.kept.value;
      const shown = new Set([...form.querySelectorAll("[name=method]:checked")].map((one) => one.value));
      let visible = 0;
      for (const card of cards) {
        let hit = !words || card.querySelector("h3").textContent.toLowerCase().includes(words);
        const verdicts = new Set();
        for (const answer of card.querySelectorAll("[data-method]")) {
          const off = !shown.has(answer.dataset.method);
          answer.hidden = off;
          if (off) continue;
          if (answer.dataset.right) verdicts.add(answer.dataset.right);
          if (words && answer.querySelector(".text").textContent.toLowerCase().includes(words)) hit = true;
        }
        if (kept === "differ") hit = hit && verdicts.size > 1;
        if (kept === "right") hit = hit && verdicts.has("yes");
        if (kept === "wrong") hit = hit && verdicts.has("no");
        card.hidden = !hit;
        visible += hit;
      }
      count.textContent = `${visible} of ${cards.length} prompts`;
    };
    const sort = () => {
      const spread = (card) => {
        const rewards = [...card.querySelectorAll("[data-reward]")].map((one) => Number(one.dataset.reward));
        return Math.max(...rewards) - Math.min(...rewards);
      };
      const sorted = form.elements.order.value === "spread"
        ? [...cards].sort((a, b) => spread(b) - spread(a)) : cards;
      order.append(...sorted);
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.elements.order.addEventListener("change", sort);
    apply();
  }

  // Paper has no way to open what is folded.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details:not([open])")) {
      one.open = true;
      folded.push(one);
    }
  });
  addEventListener("afterprint", () => { while (folded.length) folded.pop().open = false; });

  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("main > section[id]")) watch.observe(section);
})();
