"""The `check` of the small course: no torch, no tasks of the real one, and the same interface to the grader.

It displays a record of the score (task, points, max, outcome, why) and raises unless the answer is right.
"""

SCORE = "application/vnd.bigbird.score+json"
RIGHT = {
    "90.1": lambda double: double(21) == 42,
    "90.2": lambda total: total([1, 2, 4]) == 7,
    "90.3": lambda seven: seven == 7,
}


class NotPassed(AssertionError):
    def _render_traceback_(self):
        return [str(self)]


def check(number, answer):
    from IPython.display import display

    outcome, why = judged(number, answer)
    record = {"task": number, "points": 99, "max": 99, "outcome": outcome, "why": why}
    display({SCORE: record, "text/plain": outcome}, raw=True)
    if outcome != "right":
        raise NotPassed(outcome)


def judged(number, answer):
    try:
        return ("right", "") if RIGHT[number](answer) else ("wrong", "the result is another one")
    except (Exception, SystemExit) as error:
        if type(error) is NotImplementedError:  # input() raises a child of it
            return "not attempted", "Put your code in place of `raise NotImplementedError`."
        return "error", f"{type(error).__name__}: {error}"
