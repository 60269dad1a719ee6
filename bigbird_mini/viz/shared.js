// What the instruments share. Python puts this text before each of them (instrument.py), so that none imports a file.

const PATIENCE = 6000;   // ms without an answer from Python before the instrument says so
const SILENT = "Python has not answered yet: it is still busy with other cells, or it has stopped. "
  + "If nothing runs, run this cell again.";
const QUIET = 500;       // ms without a change before a summary is read out
// JupyterLab takes the arrow keys, Enter and more in command mode unless the focused element itself says this.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const SMALL_MARKS = { global: "/", random: "•", other: "+" };   // where a cell is too small for its letter

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const clamp = (k, least, most) => Math.max(least, Math.min(most, k));
const counted = (k, noun) => `${k.toLocaleString("en")} ${noun}${k === 1 ? "" : "s"}`;

// "4-6", "0 and 11", "1, 3 and 7-9": as words.py says it
function listed(numbers) {
  const runs = [];
  for (const k of numbers) {
    if (runs.length && k === runs.at(-1)[1] + 1) runs.at(-1)[1] = k;
    else runs.push([k, k]);
  }
  const items = runs.flatMap(([a, b]) => (b - a > 1 ? [`${a}-${b}`] : a === b ? [`${a}`] : [`${a}`, `${b}`]));
  return items.length > 1 ? `${items.slice(0, -1).join(", ")} and ${items.at(-1)}` : items.join("");
}

function bytesOf(model, trait) {
  const view = model.get(trait);
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

// One root for an instrument: tells Python of changes, redraws on its answers, and says what went wrong.
function frame(model, el, kind, redraw) {
  const root = element("section", { class: `bb-instrument bb-${kind}`, "aria-label": model.get("title") });
  const problem = element("div", { class: "bb-problem", role: "alert" });
  const heard = element("div", { class: "bb-heard", "aria-live": "polite" });
  const parts = [];     // controls that follow the model
  const endings = [];   // what to undo when the view goes
  let patience = 0, quiet = 0, waiting = false, own = false, gone = false;

  const say = (text) => {
    clearTimeout(quiet);
    quiet = setTimeout(() => { heard.textContent = text; }, QUIET);
  };
  const refresh = () => {
    waiting = false;
    if (gone) return;
    const start = performance.now();
    parts.forEach((part) => part.refresh());
    redraw();
    root.dataset.took = (performance.now() - start).toFixed(1);   // ms, for tests/browser/latency.py
    root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
  };
  const soon = () => {   // several traits change at once: draw once
    if (waiting || own) return;
    waiting = true;
    queueMicrotask(refresh);
  };
  const tell = (values) => {   // Python need not answer
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const change = (values) => {   // the picture changes when it has answered
    own = true;
    tell(values);
    own = false;
    clearTimeout(patience);
    patience = setTimeout(() => { problem.textContent = SILENT; }, PATIENCE);
  };
  const answered = () => {
    clearTimeout(patience);
    problem.textContent = model.get("problem");
    say(model.get("words"));
    root.dataset.answers = String(model.get("answers"));
  };
  const on = (name, action) => {
    model.on(name, action);
    endings.push(() => model.off(name, action));
  };
  on("change", soon);
  on("change:answers", answered);

  // the theme of JupyterLab, or of the system: colours on a canvas do not follow by themselves
  const repaint = () => { shades.delete(root); soon(); };
  const theme = new MutationObserver(repaint);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "class"] });
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", repaint);
  let width = 0;
  const size = new ResizeObserver(() => {
    if (Math.abs(root.clientWidth - width) < 2) return;
    width = root.clientWidth;
    soon();
  });
  size.observe(root);
  endings.push(() => { theme.disconnect(); size.disconnect(); system.removeEventListener("change", repaint); });

  el.append(root);
  answered();
  return {
    root, problem, heard, change, tell, refresh, on,
    add: (part) => { parts.push(part); return part.row; },
    ending: (action) => endings.push(action),
    end: () => {
      [patience, quiet].forEach(clearTimeout);
      gone = true;
      endings.forEach((action) => action());
    },
  };
}

