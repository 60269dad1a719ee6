"""Whatever a learner's function does, one sentence comes back, and nothing outside it has changed."""

import random
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from bigbird_mini.course import catalogue, judging, running
from bigbird_mini.course.catalogue import add, all_tasks
from bigbird_mini.course.checking import check
from bigbird_mini.course.judging import evaluate
from bigbird_mini.course.running import Clock, Crashed, OutOfTime, Prints, call

TASKS = list(all_tasks())
every_task = pytest.mark.parametrize("number", TASKS)
right = all_tasks()["1.1"].solution


@pytest.fixture
def quick(monkeypatch):
    """Task 1.1 with little time."""
    monkeypatch.setattr(catalogue, "_TASKS", dict(catalogue._TASKS))
    add(replace(all_tasks()["1.1"], seconds=0.4))
    return "1.1"


# ---------------------------------------------------------------- stubs, crashes, things that are no functions


def stub(*args, **kwargs):
    # TODO: your code here
    raise NotImplementedError


def dots(*args):
    return ...


@every_task
@pytest.mark.parametrize("answer", [stub, dots, ..., lambda *args: NotImplemented])
def test_stubs_are_not_attempted(number, answer):
    result = evaluate(number, answer)
    assert (result.outcome, result.points) == ("not attempted", 0)


@every_task
def test_crash_shows_the_learners_line(number):
    def crashing(*args):
        scores = 1 / 0
        return scores

    result = evaluate(number, crashing)
    assert (result.outcome, result.points, result.mistake) == ("error", 0, None)
    assert "ZeroDivisionError: division by zero (called with " in result.why
    assert result.why.splitlines()[1:] == [
        "Your code:",
        f"  line {crashing.__code__.co_firstlineno + 1}: scores = 1 / 0",
    ]


@every_task
@pytest.mark.parametrize("answer", [3, torch.ones(2), "head_attention", None])
def test_a_value_where_a_function_is_asked(number, answer):
    result = evaluate(number, answer)
    assert result.outcome == "wrong" and "Hand over the function itself" in result.why


@every_task
def test_wrong_parameters(number):
    result = evaluate(number, lambda: 1)
    assert result.outcome == "error" and "your function takes (), and it is called with (" in result.why


class Head:
    def __call__(self, q, k, v):
        return right(q, k, v)


class Slots(torch.nn.Module):
    def forward(self, q, k, v):
        return right(q, k, v)


def test_classes_are_refused_and_callable_objects_taken():
    assert evaluate("1.1", Head).why == "Hand over a function: `Head` is a class."
    assert evaluate("1.1", Head()).outcome == evaluate("1.1", Slots()).outcome == "right"


def half_done(q, k, v, key_mask):
    if not key_mask.all():
        raise NotImplementedError
    return all_tasks()["1.2"].solution(q, k, v, key_mask)


def test_unfinished_is_not_the_same_as_not_begun():
    result = evaluate("1.2", half_done)
    assert result.outcome == "error" and result.why.startswith("NotImplementedError (called with")


def from_torch(*args):
    raise_it = [NotImplementedError("Could not run 'aten::conv' with these arguments")]
    raise raise_it[0]


def leaving(*args):
    sys.exit(3)


class Odd(BaseException):
    def __str__(self):
        raise ValueError("not even this")


def odd(*args):
    raise Odd(1)


def deep(*args, n=0):
    return deep(*args, n=n + 1)


def test_exceptions_of_every_kind():
    assert evaluate("1.1", from_torch).outcome == "error"
    assert evaluate("1.1", leaving).why.startswith("SystemExit: 3 (called with")
    assert evaluate("1.1", odd).why.startswith("Odd (called with q of shape (6, 4)")
    result = evaluate("1.1", deep)
    assert result.why.startswith("RecursionError: maximum recursion depth exceeded")
    assert len(result.why.splitlines()) == 2 + judging.LINES_SHOWN


def test_only_the_learners_lines_are_shown():
    def learner(numbers):
        return max(numbers)  # fails in C: the line here is the last one

    with pytest.raises(Crashed) as caught:
        call(learner, {"numbers": []}, Clock(5))
    assert str(caught.value) == "called with numbers = []"
    assert judging._is_learners("/var/folders/ipykernel_123/456.py", set())
    assert judging._is_learners("C:\\Temp\\ipykernel_123\\456.py", set())
    assert judging._is_learners("<ipython-input-3-abc>", set())
    assert not judging._is_learners(judging.__file__, {judging.__file__})


