"""Tables of many trainings: cells in processes of their own, lines that survive a kill, and the shared command line."""

import argparse
import json
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_jobs
import torch
from small_jobs import Cell, execute
from training import batches, settings, trainer

from bigbird_mini.jobs import cells
from bigbird_mini.jobs.__main__ import main as jobs


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def line(cell, **more):
    return asdict(cell) | {"threads": 1} | more


# ---------------------------------------------------------------- cells in processes


def test_what_is_missing_runs_each_in_a_process_of_its_own(tmp_path):
    """One cell has its line already, one was under way, two cannot work, one is new."""
    done, under_way, new = Cell("done"), Cell("under way"), Cell("new", 1)
    cells.note(tmp_path, line(done))
    (tmp_path / "under way").mkdir()
    every = [done, Cell("fails", 7), under_way, Cell("dies"), new]
    told = []
    with pytest.raises(RuntimeError, match=r"^2 cells failed; the same command tries them again\. ") as failed:
        cells.fill(tmp_path, every, execute, lambda record: told.append(record["name"]) or "", processes=3, threads=2)
    assert "fails: ValueError: no way to 7" in str(failed.value)
    assert "dies: its process ended with code 3 (killed for want of memory?)" in str(failed.value)
    lines = {record["name"]: record for record in cells.noted(tmp_path, Cell)}
    assert lines.keys() == {"done", "under way", "new"} and sorted(told) == ["new", "under way"]
    assert lines["done"] == line(done)
    for cell, resume in ((under_way, True), (new, False)):
        record = lines[cell.name]
        assert cells.cell_of(Cell, record) == cell and record["folder"] == str(tmp_path / cell.name)
        assert (record["resume"], record["progress"], record["threads"]) == (resume, False, 2)
    assert len({lines["new"]["process"], lines["under way"]["process"], small_jobs.os.getpid()}) == 3


def test_a_cell_that_ctrl_c_reached_says_nothing_more(tmp_path, capfd):
    with pytest.raises(RuntimeError, match=r"its process ended with code 0"):
        cells._apart(execute, Cell("is stopped"), tmp_path / "x", 1)
    assert "Traceback" not in capfd.readouterr().err


def test_only_so_many_at_a_time_and_only_what_failed_is_tried_again(tmp_path, monkeypatch):
    every = [Cell("some", number) for number in range(8)]
    lock, under_way, most, asked, broken = threading.Lock(), 0, 0, [], {every[2], every[5]}

    def apart(_, cell, folder, threads):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            asked.append(cell)
        time.sleep(0.03)
        with lock:
            under_way -= 1
        if cell in broken:
            raise RuntimeError("no memory")
        return line(cell, folder=folder.name, threads=threads)

    monkeypatch.setattr(cells, "_apart", apart)
    with pytest.raises(RuntimeError, match=r"2 cells failed; .* again\. some: no memory; some: no memory$"):
        cells.fill(tmp_path, every, None, str, processes=3)
    assert sorted(cell.number for cell in asked) == list(range(8)) and asked[:2] == every[:2] and most == 3
    assert {record["number"] for record in cells.noted(tmp_path, Cell)} == {0, 1, 3, 4, 6, 7}
    asked.clear(), broken.clear()
    cells.fill(tmp_path, every, None, str, processes=1)
    assert asked == [every[2], every[5]] and len(cells.noted(tmp_path, Cell)) == 8
    asked.clear()
    cells.fill(tmp_path, every, None, str)
    assert asked == []


