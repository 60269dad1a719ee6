"""watch and explore_distillation in JupyterLab: mouse and keyboard, picture and words, and what Python knows of it."""

import json
import re
from pathlib import Path

import pytest
from browser import rig

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

TEACHING = (Path(__file__).parents[1] / "teaching.py").read_text("utf-8")
CELLS = [
    f"{TEACHING}\n\nimport threading, time\nfrom bigbird_mini.viz import explore_distillation, watch\n"
    "def alive():\n    return [t.name for t in threading.enumerate() if t.name == 'bigbird_mini training']",
    "w = explore_distillation(distillation(2000))\nw",
]
WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 660, 138, 50, 10, 24, 20  # of the curves in their canvas
MAP, GAP = 204, 26
LINE = [0, 114, 178]


@pytest.fixture
def view(fresh):
    yield fresh.page.locator(".bb-watch")
    fresh.python("w.pause(); w.wait(30)")


def button(view, name):
    return view.get_by_role("group", name="The training").get_by_role("button", name=name, exact=True)


def begin(view, notebook, steps=3):
    """Start it and wait until some steps are done."""
    button(view, "Start the training").click()
    notebook.page.wait_for_function(f"() => document.querySelector('.bb-watch progress').value >= {steps}")


def rest(view, notebook):
    notebook.python("w.pause(); w.wait(30)")
    notebook.until("w.state", "paused")
    expect(view.locator(".bb-status")).to_contain_text("Paused: step")


def pixels(canvas, spots):
    """The colours at some places of a canvas, (r, g, b) each."""
    look = "(c, spots) => spots.map(([x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3))"
    return canvas.evaluate(look, spots)


