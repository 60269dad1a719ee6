"""watch: what the dashboard shows and does to a training, without a browser."""

import math
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("anywidget")
import torch
from training import Toy, batches, same_bits, settings, trainer

from bigbird_mini.train import Trainer
from bigbird_mini.viz import describe_training, draw_training, watch, watch_widget
from bigbird_mini.viz.show import encode
from bigbird_mini.viz.watch_run import places
from bigbird_mini.viz.watch_words import Curve, planned

LONG = 60  # seconds that a test waits at most


class Dialled(Toy):
    """A loss that reads a dial, twice, as a longer computation would; and can be broken."""

    def __init__(self, **dials):
        super().__init__()
        self.dials = {"weight": 1.0, **dials}
        self.seen_weights, self.broken = [], ""

    def forward(self, input_ids, labels=None):
        if self.broken == "shape":
            input_ids = input_ids[:, :-1]
        before = self.dials["weight"]
        out = super().forward(input_ids, labels)
        self.seen_weights.append((before, self.dials["weight"]))
        out.loss = out.loss * (math.nan if self.broken == "nan" else before)
        return out


class Gate:
    """Batches that wait until the test lets a step go on."""

    def __init__(self):
        self.open, self.asked = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, number):
        self.asked.release()
        assert self.open.acquire(timeout=LONG)
        return batches(number)

    def let(self, steps):
        for _ in range(steps):
            self.open.release()

    def under_way(self):
        """Wait until a step has begun."""
        assert self.asked.acquire(timeout=LONG)