// ---------------------------------------------------------------- controls

// A slider. `values`: what its places stand for, where they are not `least` to `most` in steps of one.
function dial(model, { trait, label, values = null, least = 0, most = 0, say = String, change, hidden = () => false }) {
  const last = () => (values ? values.length - 1 : typeof most === "function" ? most() : most);
  const input = element("input", { type: "range", min: values ? 0 : least, step: 1, "aria-label": label, ...OWN_KEYS });
  const number = element("output");
  const row = element("label", { class: "bb-dial" }, element("span", {}, label), number, input);
  const place = (value) => {
    if (!values) return value;
    const near = values.map((v) => Math.abs(v - value));
    return near.indexOf(Math.min(...near));
  };
  const tell = (value) => {
    number.textContent = say(value);
    input.setAttribute("aria-valuetext", say(value));
  };
  input.addEventListener("input", () => {
    const value = values ? values[Number(input.value)] : Number(input.value);
    tell(value);
    change({ [trait]: value });
  });
  const refresh = () => {
    row.hidden = hidden();
    input.max = last();
    input.disabled = Number(input.max) <= Number(input.min);
    input.value = place(model.get(trait));
    tell(model.get(trait));
  };
  return { row, refresh };
}

// One of several, by name. `options`: [value, words] pairs, or a function that gives them.
function choice(model, { trait, label, options, change, hidden = () => false }) {
  const input = element("select", { "aria-label": label, ...OWN_KEYS });
  const row = element("label", { class: "bb-choice" }, element("span", {}, label), input);
  const list = () => (typeof options === "function" ? options() : options);
  let shown = "";
  input.addEventListener("change", () => change({ [trait]: list()[input.selectedIndex][0] }));
  const refresh = () => {
    row.hidden = hidden();
    if (shown !== JSON.stringify(list())) {
      shown = JSON.stringify(list());
      input.replaceChildren(...list().map(([, words]) => element("option", {}, words)));
    }
    input.selectedIndex = list().findIndex(([value]) => value === model.get(trait));
  };
  return { row, refresh };
}

function toggle(model, { trait, label, change, hidden = () => false }) {
  const input = element("input", { type: "checkbox", "aria-label": label, ...OWN_KEYS });
  const row = element("label", { class: "bb-toggle" }, input, element("span", {}, label));
  input.addEventListener("change", () => change({ [trait]: input.checked }));
  const refresh = () => {
    row.hidden = hidden();
    input.checked = model.get(trait);
  };
  return { row, refresh };
}

function button(words, help, action) {
  const node = element("button", { type: "button", title: help, "aria-label": help, ...OWN_KEYS }, words);
  node.addEventListener("click", action);
  return node;
}

// Back, play, step, all: walks through the steps 0 .. last. `all` stands for the whole picture.
function player({ at, last, go, all = null, pace = () => 600, noun = "step" }) {
  let timer = 0;
  const back = button("◀ back", `One ${noun} back`, () => { pause(); move(-1); });
  const play = button("▶ play", "Play", () => (timer ? pause() : start()));
  const on = button("step ▶", `One ${noun} on`, () => { pause(); move(1); });
  const row = element("div", { class: "bb-player", role: "group", "aria-label": `Walk through, a ${noun} at a time` });
  row.append(back, play, on);
  if (all !== null) row.append(button("all", "The whole picture", () => { pause(); go(all); }));
  const here = () => (all !== null && at() === all ? null : at());
  const move = (by) => {
    const from = here();
    if (from === null) go(by > 0 ? 0 : last() - 1);
    else go(clamp(from + by, 0, last()));
  };
  const pause = () => {
    clearTimeout(timer);
    timer = 0;
    label();
  };
  const tick = () => {
    if (here() !== null && here() >= last()) return pause();
    move(1);
    timer = setTimeout(tick, pace());
  };
  const start = () => {
    if (here() === null || here() >= last()) go(0);
    timer = setTimeout(tick, pace());
    label();
  };
  const label = () => {
    play.textContent = timer ? "❚❚ pause" : "▶ play";
    play.setAttribute("aria-label", timer ? "Pause" : "Play");
  };
  return { row, refresh: label, pause, move, turn: () => (timer ? pause() : start()) };
}

