"use strict";

// Light or dark: as the system says, until somebody chooses; the choice is remembered, where a browser lets pages do so.
const Theme = (() => {
  const KEY = "emloom-theme", WORDS = { auto: "Auto", light: "Light", dark: "Dark" };
  const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "auto", button = null;

  const kept = () => {
    try {
      const found = localStorage.getItem(KEY);
      return Object.hasOwn(WORDS, found) ? found : "auto";
    } catch { return "auto"; }
  };

  const show = (name) => {
    chosen = name;
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    if (button === null) return;
    button.textContent = `${SIGNS[name]} ${WORDS[name]}`;
    button.setAttribute("aria-label", `Colours: ${name === "auto" ? "as the system" : name}. Change them`);
  };

  // From the system's to the other ones first: a press always changes something that can be seen, or says so.
  const turn = () => {
    const order = system.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
    show(order[(order.indexOf(chosen) + 1) % order.length]);
    try { localStorage.setItem(KEY, chosen); } catch { /* for this page only */ }
  };

  const connect = (to) => {
    button = to;
    button.hidden = false;
    button.addEventListener("click", turn);
    show(chosen);
  };

  addEventListener("storage", (event) => { if (event.key === KEY) show(kept()); });
  show(kept());
  return { connect, turn };
})();