def test_ctrl_c_starts_no_further_cell(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cells, "_apart", lambda _, cell, *more: time.sleep(0.05) or asked.append(cell) or line(cell))

    def stop(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cells.fill(tmp_path, [Cell("some", number) for number in range(9)], None, stop, processes=2)
    assert len(asked) <= 4 and len(cells.noted(tmp_path, Cell)) == 1


def test_when_the_table_is_killed_its_cells_end_too(tmp_path):
    """Or the same command, given again, would train a second time in the same folder."""
    port = tmp_path / "goes on" / "port"
    process = subprocess.Popen([sys.executable, small_jobs.__file__, "fill", tmp_path], stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 100
    while not (port.exists() and port.read_text()) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)

    def alive():
        try:
            socket.create_connection(("127.0.0.1", int(port.read_text()))).close()
        except ConnectionRefusedError:
            return False
        return True

    before = alive()
    process.kill()
    process.wait()
    while (after := alive()) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert before and not after


# ---------------------------------------------------------------- lines


def test_lines_survive_a_kill(tmp_path):
    cells.note(tmp_path / "new", line(Cell("a"), test=0.9))
    with (tmp_path / "new" / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"name": "b", "numb')
    cells.note(tmp_path / "new", line(Cell("c"), test=0.8))
    cells.note(tmp_path / "new", line(Cell("a"), test=0.7))
    found = cells.noted(tmp_path / "new", Cell)
    assert [(record["name"], record["test"]) for record in found] == [("a", 0.7), ("c", 0.8)]
    raw = (tmp_path / "new" / "results.jsonl").read_bytes()
    assert raw.count(b"\n") == 4 and raw.endswith(b"\n") and b"\r" not in raw
    assert cells.noted(tmp_path / "nothing", Cell) == []


def test_lines_that_are_no_cell_are_passed_over(tmp_path):
    @dataclass(frozen=True)
    class Even(Cell):
        def __post_init__(self):
            if self.number % 2:
                raise ValueError

    lines = ["", "[1]", "3", '{"name": "a"}', '{"name": "a", "number": 3}', '{"name": "b", "number": 4, "test": 1}']
    (tmp_path / "results.jsonl").write_text("\n".join([*lines, '{"name": ["c"], "number": 2}']), "utf-8")
    assert cells.noted(tmp_path, Even) == [{"name": "b", "number": 4, "test": 1}]


def test_a_record_has_the_cell_the_findings_and_the_machine(monkeypatch):
    monkeypatch.setattr(cells.time, "perf_counter", lambda: 12.5)
    torch.set_num_threads(2)
    found = cells.record(Cell("a", 3), 10.0, {"test": [0.5, 7]})
    version = ".".join(map(str, sys.version_info[:3]))
    about = {"threads": 2, "torch": torch.__version__, "python": version}
    assert found == {"name": "a", "number": 3, "test": [0.5, 7], "wall": 2.5, **about}
    assert cells.cell_of(Cell, json.loads(json.dumps(found))) == Cell("a", 3)


def test_text_by_hand():
    assert cells.row("a", 1, "") == "| a | 1 |  |"
    assert cells.spread([0.5, 0.6, 0.7]) == "0.600 ± 0.100" and cells.spread([0.25], 1) == "0.2 (1 seed)"
    assert cells.spread(iter([])) == ""


# ---------------------------------------------------------------- one training


def test_one_training_stopped_and_gone_on_with_counts_all_its_seconds(tmp_path):
    folder = tmp_path / "deep" / "er"
    one = trainer(settings(steps=5), folder=folder)
    one.callbacks.append(lambda t, record: t.stop() if record["step"] == 2 else None)
    cells.trained(one, False, False)
    with pytest.raises(ValueError, match=r"er holds this training already; --resume goes on with it, or give another"):
        cells.trained(trainer(settings(steps=5), folder=folder), False, False)
    other = trainer(settings(steps=5), folder=folder)
    asked = []
    other.batches = lambda number: asked.append(number) or batches(number)
    seconds = cells.trained(other, True, False)
    assert asked == [2, 3, 4] and not other.model.training
    first, both = ([row["seconds"] for row in done.history] for done in (one, other))
    assert len(both) == 5 and both[:2] == first and seconds == pytest.approx(sum(both))
    alone = trainer(settings(steps=2))  # no folder, nothing to resume from
    assert cells.trained(alone, False, False) > 0 and alone.steps_done == 2


def test_without_tokenizers_the_vocabulary_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs the package tokenizers: pip install \"bigbird-mini\[lab\]\""):
        cells.vocabulary(300, small_jobs.library(1))


# ---------------------------------------------------------------- command line


def arguments(out, *words):
    parser = argparse.ArgumentParser()
    cells.add_arguments(parser, Path("runs/x"), "9")
    return parser.parse_args([*words, "--out", str(out)])


TABLE = SimpleNamespace(
    cells=lambda quick: [Cell("quick"), Cell("both")] if quick else [Cell("long"), Cell("both")],
    sentence=lambda record: f"sentence of {record['name']}",
    markdown=lambda records, quick: f"table of {[record['name'] for record in records]}, {quick}",
)


def test_one_training_from_the_command_line(tmp_path, capsys):
    asked = []

    def run(cell, *more):
        asked.append((cell, *more, torch.get_num_threads()))
        return line(cell)

    before = torch.get_num_threads()
    for words, resume, threads in (([], False, before), (["--resume", "--threads", "2"], True, 2)):
        assert cells.command(arguments(tmp_path, *words), Cell("a"), run, TABLE) == 0
        assert asked.pop() == (Cell("a"), tmp_path / "a", resume, True, threads) and not asked
        assert capsys.readouterr().out == "sentence of a\n"
    assert [record["name"] for record in cells.noted(tmp_path, Cell)] == ["a"]


def test_the_table_from_the_command_line(tmp_path, monkeypatch, capsys):
    asked = []

    def fill(out, every, run, tell, processes, threads):
        asked.append(([cell.name for cell in every], run, tell, processes, threads))
        cells.note(out, line(every[0]))

    monkeypatch.setattr(cells, "fill", fill)
    run = object()
    for words, names, more, told in (
        (["--table"], ["long", "both"], (2, 1), "table of ['long'], False\n"),
        (["--table", "--quick", "--processes", "5", "--threads", "3"], ["quick", "both"], (5, 3), None),
    ):
        assert cells.command(arguments(tmp_path, *words), Cell("a"), run, TABLE) == 0
        assert asked == [(names, run, TABLE.sentence, *more)]
        assert capsys.readouterr().out == (told or "table of ['long', 'quick'], True\n")
        asked.clear()
    for words in (["--markdown"], ["--markdown", "--table"]):
        assert cells.command(arguments(tmp_path, *words), Cell("a"), run, TABLE) == 0
        assert capsys.readouterr().out == "table of ['long', 'quick'], False\n" and not asked


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threads", "0"], "threads=0 must be at least 1"),
        (["--threads", "-1", "--table"], "threads=-1 must be at least 1"),
        (["--processes", "0", "--table"], "processes=0 must be at least 1"),
    ],
)
def test_bad_numbers_are_refused_before_anything_runs(words, says, tmp_path):
    with pytest.raises(ValueError, match=re.escape(says)):
        cells.command(arguments(tmp_path, *words), Cell("a"), None, TABLE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "NAME"),
        (["cooking"], "invalid choice: 'cooking' .*genome"),
        *[([job, "--pattern", "W+X"], r"invalid choice: 'W\+X'") for job in ("genome", "mlm", "imports")],
    ],
)
def test_words_that_are_not_known_get_the_known_ones(words, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        jobs(words)
    assert stopped.value.code == 2
    assert re.search(says, capsys.readouterr().err)
