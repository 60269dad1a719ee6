// The attention viewer: draws what bigbird_mini/viz/attention_widget.py computes. A head's block pairs come as a list of
// those it reads, never as a table of tokens; a block pair that is looked at comes with its b x b weights.

const ONE = 400, TWO = 258;              // CSS pixels: a map alone, and one of two
const LEFT = 40, TOP = 34, STRIP = 42;   // its margins, and the bars of the missed mass beside it
const TEXT = 76, SHORT = 20;             // room for the tokens' texts, and above them where all are of a letter or two
const LETTER = 13;                       // the least side of a cell that has a text
const MAP_HINT = "Focus a map: arrow keys choose a block pair, with Shift the next one that is read; + and − zoom "
  + "(0: all), Page Up and Page Down change the head, L locks it, Enter goes to the tokens. Or click.";
const TILE_HINT = "Focus the tokens: arrow keys choose a pair, Home and End the first and last key, − shows the whole "
  + "block, + its texts, Escape goes back.";

function render({ model, el }) {
  const ui = frame(model, el, "attention", () => paint()), { change } = ui;
  const view = { top: 0, left: 0, span: 1 };   // the part of the maps that is seen, in blocks
  let n = 0, b = 1, whole = false, point = null, sides = [], side = ONE, version = 0;

  // ------------------------------------------------------------ what is where

  const cell = () => model.get("cell"), spot = () => model.get("spot");
  const there = () => n > 0 && sides.length > 0;
  const raw = (bytes) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const numbers = (bytes, kind) => new kind(raw(bytes).slice().buffer);
  const shades = bytesOf(model, "shades");
  const take = () => {
    const blocks = model.get("blocks"), first = blocks !== n;
    n = blocks;
    b = model.get("block_size");
    if (first) Object.assign(view, { top: 0, left: 0, span: Math.max(1, n) });
    sides = ["left", "right"].map((name) => model.get(name)).filter(({ title }) => title).map((one, k) => ({
      title: one.title, kinds: raw(one.kinds), cells: numbers(one.cells, Int32Array),
      share: numbers(one.share, Float32Array), missed: numbers(one.missed, Float32Array),
      tile: numbers(model.get("tiles")[k], Float32Array),
    }));
    version += 1;
  };
  const find = ({ cells }, i, j) => {   // where a pair stands in the list, -1 where it is not read
    let [low, high] = [0, cells.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (cells[middle] < i * n + j) low = middle + 1;
      else high = middle;
    }
    return cells[low] === i * n + j ? low : -1;
  };
  const text = (place) => model.get("texts")[place] ?? "";
  const token = (place) => {
    const room = model.get("room");
    if (!text(place)) return "padding";
    return place < room ? text(place) : `token ${place - room} '${text(place)}'`;
  };
  const block = (i) => {
    const first = i * b - model.get("room"), last = Math.min(first + b, model.get("tokens")) - 1;
    if (first < 0) return `block ${i} (extra global tokens)`;
    return last < first ? `block ${i} (padding)` : `block ${i} (tokens ${first}-${last})`;
  };
  const kindName = (kind) => model.get("kind_names")[kind];
  const percent = (share) => `${(100 * share).toFixed(1)}%`;

  const pairWords = (i, j) => {
    const [at, beside] = [find(sides[0], i, j), sides[1] && find(sides[1], i, j)];
    const gives = at < 0 ? "does not read" : `gives ${percent(sides[0].share[at])} of its weight to`;
    const kind = at < 0 ? "" : `: ${kindName(sides[0].kinds[at])}`;
    const more = !sides[1] ? "" : beside < 0 ? "; beside it, not read" : `; beside it ${percent(sides[1].share[beside])}`;
    return `Query ${block(i)} ${gives} key ${block(j)}${kind}${more}.`;
  };
  const tokenWords = (r, c) => {
    const [i, j] = cell();
    const [weight, beside] = sides.map(({ tile }) => (tile.length ? tile[r * b + c].toPrecision(3) : "nothing"));
    const more = sides[1] ? `; beside it ${beside}` : "";
    return `${token(i * b + r)} gives ${weight} to ${token(j * b + c)}${more}.`;
  };

  // ------------------------------------------------------------ drawing

  // The colour of a share of the largest: by its root, so that one large weight does not make all others dark.
  const tint = (share) => {
    const at = 3 * Math.round(255 * Math.sqrt(clamp(share, 0, 1)));
    return shades.subarray(at, at + 3);
  };
  const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
  const largest = (lists) => Math.max(1e-12, ...lists.map((list) => list.reduce((a, x) => Math.max(a, x), 0)));

  function drawCells(pen, { cells, share }, top) {
    const size = side / view.span, gap = size >= 6 ? 0.5 : 0;
    if (size < 3) return drawPixels(pen, cells, share, top);
    for (let k = 0; k < cells.length; k++) {
      const y = Math.floor(cells[k] / n) - view.top, x = (cells[k] % n) - view.left;
      if (y <= -1 || x <= -1 || y >= view.span || x >= view.span) continue;
      pen.fillStyle = css(tint(share[k] / top));
      pen.fillRect(x * size + gap, y * size + gap, size - 2 * gap, size - 2 * gap);
    }
    return undefined;
  }
  function drawPixels(pen, cells, share, top) {   // cells of a pixel or two: where several meet, the largest is seen
    const size = Math.min(Math.ceil(view.span), Math.round(side * (window.devicePixelRatio || 1)));
    const best = new Float32Array(size * size).fill(-1);
    for (let k = 0; k < cells.length; k++) {
      const y = Math.floor(((Math.floor(cells[k] / n) - view.top) * size) / view.span);
      const x = Math.floor((((cells[k] % n) - view.left) * size) / view.span);
      if (y < 0 || x < 0 || y >= size || x >= size) continue;
      best[y * size + x] = Math.max(best[y * size + x], share[k]);
    }
    const image = pen.createImageData(size, size);
    best.forEach((value, at) => { if (value >= 0) image.data.set([...tint(value / top), 255], 4 * at); });
    const small = new OffscreenCanvas(size, size);
    small.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, side, side);
  }
  // A row and a column, by lines at their edges: a shade over them would change their colours.
  function cross(pen, y, x, size, end) {
    pen.strokeStyle = "#888";
    pen.lineWidth = 1;
    pen.strokeRect(-1, y, end + 2, size);
    pen.strokeRect(x, -1, size, end + 2);
  }
  function drawMap(canvas, one, shade, top) {
    const strip = one.missed.length ? STRIP : 0, size = side / view.span;
    const pen = sharp(canvas, LEFT + side + 2 + strip, TOP + side + 2);
    pen.save();
    pen.translate(LEFT, TOP);
    pen.beginPath();
    pen.rect(0, 0, side + strip, side);
    pen.clip();
    drawCells(pen, one, top);
    pen.fillStyle = pen.strokeStyle = shade.soft;
    pen.lineWidth = 0.5;
    if (strip) pen.strokeRect(side + 4, 0.5, STRIP - 6, side - 1);   // from 0 to 100 %
    one.missed.forEach((share, i) => {   // how much of each query block's weight lies outside the pattern
      pen.fillRect(side + 4, (i - view.top) * size + 0.1 * size, (STRIP - 6) * share, Math.max(0.8, 0.8 * size));
    });
    const marked = (i, j) => {
      const [y, x] = [(i - view.top) * size, (j - view.left) * size], grow = Math.max(0, 5 - size) / 2;
      outline(pen, x - grow, y - grow, size + 2 * grow, size + 2 * grow);   // never too small to be seen
    };
    if (point?.kind === "map") cross(pen, (point.at[0] - view.top) * size, (point.at[1] - view.left) * size, size, side);
    marked(...cell());
    pen.restore();
    pen.fillStyle = shade.soft;
    pen.font = "11px sans-serif";
    pen.fillText("key block →", LEFT + side / 2, 7);
    if (strip) pen.fillText("missed", LEFT + side + 4 + STRIP / 2, TOP - 10);
    const every = [1, 2, 4, 8, 16, 32, 64, 128, 256].find((k) => k * size >= 10 + 6 * String(n).length) ?? 512;
    const ticks = (from, place) => {
      for (let k = Math.ceil(from / every) * every; k < Math.min(n, from + view.span); k += every) {
        place(String(k), (k - from + 0.5) * size);
      }
    };
    ticks(view.left, (words, at) => pen.fillText(words, LEFT + at, TOP - 10));
    pen.save();
    pen.textAlign = "right";
    ticks(view.top, (words, at) => pen.fillText(words, LEFT - 5, TOP + at));
    pen.restore();
    pen.save();
    pen.translate(7, TOP + side / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("← query block", 0, 0);
    pen.restore();
    pen.strokeStyle = shade.soft;
    pen.lineWidth = 1;
    pen.strokeRect(LEFT - 0.5, TOP - 0.5, side + 1, side + 1);
  }

  // The tokens that are seen: [first row, first column, how many, pixels of one, room above them].
  const tileSide = () => side + LEFT - TEXT;
  const seen = () => {
    const readable = Math.min(b, Math.floor(tileSide() / LETTER)), span = whole ? b : readable;
    const from = spot().map((k) => clamp(k - (span >> 1), 0, b - span));
    const short = model.get("texts").slice(cell()[1] * b, (cell()[1] + 1) * b).every((words) => words.length < 3);
    return [...from, span, tileSide() / span, short ? SHORT : TEXT];
  };
  function drawTile(canvas, { tile }, shade, top) {
    const [i, j] = cell(), [r0, c0, span, size, head] = seen(), area = tileSide();
    const pen = sharp(canvas, TEXT + area + 2, head + area + 2), gap = size >= 6 ? 0.5 : 0;
    const [row, column] = point?.kind === "tile" ? point.at : spot();
    pen.save();
    pen.translate(TEXT, head);
    pen.fillStyle = shade.soft;
    pen.font = "12px sans-serif";
    if (!tile.length) pen.fillText("not read by this head", area / 2, area / 2);
    for (let k = 0; tile.length && k < span * span; k++) {
      const [r, c] = [Math.floor(k / span), k % span];
      pen.fillStyle = css(tint(tile[(r0 + r) * b + c0 + c] / top));
      pen.fillRect(c * size + gap, r * size + gap, size - 2 * gap, size - 2 * gap);
    }
    pen.strokeStyle = shade.soft;
    pen.strokeRect(-0.5, -0.5, area + 1, area + 1);
    if (point?.kind === "tile") cross(pen, (row - r0) * size, (column - c0) * size, size, area);
    if (row >= r0 && column >= c0 && row < r0 + span && column < c0 + span) {
      outline(pen, (column - c0) * size, (row - r0) * size, size, size);
    }
    pen.restore();
    const cut = (words) => (words.length > 10 ? `${words.slice(0, 9)}…` : words);
    const label = (place, chosen, x, y, align, turn) => {
      pen.save();
      pen.fillStyle = chosen ? shade.ink : shade.soft;
      pen.font = `${chosen ? "bold " : ""}12px monospace`;
      pen.textAlign = align;
      pen.translate(x, y);
      if (turn) pen.rotate(-Math.PI / 2);
      pen.fillText(cut(text(place)), 0, 0);
      pen.restore();
    };
    const upright = head === SHORT;
    for (let k = 0; k < span; k++) {   // where there is no room, only those that are pointed at
      const at = (k + 0.5) * size, [mine, theirs] = [r0 + k === row, c0 + k === column];
      if (size >= LETTER - 1 || mine) label(i * b + r0 + k, mine, TEXT - 5, head + at, "right", false);
      if (size < LETTER - 1 && !theirs) continue;
      label(j * b + c0 + k, theirs, TEXT + at, head - (upright ? 9 : 5), upright ? "center" : "left", !upright);
    }
  }
  function drawScale(node, words, top, say) {
    node.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((k) => css(tint(k * k))).join(", ")})`;
    words.textContent = `0 to ${say(top)}; halfway ${say(top / 4)}`;
  }

  function paint() {
    const shade = colours(ui.root), two = sides.length > 1;
    side = room(ui.root, LEFT + STRIP + 24, two ? TWO : ONE, side);
    maps.forEach((one, k) => { one.box.hidden = tiles[k].box.hidden = !there() || k >= sides.length; });
    foot.hidden = !there();
    if (!there()) return;
    const [top, most] = [largest(sides.map(({ share }) => share)), largest(sides.map(({ tile }) => tile))];
    const [i, j] = cell();
    sides.forEach((one, k) => {
      maps[k].title.textContent = one.title;
      drawMap(maps[k].canvas, one, shade, top);
      const arrows = "Arrow keys choose a block pair.";
      maps[k].canvas.setAttribute("aria-label", `Block pairs of ${one.title}. ${model.get("words")} ${arrows}`);
      tiles[k].title.textContent = two ? one.title : "";
      drawTile(tiles[k].canvas, one, shade, most);
      const pair = `Tokens of query block ${i} and key block ${j}, ${one.title}.`;
      tiles[k].canvas.setAttribute("aria-label", `${pair} ${tokenWords(...spot())} Arrow keys choose a token pair.`);
    });
    heading.textContent = `The tokens of this pair: query block ${i} down, key block ${j} across`;
    drawScale(mapScale, mapTop, top, (x) => percent(x));
    drawScale(tileScale, tileTop, most, (x) => x.toPrecision(2));
    caption.textContent = point?.kind === "map" ? pairWords(...point.at) : pairWords(i, j);
    below.textContent = point?.kind === "tile" ? tokenWords(...point.at) : tokenWords(...spot());
    ui.root.dataset.version = String(version);
    ui.root.dataset.view = [view.top, view.left, view.span].join(" ");
    ui.root.dataset.tile = seen().slice(0, 3).join(" ");
  }

  // ------------------------------------------------------------ moving

  const look = (top, left) => {
    view.top = clamp(top, 0, n - view.span);
    view.left = clamp(left, 0, n - view.span);
  };
  function zoom(by, at = cell()) {
    view.span = by === 0 ? n : clamp(Math.round(view.span * by), Math.min(n, 4), n);
    look(at[0] - (view.span >> 1), at[1] - (view.span >> 1));
    ui.refresh();
  }
  const choose = (i, j) => {
    const next = [clamp(i, 0, n - 1), clamp(j, 0, n - 1)];
    const follow = (k, from) => (k < from ? k : Math.max(from, k + 1 - view.span));
    look(follow(next[0], view.top), follow(next[1], view.left));
    point = null;
    if (String(next) === String(cell())) paint();
    else change({ cell: next });
  };
  const nextRead = (down, right) => {   // from the chosen pair, along its row or column
    let [i, j] = cell();
    do { i += down; j += right; } while (i >= 0 && j >= 0 && i < n && j < n && find(sides[0], i, j) < 0);
    if (i >= 0 && j >= 0 && i < n && j < n) choose(i, j);
  };
  const chooseToken = (r, c) => {
    point = null;
    const next = [clamp(r, 0, b - 1), clamp(c, 0, b - 1)];
    if (String(next) !== String(spot())) change({ spot: next });
  };
  const here = () => [model.get("model"), model.get("layer"), model.get("head")];
  const lock = () => {
    const locked = model.get("locked").length > 0;
    if (locked) change({ locked: [], beside: model.get("nothing") });
    else change({ locked: here(), beside: model.get("locked_name") });
  };
  const otherHead = (by) => showHead(model, change, clamp(model.get("head") + by, 0, model.get("heads") - 1));

  const under = (event, canvas) => {   // CSS pixels in the canvas
    const scale = canvas.getBoundingClientRect().width / parseFloat(canvas.style.width);
    return [event.offsetX / scale, event.offsetY / scale];
  };
  const overMap = (event, canvas) => {
    const [x, y] = under(event, canvas).map((k, axis) => (k - [LEFT, TOP][axis]) / (side / view.span));
    if (x < 0 || y < 0 || x >= view.span || y >= view.span) return null;
    return [Math.floor(view.top + y), Math.floor(view.left + x)];
  };
  const overTile = (event, canvas) => {
    const [r0, c0, span, size, head] = seen();
    const [x, y] = under(event, canvas).map((k, axis) => Math.floor((k - [TEXT, head][axis]) / size));
    return x < 0 || y < 0 || x >= span || y >= span ? null : [r0 + y, c0 + x];
  };
  const keyed = (canvas, keys) => canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !there()) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(key in MOVES || key in keys)) return;
    event.preventDefault();
    event.stopPropagation();
    if (key in keys) keys[key](event);
    else keys.move(...MOVES[key], event.shiftKey);
  });
  const pointing = (canvas, kind, over, act) => {
    const move = (at) => {
      if (String(at) === String(point?.at ?? null)) return;
      point = at && { kind, at };
      paint();
    };
    canvas.addEventListener("pointermove", (event) => there() && move(over(event, canvas)));
    canvas.addEventListener("pointerleave", () => there() && move(null));
    canvas.addEventListener("click", (event) => {
      const at = there() && over(event, canvas);
      if (at) act(...at);
    });
  };

  // ------------------------------------------------------------ what the reader touches

  const holder = (kind) => {
    const role = { role: "application", "aria-roledescription": kind };
    const canvas = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS }), title = element("div", { class: "bb-name" });
    return { canvas, title, box: element("div", {}, title, canvas) };
  };
  const maps = [0, 1].map(() => holder("map of block pairs")), tiles = [0, 1].map(() => holder("table of tokens"));
  maps.forEach(({ canvas }, k) => {
    pointing(canvas, "map", overMap, choose);
    canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 2 : 0.5, overMap(event, canvas) ?? cell()));
    keyed(canvas, {
      move: (down, right, jump) => (jump ? nextRead(down, right) : choose(cell()[0] + down, cell()[1] + right)),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => zoom(0), l: lock,
      Home: () => choose(cell()[0], 0), End: () => choose(cell()[0], n - 1),
      PageUp: () => otherHead(-1), PageDown: () => otherHead(1), Enter: () => tiles[k].canvas.focus(),
    });
  });
  const wide = (on) => { whole = on; ui.refresh(); };
  tiles.forEach(({ canvas }, k) => {
    pointing(canvas, "tile", overTile, chooseToken);
    keyed(canvas, {
      move: (down, right) => chooseToken(spot()[0] + down, spot()[1] + right),
      "+": () => wide(false), "=": () => wide(false), "-": () => wide(true), "0": () => wide(true),
      Home: () => chooseToken(spot()[0], 0), End: () => chooseToken(spot()[0], b - 1),
      Escape: () => maps[k].canvas.focus(),
    });
  });
  const scale = () => Object.assign(element("span", { "aria-hidden": "true" }), {
    style: "display:inline-block;width:120px;height:10px;margin-right:8px;border:1px solid var(--line)" });
  const [mapScale, tileScale] = [scale(), scale()], [mapTop, tileTop] = [element("span"), element("span")];
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });
  const below = element("div", { class: "bb-cell", "aria-live": "polite" });
  const heading = element("div", { class: "bb-status" });
  const zoomers = element("div", { class: "bb-zoom", role: "group", "aria-label": "Zoom the maps" },
    button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)),
    button("whole", "See all blocks", () => zoom(0)));
  const foot = element("div", {},
    element("div", { class: "bb-hint" }, mapScale, "share of a query's weight: ", mapTop), caption, zoomers, heading);
  const tileFoot = element("div", {}, element("div", { class: "bb-hint" }, tileScale, "weight: ", tileTop), below);
  const picture = element("div", { class: "bb-picture" });
  picture.style.flex = "0 1 auto";
  picture.append(element("div", { class: "bb-pair" }, ...maps.map(({ box }) => box)), foot,
    element("div", { class: "bb-pair" }, ...tiles.map(({ box }) => box)), tileFoot);

  const ask = element("div", { class: "bb-ask", style: "flex: 1 0 100%; margin: 0; box-sizing: border-box" });   // before the picture: ask first
  ui.add({ row: ask, refresh: () => { ask.textContent = model.get("ask"); ask.hidden = !ask.textContent; } });
  ui.root.append(ask, picture, beside(model, ui, lock));
  ui.on("change:answers", take);
  take();
  ui.refresh();
  return ui.end;
}

// Beside the picture: which head, and where its weight goes.
function beside(model, ui, lock) {
  const { change } = ui;
  const named = (trait) => () => model.get(trait).map((name) => [name, name]);
  const walk = player({ at: () => model.get("head"), last: () => model.get("heads") - 1,
    go: (head) => showHead(model, change, head), pace: () => 1200, noun: "head" });
  ui.ending(() => walk.pause());
  const parts = [
    choice(model, { trait: "model", label: "model", options: named("models"), change,
      hidden: () => model.get("models").length < 2 }),
    dial(model, { trait: "layer", label: "layer", most: () => Math.max(0, model.get("layers") - 1), change }),
    dial(model, { trait: "head", label: "head", most: () => Math.max(0, model.get("heads") - 1), change }),
    choice(model, { trait: "beside", label: "beside it", options: named("sides"), change }),
  ];
  const locker = button("", "Lock this head", lock);
  const heads = headTable(model, change), tops = element("div"), missed = element("div", { class: "bb-status" });
  const rows = parts.map((part) => ui.add(part));
  locker.style.marginRight = "18px";
  const steps = element("div", {}, locker, walk.row);
  const side = element("div", { class: "bb-side" }, ui.problem, ...rows, steps, missed, heads.row, tops);
  side.append(ui.add(inWords(model)), element("div", { class: "bb-hint" }, MAP_HINT),
    element("div", { class: "bb-hint" }, TILE_HINT), ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      const locked = model.get("locked").length > 0;
      locker.textContent = locked ? "unlock" : "lock this head";
      locker.setAttribute("aria-label", locked ? "Unlock" : "Lock this head");
      locker.disabled = !model.get("blocks");
      missed.textContent = model.get("comparison");
      heads.refresh();
      const who = model.get("token_name");
      tops.replaceChildren(...(who ? [table(model.get("tops"), [`${who} gives most to`, "at", "weight", "kind"])] : []));
    },
  });
  return side;
}

// Python answers a change, and nothing where nothing changes.
function showHead(model, change, head) {
  if (head !== model.get("head")) change({ head });
}

// A row for each head: a button that shows it, and a bar of where its weight goes.
function headTable(model, change) {
  const rows = element("table", { style: "width:100%" }), key = element("ul", { class: "bb-legend" });
  const row = element("div", {}, rows, key);
  let made = "", lines = [];
  const build = (names, kinds) => {
    lines = names.map((name, k) => {
      const show = () => showHead(model, change, k);
      const heading = k < model.get("heads") ? button(name, `Show ${name}`, show) : element("span", {}, name);
      heading.style.whiteSpace = "nowrap";
      const bar = element("div", { "aria-hidden": "true", style: "display:flex;width:100%;height:22px" });
      const pieces = kinds.map(({ colour, ink }) => {
        const look = `background:${colour};color:${ink};overflow:hidden;white-space:nowrap;text-align:center;`;
        return element("span", { style: `${look}font-size:12px;line-height:22px` });
      });
      bar.append(...pieces);
      const heard = element("span", { class: "bb-heard" });
      const cell = element("td", { style: "width:100%;padding-right:0" }, bar, heard);
      return { line: element("tr", {}, element("th", { scope: "row" }, heading), cell), heading, pieces, heard };
    });
    rows.replaceChildren(...lines.map(({ line }) => line));
    key.replaceChildren(...kinds.map(({ name, colour, ink, letter }) => {
      const box = element("span", { class: "bb-mark", "aria-hidden": "true" }, letter);
      Object.assign(box.style, { background: colour, color: ink });
      return element("li", {}, box, name);
    }));
  };
  const refresh = () => {
    const shares = model.get("shares"), kinds = model.get("used");
    const wanted = JSON.stringify([shares.map(([name]) => name), kinds]);
    if (wanted !== made) build(shares.map(([name]) => name), kinds);
    made = wanted;
    shares.forEach(([, share], k) => {
      const { heading, pieces, heard } = lines[k], on = k === model.get("head");
      const say = (at) => `${Math.round(100 * share[at])}%`;
      share.forEach((part, at) => {
        pieces[at].style.width = `${(100 * part).toFixed(1)}%`;
        pieces[at].textContent = part > 0.22 ? `${kinds[at].letter} ${say(at)}` : part > 0.08 ? kinds[at].letter : "";
        pieces[at].title = `${kinds[at].name} ${say(at)}`;
      });
      heard.textContent = kinds.map(({ name }, at) => `${name} ${say(at)}`).join(", ");
      if (heading.tagName !== "BUTTON") return;
      heading.setAttribute("aria-pressed", String(on));
      heading.style.fontWeight = on ? "700" : "400";
      heading.style.borderColor = on ? "var(--focus)" : "var(--line)";
    });
  };
  return { row, refresh };
}

export default { render };
