// The cost dial: draws what bigbird_mini/viz/cost_widget.py computes. Both axes are logarithmic.

const WIDE = 620, HIGH = 400;                                  // CSS pixels
const PAPER_EDGE = { left: 66, right: 112, top: 14, bottom: 44 };
const TOKENS = Array.from({ length: 23 }, (_, k) => Math.round(512 * 2 ** (k / 2)));
const WIDTHS = [64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192];
const HEADS = [1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 48, 64];
const MEMORIES = [2, 4, 6, 8, 11, 12, 16, 24, 32, 40, 48, 64, 80, 96, 128, 141, 192];
const UNITS = [[1e15, "PB"], [1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];
const COST_HINT = "Point at the chart, or focus it: left and right change the length. "
  + "A ring marks where a way stops fitting.";

const size = (count) => {
  const [unit, name] = UNITS.find(([u]) => count >= 0.9995 * u) ?? [1, "B"];
  return `${Number((count / unit).toPrecision(3)).toLocaleString("en")} ${name}`;
};
const tokens = (n) => `${n.toLocaleString("en")} tokens`;

function render({ model, el }) {
  const ui = frame(model, el, "cost", () => paint());
  const ways = model.get("ways");
  let hover = null;   // index of a length

  const scales = (width) => {
    const xs = model.get("lengths"), all = ways.flatMap(([way]) => model.get("curves")[way] ?? []);
    const low = Math.log10(Math.min(...all, model.get("memory") * 1e9)), top = Math.log10(Math.max(...all));
    const { left, right, top: above, bottom } = PAPER_EDGE;
    const part = (v, a, b) => (Math.log(v) - Math.log(a)) / (Math.log(b) - Math.log(a));
    return {
      xs, low, top,
      x: (n) => left + part(n, xs[0], xs.at(-1)) * (width - left - right),
      y: (bytes) => above + (1 - (Math.log10(bytes) - low) / (top - low)) * (HIGH - above - bottom),
    };
  };

  function sign(pen, marker, x, y, r) {
    pen.beginPath();
    const line = (...points) => points.forEach(([dx, dy], k) => pen[k ? "lineTo" : "moveTo"](x + dx * r, y + dy * r));
    if (marker === "o") pen.arc(x, y, r, 0, 7);
    else if (marker === "s") pen.rect(x - r, y - r, 2 * r, 2 * r);
    else if (marker === "^") line([0, -1], [1, 1], [-1, 1]);
    else {
      line([-1, -1], [1, 1]);
      line([1, -1], [-1, 1]);
    }
    if (marker === "X") pen.stroke();
    else pen.fill();
  }

  function drawAxes(pen, shade, width, { xs, x, y, low, top }) {
    pen.font = "11px sans-serif";
    pen.lineWidth = 0.6;
    const right = width - PAPER_EDGE.right, bottom = HIGH - PAPER_EDGE.bottom;
    const line = (...points) => {
      pen.beginPath();
      points.forEach((p, k) => (k ? pen.lineTo(...p) : pen.moveTo(...p)));
      pen.stroke();
    };
    pen.textAlign = "right";
    for (let power = Math.ceil(low); power <= top; power++) {
      pen.strokeStyle = shade.line;
      line([PAPER_EDGE.left, y(10 ** power)], [right, y(10 ** power)]);
      pen.fillStyle = shade.soft;
      pen.fillText(size(10 ** power), PAPER_EDGE.left - 8, y(10 ** power));
    }
    pen.textAlign = "center";
    const every = Math.max(1, Math.ceil((56 * xs.length) / (right - PAPER_EDGE.left)));
    xs.forEach((n, k) => {
      if (k % every) return;
      pen.strokeStyle = shade.line;
      line([x(n), PAPER_EDGE.top], [x(n), bottom]);
      pen.fillStyle = shade.soft;
      pen.fillText(n >= 2 ** 20 ? `${n / 2 ** 20}M` : n >= 1024 ? `${n / 1024}k` : String(n), x(n), bottom + 14);
    });
    pen.fillText("tokens of one document (k = 1,024)", (PAPER_EDGE.left + right) / 2, bottom + 32);
    pen.save();
    pen.translate(10, (PAPER_EDGE.top + bottom) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText("bytes", 0, 0);
    pen.restore();
    const memory = model.get("memory") * 1e9;
    pen.strokeStyle = shade.ink;
    pen.lineWidth = 1.2;
    line([PAPER_EDGE.left, y(memory)], [right, y(memory)]);
    pen.lineWidth = 1;
    pen.setLineDash([3, 3]);
    const here = clamp(x(model.get("tokens")), PAPER_EDGE.left, right);
    line([here, PAPER_EDGE.top], [here, bottom]);
    pen.setLineDash([]);
    pen.textAlign = "left";
    pen.fillStyle = shade.ink;
    pen.fillText(`${model.get("memory")} GB`, right + 6, y(memory));
    return here;
  }

  function drawWay(pen, shade, [way, name, { colour, marker, dash }], { xs, x, y }, labels) {
    const values = model.get("curves")[way] ?? [];
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 2;
    pen.setLineDash(dash === ":" ? [2, 4] : dash === "--" ? [8, 4] : []);
    pen.beginPath();
    values.forEach((v, k) => (k ? pen.lineTo(x(xs[k]), y(v)) : pen.moveTo(x(xs[k]), y(v))));
    pen.stroke();
    pen.setLineDash([]);
    values.forEach((v, k) => sign(pen, marker, x(xs[k]), y(v), 4));
    const most = model.get("fits")[way], memory = model.get("memory") * 1e9;
    if (most >= xs[0] && most <= xs.at(-1)) {
      pen.beginPath();
      pen.arc(x(most), y(memory), 8, 0, 7);
      pen.stroke();
      labels.push([most.toLocaleString("en"), x(most), y(memory)]);
    }
    return { name, colour, y: y(values.at(-1)) };
  }

  // Above the rings, or below where two come close; over all lines.
  function drawNumbers(pen, shade, labels) {
    pen.textAlign = "center";
    pen.strokeStyle = shade.paper;
    pen.fillStyle = shade.ink;
    pen.lineWidth = 4;
    let before = -99, below = false;
    for (const [words, x, y] of labels.sort((a, b) => a[1] - b[1])) {
      below = x - before < 56 && !below;
      before = x;
      pen.strokeText(words, x, y + (below ? 18 : -17));
      pen.fillText(words, x, y + (below ? 18 : -17));
    }
    pen.textAlign = "left";
  }

  function paint() {
    if (!model.get("lengths").length || !Object.keys(model.get("curves")).length) return;
    const width = room(ui.root, 24, WIDE, WIDE), shade = colours(ui.root), at = scales(width);
    const pen = sharp(chart, width, HIGH);
    drawAxes(pen, shade, width, at);
    const labels = [], ends = ways.map((way) => drawWay(pen, shade, way, at, labels)).sort((a, b) => a.y - b.y);
    let lowest = -99;
    for (const { name, y } of ends) {   // names at the ends of the lines, moved apart; ink reads on both papers
      lowest = Math.max(y, lowest + 14);
      pen.fillStyle = shade.ink;
      pen.fillText(name, width - PAPER_EDGE.right + 8, lowest);
    }
    drawNumbers(pen, shade, labels);
    if (hover !== null) {
      pen.strokeStyle = shade.focus;
      pen.lineWidth = 1;
      pen.strokeRect(at.x(at.xs[hover]) - 3, PAPER_EDGE.top, 6, HIGH - PAPER_EDGE.top - PAPER_EDGE.bottom);
    }
    const each = () => ways.map(([way, name]) => `${name} ${size(model.get("curves")[way][hover])}`).join("; ");
    caption.textContent = hover === null ? COST_HINT : `${tokens(at.xs[hover])}: ${each()}.`;
    caption.classList.toggle("bb-hint", hover === null);
    const label = `Chart of bytes against tokens. ${model.get("words")}. Left and right change the length.`;
    chart.setAttribute("aria-label", label);
  }

  const chart = element("canvas", { tabindex: 0, role: "application", "aria-roledescription": "chart", ...OWN_KEYS });
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });
  const { change } = ui;
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect(), width = parseFloat(chart.style.width);
    const { xs, x } = scales(width), at = event.offsetX * (width / box.width);
    const far = xs.map((n) => Math.abs(x(n) - at));
    hover = far.indexOf(Math.min(...far));
    paint();
  });
  chart.addEventListener("pointerleave", () => { hover = null; paint(); });
  chart.addEventListener("click", () => { if (hover !== null) change({ tokens: model.get("lengths")[hover] }); });
  chart.addEventListener("keydown", (event) => {
    const now = model.get("tokens");
    const next = {
      ArrowRight: TOKENS.find((n) => n > now), ArrowLeft: TOKENS.findLast((n) => n < now),
      Home: TOKENS[0], End: TOKENS.at(-1),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in next)) return;
    event.preventDefault();
    if (next[event.key]) change({ tokens: next[event.key] });
  });

  const ask = element("div", { class: "bb-ask" }), win = element("p"), wrong = element("p"), figures = element("div");
  const wide = (v) => `${v.toLocaleString("en")} numbers a token`;
  const each = (v) => `${v} of ${Number((model.get("width") / v).toFixed(1))}`;
  const parts = [
    choice(model, { trait: "mode", label: "what is counted", options: () => model.get("modes"), change }),
    dial(model, { trait: "tokens", label: "length", values: TOKENS, say: tokens, change }),
    dial(model, { trait: "layers", label: "layers", least: 1, most: () => Math.max(48, model.get("layers")), change,
      hidden: () => model.get("mode") === "layer" }),
    dial(model, { trait: "width", label: "width", values: WIDTHS, say: wide, change }),
    dial(model, { trait: "heads", label: "heads", values: HEADS, say: each, change }),
    dial(model, { trait: "memory", label: "device memory", values: MEMORIES, say: (v) => `${v} GB`, change }),
  ];
  const side = element("div", { class: "bb-side" }, ask, ...parts.map((part) => ui.add(part)), ui.problem, win, wrong);
  side.append(ui.add(inWords(model)), ui.heard);
  ui.add({
    row: figures,
    refresh: () => {
      ask.textContent = model.get("ask");
      win.textContent = model.get("win");
      wrong.textContent = model.get("wrong");
      figures.replaceChildren(table(model.get("rows"), ["", ...ways.map(([, name]) => name)]));
    },
  });
  ui.root.append(element("div", { class: "bb-picture" }, chart, caption, figures), side);
  ui.refresh();
  return ui.end;
}

export default { render };
