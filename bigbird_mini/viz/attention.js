// The attention viewer: draws what bigbird_mini/viz/attention_widget.py computes. A head's block pairs come as a list of
// those it reads, never as a table of tokens; a block pair that is looked at comes with its b x b weights.

const ONE = 400, TWO = 304;              // CSS pixels: a map alone, and one of two
const LEFT = 40, TOP = 34, STRIP = 46;   // its margins, and the bars of the missed mass beside it
const TEXT = 76, LETTER = 13;            // room for the tokens' texts, and the least side of a cell that has one
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
  function drawMap(canvas, one, shade, top) {
    const strip = one.missed.length ? STRIP : 0, size = side / view.span;
    const pen = sharp(canvas, LEFT + side + 2 + strip, TOP + side + 2);
    pen.save();
    pen.translate(LEFT, TOP);
    pen.beginPath();
    pen.rect(0, 0, side + strip, side);
    pen.clip();
    drawCells(pen, one, top);
    pen.fillStyle = shade.soft;
    one.missed.forEach((share, i) => {   // how much of each query block's weight lies outside the pattern
      pen.fillRect(side + 4, (i - view.top) * size + 0.1 * size, (STRIP - 6) * share, Math.max(0.8, 0.8 * size));
    });
    const marked = (i, j) => {
      const [y, x] = [(i - view.top) * size, (j - view.left) * size], grow = Math.max(0, 5 - size) / 2;
      outline(pen, x - grow, y - grow, size + 2 * grow, size + 2 * grow);   // never too small to be seen
    };
    if (point?.kind === "map") {
      pen.fillStyle = "rgba(128, 128, 128, 0.25)";
      pen.fillRect(0, (point.at[0] - view.top) * size, side, size);
      pen.fillRect((point.at[1] - view.left) * size, 0, size, side);
    }
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

  // The tokens that are seen: [first row, first column, how many, pixels of one].
  const tileSide = () => side + LEFT - TEXT;
  const seen = () => {
    const readable = Math.min(b, Math.floor(tileSide() / LETTER)), span = whole ? b : readable;
    const from = spot().map((k) => clamp(k - (span >> 1), 0, b - span));
    return [...from, span, tileSide() / span];
  };
  function drawTile(canvas, { tile }, shade, top) {
    const area = tileSide(), pen = sharp(canvas, TEXT + area + 2, TEXT + area + 2);
    const [i, j] = cell(), [r0, c0, span, size] = seen();
    pen.fillStyle = shade.soft;
    pen.font = "12px sans-serif";
    if (!tile.length) {
      pen.fillText("not read by this head", TEXT + area / 2, TEXT + area / 2);
    } else {
      const gap = size >= 6 ? 0.5 : 0;
      for (let r = 0; r < span; r++) {
        for (let c = 0; c < span; c++) {
          pen.fillStyle = css(tint(tile[(r0 + r) * b + c0 + c] / top));
          pen.fillRect(TEXT + c * size + gap, TEXT + r * size + gap, size - 2 * gap, size - 2 * gap);
        }
      }
    }
    pen.strokeStyle = shade.soft;
    pen.strokeRect(TEXT - 0.5, TEXT - 0.5, area + 1, area + 1);
    const [row, column] = point?.kind === "tile" ? point.at : spot();
    const short = (words) => (words.length > 10 ? `${words.slice(0, 9)}…` : words);
    const label = (place, chosen, at, turn) => {
      pen.save();
      pen.fillStyle = chosen ? shade.ink : shade.soft;
      pen.font = `${chosen ? "bold " : ""}12px monospace`;
      pen.textAlign = turn ? "left" : "right";
      pen.translate(...(turn ? [at, TEXT - 5] : [TEXT - 5, at]));
      if (turn) pen.rotate(-Math.PI / 2);
      pen.fillText(short(text(place)), 0, 0);
      pen.restore();
    };
    for (let k = 0; k < span; k++) {   // where there is no room, only those that are pointed at
      const at = TEXT + (k + 0.5) * size;
      if (size >= LETTER - 1 || r0 + k === row) label(i * b + r0 + k, r0 + k === row, at, false);
      if (size >= LETTER - 1 || c0 + k === column) label(j * b + c0 + k, c0 + k === column, at, true);
    }
    pen.save();
    pen.beginPath();
    pen.rect(TEXT - 2, TEXT - 2, area + 4, area + 4);
    pen.clip();
    const [y, x] = [TEXT + (row - r0) * size, TEXT + (column - c0) * size];
    pen.fillStyle = "rgba(128, 128, 128, 0.25)";
    pen.fillRect(TEXT, y, area, size);
    pen.fillRect(x, TEXT, size, area);
    outline(pen, x, y, size, size);
    pen.restore();
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
      tiles[k].title.textContent = two ? one.title : `query block ${i} reads key block ${j}: their tokens`;
      drawTile(tiles[k].canvas, one, shade, most);
      const pair = `Tokens of query block ${i} and key block ${j}, ${one.title}.`;
      tiles[k].canvas.setAttribute("aria-label", `${pair} ${tokenWords(...spot())} Arrow keys choose a token pair.`);
    });
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
  const otherHead = (by) => change({ head: clamp(model.get("head") + by, 0, model.get("heads") - 1) });

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
    const [r0, c0, span, size] = seen();
    const [x, y] = under(event, canvas).map((k) => Math.floor((k - TEXT) / size));
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
  const zoomers = element("div", { class: "bb-zoom", role: "group", "aria-label": "Zoom the maps" },
    button("+", "Zoom in", () => zoom(0.5)), button("−", "Zoom out", () => zoom(2)),
    button("whole", "See all blocks", () => zoom(0)));
  const foot = element("div", {},
    element("div", { class: "bb-hint" }, mapScale, "share of a query's weight: ", mapTop), caption, zoomers);
  const tileFoot = element("div", {}, element("div", { class: "bb-hint" }, tileScale, "weight: ", tileTop), below);
  const picture = element("div", { class: "bb-picture" });
  picture.style.flex = "0 1 auto";
  picture.append(element("div", { class: "bb-pair" }, ...maps.map(({ box }) => box)), foot,
    element("div", { class: "bb-pair" }, ...tiles.map(({ box }) => box)), tileFoot);

  ui.root.append(picture, beside(model, ui, lock));
  ui.on("change:answers", take);
  take();
  ui.refresh();
  return ui.end;
}

