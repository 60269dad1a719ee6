// The card of bigbird_mini/course/warming.py: lines are chosen, moved, indented and left out; Python runs them.

const DEEPEST = 4;
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };   // JupyterLab takes keys in command mode otherwise
const HELP = "Arrow keys choose a line. Alt with up or down moves it, left and right indent it, "
  + "Delete leaves it out or takes it back.";

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function render({ model, el }) {
  let lines = structuredClone(model.get("lines"));
  let chosen = 0;
  const mark = `bb-${Math.random().toString(36).slice(2)}`;
  const list = element("div", { role: "listbox", tabindex: "0", class: "bb-lines", ...OWN_KEYS,
    "aria-label": `Lines of the function. ${HELP}` });
  const said = element("div", { class: "bb-said", "aria-live": "polite" });
  const outcome = element("div", { class: "bb-outcome", "aria-live": "polite" });

  const place = () => {
    const [text, indents, used] = lines[chosen];
    return used ? `${text}: line ${chosen + 1} of ${lines.length}, indent ${indents}` : `${text}: left out`;
  };
  const draw = () => {
    list.replaceChildren(...lines.map(([text, indents, used], k) => {
      const row = element("div", { role: "option", id: `${mark}-${k}`, "aria-selected": String(k === chosen),
        class: used ? "" : "bb-unused" }, used ? text : `left out: ${text}`);
      row.style.paddingLeft = `${0.5 + (used ? 2 * indents : 0)}em`;
      row.addEventListener("click", () => { chosen = k; draw(); list.focus(); });
      return row;
    }));
    list.setAttribute("aria-activedescendant", `${mark}-${chosen}`);
  };
  const change = (what) => { what(); draw(); said.textContent = place(); };
  const choose = (step) => { chosen = Math.min(Math.max(chosen + step, 0), lines.length - 1); };
  const move = (step) => {
    const other = chosen + step;
    if (other < 0 || other >= lines.length) return;
    [lines[chosen], lines[other]] = [lines[other], lines[chosen]];
    chosen = other;
  };
  const indent = (step) => { lines[chosen][1] = Math.min(Math.max(lines[chosen][1] + step, 1), DEEPEST); };
  const toggle = () => { lines[chosen][2] = !lines[chosen][2]; };

  list.addEventListener("keydown", (event) => {
    const keys = { ArrowUp: () => (event.altKey ? move : choose)(-1), ArrowDown: () => (event.altKey ? move : choose)(1),
      ArrowLeft: () => indent(-1), ArrowRight: () => indent(1), Delete: toggle, Backspace: toggle,
      Home: () => choose(-lines.length), End: () => choose(lines.length) };
    if (!keys[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    change(keys[event.key]);
  });
  const button = (words, what) => {
    const node = element("button", { type: "button", ...OWN_KEYS }, words);
    node.addEventListener("click", what);
    return node;
  };
  const run = button("Run it", () => {
    run.disabled = true;
    said.textContent = "running";
    model.send({ kind: "run", lines });
  });
  const tools = element("div", { class: "bb-form", role: "toolbar", "aria-label": "What to do with the chosen line" },
    button("up", () => change(() => move(-1))), button("down", () => change(() => move(1))),
    button("outdent", () => change(() => indent(-1))), button("indent", () => change(() => indent(1))),
    button("leave out / take back", () => change(toggle)), run);
  const wrong = model.get("wrong");
  const question = `Put the lines in order and indent them. ${wrong} of them are wrong: leave these out.`;
  const root = element("section", { class: "bb-predict bb-warm-up", "aria-label": `Warm-up ${model.get("number")}` },
    element("div", { class: "bb-name" }, `Warm-up ${model.get("number")}, no points`),
    element("div", { class: "bb-question" }, question),
    element("code", {}, model.get("head")), list, tools, said, outcome);
  el.append(root);

  const refresh = () => {
    const { verdict, words, figure, alt } = model.get("outcome");
    run.disabled = false;
    root.dataset.verdict = verdict || "";
    if (!verdict) return;
    said.textContent = "";
    outcome.replaceChildren(element("p", {}, element("b", {}, verdict), `: ${words}`));
    if (figure) outcome.append(element("img", { src: figure, alt }));
  };
  model.on("msg:custom", refresh);
  draw();
  refresh();
  return () => model.off("msg:custom", refresh);
}

export default { render };
