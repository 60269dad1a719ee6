"""A kernel under watch, and one learner's notebook in it.

nbval waits up to its whole timeout for a kernel that is gone, keeps all that an endless loop prints, and gives up the
rest of the notebook after either. Here each cell ends: by itself, or because it passed a limit, or because the kernel
died. Then a new kernel runs again what had run well, and the notebook goes on.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from jupyter_client.manager import KernelManager
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

from .limits import Limits

SCORE = "application/vnd.bigbird.score+json"
START_SECONDS = 60
LOOK_SECONDS = 0.2  # between two looks at the kernel's life and memory
GRACE_SECONDS = 2  # for an interrupted cell to end, and for late messages of one that ended
MESSAGES_AT_ONCE = 500
MESSAGE_BYTES = 200  # counted for each message beside what it says
# Run before any cell, while the kernel is still in a folder of its own: a file called torch.py or a package called
# bigbird_mini beside the notebook cannot take the place of ours. exit() is noted, not obeyed.
PROLOGUE = """
__import__("bigbird_mini.course.checking")
get_ipython().ask_exit = lambda: get_ipython().payload_manager.write_payload({"source": "ask_exit", "keepkernel": True})
"""
# the check of the course itself, whatever the notebook calls `check`
GENUINE = '__import__("bigbird_mini.course.checking", fromlist=["check"]).check'


@dataclass
class Ran:
    """What became of one cell. `fault` is "" where it ended by itself, be it with an error (`ename`)."""

    fault: str = ""  # time, file time, memory, output, died
    ename: str = ""
    evalue: str = ""
    traceback: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)  # the scores that `check` displayed
    wants_exit: bool = False
    value: str = ""  # what the expression gave that was asked for beside the cell
    seconds: float = 0.0
    printed: int = 0  # bytes, about
    replied: bool = False
    idle: bool = False

    @property
    def ended(self) -> bool:
        """Whether the kernel has said all that it has to say about this cell."""
        return self.replied and self.idle


class Kernel:
    """A Python kernel in a process of its own, which is started at once and waited for in `ready`."""

    def __init__(self) -> None:
        self.home = tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True)
        # a fresh IPython folder: neither the grader's start-up files and history, nor what another notebook left there
        env = os.environ | {"IPYTHONDIR": str(Path(self.home.name) / "ipython"), "BIGBIRD_GRADING": "1"}
        self.manager = KernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager())
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        arguments = [f"--IPKernelApp.code_to_run={PROLOGUE}"]
        self.manager.start_kernel(cwd=self.home.name, env=env, extra_arguments=arguments, **quiet)
        self.process = psutil.Process(self.manager.provisioner.pid)
        self.client = self.manager.client()
        self.client.start_channels()

    def ready(self, folder: Path) -> None:
        """Wait until cells can run, then go to the notebook's folder. RuntimeError where the kernel does not start."""
        self.client.wait_for_ready(timeout=START_SECONDS)
        ran = self.run(f"__import__('os').chdir({str(folder)!r})", START_SECONDS, Limits())
        if ran.fault or ran.ename:
            raise RuntimeError(ran.fault or f"{ran.ename}: {ran.evalue}")

    def is_alive(self) -> bool:
        return self.manager.has_kernel and self.manager.is_alive()

    def stop(self) -> None:
        """End the kernel and every process that it started."""
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.client.stop_channels()
        if self.manager.has_kernel:
            self.manager.shutdown_kernel(now=True)
        self.home.cleanup()

    def run(self, source: str, seconds: float, limits: Limits, ask: str = "") -> Ran:
        """Run a cell to its end, whatever that is; `ask` is an expression to evaluate after it.

        A cell that passes a limit is interrupted; where it does not listen, the kernel is stopped.
        """
        ran, began = Ran(), time.monotonic()
        request = self.client.execute(
            source,
            store_history=False,
            allow_stdin=False,
            stop_on_error=False,
            user_expressions={"ask": ask} if ask else None,
        )
        look, patience = began, float("inf")
        while not ran.ended and (now := time.monotonic()) < patience:
            if now >= look:
                look = now + LOOK_SECONDS
                if not self.is_alive() or self._memory() > limits.memory_mb * 1e6:
                    ran.fault = "memory" if self.is_alive() else ran.fault or "died"
                    break
            if not ran.fault and (now > began + seconds or ran.printed > limits.output_mb * 1e6):
                ran.fault = "time" if now > began + seconds else "output"
                patience = now + GRACE_SECONDS
                self.manager.interrupt_kernel()
            self._listen(request, ran)
            if ran.replied:
                patience = min(patience, time.monotonic() + GRACE_SECONDS)
        if ran.fault and not ran.ended:
            self.stop()
        ran.seconds = time.monotonic() - began
        return ran

    def _listen(self, request: str, ran: Ran) -> None:
        """Take what the kernel has sent; wait a little where that is nothing."""
        for number in range(MESSAGES_AT_ONCE):
            try:
                message = self.client.get_iopub_msg(timeout=0 if number else 0.05)
            except Empty:
                break
            if message["parent_header"].get("msg_id") == request:
                _take_output(message, ran)
        try:
            message = self.client.get_shell_msg(timeout=0)
        except Empty:
            return
        if message["parent_header"].get("msg_id") == request:
            _take_reply(message["content"], ran)

    def _processes(self) -> list[psutil.Process]:
        try:
            return [*self.process.children(recursive=True), self.process]
        except psutil.Error:
            return []

    def _memory(self) -> int:
        """Bytes in memory, of the kernel and its children."""
        total = 0
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total


