
// The page of emloom.view.labelpage: one patch after another, answered by keys. All text goes in as text, never as HTML.

const WORDS = { y: "yes", n: "no", u: "unsure" };
const AHEAD = 3; // patches whose pictures are fetched before they are asked for
const KEPT = 60; // pictures that are kept
const byId = (id) => document.getElementById(id);

let state = null; // what is asked, and of how many patches
let patch = null; // the one that is shown
let marked = 0; // its class that a key answers
let section = 0; // the section that is shown
let framed = true;
let pixels = null; // its grey values and where they are inside the volume
const pictures = new Map();

// Keys are answered one after the other: whoever types faster than the disk writes loses none.
let work = Promise.resolve();
const after = (step) => {
  work = work.then(step).catch((problem) => alarm(problem.message));
  return work;
};

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("emloom does not answer: was it stopped? Start it again and open the address that it prints.");
  }
  const words = await reply.text();
  if (reply.ok) return JSON.parse(words);
  let said = words;
  try { said = JSON.parse(words).error; } catch { /* plain text */ }
  throw new Error(said);
}

function say(text) {
  byId("status").className = "";
  byId("status").textContent = text;
}

function alarm(text) {
  byId("status").className = "alarm";
  byId("status").textContent = text;
}

// ---- pictures ------------------------------------------------------------------------------------------------

function picture(index, z) {
  const key = `${index}/${z}`;
  if (!pictures.has(key)) {
    pictures.set(key, new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => { pictures.delete(key); reject(new Error(`Section ${z} cannot be read.`)); };
      image.src = `picture/${key}`;
    }));
    if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
  }
  return pictures.get(key);
}

// Words and picture change together: nobody shall answer one patch while another is still to be seen.
async function look() {
  let image;
  try {
    image = await picture(patch.index, section);
  } catch (problem) {
    pixels = null;
    byId("view").width = byId("view").width; // which empties it
    tell();
    throw problem;
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  tell();
  draw();
  byId("view").dataset.shown = `${patch.index}/${section}`;
}

function draw() {
  if (pixels === null) return;
  const black = Number(byId("black").value), white = Number(byId("white").value);
  const shown = new ImageData(pixels.width, pixels.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const grey = 255 * (pixels.data[at] - black) / Math.max(1, white - black);
    shown.data[at] = shown.data[at + 1] = shown.data[at + 2] = grey; // clamped by the array
    shown.data[at + 3] = pixels.data[at + 3];
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [shown.width, shown.height];
  small.getContext("2d").putImageData(shown, 0, 0);
  const view = byId("view"), room = byId("frame");
  const zoom = Math.max(1, Math.floor(Math.min(room.clientWidth / shown.width, room.clientHeight / shown.height)));
  [view.width, view.height] = [shown.width * zoom, shown.height * zoom];
  const context = view.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, view.width, view.height);
  if (framed) outline(context, zoom);
}

// The frame lies around the patch and covers none of it.
function outline(context, zoom) {
  const margin = state.margin * zoom, [, high, wide] = state.shape.map((n) => n * zoom);
  for (const [width, colour] of [[4, "#000000"], [2, "#ff5a36"]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(margin - 2, margin - 2, wide + 4, high + 4);
  }
}

// ---- what is shown -------------------------------------------------------------------------------------------

function build() {
  document.title = `${state.title} – emloom`;
  byId("title").textContent = `${state.title}, judged by ${state.annotator}`;
  state.classes.forEach((name, number) => {
    const box = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = state.classes.length > 1 ? `${number + 1}  ${name}` : name;
    const row = document.createElement("div");
    row.className = "answers";
    for (const [key, word] of Object.entries(WORDS)) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = word;
      button.append(word[0].toUpperCase() + word.slice(1) + " ");
      const hint = document.createElement("kbd");
      hint.textContent = key.toUpperCase();
      button.append(hint);
      button.addEventListener("click", () => after(() => { mark(number); return answer(word); }));
      row.append(button);
    }
    box.append(legend, row);
    byId("classes").append(box);
  });
  resetContrast();
}

function resetContrast() {
  byId("black").value = state.black;
  byId("white").value = state.white;
  tellContrast();
}

function tellContrast() {
  byId("blackvalue").textContent = byId("black").value;
  byId("whitevalue").textContent = byId("white").value;
}

function contrast(by) {
  const low = Number(byId("black").value) + by, high = Number(byId("white").value) - by;
  if (high - low < 2 || low < 0 && high > 255) return;
  byId("black").value = low;
  byId("white").value = high;
  tellContrast();
  draw();
}

function mark(number) {
  marked = Math.min(Math.max(number, 0), state.classes.length - 1);
  [...byId("classes").children].forEach((box, at) => {
    box.classList.toggle("marked", at === marked && state.classes.length > 1);
  });
}

function tell() {
  const [z, y, x] = patch.start, [first, own, last] = patch.sections;
  byId("where").textContent = `Patch ${patch.index + 1} of ${state.total}`;
  byId("count").textContent = `${state.done} of ${state.total} answered`;
  byId("bar").max = state.total;
  byId("bar").value = state.done;
  byId("place").textContent = `z ${z}, y ${y}, x ${x};`;
  const step = section - own;
  byId("section").textContent = step === 0 ? `section ${section}` : `section ${section} (${step > 0 ? "+" : "−"}${Math.abs(step)})`;
  [...byId("classes").children].forEach((box, at) => {
    for (const button of box.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.className === patch.said[at]));
    }
  });
  const said = state.classes.map((name, at) => `${name}: ${patch.said[at] ?? "not answered"}`).join(", ");
  byId("view").setAttribute("aria-label", `Section ${section} around patch ${patch.index + 1}. ${said}`);
  byId("back").disabled = patch.index === 0;
  byId("ahead").disabled = patch.index === state.total - 1;
  byId("lower").disabled = section <= first;
  byId("higher").disabled = section >= last;
  byId("middle").disabled = step === 0;
  byId("outline").setAttribute("aria-pressed", String(framed));
  byId("notes").replaceChildren(...patch.notes.flatMap(([name, text]) => {
    const term = document.createElement("dt"), words = document.createElement("dd");
    term.textContent = name;
    words.textContent = text;
    return [term, words];
  }));
}

