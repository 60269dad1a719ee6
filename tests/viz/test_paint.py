"""paint_pattern without a browser: cells in, figures, predictions and trainings out."""

import re
import threading
import time

import numpy as np
import pytest
import torch

pytest.importorskip("anywidget")
from bigbird_mini import BlockPattern
from bigbird_mini.cost import attention_flops, score_entries
from bigbird_mini.graph import clustering, hops, light_cone, reach, spectral_gap
from bigbird_mini.tasks import TASKS, broadcast, far_copy
from bigbird_mini.viz import describe_tasks, draw_tasks, paint_pattern, paint_run, paint_widget
from bigbird_mini.viz.flow import joined_kinds
from bigbird_mini.viz.paint import PRESETS, heard, painted, predictions, task_of
from bigbird_mini.viz.paint_run import Run, measured, small_encoder, train
from bigbird_mini.viz.show import encode

OTHER = 4
LONG = 10**5  # seconds


@pytest.fixture(autouse=True)
def one_thread():
    """Steps of a few milliseconds, of which two threads on a busy machine make seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cells(widget):
    return np.frombuffer(widget.kinds, np.uint8).reshape(widget.n_blocks, widget.n_blocks)


def paint(widget, *places, kind=OTHER):
    """As the browser does: the kinds of all cells."""
    grid = cells(widget).copy()
    for i, j in places:
        grid[i, j] = kind
    widget.kinds = grid.tobytes()


@pytest.fixture
def short(monkeypatch):
    """Trainings of a second, which no clock cuts off."""
    monkeypatch.setattr(paint_run, "STEPS", dict.fromkeys(TASKS, 20))
    monkeypatch.setattr(paint_widget, "SECONDS", (5, LONG))


# -------------------------------------------------------------------- painting


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("n", [4, 7, 16])
def test_a_preset_paints_its_pattern(name, n):
    widget = paint_pattern(n)
    widget.preset = name
    wanted = PRESETS[name](n)
    assert widget.problem == "" and widget.preset == name and np.array_equal(cells(widget), joined_kinds(wanted))
    assert widget.pattern == wanted and widget.pattern.heads == 1


def test_what_is_painted_is_the_pattern():
    widget = paint_pattern(6)
    widget.preset = "nothing"
    assert widget.pattern == BlockPattern.global_(6, ()) and widget.rows[0][1].startswith("0.0%")
    paint(widget, (0, 5), (3, 1))
    grid = np.zeros((6, 6), bool)
    grid[0, 5] = grid[3, 1] = True
    assert widget.pattern == BlockPattern.from_grid(grid) and widget.preset == "your own"
    paint(widget, (0, 5), kind=0)
    assert widget.pattern.grid().sum() == 1 and bool(widget.pattern.grid()[0, 3, 1])
    widget.preset = "window"
    paint(widget, (0, 5), (1, 1))  # the window's own cells keep their kind where they are not painted over
    kinds = joined_kinds(BlockPattern.window(6)).copy()
    kinds[0, 5] = kinds[1, 1] = OTHER
    assert np.array_equal(widget.pattern.kinds()[0], kinds) and widget.preset == "your own"


def test_every_grid_of_kinds_comes_back():
    rng = np.random.default_rng(0)
    for n in (1, 4, 9):
        for share in (0, 0.3, 0.9, 1):
            kinds = (rng.integers(1, 5, (n, n)) * (rng.random((n, n)) < share)).astype(np.uint8)
            assert np.array_equal(painted(kinds).kinds()[0], kinds)


def test_a_pattern_of_ones_own_to_start_from():
    p = BlockPattern.window(8) | BlockPattern.random(8, 1, heads=3, seed=1, avoid=BlockPattern.window(8))
    widget = paint_pattern(p, block_size=4)
    assert widget.preset == "the given pattern" and np.array_equal(cells(widget), joined_kinds(p))
    assert torch.equal(widget.pattern.grid()[0], p.grid().any(0))
    widget.preset = "window"
    widget.preset = "the given pattern"
    assert np.array_equal(cells(widget), joined_kinds(p))


# -------------------------------------------------------------------- figures and predictions


def test_the_figures_are_those_of_graph_and_cost():
    widget = paint_pattern(12)
    paint(widget, (3, 7), (9, 2), (11, 10))
    p, rows = widget.pattern, dict(widget.rows)
    h = hops(p)
    assert rows["density"].startswith(f"{p.density():.1%}")
    assert rows["hops between blocks"] == f"{h.mean():.2f} on average, {h.max()} at most"
    assert rows["spectral gap"].startswith(f"{spectral_gap(p):.3f}")
    assert rows["clustering"].startswith(f"{clustering(p):.2f}")
    flops, dense = (
        attention_flops(p, 8, 16, heads=4) / 1e6,
        attention_flops(BlockPattern.full(12), 8, 16, heads=4) / 1e6,
    )
    price = f"{score_entries(p, 8, heads=4):,} scores, {flops:.2f} MFLOP; dense {dense:.2f}"
    assert rows["price of a layer"] == price


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_heard_is_the_light_cone_of_every_other_token(layers):
    own = BlockPattern.window(6, 1)
    grids = [np.eye(6, k=1) + np.eye(6, k=-2), np.eye(6, k=1) + np.eye(6, k=-1), np.diag([1, 0, 0, 1, 0, 0])]
    for p in (own | BlockPattern.random(6, 1), *(BlockPattern.from_grid(grid.astype(bool)) for grid in grids)):
        told = np.zeros((6, 6), bool)
        for token in range(12):  # blocks of two: does anybody else hear of it?
            cone = light_cone(p, token, layers, 2)[layers]
            cone[token] = False
            told[:, token // 2] |= cone.reshape(6, 2).any(1)
        assert np.array_equal(heard(p, layers), told)


def test_predictions_of_the_course():
    """By edges and by paths of two layers: the table of science.md, where each block reads itself."""
    task = {name: make() for name, make in TASKS.items()}
    window, star = PRESETS["window"](16), PRESETS["global"](16)
    assert predictions(star, task["far copy"]) == (1 / 16, 1.0)
    assert predictions(star, task["broadcast"])[1] == 1.0
    assert predictions(window, task["broadcast"])[1] == pytest.approx(0.350, abs=5e-4)
    assert predictions(window, task["lookup"])[0] == pytest.approx(0.079, abs=5e-4)
    assert predictions(window, task["local copy"]) == (1.0, 1.0)
    for p in (window, star, PRESETS["random"](16)):
        for one in task.values():
            assert predictions(p, one)[1] == one.predicted(reach(p, 2))


def test_the_needs_and_the_prediction_follow_the_task():
    widget = paint_pattern(16, task="far copy")
    assert widget.predicted == [1 / 16, 1.0] and len(widget.needs) == 256
    assert [k for k, share in enumerate(widget.needs) if share] == [16 * i + i - 6 for i in range(7, 16)]
    assert "from 6 blocks before" in widget.ask
    widget.task = "broadcast"
    assert widget.predicted == list(predictions(widget.pattern, broadcast())) and "flagged" in widget.ask
    assert np.reshape(widget.needs, (16, 16)) == pytest.approx(broadcast().needs(16))
    assert [row[0] for row in widget.task_rows] == list(TASKS)
    assert widget.task_rows[2] == ["far copy", "6%", "100%", "-"]
    widget.preset = "nothing"
    assert [row[1:3] for row in widget.task_rows] == [["6%", "6%"], ["7%", "7%"], ["6%", "6%"], ["6%", "6%"]]


def test_painting_what_a_task_asks_for_is_enough():
    widget = paint_pattern(16, task="far copy")
    widget.preset = "nothing"
    paint(widget, *((i, i - 6) for i in range(7, 16)))
    assert widget.predicted == [1.0, 1.0] and widget.task_rows[2][1:3] == ["100%", "100%"]
    paint(widget, (7, 1), kind=0)
    assert widget.predicted[0] == pytest.approx(1 - 8 / 72 * 15 / 16)


# -------------------------------------------------------------------- training


def test_a_training_learns_what_the_pattern_allows(monkeypatch):
    """The broadcast in 4 blocks of 2: all through the global block, and nothing without an edge."""
    monkeypatch.setattr(paint_run, "STEPS", dict.fromkeys(TASKS, 120))
    widget = paint_pattern(4, block_size=2, task="broadcast")
    monkeypatch.setattr(paint_widget, "SECONDS", (5, LONG))  # however slow this machine is
    widget.seconds = LONG
    run = widget.train()
    assert run.accuracy > 0.9 and run.done == run.steps == 120 and run.took < LONG
    assert widget.task_rows[1][3] == f"{run.accuracy:.0%}" and f"{run.accuracy:.0%} right" in widget.words
    assert run.accuracy == measured(run.model, run.task.batch(1, 256, part="test"))
    widget.preset = "nothing"
    assert widget.task_rows[1][3] == "-"  # another pattern, which nobody has trained
    blind = widget.train()
    # the flagged token itself, one of six, knows its value; the others guess
    assert blind.number == 2 and abs(blind.accuracy - (1 / 6 + 5 / 6 / 16)) < 0.06
    assert widget.predicted[1] == pytest.approx(1 / 6 + 5 / 6 / 16)
    assert [curve["number"] for curve in widget.curves] == [1, 2]
    assert [curve["here"] for curve in widget.curves] == [False, True]
    widget.task = "lookup"
    assert widget.curves == []


def test_the_model_has_the_painted_pattern(short):
    widget = paint_pattern(4, block_size=2, task="local copy", seconds=LONG)
    paint(widget, (1, 3))
    run = widget.train()
    assert run.pattern == widget.pattern and run.model.encoder.pattern == widget.pattern
    maps = run.model.attention_maps(run.task.batch(0, 2)["input_ids"], layers=(0, 1))
    for weights in maps.values():
        read = weights.dense()[0].sum(0).view(4, 2, 4, 2).sum((1, 3)) > 0
        assert torch.equal(read, widget.pattern.grid()[0])


def test_the_same_start_and_steps_give_the_same_curve_and_no_global_state_moves(short):
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        widget = paint_pattern(4, block_size=2, task="far copy", seconds=LONG)
        torch.rand(3)
        state = torch.get_rng_state()
        runs.append(widget.train())
        assert torch.equal(state, torch.get_rng_state())
    assert runs[0].points == runs[1].points and len(runs[0].points) == 20
    assert not torch.equal(before, torch.get_rng_state())


def test_it_ends_within_the_stated_seconds(monkeypatch):
    monkeypatch.setattr(paint_run, "STEPS", dict.fromkeys(TASKS, 10**6))
    widget = paint_pattern(4, block_size=2, seconds=5)
    start = time.perf_counter()
    run = widget.train()
    assert time.perf_counter() - start < 5 + 10  # a step, a look and the last test come on top
    assert 1 <= run.done <= run.steps < 10**6 and run.accuracy is not None
    assert "the task wants 1000000" in str(run)


def test_while_it_trains_the_widget_answers(monkeypatch):
    monkeypatch.setattr(paint_run, "STEPS", dict.fromkeys(TASKS, 10**6))
    widget = paint_pattern(8, block_size=4, seconds=60)
    widget.training = True
    until(lambda: widget.curves and widget.curves[0]["points"])
    assert widget.progress.startswith("Training 1, far copy") and "of 60 seconds" in widget.progress
    slowest = 0
    for k in range(20):
        start = time.perf_counter()
        paint(widget, (k % 8, 7 - k % 8), kind=OTHER * (k < 8))
        slowest = max(slowest, time.perf_counter() - start)
        time.sleep(0.02)
    assert widget.training and widget.problem == "" and slowest < 1
    assert widget.runs[0].pattern == PRESETS["global"](8)  # it trains what was there when it began
    widget.training = False
    until(lambda: widget.runs[0].accuracy is not None and not widget.training and widget._thread is None)
    assert widget.runs[0].done < widget.runs[0].steps and widget.runs[0].took < 60


def test_stop_and_start_again(short, monkeypatch):
    widget = paint_pattern(4, block_size=2, seconds=LONG)
    widget.training = False  # nothing to stop
    first, second = widget.train(), widget.train()
    assert (first.number, second.number) == (1, 2) and widget.runs == [first, second]
    monkeypatch.setattr(paint_widget, "_KEPT", 2)
    widget.train()
    assert [run.number for run in widget.runs] == [2, 3]  # the oldest goes


def test_an_interrupted_wait_stops_the_training(monkeypatch):
    monkeypatch.setattr(paint_run, "STEPS", dict.fromkeys(TASKS, 10**6))
    widget = paint_pattern(4, block_size=2, seconds=120)

    def interrupted(_thread):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            widget.train()
    until(lambda: not widget.training and widget._thread is None)
    assert widget.runs[0].done < widget.runs[0].steps and widget.runs[0].accuracy is not None


def test_a_training_that_fails_is_said_and_the_next_one_works(short, monkeypatch):
    widget = paint_pattern(4, block_size=2, seconds=LONG)
    with monkeypatch.context() as patch:

        def fails(run, *_):
            run.points.append([1, 0.5])
            raise RuntimeError("the disk is on fire")

        patch.setattr(paint_widget, "train", fails)
        with pytest.raises(ValueError, match="RuntimeError: the disk is on fire"):
            widget.train()
    assert not widget.training and widget.runs == [] and widget.curves == []
    assert "the disk is on fire" in widget.problem and "the disk is on fire" in repr(widget)
    assert widget.train().accuracy is not None and widget.problem == ""


def test_a_training_can_be_stopped_before_its_first_look():
    stop = threading.Event()
    stop.set()
    run = Run(1, far_copy(8, 2), PRESETS["window"](4), LONG)
    train(run, lambda: None, stop)
    assert run.done == 1 and run.points == [[1, run.accuracy]]


def test_every_pattern_starts_from_the_same_weights():
    task = far_copy(8, 2)
    one, two = (small_encoder(task, PRESETS[name](4), seed=3).state_dict() for name in ("window", "full"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = small_encoder(task, PRESETS["full"](4), seed=4).state_dict()
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


# -------------------------------------------------------------------- what cannot be


def test_wrong_settings_are_a_sentence_and_the_picture_stays():
    widget = paint_pattern(6)
    before = widget.kinds
    for name, value, words in (
        ("task", "sorting", "task='sorting' is not known; allowed: 'local copy'"),
        ("seconds", 121, "seconds=121 is out of range; allowed are 5 to 120"),
        ("preset", "stars", "preset='stars' is not known"),
        ("kinds", b"\x01" * 35, "35 bytes up to 1 are no grid of 6 x 6 kinds"),
        ("kinds", b"\x05" * 36, "36 bytes up to 5 are no grid"),
        ("kinds", b"", "0 bytes up to 0 are no grid"),
    ):
        good = getattr(widget, name)
        setattr(widget, name, value)
        assert words in widget.problem and words in repr(widget) and widget.kinds == before
        if name in ("task", "seconds"):
            widget.training = True  # refused, with the same words
            assert not widget.training and widget.runs == []
        setattr(widget, name, good)
        widget.seconds += 1
        assert widget.problem == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((3,), "n_blocks=3 is out of range; allowed are 4 to 32"),
        ((33,), "n_blocks=33 is out of range"),
        ((BlockPattern.window(40),), "n_blocks=40 is out of range"),
        ((16, 1), "block_size=1 is out of range; allowed are 2 to 32"),
        ((16, 8, "sorting"), "task='sorting' is not known"),
        ((16, 8, "lookup", 4), "seconds=4 is out of range; allowed are 5 to 120"),
    ],
)
def test_what_cannot_be_painted_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        paint_pattern(*arguments)


@pytest.mark.parametrize("n", [4, 5, 32])
@pytest.mark.parametrize("block_size", [2, 3, 32])
def test_every_size_that_is_allowed_has_all_tasks(n, block_size):
    for name in TASKS:
        widget = paint_pattern(n, block_size, name)
        assert widget.problem == "" and task_of(name, n, block_size).batch(0, 1)["labels"].max() >= 0


# -------------------------------------------------------------------- pictures and words


def test_the_still_picture_shows_grid_predictions_and_curves(short):
    p = PRESETS["window + random"](4)
    fig = draw_tasks(p, 2)
    grid, shares = fig.axes
    assert np.array_equal(grid.images[0].get_array(), p.kinds()[0])
    found = [line.get_xdata() for line in shares.lines if len(line.get_xdata()) == 1]
    wanted = [share for name in TASKS for share in predictions(p, task_of(name, 4, 2))]
    assert [float(x[0]) for x in found] == wanted
    widget = paint_pattern(p, 2, "broadcast", seconds=LONG)
    run = widget.train()
    fig, words = widget.still()
    *_, curves = fig.axes
    assert any(np.array_equal(line.get_xydata(), run.points) for line in curves.lines)
    assert "Training 1, broadcast" in words and encode(fig)[1].startswith(b"\x89PNG")


def test_bundle_and_repr():
    widget = paint_pattern(8)
    data, _ = widget._repr_mimebundle_()
    assert set(data) >= {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    words = re.search(r'alt="([^"]+)"', data["text/html"])[1]
    assert "far copy" in words and data["text/plain"] == repr(widget) == repr(paint_pattern(8))
    assert repr(widget).startswith("PaintExplorer: 8 blocks of 8 tokens, global: ")


def test_the_words_alone_answer_questions(short):
    widget = paint_pattern(6, block_size=4, seconds=LONG)
    paint(widget, (3, 4))
    run = widget.train()
    words = widget.description
    # Which blocks does query block 3 read?
    assert re.search(r"query block 3 reads: (.*)\.", words)[1] == "window 3, global 0, other 4"
    # How much of the far copy can be known by edges, and by paths?
    edges, paths = predictions(widget.pattern, task_of("far copy", 6, 4))
    assert f"{edges:.0%} right if only edges count, {paths:.0%} if paths do" in words
    # How did the training end, and after how many steps?
    assert (
        f"Training 1, far copy, density {widget.pattern.density():.1%}: {run.accuracy:.0%} right after 20 steps"
        in words
    )
    # What does a layer cost?
    assert f"price of a layer: {score_entries(widget.pattern, 4, heads=4):,} scores" in words
    assert describe_tasks(widget.pattern, 4, widget.runs) in words


def test_one_text_without_imports_or_addresses_and_its_own_keys():
    script = str(paint_pattern(4)._esm)
    assert not re.search(r"^\s*import\b|https?://|@import", script, re.M)
    assert script.count("export default") == 1 and len(script.encode()) < 40_000
    calls = re.findall(
        r'element\("(?:input|select|button|summary)"[^;]*?\)|element\("canvas", \{ tabindex[^;]*', script
    )
    assert len(calls) >= 5 and all("...OWN_KEYS" in call for call in calls)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
