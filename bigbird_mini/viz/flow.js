// News in a stack of layers: draws what bigbird_mini/viz/flow_widget.py computes.

const RING = 330, GRID = 300, MARGIN = 34;   // CSS pixels: the ring, the matrix, and the room for its numbers
const PAD = 32;                              // from the ring to the edge of its picture
const ROW = 20;                              // height of a layer in the light cone
const DASHES = { window: [], global: [9, 4], random: [2, 3], other: [9, 3, 2, 3] };
const FLOW_HINT = "Focus the ring: left and right choose a block, up and down a layer, Enter lets the news start "
  + "there; space plays. Or click a block in any of the three pictures; double-click starts the news there.";
const RING_KEY = "Lines in the ring: window solid, global dashed, random dotted. The number in a block: the layer "
  + "in which it first heard.";

function render({ model, el }) {
  const n = model.get("n_blocks"), legend = model.get("legend");
  const ui = frame(model, el, "flow", () => paint()), { tell } = ui;
  const heard = () => model.get("heard");
  const layer = () => clamp(model.get("layer"), 0, model.get("layers"));
  const knows = (i, by = layer()) => heard()[i] >= 0 && heard()[i] <= by;
  const kindIn = (l, i, j) => {   // of the layer l, counted from 1
    const all = bytesOf(model, "kinds"), tables = all.length / (n * n);
    return all[Math.min(l - 1, tables - 1) * n * n + i * n + j];
  };
  const path = () => {   // from the target back to the source
    const found = [model.get("target")];
    if (found[0] < 0 || heard()[found[0]] < 0) return [];
    while (heard()[found.at(-1)] > 0) found.push(model.get("told_by")[found.at(-1)]);
    return found;
  };

  // ------------------------------------------------------------ the ring

  const spot = (i, size, far = 1) => {   // block 0 at the top, then clockwise
    const turn = (2 * Math.PI * i) / n - Math.PI / 2, radius = (size / 2 - PAD) * far;
    return [size / 2 + radius * Math.cos(turn), size / 2 + radius * Math.sin(turn)];
  };
  function edge(pen, size, i, j, colour, width, dash) {
    const [a, b] = [spot(j, size), spot(i, size)], middle = size / 2;
    const bend = [0, 1].map((k) => middle + 0.45 * ((a[k] + b[k]) / 2 - middle));
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.setLineDash(dash);
    pen.beginPath();
    pen.moveTo(...a);
    pen.quadraticCurveTo(...bend, ...b);
    pen.stroke();
    pen.setLineDash([]);
  }
  function drawRing(shade) {
    const size = room(ui.root, 30, RING, RING), pen = sharp(ring, size, size);
    const dot = clamp((Math.PI * (size / 2 - PAD)) / n * 0.8, 2, 13), now = layer();
    const tell = (i, colour, width) => {   // the edge by which block i first heard
      const kind = legend[kindIn(heard()[i], i, model.get("told_by")[i]) - 1];
      edge(pen, size, i, model.get("told_by")[i], colour ?? kind.colour, width, colour ? [] : DASHES[kind.name]);
    };
    for (let i = 0; i < n; i++) {
      if (heard()[i] <= 0 || !knows(i)) continue;
      pen.globalAlpha = heard()[i] === now ? 1 : 0.45;
      tell(i, null, heard()[i] === now ? 1.8 : 1);
    }
    pen.globalAlpha = 1;
    for (const i of path()) {
      if (heard()[i] <= 0 || !knows(i)) continue;
      tell(i, shade.ink, 6);
      tell(i, shade.paper, 4);
      tell(i, null, 3);
    }
    for (let i = 0; i < n; i++) {
      const [x, y] = spot(i, size);
      pen.beginPath();
      pen.arc(x, y, dot, 0, 7);
      pen.fillStyle = knows(i) ? model.get("shades")[heard()[i]] : shade.paper;
      pen.fill();
      pen.strokeStyle = knows(i) ? shade.ink : shade.soft;
      pen.lineWidth = knows(i) && heard()[i] === now ? 2 : 0.8;
      pen.stroke();
      if (dot >= 7 && knows(i)) {
        pen.fillStyle = model.get("inks")[heard()[i]];
        pen.font = `${Math.round(dot)}px sans-serif`;
        pen.fillText(String(heard()[i]), x, y + 0.5);
      }
      if (i % Math.ceil(n / 32) === 0) {
        pen.fillStyle = shade.soft;
        pen.font = "10px sans-serif";
        pen.fillText(String(i), ...spot(i, size, 1 + (dot + 8) / (size / 2 - PAD)));
      }
    }
    for (const [i, thick] of [[model.get("source"), 3], [model.get("target"), 2]]) {
      if (i < 0) continue;
      pen.beginPath();
      pen.arc(...spot(i, size), dot + 4, 0, 7);
      pen.strokeStyle = thick === 3 ? shade.ink : shade.focus;
      pen.lineWidth = thick;
      pen.stroke();
    }
  }

  // ------------------------------------------------------------ the matrix of this layer

  const gridSide = () => room(ui.root, MARGIN + 30, GRID, GRID);
  function drawMatrix(shade) {
    const side = gridSide(), cell = side / n, now = Math.max(1, layer());
    const filled = Math.max(0.7, cell - (cell > 4 ? 0.7 : 0));
    const pen = sharp(matrix, MARGIN + side + 4, MARGIN + side + 4);
    pen.fillStyle = shade.soft;
    pen.font = "11px sans-serif";
    pen.fillText("key block →", MARGIN + side / 2, 8);
    const every = Math.max(1, Math.ceil(n / 12));
    for (let k = 0; k < n; k += every) {
      pen.fillText(String(k), MARGIN + (k + 0.5) * cell, 24);
      pen.fillText(String(k), MARGIN - 18, MARGIN + (k + 0.5) * cell);
    }
    pen.save();
    pen.translate(MARGIN, MARGIN);
    for (let j = 0; j < n; j++) {
      const open = layer() > 0 && knows(j, now - 1);   // a column of news
      if (open) {
        pen.fillStyle = "rgba(128, 128, 128, 0.25)";
        pen.fillRect(j * cell, 0, cell, side);
      }
      for (let i = 0; i < n; i++) {
        const kind = kindIn(now, i, j);
        if (!kind) continue;
        pen.globalAlpha = open ? 1 : 0.28;
        pen.fillStyle = legend[kind - 1].colour;
        pen.fillRect(j * cell, i * cell, filled, filled);
        if (open) mark(pen, legend[kind - 1], j * cell, i * cell, cell);
      }
    }
    pen.globalAlpha = 1;
    for (let i = 0; i < n; i++) {
      if (layer() === 0 || heard()[i] !== layer()) continue;
      pen.fillStyle = shade.ink;   // this row hears now, in this cell
      pen.fillText("▸", -6, (i + 0.5) * cell);
      if (cell >= 5) outline(pen, model.get("told_by")[i] * cell, i * cell, cell, cell);
    }
    const target = model.get("target");
    pen.strokeStyle = shade.focus;
    pen.lineWidth = 2;
    if (target >= 0) pen.strokeRect(0, target * cell, side, cell);
    pen.strokeStyle = shade.soft;
    pen.lineWidth = 1;
    pen.strokeRect(0, 0, side, side);
    pen.restore();
  }

  // ------------------------------------------------------------ the light cone

  const coneWidth = () => room(ui.root, MARGIN + 30, RING + GRID, RING + GRID);
  function drawCone(shade) {
    const width = coneWidth(), cell = width / n, layers = model.get("layers");
    const pen = sharp(cone, MARGIN + width + 4, (layers + 1) * ROW + 22);
    pen.font = "11px sans-serif";
    for (let l = 0; l <= layers; l++) {
      const y = l * ROW;
      pen.fillStyle = shade.soft;
      pen.fillText(String(l), MARGIN - 16, y + ROW / 2);
      for (let i = 0; i < n; i++) {
        pen.globalAlpha = l <= layer() ? 1 : 0.3;
        pen.fillStyle = knows(i, l) ? model.get("shades")[heard()[i]] : shade.paper;
        pen.fillRect(MARGIN + i * cell, y + 1, Math.max(0.7, cell - (cell > 4 ? 1 : 0)), ROW - 2);
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = shade.line;
    pen.strokeRect(MARGIN, 0.5, width, (layers + 1) * ROW - 1);
    const at = (i, l) => [MARGIN + (i + 0.5) * cell, (l + 0.5) * ROW];
    const way = path();
    for (const [colour, thick] of [["#fff", 4], ["#000", 2]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = thick;
      pen.beginPath();
      way.forEach((i, k) => (k ? pen.lineTo(...at(i, heard()[i])) : pen.moveTo(...at(i, heard()[i]))));
      if (way.length) pen.stroke();
    }
    outline(pen, MARGIN, layer() * ROW + 1, width, ROW - 2);
    pen.fillStyle = shade.soft;
    const title = "block →   (a row is a layer; colour: the layer in which a block first heard)";
    pen.fillText(title, MARGIN + width / 2, (layers + 1) * ROW + 12);
    pen.save();
    pen.translate(7, ((layers + 1) * ROW) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("← layer", 0, 0);
    pen.restore();
  }

  function paint() {
    const shade = colours(ui.root);
    drawRing(shade);
    drawMatrix(shade);
    drawCone(shade);
    const count = heard().filter((_, i) => knows(i)).length;
    const when = `After layer ${layer()} of ${model.get("layers")}`;
    const where = `${when}: ${count} of ${n} blocks have heard of block ${model.get("source")}.`;
    status.textContent = where;
    const path = model.get("path_words");
    ring.setAttribute("aria-label", `Ring of blocks. ${where} ${path} Left and right choose a block.`);
    const reads = `Which blocks read which in layer ${Math.max(1, layer())}; columns of blocks that know are shaded.`;
    matrix.setAttribute("aria-label", reads);
    cone.setAttribute("aria-label", `Light cone, a row for each layer. ${model.get("words")}`);
    pathWords.textContent = path;
  }

  // ------------------------------------------------------------ what the reader touches

  const role = { role: "application", "aria-roledescription": "ring of blocks" };
  const ring = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS });
  const matrix = element("canvas", { role: "img" }), cone = element("canvas", { role: "img" });
  const status = element("div", { class: "bb-status", "aria-live": "polite" });
  const pathWords = element("div", { class: "bb-cell", "aria-live": "polite" });

  const nearest = {   // the block under the mouse
    ring: (x, y, size) => {
      const turn = Math.atan2(y - size / 2, x - size / 2) + Math.PI / 2;
      return Math.hypot(x - size / 2, y - size / 2) < size / 5 ? -1 : (Math.round((turn * n) / (2 * Math.PI)) + n) % n;
    },
    matrix: (x, y) => Math.floor((y - MARGIN) / (gridSide() / n)),
    cone: (x) => Math.floor((x - MARGIN) / (coneWidth() / n)),
  };
  for (const [name, canvas] of Object.entries({ ring, matrix, cone })) {
    const find = (event) => {
      const box = canvas.getBoundingClientRect(), scale = parseFloat(canvas.style.width) / box.width;
      const i = nearest[name](event.offsetX * scale, event.offsetY * scale, parseFloat(canvas.style.width));
      return i >= 0 && i < n ? i : null;
    };
    canvas.addEventListener("click", (event) => {
      const target = find(event);
      if (target === null) return;
      if (name === "cone") tell({ layer: clamp(Math.floor(event.offsetY / ROW), 0, model.get("layers")) });
      ui.change({ target });
    });
    canvas.addEventListener("dblclick", (event) => {
      const block = find(event);
      if (block !== null) ui.change({ token: block * model.get("block_size") });
    });
  }
  ring.addEventListener("keydown", (event) => {
    const target = Math.max(0, model.get("target"));
    const keys = {
      ArrowLeft: () => ui.change({ target: (target - 1 + n) % n }),
      ArrowRight: () => ui.change({ target: (target + 1) % n }),
      ArrowUp: () => tell({ layer: clamp(layer() - 1, 0, model.get("layers")) }),
      ArrowDown: () => tell({ layer: clamp(layer() + 1, 0, model.get("layers")) }),
      Home: () => ui.change({ target: 0 }), End: () => ui.change({ target: n - 1 }),
      Enter: () => ui.change({ token: target * model.get("block_size") }), " ": () => walk.turn(),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });

  const { change } = ui;
  const go = (to) => tell({ layer: to });
  const walk = player({ at: layer, last: () => model.get("layers"), go, pace: () => 900, noun: "layer" });
  ui.ending(() => walk.pause());
  const fixed = () => !model.get("drawn");
  const names = () => model.get("names").map((name) => [name, name]);
  const parts = [
    choice(model, { trait: "chosen", label: "pattern", options: names, change, hidden: () => names().length < 2 }),
    dial(model, { trait: "token", label: "the news starts at token", most: n * model.get("block_size") - 1,
      say: (v) => `${v.toLocaleString("en")} (block ${Math.floor(v / model.get("block_size"))})`, change }),
    dial(model, { trait: "layer", label: "layer", most: () => model.get("layers"), change: tell }),
    toggle(model, { trait: "fresh", label: "fresh random blocks in every layer", change, hidden: fixed }),
  ];
  const key = element("div"), figures = element("div");
  const ask = element("div", { class: "bb-ask" });
  const rows = parts.map((part) => ui.add(part));
  const side = element("div", { class: "bb-side" }, ask, ui.problem, ...rows, walk.row, status, pathWords);
  side.append(key, figures, ui.add(inWords(model)), element("div", { class: "bb-hint" }, FLOW_HINT), ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      ask.textContent = model.get("ask");
      const found = new Set(bytesOf(model, "kinds"));
      const used = new Set(legend.filter((_, k) => found.has(k + 1)).map(({ name }) => name));
      key.replaceChildren(legendList(legend, GRID / n, used), element("div", { class: "bb-hint" }, RING_KEY));
      const head = ["blocks that know after", ...Array.from({ length: model.get("layers") }, (_, k) => String(k + 1))];
      figures.replaceChildren(table(model.get("rows"), head));
    },
  });
  const picture = element("div", { class: "bb-picture" });
  picture.append(element("div", { class: "bb-pair" }, ring, matrix), cone);
  ui.root.append(picture, side);
  ui.refresh();
  return ui.end;
}

export default { render };
