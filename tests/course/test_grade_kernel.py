"""A kernel under watch: each cell ends, and what ran well before is there again in the kernel after it."""

import os
import time

import pytest

pytest.importorskip("nbval")
import psutil

from bigbird_mini.course import kernel
from bigbird_mini.course.kernel import Kernels, Session
from bigbird_mini.course.limits import Limits

LIMITS = Limits(cell_seconds=3, file_seconds=60, memory_mb=1000, output_mb=1)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Kernels that do not load torch; yields what a kernel runs first otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        before = kernel.PROLOGUE
        patch.setattr(kernel, "PROLOGUE", before.replace('__import__("bigbird_mini.course.checking")', ""))
        assert before != kernel.PROLOGUE
        yield before


@pytest.fixture(scope="module")
def kernels(quick):
    mine = Kernels()
    mine.wanted = 99  # while one test runs, the kernel of the next one starts
    yield mine
    mine.close()


@pytest.fixture
def session(kernels, tmp_path):
    mine = Session(tmp_path, LIMITS, kernels)
    yield mine
    mine.close()


def test_a_new_kernel_runs_again_what_had_run_well(session, tmp_path):
    session.run("log = open('log.txt', 'a')")
    session.run("x = 20; log.write('x'); log.flush()")
    assert session.run("y = 1 / 0").ename == "ZeroDivisionError"
    assert session.run("import os; os._exit(3)").fault == "died"
    ran = session.run("x += 1", ask="x, 'y' in globals()")
    assert (ran.fault, ran.value) == ("", "(21, False)")
    assert (tmp_path / "log.txt").read_text() == "xx"
    assert session.good.count("import os; os._exit(3)") == 0


def test_what_fails_in_the_new_kernel_is_not_tried_a_third_time(session, tmp_path):
    """A cell that ends well once and never again."""
    twice = "import os, pathlib\nif pathlib.Path('was').exists():\n    os._exit(1)\npathlib.Path('was').touch()"
    session.run("x = 5")
    assert not session.run(twice).fault
    assert session.run("os._exit(1)").fault == "died"
    assert session.run("", ask="x").value == "5"
    assert session.good == ["x = 5", ""]


def test_the_time_of_a_file_ends(kernels, tmp_path):
    session = Session(tmp_path, Limits(cell_seconds=30, file_seconds=2), kernels)
    assert not session.run("import time; time.sleep(1)").fault
    began = time.monotonic()
    assert session.run("time.sleep(50)").fault == "time"
    assert session.run("x = 1").fault == "file time"
    assert time.monotonic() - began < 20
    session.close()


def test_output_is_limited_and_the_state_stays(session):
    session.run("x = 1")
    ran = session.run("while True:\n    print('y' * 1000)")
    assert ran.fault == "output" and ran.ended
    assert session.run("", ask="x").value == "1"


def test_an_exit_is_noted_and_not_obeyed(session):
    assert session.run("x = 1\nexit()").wants_exit
    assert session.run("quit()").wants_exit
    ran = session.run("", ask="x")
    assert ran.value == "1" and not ran.wants_exit


def test_the_notebooks_folder_is_seen_and_does_not_shadow_the_course(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(kernel, "PROLOGUE", quick)
    session = Session(tmp_path, LIMITS, Kernels())
    (tmp_path / "mine.py").write_text("number = 8")
    (tmp_path / "bigbird_mini.py").write_text("raise SystemExit")
    ran = session.run("import mine, os, bigbird_mini.course.checking", ask="mine.number, os.getcwd()")
    assert ran.value == repr((8, os.path.realpath(tmp_path))) and not ran.ename
    assert session.run("", ask=f"{kernel.GENUINE}.__module__").value == "'bigbird_mini.course.checking'"
    there = session.run("", ask="[name for name in ('check', 'torch', 'get_ipython') if name in globals()]").value
    assert there == "['get_ipython']", "nothing is defined beforehand"
    session.close()


def test_processes_of_a_notebook_end_with_it(session):
    child = "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    pid = int(session.run(child, ask="p.pid").value)
    assert psutil.pid_exists(pid)
    session.close()
    gone = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_children_count_for_memory(kernels, tmp_path):
    session = Session(tmp_path, Limits(cell_seconds=20, memory_mb=500), kernels)
    hungry = "x = bytearray(b'x' * 600_000_000); import time; time.sleep(600)"
    ran = session.run(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {hungry!r}])")
    assert ran.fault == "memory"
    session.close()


def test_while_one_notebook_runs_the_next_kernel_starts(tmp_path):
    kernels = Kernels()
    kernels.wanted = 1
    first = Session(tmp_path, LIMITS, kernels)
    spare = kernels.spare
    assert spare and spare.is_alive()
    kernels.wanted = 0
    second = Session(tmp_path, LIMITS, kernels)
    assert second.kernel is spare and kernels.spare is None
    first.run("x = 1")
    assert second.run("x").ename == "NameError"
    first.close()
    second.close()
