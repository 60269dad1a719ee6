// The pattern viewer: draws what bigbird_mini/viz/pattern_widget.py computes. `kinds` holds a byte for each block pair.

const SIDE = 448, LEFT = 46, TOP = 40;   // CSS pixels: the grid at most, and its margins
const MARKED = 4;                        // CSS pixels a cell needs to be drawn as a cell
const TOKEN = 5;                         // and a token, to be seen as one
const ORDER = ["window", "global", "random", "other"];   // as one draws a row by hand
const RARE = [0, 1, 2, 4, 3];            // where several cells share a pixel, the rarest kind shows
const HINT = "Point at a cell, or focus the grid: arrow keys, Home and End move, + and − zoom (0: all), "
  + "space draws it row by row, . and , step. Double-click zooms.";

function render({ model, el }) {
  const n = model.get("n_blocks"), b = model.get("block_size"), legend = model.get("legend");
  const view = { top: 0, left: 0, span: n };   // the part of the grid that is seen, in blocks
  let cursor = null;                           // [query token, key token] that is pointed at
  let side = SIDE, kinds = null, steps = [], base = null, baseKey = "", version = 0;

  const ui = frame(model, el, "pattern", () => paint()), { tell } = ui;

  // ------------------------------------------------------------ what is where

  const cellSide = () => side / view.span;                              // of a block, in CSS pixels
  const fine = () => view.span < n && cellSide() / b >= TOKEN;          // are single tokens seen?
  const there = () => kinds.length === n * n;                           // false: the settings were never right
  const rowOf = (i) => kinds.subarray(i * n, (i + 1) * n);

  // A row's window first, then its global blocks, then the random ones: one step each.
  const take = () => {
    kinds = bytesOf(model, "kinds");
    version += 1;
    steps = [];
    for (let i = 0; there() && i < n; i++) {
      const found = [0, 0, 0, 0, 0];
      for (let at = i * n; at < (i + 1) * n; at++) found[kinds[at]] = 1;
      ORDER.forEach((_, k) => { if (found[k + 1]) steps.push([i, k + 1]); });
    }
  };
  const drawnAt = (step) => {   // is a cell of this row and kind drawn by then?
    if (step < 0 || !steps.length) return () => true;
    const [row, last] = steps[Math.min(step, steps.length - 1)];
    return (i, kind) => i < row || (i === row && kind <= last);
  };

  const stepWords = () => {
    const step = Math.min(model.get("step"), steps.length - 1);
    if (step < 0) return "";
    const [row, kind] = steps[step];
    const keys = [...rowOf(row)].flatMap((k, j) => (k === kind ? [j] : []));
    const what = keys.length === n ? "every key block" : `key block${keys.length > 1 ? "s" : ""} ${listed(keys)}`;
    return `Step ${step + 1} of ${steps.length}: query block ${row} reads ${what} (${legend[kind - 1].name}).`;
  };

  const cellWords = () => {
    const [qt, kt] = cursor;
    const [i, j] = [Math.floor(qt / b), Math.floor(kt / b)];
    const kind = kinds[i * n + j], name = kind ? `: ${legend[kind - 1].name}` : "";
    const verb = kind ? "reads" : "does not read";
    const times = model.get("counts").byteLength ? bytesOf(model, "counts")[i * n + j] : 1;
    const more = times > 1 ? `, counted ${times} times` : "";
    if (fine()) {
      const inside = kind ? ` A block is ${b} x ${b} scores.` : "";
      return `query token ${qt} ${verb} key token ${kt}${name}${more} (block ${i} ${verb} block ${j}).${inside}`;
    }
    const row = rowOf(i).reduce((sum, k) => sum + (k > 0), 0);
    return `query block ${i} ${verb} key block ${j}${name}${more}. This row reads ${row} of ${n} key blocks.`;
  };

  // ------------------------------------------------------------ drawing

  function drawBlocks(pen, shade) {
    const cell = cellSide(), shown = drawnAt(model.get("step"));
    const [i0, j0] = [Math.floor(view.top), Math.floor(view.left)];
    const [i1, j1] = [Math.min(n, Math.ceil(view.top + view.span)), Math.min(n, Math.ceil(view.left + view.span))];
    const gap = cell >= 6 ? 0.5 : 0;
    for (let i = i0; i < i1; i++) {
      for (let j = j0; j < j1; j++) {
        const kind = kinds[i * n + j];
        if (!kind || !shown(i, kind)) continue;
        const x = (j - view.left) * cell, y = (i - view.top) * cell;
        pen.fillStyle = legend[kind - 1].colour;
        pen.fillRect(x + gap, y + gap, cell - 2 * gap, cell - 2 * gap);
        if (fine()) drawTokens(pen, x, y, cell, legend[kind - 1]);
        else mark(pen, legend[kind - 1], x, y, cell);
      }
    }
    if (cell < 6) return;
    pen.strokeStyle = shade.line;
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let k = 0; k <= view.span; k++) {
      const at = k * cell;
      pen.moveTo(at, 0); pen.lineTo(at, side);
      pen.moveTo(0, at); pen.lineTo(side, at);
    }
    pen.stroke();
  }

  function drawTokens(pen, x, y, cell, { ink, letter }) {
    pen.strokeStyle = ink;
    pen.globalAlpha = 0.35;
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let t = 1; t < b; t++) {
      const at = (t * cell) / b;
      pen.moveTo(x + at, y); pen.lineTo(x + at, y + cell);
      pen.moveTo(x, y + at); pen.lineTo(x + cell, y + at);
    }
    pen.stroke();
    pen.globalAlpha = 0.5;
    pen.fillStyle = ink;
    pen.font = `bold ${Math.min(120, cell * 0.5)}px sans-serif`;
    pen.fillText(letter, x + cell / 2, y + cell / 2);
    pen.globalAlpha = 1;
  }

  // Cells of a few pixels or less: pixel by pixel.
  function drawPixels(pen) {
    const shown = drawnAt(model.get("step"));
    const size = Math.round(side * (window.devicePixelRatio || 1));
    const [i0, j0] = [Math.floor(view.top), Math.floor(view.left)];
    const rows = Math.min(n - i0, Math.ceil(view.span)), cols = Math.min(n - j0, Math.ceil(view.span));
    const width = Math.min(size, cols), height = Math.min(size, rows);
    const best = new Uint8Array(width * height);
    for (let i = 0; i < rows; i++) {
      const y = Math.floor((i * height) / rows) * width, from = (i0 + i) * n + j0;
      for (let j = 0; j < cols; j++) {
        const kind = kinds[from + j];
        if (!kind || !shown(i0 + i, kind)) continue;
        const at = y + (width === cols ? j : Math.floor((j * width) / cols));
        if (RARE[kind] > RARE[best[at]]) best[at] = kind;
      }
    }
    const tints = legend.map(({ colour }) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16)));
    const image = pen.createImageData(width, height);
    for (let at = 0; at < best.length; at++) {
      if (best[at]) image.data.set([...tints[best[at] - 1], 255], 4 * at);
    }
    const small = new OffscreenCanvas(width, height);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, cols * cellSide(), rows * cellSide());
  }

  // The grid without the cursor, kept until something in it changes.
  function grid(shade) {
    const key = JSON.stringify([version, view, side, model.get("step"), shade, window.devicePixelRatio]);
    if (key === baseKey) return base;
    base = document.createElement("canvas");
    const pen = sharp(base, side, side);
    if (there()) (cellSide() < MARKED ? drawPixels : drawBlocks)(pen, shade);
    baseKey = key;
    return base;
  }

  function drawAxes(pen, shade) {
    const cell = fine() ? cellSide() / b : cellSide(), unit = fine() ? b : 1, what = fine() ? "token" : "block";
    const every = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((k) => k * cell >= 12 + 7 * String(n * unit).length) ?? 512;
    pen.fillStyle = shade.soft;
    pen.font = "12px sans-serif";
    pen.fillText(`key ${what} →`, LEFT + side / 2, 10);
    pen.save();
    pen.translate(9, TOP + side / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(`← query ${what}`, 0, 0);
    pen.restore();
    pen.font = "11px sans-serif";
    const ticks = (from, place) => {
      const first = Math.ceil((from * unit) / every) * every;
      for (let k = first; k < (from + view.span) * unit && k < n * unit; k += every) {
        place(String(k), (k - from * unit + 0.5) * cell);
      }
    };
    ticks(view.left, (words, at) => pen.fillText(words, LEFT + at, TOP - 10));
    pen.textAlign = "right";
    ticks(view.top, (words, at) => pen.fillText(words, LEFT - 6, TOP + at));
    pen.strokeStyle = shade.soft;
    pen.lineWidth = 1;
    pen.strokeRect(LEFT - 0.5, TOP - 0.5, side + 1, side + 1);
  }

  function drawCursor(pen, shade) {
    const unit = fine() ? 1 : b, cell = (cellSide() / b) * unit;
    const start = (t, from) => ((Math.floor(t / unit) * unit) / b - from) * cellSide();
    const [y, x] = [start(cursor[0], view.top), start(cursor[1], view.left)];
    pen.save();
    pen.translate(LEFT, TOP);
    pen.beginPath();
    pen.rect(0, 0, side, side);
    pen.clip();
    pen.fillStyle = "rgba(128, 128, 128, 0.22)";
    pen.fillRect(0, y, side, cell);
    pen.fillRect(x, 0, cell, side);
    outline(pen, x, y, cell, cell);
    pen.restore();
  }

  function paint() {
    side = room(ui.root, LEFT + 24, SIDE, side);
    const shade = colours(ui.root);
    const pen = sharp(canvas, LEFT + side + 2, TOP + side + 2);
    pen.drawImage(grid(shade), LEFT, TOP, side, side);
    drawAxes(pen, shade);
    if (cursor && there()) drawCursor(pen, shade);
    speak();
    canvas.dataset.version = String(version);
    canvas.dataset.view = [view.top, view.left, view.span].join(" ");
  }

  const speak = () => {
    const words = !there() ? "" : cursor ? cellWords() : model.get("step") >= 0 ? stepWords() : "";
    caption.textContent = words || HINT;
    caption.classList.toggle("bb-hint", !words);
    canvas.setAttribute("aria-label", `${model.get("words")}. Arrow keys move over the cells.`);
  };

  // ------------------------------------------------------------ moving

  const look = (top, left) => {
    view.top = clamp(top, 0, n - view.span);
    view.left = clamp(left, 0, n - view.span);
  };
  function zoom(by, at = cursor) {
    const middle = [view.top + view.span / 2, view.left + view.span / 2];
    const [y, x] = at ? at.map((t) => (t + 0.5) / b) : middle;
    const closest = Math.min(1, SIDE / TOKEN / b);
    const span = by === 0 ? n : clamp(view.span * by, closest, n);
    const whole = span > 1 ? Math.round(span) : span;
    view.span = whole;
    const snap = (k) => (whole >= 1 ? Math.round(k) : Math.round(k * b) / b);
    look(snap(y - whole / 2), snap(x - whole / 2));
    ui.refresh();
  }
  function point(next, keep) {
    cursor = next && next.map((t) => clamp(t, 0, n * b - 1));
    if (cursor && keep) {   // the view follows the keyboard
      const unit = fine() ? 1 / b : 1;
      const follow = (t, from) => {
        const k = Math.floor(t / b / unit) * unit;
        return k < from ? k : Math.max(from, k + unit - view.span);
      };
      look(follow(cursor[0], view.top), follow(cursor[1], view.left));
      tell({ cell: cursor.map((t) => Math.floor(t / b)) });
    }
    paint();
  }
  const under = (event) => {
    const scale = canvas.getBoundingClientRect().width / (LEFT + side + 2);
    const [x, y] = [event.offsetX / scale - LEFT, event.offsetY / scale - TOP];
    if (x < 0 || y < 0 || x >= side || y >= side) return null;
    return [view.top + y / cellSide(), view.left + x / cellSide()].map((k) => Math.floor(k * b));
  };

  // ------------------------------------------------------------ what the reader touches

  // an application: a screen reader then leaves the arrow keys to it
  const role = { role: "application", "aria-roledescription": "grid of blocks" };
  const canvas = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS });
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });
  canvas.addEventListener("pointermove", (event) => point(under(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("click", (event) => {
    const at = under(event);
    if (at) tell({ cell: at.map((t) => Math.floor(t / b)) });
  });
  canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 2 : 0.5, under(event)));
  canvas.addEventListener("keydown", (event) => {
    const unit = fine() ? 1 : b, at = cursor ?? [view.top, view.left].map((k) => Math.ceil(k) * b);
    const [down, right] = cursor ? MOVES[event.key] ?? [0, 0] : [0, 0];   // the first key shows where the cursor is
    const row = (j) => point([at[0], j], true);
    const keys = {
      Home: () => row(0), End: () => row(n * b - 1), Escape: () => point(null),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => zoom(0),
      " ": () => walk.turn(), ".": () => { walk.pause(); walk.move(1); }, ",": () => { walk.pause(); walk.move(-1); },
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in MOVES || event.key in keys)) return;
    event.preventDefault();
    if (event.key in MOVES) point([at[0] + down * unit, at[1] + right * unit], true);
    else keys[event.key]();
  });

  const walk = player({
    at: () => model.get("step"),
    last: () => steps.length - 1,
    all: -1,
    go: (step) => { cursor = null; tell({ step }); },
    pace: () => clamp(40000 / Math.max(1, steps.length), 30, 700),
  });
  ui.ending(() => walk.pause());
  const zoomers = element("div", { class: "bb-zoom", role: "group", "aria-label": "Zoom" },
    button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)),
    button("whole", "See the whole pattern", () => zoom(0)));
  const foot = element("div", {}, walk.row, zoomers);
  const picture = element("div", { class: "bb-picture" }, canvas, caption, foot);

  ui.root.append(picture, panel(model, ui, () => new Set(steps.map(([, kind]) => legend[kind - 1].name))));
  ui.on("change:kinds", take);
  ui.on("change:cell", () => {   // set from Python, or by this view
    const cell = model.get("cell"), now = cursor && cursor.map((t) => Math.floor(t / b));
    if (cell.length === 2 && String(cell) !== String(now)) cursor = cell.map((k) => k * b);
  });
  take();
  ui.refresh();
  return ui.end;
}