def same_curve(view, notebook):
    """The points of the loss stand where Python's numbers put them."""
    (steps, values, _), far, done = notebook.value("[w.curves['loss'], w.total, w.done]")
    while far >= 40 and -(-far // 2) >= done:  # the axis grows with the training
        far = -(-far // 2)
    low, high = min(values), max(values)
    pad, spots = 0.06 * (high - low), []
    for step, value in list(zip(steps, values, strict=True))[:24]:
        y = HIGH - BOTTOM - (value - low + pad) / (high - low + 2 * pad) * (HIGH - BOTTOM - TOP)
        spots.append([LEFT + step / far * (WIDE / 2 - LEFT - RIGHT), y])
    for k, seen in enumerate(pixels(view.locator("canvas").last, spots)):
        assert all(abs(a - b) <= 40 for a, b in zip(seen, LINE, strict=True)), f"point {k} is {seen}"


def same_maps(view, notebook):
    """Cells of the teacher have the shade of their weight; keys that the student does not read are empty there."""
    t, s, read, shades = notebook.value("[x.tolist() for x in w.comparison.maps(w.layer, w.head)] + [w.shades]")
    top, cell = max(max(map(max, t)), max(map(max, s))), MAP / 32
    places = [(i, j) for i in range(0, 32, 3) for j in range(32)]
    spots = [[GAP + (j + 0.2) * cell, GAP + (i + 0.2) * cell] for i, j in places]  # in the middle there may be a dot
    for name, table in (("teacher", t), ("student", s)):
        canvas = view.get_by_role("application", name=re.compile(f"^Map of {name},"))
        for (i, j), seen in zip(places, pixels(canvas, spots), strict=True):
            shade = shades[min(31, int((table[i][j] / top) ** 0.5 * 31.99))]
            wanted = [int(shade[k : k + 2], 16) for k in (1, 3, 5)]
            same = all(abs(a - b) <= 2 for a, b in zip(seen, wanted, strict=True))
            assert same == bool(read[i][j] or name == "teacher"), f"{name}, cell {i}, {j}: {seen}, {shade}"


def test_the_first_frame_teaches_before_any_step(view, fresh):
    same_maps(view, fresh)
    expect(view.locator(".bb-ask")).to_contain_text("A dot marks a key that the student cannot read")
    for k, numbers in enumerate(fresh.value("w.layer_rows")):
        row = view.get_by_role("row", name=f"layer {k}")
        assert row.locator("td").all_inner_texts() == [f"{v:.3f}" for v in numbers]
    for canvas in view.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 40
    expect(view.locator(".bb-status")).to_have_text("Ready: step 0 of 2,000")
    assert fresh.value("alive()") == []


def test_start_and_pause_by_mouse(view, fresh):
    begin(view, fresh, 8)
    assert fresh.value("w.state") == "running" and fresh.value("len(alive())") == 1
    button(view, "Pause after this step").click()
    fresh.until("w.state", "paused")
    done = fresh.value("w.trainer.steps_done")
    expect(view.locator(".bb-status")).to_have_text(f"Paused: step {done} of 2,000")
    same_curve(view, fresh)
    assert fresh.value("alive()") == [] and fresh.value("w.trainer.steps_done") == done
    button(view, "Take one step").click()
    fresh.until("w.done", done + 1)
    fresh.until("w.state", "paused")
    same_curve(view, fresh)


def test_start_pause_resume_and_stop_by_keyboard(view, fresh):
    main = button(view, "Start the training")
    main.focus()
    fresh.page.keyboard.press("Enter")
    fresh.until("w.state", "running")
    assert "Pause after this step" in fresh.page.evaluate("document.activeElement.ariaLabel")  # the same button
    fresh.page.keyboard.press("Enter")
    fresh.until("w.state", "paused")
    chart = view.locator("canvas").last
    chart.focus()
    assert "2px" in chart.evaluate("(c) => getComputedStyle(c).outline")
    fresh.page.keyboard.press(" ")
    fresh.until("w.state", "running")
    stop = button(view, "Stop after this step")
    stop.focus()
    fresh.page.keyboard.press("Enter")
    fresh.until("w.state", "stopped")
    assert stop.get_attribute("aria-disabled") == "true" and stop.evaluate("(b) => b === document.activeElement")
    fresh.page.keyboard.press("Enter")  # nothing to stop
    assert fresh.value("w.problem") == ""


def test_dials_turn_while_it_trains(view, fresh):
    begin(view, fresh)
    slider = view.get_by_role("slider", name="temperature")
    slider.focus()
    fresh.page.keyboard.press("End")
    fresh.until("w.trainer.model.dials['temperature']", 8.0)
    expect(slider).to_have_attribute("aria-valuetext", "8")
    box = view.get_by_role("slider", name="hidden").bounding_box()
    fresh.page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    fresh.until("w.trainer.model.dials['hidden']", 1.0)
    rest(view, fresh)
    turned = [words for _, words in fresh.value("w.marks")]
    assert turned == ["temperature 2 → 8", "hidden 0 → 1"]
    expect(view.locator(".bb-heard")).to_contain_text("temperature 8; logits 1; attention 1; hidden 1")
    chart = view.locator("canvas").last
    chart.focus()
    fresh.page.keyboard.press("End")
    fresh.until("w.at", fresh.value("w.done"))
    loss = fresh.value("w.curves['loss'][1][-1]")
    caption = view.locator(".bb-cell").last
    expect(caption).to_contain_text(f"step {fresh.value('w.done')}: loss {float(f'{loss:.3g}'):g}")
    expect(caption).to_contain_text("hidden 0 → 1 after step")
    fresh.page.keyboard.press("Home")
    fresh.until("w.at", 1)
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.at", 2)
    fresh.page.keyboard.press("Escape")
    fresh.until("w.at", -1)


def test_maps_by_mouse_and_keyboard(view, fresh):
    teacher = view.get_by_role("application", name=re.compile("^Map of teacher"))
    read = fresh.value("w.comparison.maps(0)[2].tolist()")
    i, j = next((i, j) for i in range(10, 32) for j in range(32) if not read[i][j])
    spot = {"x": GAP + (j + 0.5) * MAP / 32, "y": GAP + (i + 0.5) * MAP / 32}
    teacher.hover(position=spot)
    said = view.locator(".bb-cell").first
    expect(said).to_contain_text("which does not read it")
    weight = fresh.value(f"float(w.comparison.maps(0)[0][{i}, {j}])")
    expect(said).to_contain_text(f"({i}), key")
    expect(said).to_contain_text(f"teacher {weight:.3f}, student 0.000")
    teacher.click(position=spot)
    fresh.until("w.cell", [i, j])
    fresh.page.keyboard.press("ArrowUp")
    fresh.until("w.cell", [i - 1, j])
    fresh.page.keyboard.press("Home")
    fresh.until("w.cell", [i - 1, 0])
    fresh.page.mouse.move(5, 5)
    expect(said).to_contain_text(f"({i - 1}), key")
    expect(teacher).to_have_attribute("aria-label", re.compile(rf"\({i - 1}\), key"))
    fresh.page.keyboard.press("Escape")
    fresh.until("w.cell", [])
    layer = view.get_by_role("slider", name="layer shown")
    layer.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.layer", 1)
    same_maps(view, fresh)
    view.get_by_role("combobox", name="head").select_option("1")
    fresh.until("w.head", 1)
    same_maps(view, fresh)
    expect(view.locator(".bb-heard")).to_contain_text("maps of layer 1, head 1, tokens")
    view.get_by_role("combobox", name="cells are").select_option("blocks")
    fresh.until("[w.unit, w.size]", ["block", 8])
    teacher.hover(position={"x": GAP + 3.5 * MAP / 8, "y": GAP + 5.5 * MAP / 8})
    expect(said).to_contain_text("query block 5, key block 3: teacher ")


def test_the_maps_follow_the_training(view, fresh):
    before = fresh.value("w.layer_rows")
    begin(view, fresh, 40)
    rest(view, fresh)
    assert fresh.value("w.compared_at") == fresh.value("w.done")
    after = fresh.value("w.layer_rows")
    assert all(m <= now < start for (m, start, now) in after) and after != before
    same_maps(view, fresh)
    expect(view.get_by_role("row", name="layer 0").locator("td").last).to_have_text(f"{after[0][2]:.3f}")
    expect(view.get_by_text(f"Compared after step {fresh.value('w.done')}.")).to_be_visible()


def test_other_cells_run_meanwhile(view, fresh):
    begin(view, fresh)
    assert fresh.python("print(6 * 7)") == "42" and fresh.value("w.state") == "running"
    shown = view.locator("progress").evaluate("(p) => p.value")
    fresh.python("t = time.time()\nwhile time.time() - t < 3: time.sleep(0.01)")  # a cell that takes its time
    assert view.locator("progress").evaluate("(p) => p.value") > shown  # and the curves went on


def test_it_does_not_chatter(view, fresh):
    count = "(e) => { window.said = 0; new MutationObserver(() => window.said++).observe(e, { childList: true }) }"
    view.locator(".bb-heard").evaluate(count)
    begin(view, fresh, 30)
    rest(view, fresh)
    assert 1 <= fresh.page.evaluate("window.said") <= 5
    expect(view.locator(".bb-heard")).to_contain_text("Paused: step")


def test_what_ends_a_training_is_shown_and_can_be_mended(view, fresh):
    begin(view, fresh)
    fresh.python("w.trainer.model.dials['logits'] = float('nan')")
    expect(view.get_by_role("alert")).to_contain_text("the loss is nan")
    expect(view.get_by_role("alert")).to_contain_text("of 2000 steps are done")
    expect(view.locator(".bb-status")).to_contain_text("Failed: step")
    layer = view.get_by_role("slider", name="layer shown")
    layer.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.layer", 1)
    expect(view.get_by_role("alert")).to_contain_text("the loss is nan")  # it stays, and the widget answers
    fresh.python("w.trainer.model.dials['logits'] = 1.0")
    done = fresh.value("w.done")
    button(view, "Resume the training").click()
    expect(view.get_by_role("alert")).to_have_text("")
    fresh.page.wait_for_function(f"() => document.querySelector('.bb-watch progress').value > {done}")


def test_a_cell_that_runs_again_leaves_no_thread(view, fresh):
    begin(view, fresh)
    fresh.python("old = w")
    fresh.fresh()
    assert fresh.value("[alive(), old.state, w.state]") == [[], "paused", "ready"]
    begin(view, fresh)
    fresh.python("w.close()")
    assert fresh.value("alive()") == []
    expect(view).to_have_count(0)
    fresh.fresh()


def test_a_restarted_kernel_leaves_no_process(view, fresh):
    psutil = pytest.importorskip("psutil")
    begin(view, fresh)
    before = fresh.value("__import__('os').getpid()")
    fresh.page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.context.sessionContext.restartKernel() }"
    )
    assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE
    fresh.python(CELLS[0])
    fresh.fresh()
    begin(view, fresh)
    fresh.take_errors()  # widgets of the old kernel are gone