// ---------------------------------------------------------------- a canvas

// How wide a picture may be: `most` CSS pixels, less where the page is narrow; as before while it is not on the page.
function room(root, margin, most, before) {
  return root.clientWidth ? clamp(root.clientWidth - margin, 160, most) : before;
}

// Sized in CSS pixels, sharp on every screen; gives the pen.
function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  return pen;
}

// The colours of the page, as a canvas wants them; light or dark.
const shades = new WeakMap();
function colours(root) {
  if (!root.isConnected) return readColours(root);   // not on the page yet: it has none, and none may be kept
  if (!shades.has(root)) shades.set(root, readColours(root));
  return shades.get(root);
}

function readColours(root) {
  const probe = element("span");
  root.append(probe);
  const read = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const [ink, soft, line, paper, focus] = ["--ink", "--soft", "--line", "--paper", "--focus"].map(read);
  probe.remove();
  return { ink, soft, line, paper, focus };
}

// The mark of a kind in its cell: its letter where there is room, else a stroke, a dot or a cross.
function mark(pen, { name, letter, ink }, x, y, side) {
  pen.fillStyle = pen.strokeStyle = ink;
  if (side >= 14) {
    pen.font = `${Math.min(16, Math.floor(side * 0.62))}px sans-serif`;
    return pen.fillText(letter, x + side / 2, y + side / 2 + 1);
  }
  if (side < 5) return undefined;
  pen.lineWidth = Math.max(0.8, side * 0.1);
  pen.beginPath();
  if (name === "random") {
    pen.arc(x + side / 2, y + side / 2, Math.max(1, side * 0.17), 0, 7);
    return pen.fill();
  }
  if (name === "global" || name === "other") {
    pen.moveTo(x + side * 0.2, y + side * 0.8);
    pen.lineTo(x + side * 0.8, y + side * 0.2);
  }
  if (name === "other") {
    pen.moveTo(x + side * 0.2, y + side * 0.2);
    pen.lineTo(x + side * 0.8, y + side * 0.8);
  }
  return pen.stroke();
}

// A cell that is pointed at or chosen: seen on every colour, in both themes.
function outline(pen, x, y, width, height) {
  for (const [colour, thick] of [["#fff", 4], ["#000", 2]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick;
    pen.strokeRect(x, y, width, height);
  }
}

// The entries of a legend: the mark that cells of this size carry, on its colour, and the kind's name.
function legendList(legend, side, used) {
  const list = element("ul", { class: "bb-legend" });
  for (const { name, colour, ink, letter } of legend.filter(({ name }) => used.has(name))) {
    const sign = side >= 14 ? letter : side >= 5 ? SMALL_MARKS[name] ?? "" : "";
    const box = element("span", { class: "bb-mark", "aria-hidden": "true" }, sign);
    Object.assign(box.style, { background: colour, color: ink });
    list.append(element("li", {}, box, name));
  }
  return list;
}

function table(rows, head = null) {
  const kept = (words) => words.replace(/(\d) (?=[kKMGTP]?i?B\b)/g, "$1\u00a0");   // a number stays with its unit
  const node = element("table");
  if (head) node.append(element("tr", {}, ...head.map((words) => element("th", { scope: "col" }, words))));
  for (const [name, ...values] of rows) {
    node.append(element("tr", {}, element("th", { scope: "row" }, name), ...values.map((v) => element("td", {}, kept(v)))));
  }
  return node;
}

// "In words": the description, folded away, for those who want to read it or cannot see the picture.
function inWords(model) {
  const text = element("pre");
  const head = element("summary", { ...OWN_KEYS }, "In words");
  const row = element("details", { class: "bb-words" }, head, text);
  return { row, refresh: () => { text.textContent = model.get("description"); } };
}
