
// What a report does beyond being read: everything is there without it.
document.addEventListener("DOMContentLoaded", () => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  const say = (text) => { byId("said").textContent = text; };

  const element = (name, properties) => Object.assign(document.createElement(name), properties);

  // ---- tables: a heading sorts up, down, and back to the order in which the rows were written ---------------------

  const sorted = (rows, column, down) => {
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const empty = (text) => text === "" || text === "–" || text === "nan";
    const compare = (a, b) => {
      const [left, right] = [key(a), key(b)];
      if (empty(left) || empty(right)) return empty(left) - empty(right); // what is not there comes last
      const [x, y] = [Number(left), Number(right)];
      const sign = Number.isNaN(x) || Number.isNaN(y) ? left.localeCompare(right, "en", { numeric: true }) : x - y;
      return down ? -sign : sign;
    };
    return [...rows].sort(compare);
  };

  for (const table of all("main table")) {
    const body = table.tBodies[0], written = [...body.rows];
    if (written.length < 2) continue;
    const headings = all("thead th", table);
    headings.forEach((heading, column) => {
      const button = element("button", { type: "button", className: "sort" });
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[heading.getAttribute("aria-sort")];
        for (const other of headings) other.setAttribute("aria-sort", "none");
        heading.setAttribute("aria-sort", next);
        body.append(...(next === "none" ? written : sorted(written, column, next === "descending")));
        say(next === "none" ? "Rows as they were written" : `Sorted by ${button.textContent.trim()}, ${next}`);
      });
    });
  }

  // ---- commands: copied by a press, or at least selected ------------------------------------------------------------

  const copied = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* pages from disk may not use it everywhere */ }
    const field = element("textarea", { value: text });
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };

  for (const block of all(".command")) {
    const button = element("button", { type: "button", className: "copy", textContent: "Copy" });
    const code = block.querySelector("code");
    button.setAttribute("aria-label", `Copy the command: ${code.textContent.slice(0, 80)}`);
    block.append(button);
    button.addEventListener("click", async () => {
      const done = await copied(code.textContent);
      if (!done) getSelection().selectAllChildren(code);
      button.textContent = done ? "Copied" : "Selected";
      say(done ? "The command is copied" : "The command is selected: copy it with Ctrl C");
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
      button.focus();
    });
  }

  // ---- pictures: one after another, as large as the window, or pixel by pixel ------------------------------------

  const gallery = byId("gallery"), pictures = all("main figure .picture");
  let shown = 0;

  const look = (number) => {
    shown = (number + pictures.length) % pictures.length;
    const figure = pictures[shown].closest("figure"), caption = figure.querySelector("figcaption");
    const stage = byId("stage");
    const copy = (pictures[shown].querySelector("picture") ?? pictures[shown].querySelector("img")).cloneNode(true);
    stage.replaceChildren(copy);
    stage.scrollTo(0, 0);
    byId("under").textContent = caption?.textContent ?? "";
    byId("which").textContent = `${shown + 1} of ${pictures.length}`;
  };

  const enlarge = (number) => {
    if (pictures.length === 0) return;
    gallery.classList.remove("actual");
    look(number);
    if (!gallery.open) gallery.showModal();
  };

  const actual = () => {
    const large = gallery.classList.toggle("actual");
    byId("actual").setAttribute("aria-pressed", String(large));
  };

  pictures.forEach((place, number) => {
    const button = element("button", { type: "button", className: "enlarge" });
    const image = place.querySelector("img");
    button.setAttribute("aria-label", `Enlarge: ${image.alt}`);
    button.title = "Enlarge";
    button.append(...place.childNodes);
    place.append(button);
    button.addEventListener("click", () => enlarge(number));
  });
  gallery.addEventListener("close", () => {
    const opener = pictures[shown].querySelector("button");
    opener.focus({ preventScroll: true });
    opener.scrollIntoView({ block: "nearest" });
  });
  const buttons = {
    before: () => look(shown - 1), behind: () => look(shown + 1), actual, close: () => gallery.close(),
    "keys-close": () => byId("keys").close(),
  };
  for (const [id, step] of Object.entries(buttons)) byId(id).addEventListener("click", step);
  // A press beside a dialog closes it.
  for (const dialog of all("dialog")) {
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  }

  // ---- where one is --------------------------------------------------------------------------------------------------

  const links = all("#contents a"), parts = links.map((link) => byId(link.hash.slice(1)));

  const current = () => {
    const passed = parts.filter((part) => part.getBoundingClientRect().top < innerHeight / 3);
    return Math.max(0, passed.length - 1);
  };

  const mark = () => {
    links.forEach((link, number) => {
      if (number === current()) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; mark(); });
  }, { passive: true });

  let going = null; // the part that is being scrolled to: a key may come before the page has arrived
  addEventListener("scrollend", () => { going = null; });
  const go = (by) => {
    if (parts.length === 0) return;
    going = Math.min(Math.max((going ?? current()) + by, 0), parts.length - 1);
    const part = parts[going];
    part.scrollIntoView({ behavior: still.matches ? "auto" : "smooth" });
    part.tabIndex = -1;
    part.focus({ preventScroll: true });
  };

  // ---- keys ------------------------------------------------------------------------------------------------------------

  const help = () => byId("keys").showModal();
  const nearest = () => {
    const below = pictures.findIndex((place) => place.getBoundingClientRect().bottom > 0);
    return below < 0 ? 0 : below;
  };
  const PAGE = { "?": help, j: () => go(1), k: () => go(-1), f: () => enlarge(nearest()), t: Theme.turn };
  const GALLERY = {
    ArrowLeft: buttons.before, ArrowRight: buttons.behind, Home: () => look(0), End: () => look(-1), z: actual,
    f: buttons.close, t: Theme.turn,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const keys = gallery.open ? GALLERY : byId("keys").open ? {} : PAGE;
    // At their actual size pictures are scrolled by the arrows.
    if (gallery.classList.contains("actual") && key.startsWith("Arrow") && event.target.id === "stage") return;
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  });

  // ---- paper shows what is folded ------------------------------------------------------------------------------------

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of folded) part.open = false; });

  Theme.connect(byId("theme"));
  byId("help").hidden = false;
  byId("help").addEventListener("click", help);
  mark();
  document.body.dataset.ready = "true";
});