def test_a_training_without_a_teacher(fresh):
    fresh.python("from IPython.display import display; w.close()")
    code = "model = w.trainer.model; given = distillation(30); w = watch(given); display(w)"
    fresh.page.evaluate(
        "async (code) => { const app = window.jupyterapp.shell.currentWidget;"
        "app.content.widgets[1].model.sharedModel.setSource(code);"
        "await window.jupyterapp.commands.execute('notebook:run-all-cells') }",
        code,
    )
    view = fresh.page.locator(".bb-watch")
    try:
        expect(view.locator("canvas")).to_have_count(1)
        expect(view.locator(".bb-ask")).to_contain_text("where will the loss be after 30 steps?")
        button(view, "Start the training").click()
        fresh.page.wait_for_function("() => document.querySelector('.bb-watch progress').value === 30")
        fresh.until("w.state", "finished")
        same_curve(view, fresh)
        assert button(view, "Resume the training").get_attribute("aria-disabled") == "true"
    finally:
        fresh.page.evaluate(
            "(code) => window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.setSource(code)",
            CELLS[1],
        )


def test_light_and_dark(view, fresh, shot):
    begin(view, fresh, 60)
    view.get_by_role("slider", name="attention").focus()
    fresh.page.keyboard.press("Home")
    fresh.until("w.trainer.model.dials['attention']", 0.0)
    fresh.page.wait_for_timeout(3000)
    rest(view, fresh)
    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = shot(view, f"distillation_{theme.lower()}")
        same_maps(view, fresh)
    assert looks["Dark"] != looks["Light"]


