// Paint a pattern: the brush and the pictures; bigbird_mini/viz/paint_widget.py answers with all numbers.

const SIDE = 448, LEFT = 46, TOP = 40;                // CSS pixels: the grid at most, and its margins
const CHART = { wide: 440, high: 240, left: 40, right: 96, top: 12, bottom: 36 };
const OTHER = 4;                                      // the kind of a cell that was painted
const SHAPES = [
  ["cell", "c", "One cell, or a line of them"], ["box", "b", "All cells of a box"],
  ["row", "r", "A row: one block reads all"], ["column", "k", "A column: all read one block"],
  ["diagonal", "d", "A diagonal: each reads the one so far away"],
];
const INKS = ["#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];   // of the trainings
const PAINT_HINT = "Drag with the mouse (with Shift: the other way round). Or focus the grid: arrows move, space "
  + "paints or erases, Shift with an arrow draws a line; C, B, R, K, D choose cell, box, row, column, diagonal; "
  + "E erases, M mirrors, Ctrl+Z undoes, Ctrl+Y does it again.";
const KNOW = "Predicted from the grid alone. By edges: right where one cell joins question and answer; by paths: "
  + "where up to two do, one in each layer; elsewhere a guess.";
const percent = (share) => `${Math.round(100 * share)}%`;

function render({ model, el }) {
  const n = model.get("n_blocks"), legend = model.get("legend");
  let side = SIDE, kinds = null, cursor = null;       // cursor: [query block, key block]
  let drag = null, corner = null;                     // what a pressed button paints; where a box starts
  const past = [];                                    // the grid after each stroke, from the first
  let place = -1, stroke = 0, open = -1;              // where we are in it; the latest stroke, the one under way

  const ui = frame(model, el, "paint", () => paint()), { change, tell } = ui;
  const cell = () => side / n;
  const erases = (event) => model.get("erasing") !== event.shiftKey;
  const kindName = (i, j) => legend[kinds[i * n + j] - 1]?.name;

  // ------------------------------------------------------------ painting

  const boxOf = ([i0, j0], [i1, j1]) => {
    const cells = [];
    for (let i = Math.min(i0, i1); i <= Math.max(i0, i1); i++) {
      for (let j = Math.min(j0, j1); j <= Math.max(j0, j1); j++) cells.push([i, j]);
    }
    return cells;
  };
  const lineOf = ([i0, j0], [i1, j1]) => {            // a fast mouse leaves cells out
    const far = Math.max(Math.abs(i1 - i0), Math.abs(j1 - j0), 1);
    const along = (a, b, k) => Math.round(a + ((b - a) * k) / far);
    return Array.from({ length: far + 1 }, (_, k) => [along(i0, i1, k), along(j0, j1, k)]);
  };
  const every = Array.from({ length: n }, (_, k) => k);
  const shapeOf = (name, [i, j]) => ({
    row: () => every.map((k) => [i, k]), column: () => every.map((k) => [k, j]),
    diagonal: () => every.map((k) => [k, k + j - i]).filter(([, key]) => key >= 0 && key < n),
  })[name]();
  const nextStroke = () => (stroke += 1);
  const remember = (own) => {                         // cells of one stroke are undone together
    if (own !== open) place += 1;
    past.splice(place, Infinity, kinds.slice());
    open = own;
  };
  const send = () => {
    change({ kinds: new DataView(kinds.slice().buffer) });
    steps();
    paint();
  };
  function put(cells, on, own) {
    const before = String(kinds);
    for (const [i, j] of model.get("mirror") ? cells.concat(cells.map(([i, j]) => [j, i])) : cells) {
      kinds[i * n + j] = on ? kinds[i * n + j] || OTHER : 0;
    }
    if (String(kinds) === before) return;
    remember(own);
    send();
  }
  // The tool at a cell, from the keyboard: a single cell changes to its other state.
  function useTool(at) {
    const shape = model.get("shape"), on = !model.get("erasing");
    if (shape === "cell") return put([at], !kinds[at[0] * n + at[1]], nextStroke());
    if (shape !== "box") return put(shapeOf(shape, at), on, nextStroke());
    if (corner) put(boxOf(corner, at), on, nextStroke());
    corner = corner ? null : at;
    return paint();
  }
  function press(at, event) {
    const shape = model.get("shape");
    drag = { on: !erases(event), own: nextStroke(), last: at, shape };
    if (shape === "box") corner = at;
    else put(shape === "cell" ? [at] : shapeOf(shape, at), drag.on, drag.own);
  }
  function pull(at) {
    if (drag.shape === "cell") put(lineOf(drag.last, at), drag.on, drag.own);
    else if (drag.shape !== "box") put(shapeOf(drag.shape, at), drag.on, drag.own);
    drag.last = at;
  }
  function release() {
    if (!drag) return;
    const { shape, last, on, own } = drag;
    drag = null;
    if (shape === "box" && corner) put(boxOf(corner, last), on, own);
    if (shape === "box") corner = null;
    paint();
  }
  const undo = (by) => {
    if (!past[place + by]) return;
    place += by;
    open = -1;
    kinds = past[place].slice();
    send();
  };

  // ------------------------------------------------------------ drawing the grid

  function drawCells(pen, shade) {
    const size = cell(), gap = size >= 6 ? 0.5 : 0, needs = model.get("needs");
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        const kind = kinds[i * n + j];
        if (kind) {
          pen.fillStyle = legend[kind - 1].colour;
          pen.fillRect(j * size + gap, i * size + gap, size - 2 * gap, size - 2 * gap);
          mark(pen, legend[kind - 1], j * size, i * size, size);
        }
        if (!model.get("hint") || !needs[i * n + j]) continue;
        pen.lineWidth = 2;                            // asked for by the task: a ring, whether painted or not
        for (const [colour, far] of [[shade.paper, 0.3], [shade.ink, 0.38]]) {
          pen.strokeStyle = colour;
          pen.beginPath();
          pen.arc((j + 0.5) * size, (i + 0.5) * size, size * far, 0, 7);
          pen.stroke();
        }
      }
    }
    pen.strokeStyle = shade.line;
    pen.lineWidth = 0.5;
    pen.beginPath();
    for (let k = 0; k <= n; k++) {
      pen.moveTo(k * size, 0); pen.lineTo(k * size, side);
      pen.moveTo(0, k * size); pen.lineTo(side, k * size);
    }
    pen.stroke();
  }
  function drawGrid(shade) {
    const pen = sharp(canvas, LEFT + side + 2, TOP + side + 2), size = cell();
    pen.save();
    pen.translate(LEFT, TOP);
    drawCells(pen, shade);
    if (cursor) {
      const [i, j] = cursor;
      pen.fillStyle = "rgba(128, 128, 128, 0.22)";
      pen.fillRect(0, i * size, side, size);
      pen.fillRect(j * size, 0, size, side);
      const [i0, j0] = corner ?? cursor;
      const [top, left] = [Math.min(i, i0), Math.min(j, j0)];
      outline(pen, left * size, top * size, (Math.abs(j - j0) + 1) * size, (Math.abs(i - i0) + 1) * size);
    }
    pen.restore();
    pen.fillStyle = shade.soft;
    pen.font = "12px sans-serif";
    pen.fillText("key block → (block 0 is blank in every task)", LEFT + side / 2, 10);
    pen.save();
    pen.translate(9, TOP + side / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("← query block", 0, 0);
    pen.restore();
    pen.font = "11px sans-serif";
    const apart = size < 18 ? 2 : 1;
    for (let k = 0; k < n; k += apart) {
      pen.fillText(String(k), LEFT + (k + 0.5) * size, TOP - 10);
      pen.fillText(String(k), LEFT - 12, TOP + (k + 0.5) * size);
    }
    pen.strokeStyle = shade.soft;
    pen.lineWidth = 1;
    pen.strokeRect(LEFT - 0.5, TOP - 0.5, side + 1, side + 1);
  }

  // ------------------------------------------------------------ drawing the trainings

  const chartRoom = () => room(chart.parentElement, 0, CHART.wide, CHART.wide);
  function drawChart(shade) {
    const wide = chartRoom(), high = CHART.high;
    const pen = sharp(chart, wide, high);
    const curves = model.get("curves"), longest = Math.max(1, ...curves.map(({ steps }) => steps));
    const right = wide - CHART.right, bottom = high - CHART.bottom, labels = [];
    const x = (step) => CHART.left + (step / longest) * (right - CHART.left);
    const y = (share) => bottom - share * (bottom - CHART.top);
    const line = (points, colour, width, dash) => {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.setLineDash(dash);
      pen.beginPath();
      points.forEach((p, k) => (k ? pen.lineTo(...p) : pen.moveTo(...p)));
      pen.stroke();
      pen.setLineDash([]);
    };
    pen.font = "11px sans-serif";
    pen.textAlign = "right";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) {
      line([[CHART.left, y(share)], [right, y(share)]], shade.line, 0.6, []);
      pen.fillStyle = shade.soft;
      pen.fillText(percent(share), CHART.left - 6, y(share));
    }
    pen.textAlign = "center";
    const some = curves.some(({ steps }) => steps);
    const ticks = some ? [0, Math.round(longest / 2), longest] : [];
    for (const step of ticks) pen.fillText(String(step), x(step), bottom + 12);
    pen.fillText(some ? "step" : "no training yet: press Train it", (CHART.left + right) / 2, bottom + 26);
    const [edges, paths] = model.get("predicted"), same = Math.abs(edges - paths) < 0.005;
    const levels = [[model.get("chance"), "a guess", shade.soft, [2, 4]]];
    levels.push([edges, same ? "edges, paths" : "edges", "", []]);
    if (!same) levels.push([paths, "paths", "", [8, 4]]);
    for (const [share, name, colour, dash] of levels) {
      if (share === undefined) continue;
      line([[CHART.left, y(share)], [right, y(share)]], colour || shade.focus, 1.6, dash);
      labels.push([`${name} ${percent(share)}`, y(share)]);
    }
    curves.forEach(({ number, points, here }) => {
      const colour = INKS[(number - 1) % INKS.length];
      line(points.map(([step, share]) => [x(step), y(share)]), colour, here ? 3 : 1.6, []);
      if (!points.length) return;
      const [step, share] = points.at(-1);
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(x(step), y(share), 4, 0, 7);
      pen.fill();
      labels.push([`training ${number}: ${percent(share)}`, y(share)]);
    });
    pen.textAlign = "left";
    pen.fillStyle = shade.ink;
    labels.sort((a, b) => a[1] - b[1]);               // apart from each other, and none below the axis
    labels.forEach((label, k) => { label[1] = Math.max(label[1], k ? labels[k - 1][1] + 13 : 0); });
    labels.forEach((label, k) => { label[1] = Math.min(label[1], bottom + 4 - 13 * (labels.length - 1 - k)); });
    for (const [words, at] of labels) pen.fillText(words, right + 6, at);
    const now = (points) => (points.length ? percent(points.at(-1)[1]) : "no answer yet");
    const runs = curves.map(({ number, density, points }) =>
      `training ${number} (density ${percent(density)}): ${now(points)}`);
    const predicted = `A guess is right in ${percent(model.get("chance"))}, edges alone in ${percent(edges ?? 0)}, `
      + `paths in ${percent(paths ?? 0)}.`;
    chart.setAttribute("aria-label", `Accuracy against steps. ${predicted} ${runs.join("; ")}`);
  }

  function paint() {
    side = room(ui.root, LEFT + 24, SIDE, side);
    const shade = colours(ui.root);
    drawGrid(shade);
    drawChart(shade);
    picture.style.width = canvas.style.width;
    requestAnimationFrame(() => {                     // while a theme changes, the page has another width
      if (chart.isConnected && parseFloat(chart.style.width) !== chartRoom()) drawChart(colours(ui.root));
    });
    caption.textContent = cursor ? cellWords() : PAINT_HINT;
    caption.classList.toggle("bb-hint", !cursor);
    canvas.setAttribute("aria-label", `${model.get("words")}. Arrow keys move over the cells, space paints.`);
  }
  const cellWords = () => {
    const [i, j] = cursor, name = kindName(i, j), row = kinds.subarray(i * n, (i + 1) * n).filter(Boolean).length;
    const asked = model.get("needs")[i * n + j], task = model.get("task");
    const share = asked ? `${(100 * asked).toFixed(1)}% of the` : "no";
    const need = model.get("hint") ? ` ${task}: ${share} questions go from here to there.` : "";
    const box = corner && !drag ? ` A box starts at ${corner.join(", ")}; space ends it here.` : "";
    const verb = name ? `reads key block ${j}: ${name}` : `does not read key block ${j}`;
    return `query block ${i} ${verb}. This row reads ${row} of ${n} key blocks.${need}${box}`;
  };

  // ------------------------------------------------------------ what the reader touches

  const role = { role: "application", "aria-roledescription": "grid to paint on" };
  const canvas = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS });
  const chart = element("canvas", { role: "img" });
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });
  canvas.style.touchAction = "none";                  // a finger paints
  const under = (event) => {
    const scale = canvas.getBoundingClientRect().width / (LEFT + side + 2);
    const at = [event.offsetY / scale - TOP, event.offsetX / scale - LEFT].map((k) => Math.floor(k / cell()));
    return at.every((k) => k >= 0 && k < n) ? at : null;
  };
  canvas.addEventListener("pointerdown", (event) => {
    const at = under(event);
    if (!at || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = at;
    press(at, event);
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = under(event);
    if (drag && !at) return;                          // outside the grid a stroke waits
    cursor = at;
    if (drag) pull(at);
    paint();
  });
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  for (const name of ["pointerleave", "blur"]) {
    canvas.addEventListener(name, () => {
      if (drag) return;
      cursor = corner = null;
      paint();
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, held = event.ctrlKey || event.metaKey;
    const act = keyAction(key, held, event);
    if (event.altKey || !act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });
  function keyAction(key, held, event) {
    if (held) return { z: () => undo(event.shiftKey ? 1 : -1), y: () => undo(1) }[key];
    if (key in MOVES) return () => step(MOVES[key], event.shiftKey);
    const shape = SHAPES.find(([, letter]) => letter === key);
    if (shape) return () => choose(shape[0]);
    const at = cursor ?? [0, 0];
    return {
      " ": () => show(at, useTool), Enter: () => show(at, useTool), e: () => flip("erasing"), m: () => flip("mirror"),
      Home: () => show([at[0], 0]), End: () => show([at[0], n - 1]), Escape: () => { cursor = corner = null; paint(); },
    }[key];
  }
  const show = (at, then = paint) => { cursor = at; then(at); paint(); };
  function step([down, right], draws) {
    const from = cursor ?? [0, 0], by = cursor ? [down, right] : [0, 0];   // the first key shows where the cursor is
    cursor = [0, 1].map((k) => clamp(from[k] + by[k], 0, n - 1));
    if (draws) put(lineOf(from, cursor), !model.get("erasing"), strokeOfLine());
    paint();
  }
  // A line that Shift and the arrows draw is one stroke until Shift is let go.
  let lineStroke = 0;
  const strokeOfLine = () => (lineStroke ||= nextStroke());
  canvas.addEventListener("keyup", (event) => { if (event.key === "Shift") lineStroke = 0; });
  const choose = (shape) => { corner = null; tell({ shape }); };
  const flip = (trait) => { tell({ [trait]: !model.get(trait) }); };

  const back = button("↶ undo", "Undo", () => undo(-1)), again = button("↷ redo", "Do it again", () => undo(1));
  const shapes = SHAPES.map(([name, letter, help]) => {
    const node = button(name, `${help} (${letter.toUpperCase()})`, () => choose(name));
    node.dataset.shape = name;
    return node;
  });
  const tools = element("div", { class: "bb-player", role: "group", "aria-label": "Brush" }, ...shapes);
  const undoing = element("div", { class: "bb-player", role: "group", "aria-label": "Steps" }, back, again);
  const own = { change: tell };
  const switches = element("div", { class: "bb-pair" }, undoing,
    ui.add(toggle(model, { trait: "erasing", label: "erase", ...own })),
    ui.add(toggle(model, { trait: "mirror", label: "mirror (both ways)", ...own })));
  const hint = ui.add(toggle(model, { trait: "hint", label: "ring the cells the task asks for", ...own }));
  const steps = () => {                               // not `disabled`: the focus would be lost
    for (const [node, by] of [[back, -1], [again, 1]]) {
      node.setAttribute("aria-disabled", String(!past[place + by]));
      node.style.opacity = past[place + by] ? "" : "0.5";
    }
  };
  ui.add({
    refresh: () => {
      for (const node of shapes) {
        const pressed = node.dataset.shape === model.get("shape");
        node.setAttribute("aria-pressed", String(pressed));
        node.style.boxShadow = pressed ? "inset 0 0 0 2px var(--focus)" : "";
      }
      steps();
    },
  });

  Object.assign(switches.style, { columnGap: "18px", alignItems: "center", margin: "6px 0" });
  for (const node of switches.children) node.style.margin = "0";
  const take = () => {
    const given = bytesOf(model, "kinds").slice();
    if (String(given) === String(kinds)) return;
    kinds = given;                                    // a preset, or what Python or another view painted
    remember(nextStroke());
  };
  const picture = element("div", { class: "bb-picture" }, canvas, caption, tools, switches, hint);
  ui.root.append(picture, paintPanel(model, ui, chart));
  ui.on("change:kinds", take);
  take();
  ui.refresh();
  return ui.end;
}

// Beside the grid: what to try, the task, the training, and what follows from the pattern.
function paintPanel(model, ui, chart) {
  const { change } = ui;
  const ask = element("div", { class: "bb-ask" });
  const tasks = element("div"), figures = element("div"), key = element("div");
  const progress = element("div", { class: "bb-status" });
  const go = button("", "", () => change({ training: !model.get("training") }));
  const presets = () => model.get("presets").map((name) => [name, name]);
  const parts = [
    choice(model, { trait: "preset", label: "start from", options: presets, change }),
    choice(model, { trait: "task", label: "task", options: () => model.get("tasks"), change }),
    dial(model, { trait: "seconds", label: "a training takes at most", least: 5, most: 120,
      say: (v) => `${v} seconds`, change }),
  ];
  const rows = parts.map((part) => ui.add(part));
  const words = ui.add(inWords(model));
  const side = element("div", { class: "bb-side" }, ask, ui.problem, ...rows, go, progress, chart, tasks, key, figures);
  side.append(words, ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      const training = model.get("training");
      ask.textContent = model.get("ask");
      progress.textContent = model.get("progress");
      go.textContent = training ? "■ Stop" : "▶ Train it";
      const offer = `Train it on ${model.get("task")}, at most ${model.get("seconds")} seconds`;
      const help = training ? "Stop the training" : offer;
      go.setAttribute("aria-label", help);
      go.title = help;
      const know = table(model.get("task_rows"), ["two layers know", "by edges", "by paths", "trained"]);
      tasks.replaceChildren(know, element("div", { class: "bb-hint" }, KNOW));
      const used = new Set([...bytesOf(model, "kinds")].map((kind) => model.get("legend")[kind - 1]?.name));
      key.replaceChildren(legendList(model.get("legend"), SIDE / model.get("n_blocks"), used));
      figures.replaceChildren(table(model.get("rows")));
    },
  });
  return side;
}

export default { render };
