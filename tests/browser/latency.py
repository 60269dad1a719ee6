"""From a step of a slider to the new picture, in a real JupyterLab: python tests/browser/latency.py [steps]

Each step waits for the picture of the one before. The load of the machine is printed too: on a busy one the figures
say little.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

import rig

# The least that any widget can do: Python answers, and nothing is drawn.
FLOOR = """import anywidget, traitlets
class Floor(anywidget.AnyWidget):
    _esm = '''
    export default { render({ model, el }) {
      el.innerHTML = '<div class="bb-instrument" data-drawn="0"><input type=range aria-label="x" max="60"></div>';
      const root = el.firstChild, slider = root.firstChild;
      slider.addEventListener("input", () => { model.set("x", Number(slider.value)); model.save_changes(); });
      model.on("change:answers", () => { root.dataset.drawn = model.get("answers"); });
    } };'''
    x = traitlets.Int().tag(sync=True)
    answers = traitlets.Int().tag(sync=True)
    @traitlets.observe("x")
    def _answer(self, _):
        self.answers += 1
Floor()"""
# A distillation that trains all the while: what is measured is Python's answer, not the next picture of the curves.
TRAINING = (
    f"{(Path(__file__).parents[1] / 'teaching.py').read_text('utf-8')}\n"
    "w = explore_distillation(distillation(100_000))\nw.start()\nw"
)
# what is measured: (code, the label of its slider)
CASES = {
    "nothing but the way there and back": (FLOOR, "x"),
    "pattern, 64 x 64 blocks, window": ("explore_pattern(64)", "window"),
    "pattern, 64 x 64 blocks, seed": ("explore_pattern(64)", "seed"),
    "pattern, 64 x 64 blocks, 12 heads, seed": ("explore_pattern(64, heads=12)", "seed"),
    "pattern, 1,024 x 1,024 blocks, window": ("explore_pattern(1024)", "window"),
    "pattern, 1,024 x 1,024 blocks, seed": ("explore_pattern(1024)", "seed"),
    "flow, 64 blocks, 6 layers, token": (
        "explore_flow(BlockPattern.bigbird(64, global_blocks=()))",
        "the news starts at token",
    ),
    "cost, device memory": ("explore_cost()", "device memory"),
    "training dashboard while it trains, dial": (TRAINING, "temperature"),
    "training dashboard while it trains, layer": (TRAINING, "layer shown"),
}
STEP = """(root, [label, steps]) => new Promise(async (done) => {
  const slider = [...root.querySelectorAll("input[type=range]")].find((s) => s.ariaLabel === label);
  const stride = Math.max(1, Math.floor(Number(slider.max) / 60)), taken = [];
  for (let k = 0; k < steps; k++) {
    const what = root.dataset.state ? "answers" : "drawn", drawn = root.dataset[what], start = performance.now();
    slider.value = Number(slider.value) + (k % 2 ? -stride : stride);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((next) => {   // Python has answered, and what it said has been drawn
      const look = () => {
        if (root.dataset[what] !== drawn || performance.now() - start > 20000) next();
        else requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    taken.push([performance.now() - start, Number(root.dataset.took ?? 0)]);
    await new Promise((rest) => setTimeout(rest, 150));
  }
  done(taken);
})"""


def main(steps: int) -> int:
    if reason := rig.missing():
        print(reason)
        return 1
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(
        f"{os.cpu_count()} cores, load {load} before the start; {steps} steps each, the first 2 left out; milliseconds"
    )
    cells = ["from bigbird_mini import BlockPattern\nfrom bigbird_mini.viz import *"]
    with (
        tempfile.TemporaryDirectory() as folder,
        rig.jupyterlab(Path(folder)) as lab,
        rig.browser() as chromium,
    ):
        for name, (code, label) in CASES.items():
            opened = rig.open_notebook(lab, chromium, "latency.ipynb", [*cells, code], height=1400)
            opened.python(cells[0])
            opened.fresh()
            opened.page.wait_for_timeout(2500)  # the late figures of a large pattern
            root = opened.page.locator(".bb-instrument")
            taken, drawing = zip(*root.evaluate(STEP, [label, steps + 2])[2:], strict=True)
            middle, p90 = statistics.median(taken), sorted(taken)[int(0.9 * len(taken))]
            share = f"of which drawing {statistics.median(drawing):.0f}"
            print(f"{name:42} median {middle:5.0f} ({share:>19}) p90 {p90:5.0f} max {max(taken):5.0f}", flush=True)
            opened.page.context.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