def test_at_200_percent_nothing_is_cut_off(lab, chromium, fresh, shot):
    opened = rig.open_notebook(lab, chromium, "watch_at_200.ipynb", CELLS, width=640, height=3000, scale=2)
    opened.page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    opened.python(CELLS[0])
    opened.fresh()
    view = opened.page.locator(".bb-watch")
    begin(view, opened, 10)
    rest(view, opened)
    shot(view, "distillation_200")
    # every panel's title has the ink of the page, also in a first picture that was drawn before it was on the page
    title = "(c, [y, h]) => { const d = c.getContext('2d').getImageData(0, y, c.width, h).data; let blue = 0;"
    title += " for (let k = 0; k < d.length; k += 4) blue += d[k + 3] > 200 && d[k + 2] > d[k] + 60; return blue }"
    for row in range(5):
        assert view.locator("canvas").last.evaluate(title, [2 * row * HIGH, 2 * 20]) == 0
    over = "(e) => [...e.querySelectorAll('*')].filter((x) => !x.closest('.bb-heard') && "
    over += (
        "x.getBoundingClientRect().right > e.getBoundingClientRect().right + 1).map((x) => x.outerHTML.slice(0, 80))"
    )
    assert view.evaluate(over) == []
    assert opened.take_errors() == []
    opened.page.context.close()


def test_a_saved_notebook_shows_the_picture(lab, chromium, fresh, shot):
    from bigbird_mini.course import notebook as files

    fresh.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")
    saved = files.read(lab.folder / fresh.name)
    files.write_if_changed(lab.folder / "watch_saved.ipynb", files.text_of(files.normalise(saved)))
    assert "widgets" not in json.loads((lab.folder / "watch_saved.ipynb").read_text("utf-8"))["metadata"]
    opened = rig.reopen(lab, chromium, "watch_saved.ipynb", kernel=False)
    picture = opened.page.locator(".jp-OutputArea-output img")
    expect(picture).to_have_count(1)
    assert "missed mass" in picture.get_attribute("alt") and picture.evaluate("(i) => i.naturalWidth") > 300
    shot(picture, "distillation_saved")
    opened.page.context.close()