def threads():
    return [t for t in threading.enumerate() if t.name == "bigbird_mini training"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


# ---------------------------------------------------------------- curves


def test_a_curve_stays_short_and_keeps_what_it_means():
    curve, values = Curve(), [math.sin(k) for k in range(1, 10_001)]
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    steps, means = curve.points()
    assert len(steps) <= 300 and curve.each == 64
    for k in (0, 1, 77, len(steps) - 2):
        inside = range(64 * k, 64 * k + 64)
        assert means[k] == pytest.approx(sum(values[i] for i in inside) / 64)
        assert steps[k] == pytest.approx(sum(i + 1 for i in inside) / 64)
    assert curve.first == (1, values[0]) and curve.last == (10_000, values[-1])
    assert curve.least == (values.index(min(values)) + 1, min(values))


def test_curves_are_the_history_with_what_callbacks_add():
    given = trainer(callbacks=[lambda t, record: record.update(step_squared=record["step"] ** 2, odd=math.nan)])
    widget = watch(given)
    assert widget.state == "ready" and widget.panels == ["loss", "learning_rate"] and widget.curves == {}
    widget.start()
    assert widget.wait(LONG) and widget.state == "finished" and widget.problem == ""
    assert widget.panels == ["loss", "step_squared", "learning_rate", "gradient_norm"]
    assert widget.curves["step_squared"] == [[*range(1, 11)], [k**2 for k in range(1, 11)], 1]
    assert widget.curves["loss"][1] == pytest.approx(given.history.column("loss")[1], rel=1e-4)
    assert "odd" not in widget.curves  # no number: a browser could not read it


def test_the_plan_of_the_learning_rate():
    plan = settings(steps=1000, warmup=37)
    steps, rates = planned(plan)
    assert {1, 37, 1000} <= set(steps) and len(steps) < 110
    assert rates == [plan.rate(step) for step in steps]


# ---------------------------------------------------------------- start, pause, resume, stop


def test_a_watched_training_has_the_same_bits():
    alone, watched = trainer(), trainer()
    alone.run(progress=False)
    widget = watch(watched)
    for steps in (3, 1, None):
        widget.start(steps)
        assert widget.wait(LONG)
    assert widget.state == "finished"
    same_bits(alone, watched)


def test_pause_and_resume_between_two_steps():
    gate = Gate()
    widget = watch(trainer(data=gate))
    widget.start()
    gate.under_way()
    assert widget.state == "running" and len(threads()) == 1
    widget.pause()
    assert widget.state == "pausing" and widget.trainer.steps_done == 0  # the step under way goes on
    gate.let(1)
    assert widget.wait(LONG) and (widget.state, widget.done) == ("paused", 1) and threads() == []
    widget.resume()
    gate.under_way()
    gate.let(1)
    gate.under_way()
    widget.stop()
    gate.let(1)
    assert widget.wait(LONG) and (widget.state, widget.done) == ("stopped", 3)
    gate.let(7)
    widget.start()
    assert widget.wait(LONG) and (widget.state, widget.done) == ("finished", 10)


def test_the_buttons_of_the_page_do_the_same():
    gate = Gate()
    widget = watch(trainer(data=gate))
    widget.order = ["1", "one step"]
    gate.let(1)
    assert widget.wait(LONG) and (widget.state, widget.done) == ("paused", 1)
    gate.under_way()
    widget.order = ["2", "resume"]
    gate.under_way()
    widget.order = ["3", "start"]
    assert widget.problem == "It is running already; one training goes on at a time."
    widget.order = ["4", "dance"]
    assert "order='dance' is not known" in widget.problem
    widget.order = ["5", "pause"]
    assert widget.problem == "" and widget.state == "pausing"
    gate.let(1)
    assert widget.wait(LONG) and widget.done == 2
    gate.let(8)
    widget.order = ["6", "resume"]
    assert widget.wait(LONG) and widget.state == "finished"
    widget.order = ["7", "start"]
    assert "all 10 steps are done" in widget.problem.lower()


def test_a_callback_that_stops_the_trainer_stops_it():
    widget = watch(trainer(callbacks=[lambda t, record: record["step"] == 4 and t.stop()]))
    widget.start()
    assert widget.wait(LONG) and (widget.state, widget.done) == ("paused", 4)


def test_steps_taken_in_a_cell_are_seen():
    given = trainer()
    widget = watch(given)
    given.step()
    given.run(progress=False)
    assert (widget.state, widget.done) == ("finished", 10) and len(widget.curves["loss"][0]) == 10


def test_a_cell_cannot_take_a_step_beside_the_thread():
    gate = Gate()
    widget = watch(trainer(data=gate))
    widget.start(1)
    gate.under_way()
    for forbidden in (widget.trainer.step, lambda: widget.trainer.run(progress=False), widget.trainer.resume):
        with pytest.raises(RuntimeError, match="under way in another thread"):
            forbidden()
    gate.let(1)
    assert widget.wait(LONG) and widget.done == 1 and widget.problem == ""


def test_checkpoints_and_a_training_that_was_resumed(tmp_path):
    widget = watch(trainer(folder=tmp_path / "run"))
    widget.start(4)
    assert widget.wait(LONG) and ["checkpoint", "step_00000004"] in widget.rows
    again = trainer(folder=tmp_path / "run")
    other = watch(again)
    again.resume()
    again.step()
    assert len(other.curves["loss"][0]) == 5  # with the steps before
    late = watch(trainer(folder=tmp_path / "run"))
    assert late.state == "ready"


# ---------------------------------------------------------------- dials


def test_a_dial_turns_between_two_steps():
    gate, model = Gate(), Dialled()
    widget = watch(trainer(model=model, data=gate, given=settings(steps=3)))
    assert widget.dials == {"weight": 1.0} and widget.limits == {"weight": (0.0, 4.0)}
    widget.start()
    gate.under_way()
    widget.dials = {"weight": 2.0}
    assert model.dials == {"weight": 1.0} and widget.dials == {"weight": 2.0}
    gate.let(3)
    assert widget.wait(LONG)
    assert model.seen_weights == [(1, 1), (2, 2), (2, 2)]
    assert widget.marks == [[1, "weight 1 → 2"]] and "After step 1: weight 1 → 2." in widget.description
    widget.dials = {"weight": 3.0}
    assert model.dials == {"weight": 3.0}  # nothing is under way: at once


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({"weight": 5.0}, "dial 'weight' is 5; allowed are 0 to 4"),
        ({"weight": math.nan}, "dial 'weight' is nan; it must be a finite number"),
        ({"weight": "much"}, "dial 'weight' is 'much'"),
        ({"width": 1.0}, "the dials are weight, not width"),
    ],
)
def test_a_wrong_dial_is_a_sentence(dials, words):
    model = Dialled()
    widget = watch(trainer(model=model))
    widget.dials = dials
    assert words in widget.problem.lower() and model.dials == {"weight": 1.0}
    widget.dials = {"weight": 2.0}
    assert widget.problem == "" and model.dials == {"weight": 2.0}