def test_the_readers_own_interrupt_is_not_swallowed():
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate("1.1", interrupted)
    assert not running.busy()


# ---------------------------------------------------------------- what comes back


def as_kind(make):
    return lambda q, k, v: make(right(q, k, v))


REFUSED = {
    "None": (as_kind(lambda x: None), "Your function returns None: is there a `return` line?"),
    "an array": (as_kind(lambda x: x.numpy()), "a NumPy array of shape (6, 6). torch.from_numpy(...) makes"),
    "a list": (as_kind(lambda x: x.tolist()), "this is a list. torch.stack"),
    "a tuple": (as_kind(lambda x: (x, None)), "this is a tuple. Return the result alone"),
    "a number": (as_kind(lambda x: 3.5), "this is a float (3.5)"),
    "a generator": (lambda q, k, v: (row for row in q), "Your function is a generator: it says `yield`"),
    "integers": (as_kind(lambda x: x.long()), "the result holds torch.int64 numbers, they should be floating point"),
    "float16": (
        as_kind(lambda x: x.half()),
        "torch.float16 numbers, they should be the inputs' own precision, float64",
    ),
    "complex": (as_kind(lambda x: x.to(torch.complex64)), "torch.complex64 numbers"),
    "meta": (as_kind(lambda x: x.to("meta")), "on the device meta, and holds no numbers"),
    "flat": (as_kind(lambda x: x.flatten()), "shape (36,), it should have (6, 6) (query, key). It has 1 dimension in"),
    "short": (as_kind(lambda x: x[:5]), "shape (5, 6), it should have (6, 6) (query, key). Dimension 0 is the first"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_results_of_another_kind_are_told_in_words(kind):
    answer, words = REFUSED[kind]
    result = evaluate("1.1", answer)
    assert result.outcome == "wrong" and words in result.why, result.why


def test_swapped_dimensions_are_told():
    def turned(q, k, v):
        out = right(q, k, v)
        return out.T if len(q) == 7 else out

    assert (
        "shape (4, 7), it should have (7, 4) (query, number). Two dimensions are swapped."
        in evaluate("1.1", turned).why
    )
    assert "True and False (torch.bool)" in evaluate("1.4", lambda *x: all_tasks()["1.4"].solution(*x).long()).why
    assert (
        "a whole number (int) should come back, this is a float"
        in evaluate("1.3", lambda n, h, b=4: 1.0 * n * n * h * b).why
    )
    assert "this is a tensor of shape ()" in evaluate("1.3", lambda n, h, b=4: torch.tensor(n * n * h * b)).why


@pytest.mark.parametrize(
    "make",
    [
        torch.Tensor.float,
        lambda x: x.clone().requires_grad_(),
        lambda x: x.to_sparse(),
        lambda x: x.T.contiguous().T,
        torch.nn.Parameter,
    ],
)
def test_results_that_are_right_all_the_same(make):
    assert evaluate("1.1", as_kind(make)).outcome == "right"


def test_numpy_integers_are_whole_numbers():
    assert evaluate("1.3", lambda n, heads, b=4: np.int64(n) ** 2 * heads * b).outcome == "right"


async def coroutine(q, k, v):
    return right(q, k, v)


def test_coroutine():
    assert "take the `async`" in evaluate("1.1", coroutine).why


# ---------------------------------------------------------------- what it does meanwhile


def test_changed_inputs():
    def scaled(q, k, v):
        k /= q.shape[1] ** 0.5
        return torch.softmax(q @ k.T, -1) @ v

    def popped(q, k, v, reads):
        reads[0].pop()
        return v

    assert "changes its input `k` in place" in evaluate("1.1", scaled).why
    assert "changes its input `reads` in place" in evaluate("1.5", popped).why
    assert evaluate("1.1", right).outcome == evaluate("1.5", all_tasks()["1.5"].solution).outcome == "right"


def test_global_state_is_as_before():
    def meddling(q, k, v):
        torch.manual_seed(5), random.seed(5), np.random.seed(5)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        sys.setrecursionlimit(5000)
        return right(q, k, v)

    def state():
        numbers = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
        return numbers, torch.get_default_dtype(), torch.is_grad_enabled(), sys.getrecursionlimit()

    before = state()
    assert evaluate("1.1", meddling).outcome == "right"
    assert state() == before
    assert evaluate("1.1", lambda q, k, v: torch.rand(6, 6)).outcome == "wrong"
    assert state() == before


def test_chance_is_found_out():
    def lucky(q, k, v, count=[0]):  # noqa: B006
        count[0] += 1
        return right(q, k, v) if count[0] <= 4 else 0 * right(q, k, v)

    assert evaluate("1.1", lucky).why.startswith("A second call with the same inputs gives another result")


def test_calls_of_check_inside():
    def nested(q, k, v):
        check("1.1", nested)

    result = evaluate("1.1", nested)
    assert result.outcome == "error" and "check() was called inside a function that is being checked" in result.why
    assert evaluate("1.1", right).outcome == "right"


def test_prints_are_cut_and_shown_once(capsys):
    def chatty(q, k, v):
        for line in range(10_000):
            print("line", line)
        print("to stderr", file=sys.stderr)
        return right(q, k, v)

    result = evaluate("1.1", chatty)
    assert result.outcome == "right" and capsys.readouterr() == ("", "")
    lines = result.printed.splitlines()
    assert lines[:2] == ["line 0", "line 1"] and lines[running.LINES_KEPT :] == ["... and 9,981 more lines"]
    check("1.1", chatty)
    out, err = capsys.readouterr()
    assert out.startswith("Your function printed:\nline 0\n") and len(out.splitlines()) == 23 and err == ""


def test_prints_without_line_ends():
    prints = Prints()
    for _ in range(10_000):
        prints.write("x")
    assert prints.text() == "x" * running.LINES_KEPT * running.LINE_LENGTH + " ..."
    prints = Prints()
    prints.write("a\nb")
    prints.write("c\n")
    assert prints.text() == "a\nbc"


# ---------------------------------------------------------------- time


def endless(q, k, v):
    while True:
        pass


def sleeping(q, k, v):
    time.sleep(600)


def stubborn(q, k, v):
    while True:
        try:
            len(q)
        except Exception:
            len(q)


def very_stubborn(q, k, v):
    while True:
        try:
            len(q)
        except:  # noqa: E722
            len(q)


def printing(q, k, v):
    while True:
        print("on and on")


@pytest.mark.parametrize("answer", [endless, sleeping, stubborn, very_stubborn, printing])
def test_what_never_ends_is_stopped_with_a_sentence(quick, answer):
    start = time.monotonic()
    result = evaluate(quick, answer)
    assert result.outcome == "error" and result.why.startswith("Stopped after 0.4 s: an endless loop, or far too slow")
    assert "Your code:\n  line " in result.why
    assert time.monotonic() - start < 20
    time.sleep(0.3)  # nothing is thrown into us afterwards
    assert not any(isinstance(thread, running._Watch) and thread.is_alive() for thread in threading.enumerate())


def test_slow_in_sum_is_too_slow(quick):
    def slow(q, k, v):
        time.sleep(0.15)
        return right(q, k, v)

    assert evaluate(quick, slow).why.startswith("Stopped after 0.4 s")


def test_swallowing_the_end_does_not_pass(quick):
    def swallowing(q, k, v):
        try:
            while True:
                pass
        except BaseException:
            return right(q, k, v)

    assert evaluate(quick, swallowing).why.startswith("Stopped after 0.4 s")


def test_time_limit_in_another_thread(quick):
    results = []
    thread = threading.Thread(target=lambda: results.append(evaluate(quick, endless)))
    thread.start()
    thread.join(20)
    assert results[0].why.startswith("Stopped after 0.4 s")


def test_interrupt_by_the_reader_while_it_runs():
    """Ctrl+C before the time is up is the reader's, and stays an interrupt."""
    clock = Clock(30)

    def pressing():
        import _thread

        _thread.interrupt_main()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        clock.run(pressing)
    with pytest.raises(OutOfTime):
        Clock(0.05).run(endless, 1, 2, 3)
