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
  const field = model.get("choices").length ? choiceField(model) : numberField(model);
  const button = element("button", { type: "button", ...OWN_KEYS }, "Commit");
  const form = element("div", { class: "bb-form" }, ...field.nodes, button);
  const message = element("div", { class: "bb-message", "aria-live": "polite" });
  const outcome = element("div", { class: "bb-outcome", "aria-live": "polite" });
  const name = element("div", { class: "bb-name" }, `Predict ${model.get("key")}`);
  const root = element("section", { class: "bb-predict", "aria-label": `Prediction ${model.get("key")}` });
  root.append(name, element("div", { class: "bb-question" }, model.get("question")), form, message, outcome);
  el.append(root);

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
    outcome.replaceChildren(...(committed ? outcomeNodes(seen) : []));
    answered();
  };
  const commit = () => {
    button.disabled = true;
    say("", true);
    timer = setTimeout(() => { button.disabled = false; say(BUSY, true); }, PATIENCE);
    model.send({ kind: "commit", text: field.value() });
  };
  button.addEventListener("click", commit);
  form.addEventListener("keydown", (event) => {   // a <form> would do this, but JupyterLab takes its Enter away
    if (event.key !== "Enter" || event.target === button) return;
    event.preventDefault();
    event.stopPropagation();
    if (!button.disabled) commit();
  });
  const watched = ["change:outcome", "change:message"];
  watched.forEach((name_) => model.on(name_, refresh));
  model.on("msg:custom", answered);
  refresh();
  return () => {
    clearTimeout(timer);
    watched.forEach((name_) => model.off(name_, refresh));
    model.off("msg:custom", answered);
  };
}

export default { render };