def test_a_dial_that_the_training_turns_itself_is_shown():
    model = Dialled()
    widget = watch(trainer(model=model, callbacks=[lambda t, r: model.dials.update(weight=r["step"] / 10)]))
    widget.start()
    assert widget.wait(LONG)
    assert model.seen_weights[-1] == (0.9, 0.9) and widget.dials == {"weight": 1.0} and widget.problem == ""


def test_dials_and_limits_that_make_no_sense():
    with pytest.raises(TypeError, match=r"a bigbird_mini\.train\.Trainer is needed here, not Toy"):
        watch(Toy())
    with pytest.raises(TypeError, match="dials must be a dict"):
        watch(trainer(), dials=[1.0])
    with pytest.raises(ValueError, match="dial 'a' is None"):
        watch(trainer(), dials={"a": None})
    with pytest.raises(ValueError, match="limits for 'b', which is no dial; there are a"):
        watch(trainer(), dials={"a": 1.0}, limits={"b": (0, 1)})
    given = trainer()
    with pytest.raises(ValueError, match=r"dial 'a' is 3\.0, outside its limits 0 to 1"):
        watch(given, dials={"a": 3.0}, limits={"a": (0, 1)})
    assert given.callbacks == []


def test_places_of_a_dial():
    even, ratios = places(1.0, 0.0, 4.0), places(2.0, 0.5, 8.0)
    assert even[0] == 0 and even[-1] == 4 and 1.0 in even and even[1] - even[0] == pytest.approx(0.1)
    assert ratios[0] == 0.5 and ratios[-1] == 8 and 2.0 in ratios and ratios[1] / ratios[0] < 1.1
    assert all(a == sorted(set(a)) for a in (even, ratios)) and 0.33 in places(0.33, 0.0, 1.0)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("broken", "words"),
    [("nan", "step 4: the loss is nan"), ("shape", "Expected input batch_size")],
)
def test_what_ends_a_training_is_shown_and_can_be_mended(broken, words):
    model = Dialled()
    given = trainer(model=model)
    widget = watch(given)
    widget.start(3)
    assert widget.wait(LONG)
    model.broken = broken
    answers = widget.answers
    widget.start()
    assert widget.wait(LONG) and widget.state == "failed" and widget.done == 3
    assert words.lower() in widget.problem.lower() and "3 of 10 steps are done" in widget.problem
    assert widget.answers > answers and isinstance(widget.error, Exception) and "mend it" in widget.ask.lower()
    widget.dials = {"weight": 2.0}  # looking around does not wipe it away
    assert words.lower() in widget.problem.lower()
    model.broken = ""
    widget.order = ["1", "resume"]
    assert widget.problem == "" and widget.wait(LONG) and (widget.state, widget.done) == ("finished", 10)


def test_an_interrupt_while_waiting_pauses(monkeypatch):
    gate = Gate()
    widget = watch(trainer(data=gate))
    widget.start()
    gate.under_way()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threads()[0], "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            widget.wait()
    assert widget.state == "pausing"
    gate.let(1)
    assert widget.wait(LONG) and widget.state == "paused"


# ---------------------------------------------------------------- no thread is left


def test_closing_pauses_and_another_dashboard_goes_on():
    gate = Gate()
    given = trainer(data=gate, given=settings(steps=50))
    one, two = watch(given), watch(given)
    one.start()
    gate.under_way()
    one.close()
    assert two.state == "running" and len(threads()) == 1
    gate.let(50)
    two.close()
    assert threads() == [] and given.callbacks == [] and two.state in ("paused", "finished")


def test_a_cell_that_runs_again_closes_its_last_dashboard(monkeypatch):
    shell = SimpleNamespace(request={})
    shell.get_parent = lambda: shell.request
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    shell.request = {"metadata": {"cellId": "a"}, "header": {"msg_id": "1"}}
    gate = Gate()
    first, beside = watch(trainer(data=gate, given=settings(steps=50))), watch(trainer())
    first.start()
    gate.under_way()
    shell.request = {"metadata": {"cellId": "b"}, "header": {"msg_id": "2"}}
    watch(trainer())
    assert first.comm is not None and beside.comm is not None and first.state == "running"
    gate.let(50)
    shell.request = {"metadata": {"cellId": "a"}, "header": {"msg_id": "3"}}
    again = watch(trainer())
    assert first.comm is None and beside.comm is None and again.comm is not None and threads() == []


