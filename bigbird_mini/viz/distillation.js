// Teacher, student and their difference, and what each layer misses: a part of watch.js, for distillations.

const MAP = 204, GAP = 26, BAR = 22;   // CSS pixels: a map, the room for its numbers, the row of a layer
const LESS = "#0072B2", MORE = "#D55E00";
const MAPS = { teacher: "teacher", student: "student", apart: "student − teacher" };
const MAP_HINT = "Focus a map and move with the arrow keys, or point at it. Brighter: more weight. Dot: a key that the "
  + "student does not read. Difference: orange and + where the student gives more, blue and − where it gives less.";
const LAYER_HINT = "Hatched: missed mass, which the distance cannot fall below. Ring: distance at the start; dot: now.";
const percent = (v) => v.toFixed(3);

function attentionPanel(model, ui) {
  const floats = (trait) => {
    const view = model.get(trait);
    return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  };
  let data = {}, hover = null;
  const size = () => model.get("size");
  const canvases = Object.fromEntries(Object.keys(MAPS).map((name) => [name, element("canvas", {
    tabindex: 0, role: "application", "aria-roledescription": "attention map", ...OWN_KEYS })]));
  const layers = element("canvas", { role: "img" });
  const caption = element("div", { class: "bb-cell", "aria-live": "polite" });

  const called = (k) => {
    if (model.get("unit") === "block") return `block ${k}`;
    const word = model.get("labels")[k];
    return word === String(k) ? `token ${k}` : `"${word}" (${k})`;
  };
  const cellWords = ([i, j]) => {
    const at = i * size() + j, read = data.read[at];
    const seen = read === 0 ? ", which does not read it" : read < 0.999 ? ", which reads it in part" : "";
    const [t, s] = [data.teacher[at], data.student[at]];
    return `query ${called(i)}, key ${called(j)}: teacher ${percent(t)}, student ${percent(s)}${seen}; `
      + `difference ${s < t ? "−" : "+"}${percent(Math.abs(s - t))}.`;
  };

  function drawMap(name, shade, side) {
    const n = size(), cell = side / n, filled = Math.max(0.8, cell - (cell > 6 ? 0.6 : 0));
    const pen = sharp(canvases[name], GAP + side + 2, GAP + side + 2);
    const shades = model.get("shades"), top = Math.max(...data.teacher, ...data.student, 1e-9);
    const gaps = data.teacher.map((t, k) => data.student[k] - t), far = Math.max(...gaps.map(Math.abs), 1e-9);
    pen.fillStyle = shade.soft;
    pen.font = "10px sans-serif";
    const every = Math.ceil(n / Math.max(2, Math.floor(side / 24)));
    for (let k = 0; k < n; k += every) {
      pen.fillText(String(k), GAP + (k + 0.5) * cell, GAP - 8);
      pen.fillText(String(k), GAP - 11, GAP + (k + 0.5) * cell);
    }
    pen.translate(GAP, GAP);
    for (let at = 0; at < n * n; at++) {
      const x = (at % n) * cell, y = Math.floor(at / n) * cell, unread = data.read[at] === 0;
      const value = name === "apart" ? gaps[at] : data[name][at];
      if (name === "apart") {
        pen.globalAlpha = Math.min(1, (Math.abs(value) / far) ** 0.7);
        pen.fillStyle = value < 0 ? LESS : MORE;
        pen.fillRect(x, y, filled, filled);
        pen.globalAlpha = 1;
        if (cell >= 9 && Math.abs(value) > far / 4) {
          pen.fillStyle = shade.ink;
          pen.font = `${Math.floor(cell * 0.9)}px sans-serif`;
          pen.fillText(value < 0 ? "−" : "+", x + cell / 2, y + cell / 2 + 1);
        }
      } else if (!unread || value > 0) {
        pen.fillStyle = shades[Math.min(31, Math.floor(Math.sqrt(value / top) * 31.99))];
        pen.fillRect(x, y, filled, filled);
      }
      if (unread && name !== "apart" && cell >= 3) {
        pen.fillStyle = name === "teacher" ? "#D0D0D0" : shade.soft;
        pen.beginPath();
        pen.arc(x + cell / 2, y + cell / 2, Math.max(0.8, Math.min(2, cell * 0.14)), 0, 7);
        pen.fill();
      }
    }
    pen.strokeStyle = shade.soft;
    pen.lineWidth = 1;
    pen.strokeRect(0, 0, side, side);
    const shown = hover ?? model.get("cell");
    if (shown.length === 2) outline(pen, shown[1] * cell, shown[0] * cell, cell, cell);
    canvases[name].setAttribute("aria-label", `Map of ${MAPS[name]}, layer ${model.get("layer")}, ${n} by ${n} `
      + `${model.get("unit")}s. ${shown.length === 2 ? cellWords(shown) : ""} Arrow keys move over the cells.`);
  }

  function drawLayers(shade, width) {
    const rows = model.get("layer_rows"), left = 64, wide = width - left - 12;
    const pen = sharp(layers, width, rows.length * BAR + 22);
    pen.font = "12px sans-serif";
    rows.forEach(([missed, before, now], k) => {
      const y = k * BAR + BAR / 2, x = (v) => left + v * wide;
      pen.textAlign = "left";
      pen.fillStyle = shade.ink;
      pen.fillText(`${k === model.get("layer") ? "▸ " : "   "}layer ${k}`, 0, y);
      pen.strokeStyle = shade.line;
      pen.lineWidth = 1;
      pen.strokeRect(left, y - 7, wide, 14);
      pen.strokeStyle = shade.soft;
      pen.save();
      pen.beginPath();
      pen.rect(left, y - 7, missed * wide, 14);
      pen.clip();
      for (let h = left - 14; h < x(missed); h += 5) {
        pen.beginPath();
        pen.moveTo(h, y + 7);
        pen.lineTo(h + 14, y - 7);
        pen.stroke();
      }
      pen.restore();
      pen.strokeRect(left, y - 7, missed * wide, 14);
      pen.strokeStyle = shade.ink;
      pen.lineWidth = 1.6;
      pen.beginPath();
      pen.arc(x(before), y, 5.5, 0, 7);
      pen.stroke();
      pen.fillStyle = LESS;
      pen.beginPath();
      pen.arc(x(now), y, 4.5, 0, 7);
      pen.fill();
    });
    pen.fillStyle = shade.soft;
    pen.font = "11px sans-serif";
    pen.textAlign = "center";
    for (const v of [0, 0.25, 0.5, 0.75, 1]) pen.fillText(String(v), left + v * wide, rows.length * BAR + 11);
    layers.setAttribute("aria-label", "Missed mass and distance, layer by layer. The numbers are in the table below.");
  }

  function paint() {
    const there = size() > 0;
    row.hidden = !there;
    if (!there) return;
    data = { teacher: floats("teacher"), student: floats("student"), read: floats("read") };
    const shade = colours(ui.root), side = room(ui.root, GAP + 40, MAP, MAP);
    for (const name of Object.keys(MAPS)) drawMap(name, shade, side);
    drawLayers(shade, room(ui.root, 30, 3 * (MAP + GAP) + 16, 3 * (MAP + GAP) + 16));
    const shown = hover ?? model.get("cell");
    caption.textContent = shown.length === 2 ? cellWords(shown) : MAP_HINT;
    caption.classList.toggle("bb-hint", shown.length !== 2);
    const words = model.get("layer_rows").map((values, k) => [`layer ${k}`, ...values.map(percent)]);
    numbers.replaceChildren(table(words, ["", "missed mass", "distance at the start", "distance now"]));
    when.textContent = `Compared after step ${model.get("compared_at").toLocaleString("en")}.`;
  }

  const choose = (cell) => ui.tell({ cell: cell.map((k) => clamp(k, 0, size() - 1)) });
  for (const canvas of Object.values(canvases)) {
    const find = (event) => {
      const cell = (parseFloat(canvas.style.width) - GAP - 2) / size();
      const found = [event.offsetY, event.offsetX].map((v) => Math.floor((v - GAP) / cell));
      return found.every((k) => k >= 0 && k < size()) ? found : null;
    };
    canvas.addEventListener("pointermove", (event) => { hover = find(event); paint(); });
    canvas.addEventListener("pointerleave", () => { hover = null; paint(); });
    canvas.addEventListener("click", (event) => { if (find(event)) choose(find(event)); });
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const [i, j] = model.get("cell").length ? model.get("cell") : [0, -1];
      const next = { Home: [i, 0], End: [i, size() - 1] }[event.key]
        ?? (MOVES[event.key] && [i + MOVES[event.key][0], j + MOVES[event.key][1]]);
      if (event.key === "Escape") ui.tell({ cell: [] });
      else if (!next) return;
      else choose(next);
      event.preventDefault();
      event.stopPropagation();
    });
  }

  const { change } = ui;
  const heads = () => [[-1, "all"], ...Array.from({ length: model.get("heads") }, (_, k) => [k, String(k)])];
  const units = () => model.get("units").map((unit) => [unit, `${unit}s`]);
  const choices = element("div", { class: "bb-choices" }, ...[
    dial(model, { trait: "layer", label: "layer shown", most: () => model.get("layers") - 1, change }),
    choice(model, { trait: "head", label: "head", options: heads, change, hidden: () => model.get("heads") < 2 }),
    choice(model, { trait: "unit", label: "cells are", options: units, change, hidden: () => units().length < 2 }),
  ].map((part) => ui.add(part)));
  const when = element("div", { class: "bb-hint" }), numbers = element("div");
  const titled = (name) => element("figure", {}, element("figcaption", {}, MAPS[name]), canvases[name]);
  const row = element("div", { class: "bb-attention" }, choices,
    element("div", { class: "bb-pair" }, ...Object.keys(MAPS).map(titled)), caption, when,
    layers, element("div", { class: "bb-hint" }, LAYER_HINT), numbers);
  return { row, paint };
}