def _take_output(message: dict[str, Any], ran: Ran) -> None:
    content, kind = message["content"], message["msg_type"]
    if kind == "status":
        ran.idle = ran.idle or content["execution_state"] == "idle"
        return
    text = content.get("text", "") if kind == "stream" else str(content)
    ran.printed += MESSAGE_BYTES + len(text) + sum(len(part) for part in message.get("buffers", ()))
    if kind == "display_data" and isinstance(record := content["data"].get(SCORE), dict):
        ran.records.append(record)


def _take_reply(content: dict[str, Any], ran: Ran) -> None:
    ran.replied = True
    if content["status"] != "ok":
        ran.ename, ran.evalue = content.get("ename", "Aborted"), content.get("evalue", "the kernel refused the cell")
        ran.traceback = content.get("traceback", [])
    ran.wants_exit = any(part.get("source") == "ask_exit" for part in content.get("payload", ()))
    asked = content.get("user_expressions", {}).get("ask", {})
    ran.value = asked.get("data", {}).get("text/plain", "")


class Kernels:
    """Hands out fresh kernels; while one is at work, the next one starts. `wanted` counts notebooks still to come."""

    def __init__(self) -> None:
        self.spare: Kernel | None = None
        self.wanted = 0

    def take(self, folder: Path) -> Kernel:
        """A kernel that nobody has used, in `folder`."""
        kernel, self.spare = self.spare or Kernel(), None
        try:
            kernel.ready(folder)
        except BaseException:
            kernel.stop()
            raise
        if self.wanted > 0:
            self.spare = Kernel()
        return kernel

    def close(self) -> None:
        if self.spare:
            self.spare.stop()
        self.spare = None


class Session:
    """One notebook being run: cell after cell, in a new kernel where the old one is gone."""

    def __init__(self, folder: Path, limits: Limits, kernels: Kernels) -> None:
        self.folder, self.limits, self.kernels = folder, limits, kernels
        self.good: list[str] = []  # what ended by itself, to be run again in a new kernel
        self.seconds = 0.0
        self.kernel: Kernel | None = kernels.take(folder)

    def run(self, source: str, ask: str = "") -> Ran:
        """Run a cell after those that were run before, within what is left of the file's time."""
        if not (self.kernel and self.kernel.is_alive()):
            self._start_again()
        ran = self._run(source, ask)
        if not ran.fault:
            self.good.append(source)
        return ran

    def close(self) -> None:
        if self.kernel:
            self.kernel.stop()
        self.kernel = None

    def _run(self, source: str, ask: str = "") -> Ran:
        left = self.limits.file_seconds - self.seconds
        if left <= 0 or self.kernel is None:
            return Ran(fault="file time")
        ran = self.kernel.run(source, min(left, self.limits.cell_seconds), self.limits, ask)
        self.seconds += ran.seconds
        return ran

    def _start_again(self) -> None:
        """A new kernel in which all good cells have run. One that does not end this time is good no longer."""
        waiting: list[str] = []
        while self.seconds < self.limits.file_seconds and not (self.kernel and self.kernel.is_alive()):
            self.close()
            self.kernel = self.kernels.take(self.folder)
            waiting = list(self.good)
            while waiting and self.kernel.is_alive():
                if self._run(waiting[0]).fault:
                    self.good.remove(waiting[0])
                waiting.pop(0)
