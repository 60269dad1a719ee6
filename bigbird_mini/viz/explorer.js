// Draws what bigbird_mini/viz/explorer.py computes. `kinds` holds one byte for each (query block, key block).

const SIDE = 448;          // CSS pixels of the whole grid, at most
const LETTERED = 14;       // CSS pixels a cell needs for its letter; smaller ones get a mark
const SMALL_MARKS = { global: "/", random: "•" };
const SLOW = 400;          // ms without a change before the summary is read out
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// JupyterLab takes the arrow keys in command mode unless the focused element itself says this.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function slider(model, trait, text, least, most, step, say) {
  const input = element("input", { type: "range", min: least, max: most, step, ...OWN_KEYS });
  const number = element("output");
  const row = element("label", {}, text, input, number);
  const refresh = () => {
    input.value = model.get(trait);
    number.textContent = say(model.get(trait));
    input.setAttribute("aria-valuetext", say(model.get(trait)));
  };
  input.addEventListener("input", () => {
    model.set(trait, Number(input.value));
    model.save_changes();
  });
  refresh();
  return { row, refresh };
}

function draw(canvas, model, cell, cursor) {
  const n = model.get("n_blocks");
  const legend = model.get("legend");
  const bytes = kindBytes(model);
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(n * cell * ratio);
  canvas.style.width = canvas.style.height = `${n * cell}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.font = `${Math.min(16, Math.floor(cell * 0.62))}px sans-serif`;
  const gap = cell >= 4 ? 0.5 : 0;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) {
      const kind = bytes[i * n + j];
      if (!kind) continue;
      const { colour, ink, letter, name } = legend[kind - 1];
      const [x, y] = [j * cell, i * cell];
      pen.fillStyle = colour;
      pen.fillRect(x + gap, y + gap, cell - 2 * gap, cell - 2 * gap);
      pen.fillStyle = pen.strokeStyle = ink;
      if (cell >= LETTERED) pen.fillText(letter, x + cell / 2, y + cell / 2 + 1);
      else if (cell >= 5) smallMark(pen, name, x, y, cell);
    }
  }
  if (cell >= 4) {
    pen.strokeStyle = "rgba(128, 128, 128, 0.28)";   // seen on light and on dark paper
    pen.lineWidth = 1;
    pen.beginPath();
    for (let k = 1; k < n; k++) {
      pen.moveTo(k * cell, 0);
      pen.lineTo(k * cell, n * cell);
      pen.moveTo(0, k * cell);
      pen.lineTo(n * cell, k * cell);
    }
    pen.stroke();
  }
  if (cursor) {
    const [i, j] = cursor;
    pen.fillStyle = "rgba(128, 128, 128, 0.22)";
    pen.fillRect(0, i * cell, n * cell, cell);
    pen.fillRect(j * cell, 0, cell, n * cell);
    for (const [colour, width] of [["#fff", 4], ["#000", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.strokeRect(j * cell, i * cell, cell, cell);
    }
  }
}

// Too small for a letter: a dot for random, a stroke for global, so that colour is not the only difference.
function smallMark(pen, name, x, y, cell) {
  if (name === "random") {
    pen.beginPath();
    pen.arc(x + cell / 2, y + cell / 2, Math.max(1, cell * 0.16), 0, 7);
    pen.fill();
  } else if (name === "global") {
    pen.lineWidth = 0.8;
    pen.beginPath();
    pen.moveTo(x + cell * 0.2, y + cell * 0.8);
    pen.lineTo(x + cell * 0.8, y + cell * 0.2);
    pen.stroke();
  }
}

function kindBytes(model) {
  const view = model.get("kinds");
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function cellWords(model, [i, j]) {
  const n = model.get("n_blocks");
  const bytes = kindBytes(model);
  const kind = bytes[i * n + j];
  const row = bytes.subarray(i * n, (i + 1) * n).reduce((sum, k) => sum + (k > 0), 0);
  const verb = kind ? `reads key block ${j}: ${model.get("legend")[kind - 1].name}` : `does not read key block ${j}`;
  return `query block ${i} ${verb} (${row} of ${n} key blocks in this row)`;
}

function legendList(model, cell) {
  const list = element("ul", { class: "bb-legend" });
  for (const { name, colour, ink, letter } of model.get("legend").slice(0, 3)) {
    const sign = cell >= LETTERED ? letter : SMALL_MARKS[name] ?? "";   // the mark that the cells carry
    const mark = element("span", { class: "bb-mark", "aria-hidden": "true" }, sign);
    Object.assign(mark.style, { background: colour, color: ink });
    list.append(element("li", {}, mark, name));
  }
  list.append(element("li", {}, element("span", { class: "bb-mark", "aria-hidden": "true" }), "not read"));
  return list;
}

function render({ model, el }) {
  const n = model.get("n_blocks");
  const cell = Math.max(1, Math.min(36, Math.floor(SIDE / n)));
  let cursor = null;

  // an application: a screen reader then leaves the arrow keys to it
  const role = { role: "application", "aria-roledescription": "grid of blocks" };
  const canvas = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS });
  const cellText = element("div", { class: "bb-cell", "aria-live": "polite" });
  const hint = "Point at a cell, or focus the grid and use the arrow keys, Home and End.";
  const heard = element("div", { class: "bb-heard", "aria-live": "polite" });
  const problem = element("div", { class: "bb-problem", role: "alert" });
  const table = element("table");
  const last = model.get("global_names").length - 1;
  const sliders = [
    slider(model, "window", "window", 1, Math.max(1, Math.min(31, n - 1 + (n % 2))), 2, (v) => `${v} blocks`),
    slider(model, "n_global", "global blocks", 0, last, 1, (v) => model.get("global_names")[v] ?? String(v)),
    slider(model, "random", "random blocks", 0, Math.min(16, n), 1, (v) => `${v} a row`),
    slider(model, "seed", "seed", 0, Math.max(50, model.get("seed")), 1, (v) => String(v)),
  ];

  const side = element("div", { class: "bb-side" });
  side.append(...sliders.map((s) => s.row), problem, legendList(model, cell), table, heard);
  side.append(element("div", { class: "bb-hint" }, hint));
  const row = element("div", { class: "bb-row" }, element("div", { class: "bb-axis bb-query" }, "query block"), canvas);
  const top = element("div", { class: "bb-axis bb-key" }, "key block");
  const grid = element("div", { class: "bb-grid" }, top, row, cellText);
  const root = element("div", { class: "bb-explorer" }, grid, side);
  el.append(root);

  const paint = () => {
    if (kindBytes(model).length === n * n) draw(canvas, model, cell, cursor);
    else Object.assign(canvas, { width: n * cell, height: n * cell });   // the settings were never right: empty paper
    cellText.textContent = cursor && kindBytes(model).length ? cellWords(model, cursor) : "";
  };
  let timer = 0;
  const refresh = () => {
    sliders.forEach((s) => s.refresh());
    problem.textContent = model.get("problem");
    const rows = model.get("facts").rows ?? [];
    const cells = ([name, value]) => [element("th", { scope: "row" }, name), element("td", {}, value)];
    table.replaceChildren(...rows.map((pair) => element("tr", {}, ...cells(pair))));
    canvas.setAttribute("aria-label", `${model.get("words")}. Arrow keys move over the cells.`);
    paint();
    clearTimeout(timer);
    timer = setTimeout(() => { heard.textContent = model.get("words"); }, SLOW);
    root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
  };

  const clamp = (k) => Math.max(0, Math.min(n - 1, k));
  canvas.addEventListener("pointermove", (event) => {
    const next = [clamp(Math.floor(event.offsetY / cell)), clamp(Math.floor(event.offsetX / cell))];
    if (cursor && cursor[0] === next[0] && cursor[1] === next[1]) return;
    cursor = next;
    paint();
  });
  const leave = () => { cursor = null; paint(); };
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("keydown", (event) => {
    const [i, j] = cursor ?? [0, 0];
    if (event.key in MOVES) {
      const [down, right] = cursor ? MOVES[event.key] : [0, 0];   // the first key shows where the cursor is
      cursor = [clamp(i + down), clamp(j + right)];
    } else if (event.key === "Home") cursor = [i, 0];
    else if (event.key === "End") cursor = [i, n - 1];
    else return;
    event.preventDefault();
    paint();
  });

  const watched = ["kinds", "facts", "problem", "window", "n_global", "random", "seed"].map((name) => `change:${name}`);
  let waiting = false;   // several traits change at once: draw them together
  const soon = () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; refresh(); });
  };
  watched.forEach((name) => model.on(name, soon));
  refresh();
  return () => {
    clearTimeout(timer);
    watched.forEach((name) => model.off(name, soon));
  };
}

export default { render };
