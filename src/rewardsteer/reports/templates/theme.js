// Light, dark or as the system says; remembered where the browser allows it.
(() => {
  const root = document.documentElement, button = document.querySelector("[data-theme-button]");
  const next = { auto: "dark", dark: "light", light: "auto" };
  const names = { auto: "system", dark: "dark", light: "light" };
  const key = "rewardsteer-theme";
  let theme = "auto";
  try { theme = localStorage.getItem(key) || "auto"; } catch { /* storage may be forbidden */ }
  const apply = () => {
    root.dataset.theme = theme;
    button.textContent = `Theme: ${names[theme]}`;
  };
  if (!(theme in next)) theme = "auto";
  button.hidden = false;
  button.addEventListener("click", () => {
    theme = next[theme];
    try { localStorage.setItem(key, theme); } catch { /* as above */ }
    apply();
  });
  apply();
})();