// Beside the picture: what to try, the settings, and what follows from them.
function panel(model, ui, used) {
  const { change } = ui, n = model.get("n_blocks");
  const given = () => model.get("given");
  const names = () => model.get("global_names");
  const odd = [0, ...Array.from({ length: 16 }, (_, k) => 2 * k + 1).filter((w) => w < 2 * n)];
  const own = { change, hidden: given };
  const ask = element("div", { class: "bb-ask" });
  const figures = element("div"), key = element("div");
  const presets = () => model.get("presets").map((name) => [name, name]);
  const blocks = (v) => (v ? counted(v, "block") : "none");
  const named = (v) => names()[v] ?? String(v);
  const parts = [
    choice(model, { trait: "preset", label: "start from", options: presets, change }),
    choice(model, { trait: "plan", label: "random blocks", options: () => model.get("plans"), ...own }),
    dial(model, { trait: "window", label: "window", values: odd, say: blocks, ...own }),
    dial(model, { trait: "n_global", label: "global blocks", most: () => names().length - 1, say: named, ...own }),
    dial(model, { trait: "random", label: "random blocks", most: Math.min(16, n), say: (v) => `${v} a row`, ...own }),
    dial(model, { trait: "seed", label: "seed", most: () => Math.max(50, model.get("seed")), ...own }),
    dial(model, { trait: "heads", label: "heads", least: 1, most: () => Math.max(12, model.get("heads")), ...own }),
    dial(model, { trait: "head", label: "head shown", most: () => model.get("heads") - 1, change }),
    dial(model, { trait: "layer", label: "layer", most: () => Math.max(11, model.get("layer")), change }),
  ];
  const words = inWords(model);
  const rows = parts.map((part) => ui.add(part));
  const side = element("div", { class: "bb-side" }, ask, ui.problem, ...rows, key, figures, ui.add(words), ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      ask.textContent = model.get("ask");
      ask.hidden = !ask.textContent;
      const list = legendList(model.get("legend"), SIDE / n, used());
      list.append(element("li", {}, element("span", { class: "bb-mark", "aria-hidden": "true" }), "not read"));
      key.replaceChildren(list);
      const head = ["tokens", "this pattern", "dense", "dense : this"];
      const lengths = model.get("lengths");
      figures.replaceChildren(table(model.get("rows")));
      if (!lengths.length) return;
      figures.append(element("div", { class: "bb-hint" }, model.get("lengths_title")), table(lengths, head));
    },
  });
  return side;
}

export default { render };
