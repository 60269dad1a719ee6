"""Three tasks that need no torch, for the tests of the grader."""

from bigbird_mini.course.checking import Crashed, Wrong, task


def _call(function, *inputs):
    try:
        return function(*inputs)
    except (Exception, SystemExit) as error:
        raise Crashed(error, "called with numbers") from None


def _same(found, expected):
    if found != expected:
        raise Wrong(f"found {found!r}, expected {expected!r}")


@task("90.1", "twice", points=2)
def twice(double):
    _same(_call(double, 21), 42)


@task("90.2", "the sum", points=2)
def the_sum(total):
    _same(_call(total, [1, 2, 4]), 7)


@task("90.3", "a number", points=1)
def a_number(seven):
    _same(seven, 7)
