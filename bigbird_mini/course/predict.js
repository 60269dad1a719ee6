// The card of bigbird_mini/course/predicting.py: Python reads the prediction and knows the answer, this shows it.

const PATIENCE = 4000;   // ms without an answer from Python before the card says so
const BUSY = "Python has not answered yet: it is still busy with other cells, or stopped. "
  + "If nothing runs, run this cell again.";
// JupyterLab takes keys in command mode unless the focused element itself says this.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function numberField(model) {
  const unit = model.get("unit");
  const hints = { autocomplete: "off", spellcheck: "false", placeholder: "a number" };
  const label = `Your prediction${unit ? ` in ${unit}` : ""}`;
  const input = element("input", { type: "text", "aria-label": label, ...hints, ...OWN_KEYS });
  return { nodes: [input, ...(unit ? [element("span", {}, unit)] : [])], value: () => input.value };
}

function choiceField(model) {
  const group = `bb-${Math.random().toString(36).slice(2)}`;   // radio buttons of one card belong together
  const radio = (value) => element("input", { type: "radio", name: group, value, ...OWN_KEYS });
  const radios = model.get("choices").map(radio);
  const labels = radios.map((one) => element("label", {}, one, element("span", {}, one.value)));
  const box = element("fieldset", { "aria-label": "Your prediction" }, ...labels);
  return { nodes: [box], value: () => radios.find((one) => one.checked)?.value ?? "" };
}

// A grid to draw on: a click or drag fills or empties cells, so do the arrow keys with the space bar.
function cellField(model) {
  const [rows, columns] = model.get("shape"), [down, across] = model.get("axes");
  const SIDE = 24, LEFT = 46, TOP = 40;
  const filled = new Set();
  let at = [0, 0], brush = null;
  const role = { role: "application", "aria-roledescription": "grid to draw on" };
  const canvas = element("canvas", { tabindex: 0, ...role, ...OWN_KEYS });
  const said = element("div", { class: "bb-cell", "aria-live": "polite" });
  const clear = element("button", { type: "button", ...OWN_KEYS }, "clear");
  const name = ([i, j]) => `${i},${j}`;
  const colour = (variable) => {   // as the theme has it
    said.style.color = `var(${variable})`;
    const found = getComputedStyle(said).color;
    said.style.color = "";
    return found;
  };
  function paint() {
    const ratio = window.devicePixelRatio || 1, width = LEFT + columns * SIDE + 4, height = TOP + rows * SIDE + 4;
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const pen = canvas.getContext("2d"), [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
    pen.scale(ratio, ratio);
    pen.textBaseline = "middle";
    pen.font = "11px sans-serif";
    pen.fillStyle = soft;
    pen.fillText(`${across} →`, LEFT, 9);
    pen.textAlign = "center";
    pen.save();
    pen.translate(9, TOP + (rows * SIDE) / 2);
    pen.rotate(-Math.PI / 2);
    pen.fillText(`← ${down}`, 0, 0);
    pen.restore();
    for (let j = 0; j < columns; j++) pen.fillText(String(j), LEFT + (j + 0.5) * SIDE, TOP - 10);
    for (let i = 0; i < rows; i++) {
      pen.fillStyle = soft;
      pen.fillText(String(i), LEFT - 12, TOP + (i + 0.5) * SIDE);
      for (let j = 0; j < columns; j++) {
        const x = LEFT + j * SIDE, y = TOP + i * SIDE;
        pen.strokeStyle = line;
        pen.strokeRect(x + 0.5, y + 0.5, SIDE, SIDE);
        if (!filled.has(name([i, j]))) continue;
        pen.fillStyle = "#0072B2";
        pen.fillRect(x + 1, y + 1, SIDE - 1, SIDE - 1);
        pen.fillStyle = "#FFFFFF";
        pen.fillText("×", x + SIDE / 2, y + SIDE / 2 + 1);
      }
    }
    if (document.activeElement === canvas) {
      pen.strokeStyle = ink;
      pen.lineWidth = 2.5;
      pen.strokeRect(LEFT + at[1] * SIDE + 2, TOP + at[0] * SIDE + 2, SIDE - 3, SIDE - 3);
    }
    const where = `${down} ${at[0]}, ${across} ${at[1]}: ${filled.has(name(at)) ? "filled" : "empty"}. `
      + `${filled.size} of ${rows * columns} cells are filled.`;
    said.textContent = where;
    canvas.setAttribute("aria-label", `Your drawing. ${where} Arrow keys move, space fills or empties.`);
    canvas.dataset.filled = [...filled].sort().join(" ");
  }
  const set = (cell, on) => {
    at = cell;
    if (on) filled.add(name(cell));
    else filled.delete(name(cell));
    paint();
  };
  const under = (event) => {
    const scale = (LEFT + columns * SIDE + 4) / canvas.getBoundingClientRect().width;
    const found = [(event.offsetY * scale - TOP) / SIDE, (event.offsetX * scale - LEFT) / SIDE].map(Math.floor);
    return found[0] >= 0 && found[0] < rows && found[1] >= 0 && found[1] < columns ? found : null;
  };
  canvas.addEventListener("pointerdown", (event) => {
    const cell = under(event);
    if (!cell) return;
    canvas.setPointerCapture(event.pointerId);
    brush = !filled.has(name(cell));   // a drag goes on with what its first cell did
    set(cell, brush);
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = brush === null ? null : under(event);
    if (cell) set(cell, brush);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { brush = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(step || event.key === " ")) return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === " ") return set(at, !filled.has(name(at)));
    const to = [Math.max(0, Math.min(rows - 1, at[0] + step[0])), Math.max(0, Math.min(columns - 1, at[1] + step[1]))];
    if (event.shiftKey) return set(to, filled.has(name(at)));   // with shift, the cell is carried along
    at = to;
    return paint();
  });
  for (const change of ["focus", "blur"]) canvas.addEventListener(change, paint);
  clear.addEventListener("click", () => { filled.clear(); paint(); });
  const box = element("div", { class: "bb-draw" }, canvas, said);
  return { nodes: [box, clear], value: () => [...filled].join(" "), paint };
}