def test_python_can_end_while_it_trains():
    code = (
        "from training import trainer, settings; from bigbird_mini.viz import watch; import time\n"
        "w = watch(trainer(settings(steps=10**6))); w.start()\n"
        "while w.trainer.steps_done < 3: time.sleep(0.01)\n"
        "print(w.state)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=_with_tests(), capture_output=True, text=True, timeout=2 * LONG
    )
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "running", "")


def _with_tests():
    import os
    from pathlib import Path

    tests = Path(__file__).parents[1]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests)))}


# ---------------------------------------------------------------- words and pictures


def test_it_does_not_chatter():
    widget = watch(trainer(given=settings(steps=40)))
    before, heard = widget.answers, []
    widget.observe(lambda change: heard.append(widget.words), names=["answers"])
    widget.start()
    assert widget.wait(LONG)
    assert widget.answers - before <= 6  # start, three quarters, the last step, the end
    assert heard[0].startswith("Training: step ") and heard[-1].startswith("Finished: step 40 of 40, loss ")
    assert not any("second" in words or " ms" in words for words in heard)
    assert repr(widget) == f"TrainingDashboard: {widget.words}"


def test_pictures_come_no_faster_than_they_are_looked_at(monkeypatch):
    monkeypatch.setattr(watch_widget, "_PACE", 1e9)
    widget = watch(trainer(given=settings(steps=60)))
    shown = []
    widget.observe(lambda change: shown.append(widget.done), names=["curves"])
    widget.start()
    assert widget.wait(LONG)
    assert len(shown) <= 6 and widget.done == 60 and len(widget.curves["loss"][0]) == 60


def test_the_still_picture_is_the_history():
    given = trainer()
    given.run(6, progress=False)
    fig = draw_training(given.history, given.settings, [(3, "weight 1 → 2")])
    loss, rate, norm = (ax for ax in fig.axes if ax.axison)
    assert loss.lines[0].get_ydata() == pytest.approx(given.history.column("loss")[1])
    assert rate.lines[0].get_ydata() == pytest.approx(planned(given.settings)[1])
    assert rate.lines[1].get_ydata() == pytest.approx(given.history.column("learning_rate")[1])
    assert norm.get_title() == f"gradient norm: {given.history[-1]['gradient_norm']:.3g}"
    assert [text.get_text() for text in loss.texts] == ["weight 1 → 2"] and loss.get_xlim() == (0, 10)
    assert encode(fig)[1].startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="the history is empty"):
        draw_training([])
    assert draw_training([], given.settings).axes[0].get_title() == "learning rate"


def test_bundle():
    data, _ = watch(trainer())._repr_mimebundle_()
    assert data["image/png"] in data["text/html"] and "0 of 10 steps are done" in data["text/html"]


def test_the_words_alone_answer_questions():
    given = trainer(settings(steps=20, warmup=5))
    given.run(12, progress=False)
    words = describe_training(given.history, given.settings, [(7, "weight 1 → 2")])
    steps, loss = given.history.column("loss")
    # How far is it, and what was the loss at first and last?
    assert "12 of 20 steps are done." in words
    found = re.search(r"loss: (\S+) at step 1, (\S+) at step 12", words)
    assert [float(v) for v in found.groups()] == pytest.approx([loss[0], loss[-1]], rel=0.01)
    # When was it lowest?
    at = steps[loss.index(min(loss))]
    assert f"at step {at}." in re.search(r"^loss.*$", words, re.M)[0] or (at == 12 and "its lowest" in words)
    # Up to which step does the learning rate rise, and when was something changed?
    assert "rises to 0.01 at step 5" in words and "After step 7: weight 1 → 2." in words
    assert describe_training([]) == "0 steps are done."


def test_evaluation_is_a_curve_of_its_own():
    given = Trainer(Toy(), batches, settings(evaluate_every=5), evaluate=lambda m: {"accuracy": torch.tensor(0.5)})
    widget = watch(given)
    widget.start()
    assert widget.wait(LONG) and widget.curves["accuracy"] == [[5, 10], [0.5, 0.5], 1]
    assert widget.panels[:2] == ["loss", "accuracy"]