async function show(found) {
  patch = found;
  section = patch.sections[1];
  history.replaceState(null, "", `#${patch.index + 1}`);
  const open = patch.said.indexOf(null);
  mark(open < 0 ? 0 : open);
  await look();
  fetchAhead(patch.index).catch(() => {}); // who looks at them will hear
}

async function fetchAhead(from) {
  for (let index = from + 1; index <= Math.min(from + AHEAD, state.total - 1); index++) {
    const next = await ask(`patch/${index}`);
    await picture(index, next.sections[1]);
  }
}

// ---- what a person does --------------------------------------------------------------------------------------

async function go(index) {
  if (index < 0 || index >= state.total || index === patch?.index) return;
  await show(await ask(`patch/${index}`));
}

async function answer(word) {
  const name = state.classes[marked];
  const found = await ask("answer", { index: patch.index, class: name, word });
  state.done = found.done;
  say(`Patch ${found.index + 1}, ${name}: ${word}`);
  patch = { ...patch, said: found.said, notes: found.notes };
  const open = patch.said.indexOf(null);
  if (open >= 0) {
    mark(open);
    tell();
  } else if (found.next !== null) {
    await go(found.next);
  } else {
    tell();
    say(`Patch ${found.index + 1}, ${name}: ${word}. All ${state.total} patches are answered.`);
  }
}

async function undo() {
  const found = await ask("undo", {});
  if (found.index === null) {
    say("There is nothing to take back.");
    return;
  }
  state.done = found.done;
  await show(found);
  say(`Patch ${found.index + 1}: the last answer is taken back.`);
}

async function goOpen() {
  for (let step = 1; step <= state.total; step++) {
    const found = await ask(`patch/${(patch.index + step) % state.total}`);
    if (found.said.includes(null)) {
      if (found.index !== patch.index) await show(found);
      return;
    }
  }
  say(`All ${state.total} patches are answered.`);
}

async function turn(to) {
  const [first, , last] = patch.sections;
  if (to < first || to > last) {
    say(`Section ${to} is not shown: this patch shows ${first} to ${last}.`);
    return;
  }
  section = to;
  await look();
}

async function reset() {
  framed = true;
  resetContrast();
  section = patch.sections[1];
  await look();
}

function toggleFrame() {
  framed = !framed;
  tell();
  draw();
}

function toggleKeys() {
  const keys = byId("keys");
  keys.open = !keys.open;
  if (keys.open) keys.scrollIntoView({ block: "nearest" });
}

const KEYS = {
  y: () => answer("yes"), n: () => answer("no"), u: () => answer("unsure"),
  ArrowLeft: () => go(patch.index - 1), ArrowRight: () => go(patch.index + 1), " ": () => go(patch.index + 1),
  ArrowUp: () => mark(marked - 1), ArrowDown: () => mark(marked + 1),
  g: goOpen, Backspace: undo,
  ",": () => turn(section - 1), ".": () => turn(section + 1), "/": () => turn(patch.sections[1]),
  PageUp: () => turn(section - 1), PageDown: () => turn(section + 1),
  "[": () => contrast(-8), "]": () => contrast(8),
  f: toggleFrame, r: reset, t: Theme.turn, "?": toggleKeys,
};

function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const native = event.target.closest("button, summary, input");
  if (native && (key === " " || key === "Enter")) return; // they press what is focused
  if (native?.type === "range" && (key.startsWith("Arrow") || key.startsWith("Page"))) return;
  if ((event.ctrlKey || event.metaKey) && key === "z" && !event.shiftKey) {
    event.preventDefault();
    after(undo);
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key >= "1" && key <= "9") {
    event.preventDefault();
    if (!event.repeat) after(() => mark(Number(key) - 1));
    return;
  }
  if (!Object.hasOwn(KEYS, key)) return;
  event.preventDefault();
  if (event.repeat && key in WORDS) return; // a key held down is one answer
  after(KEYS[key]);
}

function connect() {
  Theme.connect(byId("theme"));
  document.addEventListener("keydown", pressed);
  const buttons = {
    back: () => go(patch.index - 1), ahead: () => go(patch.index + 1), open: goOpen, undo,
    lower: () => turn(section - 1), middle: () => turn(patch.sections[1]), higher: () => turn(section + 1),
    reset, outline: toggleFrame,
  };
  for (const [id, step] of Object.entries(buttons)) byId(id).addEventListener("click", () => after(step));
  // A click leaves the focus where it is, so that the space bar goes on to mean the next patch.
  document.addEventListener("mousedown", (event) => { if (event.target.closest("button")) event.preventDefault(); });
  for (const id of ["black", "white"]) {
    byId(id).addEventListener("input", () => { tellContrast(); draw(); });
  }
  new ResizeObserver(draw).observe(byId("frame"));
}

after(async () => {
  state = await ask("state");
  build();
  connect();
  const wanted = Number(location.hash.slice(1)) - 1;
  const start = Number.isInteger(wanted) && wanted >= 0 && wanted < state.total ? wanted : state.position;
  await show(await ask(`patch/${start}`));
  document.body.dataset.ready = "true";
});