function sureField(model) {
  const options = [["", "not said"], ...model.get("percentages").map((p) => [String(p), `${p} %`])];
  const input = element("select", { "aria-label": "How sure are you?", ...OWN_KEYS },
    ...options.map(([value, words]) => element("option", { value }, words)));
  return { node: element("label", { class: "bb-sure" }, "how sure?", input), value: () => input.value };
}

function outcomeNodes({ yours, answer, verdict, explain, figure, alt }) {
  const pairs = [["you said", yours], ["it is", answer], ["yours is", verdict]];
  const list = element("dl", {}, ...pairs.flatMap(([a, b]) => [element("dt", {}, a), element("dd", {}, b)]));
  const nodes = [list];
  if (explain) nodes.push(element("p", {}, explain));
  if (figure) nodes.push(element("img", { src: figure, alt }));
  else if (alt) nodes.push(element("p", {}, alt));
  return nodes;
}

function render({ model, el }) {
  const field = model.get("shape").length ? cellField(model) : model.get("choices").length ? choiceField(model)
    : numberField(model);
  const sure = sureField(model);
  const button = element("button", { type: "button", ...OWN_KEYS }, "Commit");
  const form = element("div", { class: "bb-form" }, ...field.nodes, sure.node, button);
  const message = element("div", { class: "bb-message", "aria-live": "polite" });
  const outcome = element("div", { class: "bb-outcome", "aria-live": "polite" });
  const name = element("div", { class: "bb-name" }, `Predict ${model.get("key")}`);
  const root = element("section", { class: "bb-predict", "aria-label": `Prediction ${model.get("key")}` });
  const score = element("div", { class: "bb-score" });
  root.append(name, element("div", { class: "bb-question" }, model.get("question")), form, message, outcome, score);
  el.append(root);
  // the colours of a canvas do not follow the theme by themselves, and are not known before it is on the page
  const theme = new MutationObserver(() => field.paint?.());
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "class"] });
  const size = new ResizeObserver(() => field.paint?.());
  size.observe(root);

  let timer = 0;
  const say = (text, waiting = false) => {
    message.textContent = text;
    message.classList.toggle("bb-wait", waiting);
  };
  const answered = () => {
    clearTimeout(timer);
    button.disabled = false;
    say(model.get("message"));
  };
  const refresh = () => {
    const seen = model.get("outcome");
    const committed = Object.keys(seen).length > 0;
    root.dataset.committed = String(committed);
    form.hidden = committed;
    form.style.display = committed ? "none" : "";
    score.textContent = model.get("score");
    outcome.replaceChildren(...(committed ? outcomeNodes(seen) : []));
    answered();
  };
  const commit = () => {
    button.disabled = true;
    say("", true);
    timer = setTimeout(() => { button.disabled = false; say(BUSY, true); }, PATIENCE);
    model.send({ kind: "commit", text: field.value(), sure: sure.value() });
  };
  button.addEventListener("click", commit);
  form.addEventListener("keydown", (event) => {   // a <form> would do this, but JupyterLab takes its Enter away
    if (event.key !== "Enter" || event.target.tagName === "BUTTON") return;
    event.preventDefault();
    event.stopPropagation();
    if (!button.disabled) commit();
  });
  const watched = ["change:outcome", "change:message", "change:score"];
  watched.forEach((name_) => model.on(name_, refresh));
  model.on("msg:custom", answered);
  refresh();
  return () => {
    clearTimeout(timer);
    theme.disconnect();
    size.disconnect();
    watched.forEach((name_) => model.off(name_, refresh));
    model.off("msg:custom", answered);
  };
}

export default { render };
