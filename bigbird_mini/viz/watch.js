// The training dashboard: draws what bigbird_mini/viz/watch_widget.py knows of a training; its steps are Python's.

const WIDE = 660, HIGH = 138, LINE = "#0072B2";   // CSS pixels: all panels side by side, and one of them
const EDGE = { left: 50, right: 10, top: 24, bottom: 20 };
const CURVE_HINT = "Point at a curve, or focus the chart: left and right move from step to step, Escape leaves; space "
  + "starts and pauses.";
const BUSY = ["running", "pausing", "stopping"];

// 2.77, 0.00031, 12,300: as watch_words.py says it
const short = (v) => (Math.abs(v) >= 1000 ? Math.round(v).toLocaleString("en") : String(Number(v.toPrecision(3))));
const called = (name) => name.replaceAll("_", " ");

// Three or four round numbers between least and most.
function rounds(least, most) {
  const raw = (most - least) / 3, power = 10 ** Math.floor(Math.log10(raw));
  const stride = [1, 2, 5, 10].find((k) => k * power >= raw) * power;
  const found = [];
  for (let k = Math.ceil(least / stride); k * stride <= most * (1 + 1e-9); k++) found.push(k * stride);
  return found;
}

function render({ model, el }) {
  const ui = frame(model, el, "watch", () => paint());
  const attention = model.get("layers") === undefined ? null : attentionPanel(model, ui);
  let hover = null;   // a step

  const columns = (width) => (width >= 520 ? 2 : 1);
  const shown = () => hover ?? (model.get("at") < 0 ? null : model.get("at"));
  const nearest = (name, step) => {   // the point of a curve, as an index; -1 for none
    const [steps] = model.get("curves")[name] ?? [[]];
    const far = steps.map((s) => Math.abs(s - step));
    return far.length ? far.indexOf(Math.min(...far)) : -1;
  };

  // The axis reaches as far as the training has come, and doubles then; in the end to its last step.
  const span = () => {
    let far = model.get("total");
    while (model.get("done") && far >= 40 && Math.ceil(far / 2) >= model.get("done")) far = Math.ceil(far / 2);
    return far;
  };

  function drawPanel(pen, shade, name, x0, y0, width) {
    const [steps, values] = model.get("curves")[name] ?? [[], []], floor = model.get("floors")[name];
    const plan = name === "learning_rate" ? model.get("plan") : [[], []];
    const all = [...values, ...plan[1], ...(floor === undefined ? [] : [floor])];
    const left = x0 + EDGE.left, right = x0 + width - EDGE.right, top = y0 + EDGE.top, bottom = y0 + HIGH - EDGE.bottom;
    const total = name === "learning_rate" ? model.get("total") : span();
    const x = (step) => left + (step / total) * (right - left);
    pen.textAlign = "left";
    pen.fillStyle = shade.ink;
    pen.font = "600 12px sans-serif";
    pen.fillText(values.length ? `${called(name)}: ${short(values.at(-1))}` : called(name), left, y0 + 11);
    pen.font = "10px sans-serif";
    pen.fillStyle = shade.soft;
    pen.strokeStyle = shade.line;
    pen.lineWidth = 0.8;
    pen.strokeRect(left, top, right - left, bottom - top);
    pen.textAlign = "center";
    for (const step of [0, total / 2, total].filter(Number.isInteger)) {
      pen.fillText(step.toLocaleString("en"), Math.min(x(step), right - 8), bottom + 10);
    }
    if (!all.length) {
      pen.fillText("no step yet", (left + right) / 2, (top + bottom) / 2);
      return;
    }
    let least = Math.min(...all), most = Math.max(...all);
    if (most - least < 1e-12 * Math.max(1, Math.abs(most))) {   // a line that is level
      const half = Math.abs(most) || 1;
      [least, most] = [least - half, most + half];
    }
    const spare = 0.06 * (most - least), high = most - least + 2 * spare;
    const y = (v) => bottom - ((v - least + spare) / high) * (bottom - top);
    pen.textAlign = "right";
    for (const v of rounds(least, most)) {
      pen.strokeStyle = shade.line;
      line(pen, [left, y(v)], [right, y(v)]);
      pen.fillText(short(v), left - 5, y(v));
    }
    pen.setLineDash([4, 3]);
    pen.lineWidth = 1.2;
    pen.strokeStyle = MORE;
    for (const [step] of model.get("marks")) if (step <= total) line(pen, [x(step), top], [x(step), bottom]);
    pen.strokeStyle = shade.soft;
    if (plan[0].length) line(pen, ...plan[0].map((step, k) => [x(step), y(plan[1][k])]));
    if (floor !== undefined) {
      line(pen, [left, y(floor)], [right, y(floor)]);
      pen.fillText("missed mass", right - 3, y(floor) - 6);
    }
    pen.setLineDash([]);
    pen.strokeStyle = pen.fillStyle = LINE;
    pen.lineWidth = 2;
    line(pen, ...steps.map((step, k) => [x(step), y(values[k])]));
    if (steps.length < 25) steps.forEach((step, k) => dot(pen, x(step), y(values[k]), 3));
    const at = shown() === null ? -1 : nearest(name, shown());
    if (at >= 0) {
      pen.strokeStyle = shade.focus;
      pen.lineWidth = 1;
      line(pen, [x(steps[at]), top], [x(steps[at]), bottom]);
      pen.fillStyle = shade.ink;
      dot(pen, x(steps[at]), y(values[at]), 4);
    }
  }

  function line(pen, ...points) {
    pen.beginPath();
    points.forEach((p, k) => (k ? pen.lineTo(...p) : pen.moveTo(...p)));
    pen.stroke();
  }
  function dot(pen, x, y, r) {
    pen.beginPath();
    pen.arc(x, y, r, 0, 7);
    pen.fill();
  }

  // "step 12: loss 2.31; learning rate 0.001", with the last change of a dial before it
  const stepWords = (step) => {
    const parts = model.get("panels").filter((name) => nearest(name, step) >= 0).map((name) => {
      const [steps, values, each] = model.get("curves")[name], k = nearest(name, step);
      const note = each > 1 ? ` (mean of ${each})` : steps[k] === step ? "" : ` at ${steps[k]}`;
      return `${called(name)} ${short(values[k])}${note}`;
    });
    const turned = model.get("marks").filter(([at]) => at < step).at(-1);
    const said = `step ${step.toLocaleString("en")}: ${parts.join("; ")}.`;
    return turned ? `${said} ${turned[1]} after step ${turned[0]}.` : said;
  };

  function paint() {
    const width = room(ui.root, 24, WIDE, WIDE), shade = colours(ui.root), names = model.get("panels");
    const across = columns(width), each = width / across;
    const pen = sharp(chart, width, Math.ceil(names.length / across) * HIGH);
    names.forEach((name, k) => drawPanel(pen, shade, name, (k % across) * each, Math.floor(k / across) * HIGH, each));
    const step = shown(), words = step !== null && model.get("done") ? stepWords(step) : "";
    caption.textContent = words || CURVE_HINT;
    caption.classList.toggle("bb-hint", !words);
    chart.setAttribute("aria-label", `Curves of a training: ${names.map(called).join(", ")}. ${model.get("words")}. `
      + "Left and right move from step to step.");
    attention?.paint();
  }

  const chart = element("canvas", { tabindex: 0, role: "application", "aria-roledescription": "chart", ...OWN_KEYS });
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });
  const under = (event) => {   // the step under the mouse
    const width = parseFloat(chart.style.width), each = width / columns(width);
    const part = ((event.offsetX % each) - EDGE.left) / (each - EDGE.left - EDGE.right);
    const row = Math.floor(event.offsetY / HIGH), k = row * columns(width) + Math.floor(event.offsetX / each);
    const far = model.get("panels")[k] === "learning_rate" ? model.get("total") : span();
    return clamp(Math.round(part * far), 1, Math.max(1, model.get("done")));
  };
  chart.addEventListener("pointermove", (event) => { hover = model.get("done") ? under(event) : null; paint(); });
  chart.addEventListener("pointerleave", () => { hover = null; paint(); });
  chart.addEventListener("click", (event) => { if (model.get("done")) ui.tell({ at: under(event) }); });
  chart.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const done = model.get("done"), at = model.get("at") < 0 ? done : model.get("at");
    const stride = (model.get("curves").loss ?? [[], [], 1])[2];
    const next = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 1, End: done };
    if (event.key === " ") go();
    else if (event.key === "Escape") ui.tell({ at: -1 });
    else if (!(event.key in next) || !done) return;
    else ui.tell({ at: clamp(next[event.key], 1, done) });
    event.preventDefault();
    event.stopPropagation();
  });

  // ------------------------------------------------------------ orders and dials

  let orders = 0;
  const say = (name) => ui.change({ order: [`${Date.now()} ${orders++}`, name] });
  const next = () => ({ ready: "start", running: "pause" }[model.get("state")] ?? "resume");
  // not `disabled`, which would take the keyboard's focus away
  const able = (node, is) => node.setAttribute("aria-disabled", String(!is));
  const press = (node, name) => { if (node.getAttribute("aria-disabled") !== "true") say(name); };
  const go = () => press(main, next());
  const main = button("▶ start", "Start the training", go);
  const once = button("one step ▶", "Take one step", () => press(once, "one step"));
  const stop = button("■ stop", "Stop after this step", () => press(stop, "stop"));
  const buttons = element("div", { class: "bb-player", role: "group", "aria-label": "The training" }, main, once, stop);
  const bar = element("progress", { "aria-label": "steps done" });
  const status = element("div", { class: "bb-status" });
  const faces = { start: "▶ start", pause: "❚❚ pause", resume: "▶ resume" };
  const helps = { start: "Start the training", pause: "Pause after this step", resume: "Resume the training" };

  // a dial of shared.js, for one entry of the mapping `dials`
  const one = { get: (name) => model.get("dials")[name] };
  const turn = (values) => ui.change({ dials: { ...model.get("dials"), ...values } });
  const dials = Object.entries(model.get("places")).map(([name, values]) => dial(one, {
    trait: name, label: called(name), values, say: (v) => String(Number(v.toPrecision(3))), change: turn }));

  const ask = element("div", { class: "bb-ask" }), figures = element("div");
  const rows = dials.map((part) => ui.add(part));
  const line_ = element("div", { class: "bb-line" }, buttons, element("div", {}, status, bar));
  const grid = element("div", { class: "bb-dials" }, ...rows);
  const controls = element("div", { class: "bb-controls" }, ask, line_, ui.problem, grid);
  const side = element("div", { class: "bb-side" }, figures, ui.add(inWords(model)), ui.heard);
  ui.add({
    row: side,
    refresh: () => {
      const state = model.get("state"), order = next();
      ui.root.dataset.state = state;
      main.textContent = faces[order];
      main.setAttribute("aria-label", helps[order]);
      main.title = helps[order];
      able(main, !["finished", "pausing", "stopping"].includes(state));
      able(once, state !== "finished" && !BUSY.includes(state));
      able(stop, state === "running");
      bar.max = model.get("total");
      bar.value = model.get("done");
      status.textContent = `${state[0].toUpperCase()}${state.slice(1)}: step ${model.get("done").toLocaleString("en")}`
        + ` of ${model.get("total").toLocaleString("en")}`;
      ask.textContent = model.get("ask");
      figures.replaceChildren(table(model.get("rows")));
    },
  });
  const picture = element("div", { class: "bb-picture" });
  picture.append(...(attention ? [attention.row] : []), chart, caption);
  ui.root.append(controls, picture, side);
  ui.refresh();
  return ui.end;
}

export default { render };