// Beside the picture: what to try, which head, and where its weight goes.
function beside(model, ui, lock) {
  const { change } = ui;
  const named = (trait) => () => model.get(trait).map((name) => [name, name]);
  const walk = player({ at: () => model.get("head"), last: () => model.get("heads") - 1,
    go: (head) => change({ head }), pace: () => 1200, noun: "head" });
  ui.ending(() => walk.pause());
  const parts = [
    choice(model, { trait: "model", label: "model", options: named("models"), change,
      hidden: () => model.get("models").length < 2 }),
    dial(model, { trait: "layer", label: "layer", most: () => Math.max(0, model.get("layers") - 1), change }),
    dial(model, { trait: "head", label: "head", most: () => Math.max(0, model.get("heads") - 1), change }),
    choice(model, { trait: "beside", label: "beside it", options: named("sides"), change }),
  ];
  const locker = button("", "Lock this head", lock), ask = element("div", { class: "bb-ask" });
  const heads = headTable(model, change), tops = element("div"), missed = element("div", { class: "bb-status" });
  const rows = parts.map((part) => ui.add(part));
  const side = element("div", { class: "bb-side" }, ask, ui.problem, ...rows, locker, walk.row, missed, heads.row, tops);
  side.append(ui.add(inWords(model)), element("div", { class: "bb-hint" }, MAP_HINT),
    element("div", { class: "bb-hint" }, TILE_HINT), ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      ask.textContent = model.get("ask");
      const locked = model.get("locked").length > 0;
      locker.textContent = locked ? "unlock" : "lock this head (to compare it with others)";
      locker.setAttribute("aria-label", locked ? "Unlock" : "Lock this head");
      locker.disabled = !model.get("blocks");
      missed.textContent = model.get("comparison");
      heads.refresh();
      const who = model.get("token_name");
      tops.replaceChildren(...(who ? [table(model.get("tops"), [`${who} gives most to`, "", "weight", "kind"])] : []));
    },
  });
  return side;
}

// A row for each head: a button that shows it, a bar of where its weight goes, and the numbers.
function headTable(model, change) {
  const row = element("table"), made = { names: "", lines: [] };
  const build = (names, kinds) => {
    const columns = ["where the weight goes", "", ...kinds.map(({ name }) => name)];
    const head = element("tr", {}, ...columns.map((words) => element("th", { scope: "col" }, words)));
    made.lines = names.map((name, k) => {
      const heading = k < model.get("heads")
        ? button(name, `Show ${name}`, () => change({ head: k })) : element("span", {}, name);
      const bar = element("div", { "aria-hidden": "true", style: "display:flex;width:110px;height:20px" });
      const pieces = kinds.map(({ colour, ink, letter }) => {
        const piece = element("span", {}, letter);
        piece.style = `background:${colour};color:${ink};overflow:hidden;text-align:center;font-size:12px;line-height:20px`;
        return piece;
      });
      bar.append(...pieces);
      const cells = kinds.map(() => element("td"));
      const line = element("tr", {}, element("th", { scope: "row" }, heading), element("td", {}, bar), ...cells);
      return { line, heading, pieces, cells };
    });
    row.replaceChildren(head, ...made.lines.map(({ line }) => line));
  };
  const refresh = () => {
    const shares = model.get("shares"), kinds = model.get("used");
    const names = JSON.stringify([shares.map(([name]) => name), kinds]);
    if (names !== made.names) build(shares.map(([name]) => name), kinds);
    made.names = names;
    shares.forEach(([, share], k) => {
      const { heading, pieces, cells } = made.lines[k], on = k === model.get("head");
      share.forEach((part, at) => {
        pieces[at].style.width = `${(100 * part).toFixed(1)}%`;
        pieces[at].style.color = part < 0.12 ? "transparent" : kinds[at].ink;
        cells[at].textContent = `${Math.round(100 * part)}%`;
      });
      if (heading.tagName !== "BUTTON") return;
      heading.setAttribute("aria-pressed", String(on));
      heading.style.fontWeight = on ? "700" : "400";
      heading.style.borderColor = on ? "var(--focus)" : "var(--line)";
    });
  };
  return { row, refresh };
}

export default { render };
