"""flight("1.5"): which scores does your function compute, and how many would do? As in golf there is a par.

The inputs are random, so that a row of a matrix is known by its direction, scaled or not: wherever rows of q meet rows
of k in a product, that pair has been scored. A function that leaves PyTorch (lists, NumPy) leaves no trace.
"""

import html
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bigbird_mini.viz.failure import Failure, describe_failure, draw_failure
from bigbird_mini.viz.show import img_tag

from .catalogue import Task
from .handover import Closed, known_task, names_of_caller, opened
from .running import Clock, call, sheltered
from .tally import PRODUCTS, Tally, aten

_SAME = 1 - 1e-6  # cosine from which on two directions are one, float32 included


class Recorder(Tally):
    """A Tally that also knows which query met which key: `pairs`, int (queries, keys), how often each was scored."""

    def __init__(self, q: Tensor, k: Tensor) -> None:
        super().__init__()
        self.rows = tuple(_directions(x.double()) for x in (q, k))  # (n, d), (m, d)
        self.pairs = torch.zeros(len(q), len(k), dtype=torch.int64)

    def product(self, operation: Any, args: Any) -> None:
        d = self.rows[0].shape[1]
        if operation in PRODUCTS:
            left, right = (args[k].detach().double() for k in PRODUCTS[operation])
            if left.shape[-1] != d:
                return
            left = left.reshape(1, -1, d) if left.dim() < 3 else left  # (B, p, d)
            right = right.reshape(1, d, -1) if right.dim() < 3 else right  # (B, d, s)
            self._meet(left, right.transpose(1, 2))
        elif operation is aten.mul and all(isinstance(x, Tensor) and x.dim() for x in args[:2]):
            left, right = torch.broadcast_tensors(*(x.detach().double() for x in args[:2]))
            for axis in (k for k, size in enumerate(left.shape) if size == d):
                self._meet(*(x.movedim(axis, -1).reshape(-1, 1, d) for x in (left, right)))
        elif "scaled_dot_product" in str(operation):
            self._meet(*(x.detach().double().flatten(0, -3) for x in args[:2]))

    def _meet(self, left: Tensor, right: Tensor) -> None:
        """Each row of left (B, p, d) was multiplied with each row of right (B, s, d)."""
        for x, y in ((left, right), (right, left)):
            queries, keys = (_found(rows, z) for rows, z in zip(self.rows, (x, y), strict=True))  # (B, n), (B, m)
            self.pairs += (queries.T @ keys).round().long()


def _directions(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-300)


def _found(rows: Tensor, x: Tensor) -> Tensor:
    """(B, n): how often each of the n rows stands in each of the B tables of x, in whatever length."""
    return ((_directions(x) @ rows.T).abs() > _SAME).double().sum(1)


@dataclass(frozen=True)
class Flight:
    """What `flight` shows. needed, computed: scores in each block, int (query blocks, key blocks).

    multiply_adds, largest, peak: as in `Tally`; par_adds: the multiply-adds that would do.
    """

    task: Task
    needed: Tensor
    computed: Tensor
    multiply_adds: int
    par_adds: int
    largest: tuple[tuple[int, ...], int]
    peak: int

    @property
    def over(self) -> int:
        """Scores above par."""
        return int(self.computed.sum() - self.needed.sum())

    def lines(self) -> list[str]:
        """What was counted, a sentence each."""
        got, par = int(self.computed.sum()), int(self.needed.sum())
        if not got:
            return [
                f"Par is {par:,} scores. The recorder saw none of yours: it sees what PyTorch multiplies, not what "
                "lists or NumPy do."
            ]
        blocks, of = int((self.computed > 0).sum()), int((self.needed > 0).sum())
        most = self.multiply_adds / len(self.computed)
        over = "par" if not self.over else f"{abs(self.over):,} {'over' if self.over > 0 else 'under'} par"
        out = [f"Scores: {got:,}, {over} (par {par:,})."]
        out.append(f"Key blocks read, summed over the {len(self.computed)} query blocks: {blocks} (par {of}).")
        out.append(
            f"Multiply-adds in matrix products: {self.multiply_adds:,}, {most:,.0f} for each query block "
            f"(par {self.par_adds:,})."
        )
        shape, size = self.largest
        return [*out, f"The largest tensor you make is {shape}, {size:,} bytes; at most {self.peak:,} bytes at a time."]

    def picture(self) -> tuple[str, str] | None:
        """Par and yours, block by block, as SVG and in words; None where they are the same, or nothing was seen."""
        differs = self.computed != self.needed
        if not differs.any() or not self.computed.any():
            return None
        tables = (x.double().numpy() for x in (self.needed, self.computed))
        f = Failure(*tables, differs.numpy(), axes=("query block", "key block"))
        return draw_failure(f), f"Scores computed in each block, par as expected. {describe_failure(f)}"

    def __repr__(self) -> str:
        picture = self.picture()
        return "\n".join([*self.lines(), *([picture[1]] if picture else [])])

    def _repr_html_(self) -> str:
        page = "".join(f'<p style="margin: 4px 0">{html.escape(line)}</p>' for line in self.lines())
        if picture := self.picture():
            page += f'<div style="margin: 6px 0">{img_tag(*picture)}</div>'
        return f'<div style="color: var(--jp-content-font-color1, inherit)">{page}</div>'


def flight(number: str) -> Flight | Closed:
    """Run your answer to a task, found by its name, under the recorder; opens when the task is right.

    Misuse, a ValueError, where the task has no par.
    """
    task = known_task(number, "par")
    mine = opened(task, names_of_caller())
    return mine if isinstance(mine, Closed) else fly(task, mine)


def fly(task: Task, answer: Any) -> Flight:
    """The flight of one answer over the task's par."""
    inputs = task.par.inputs()
    needed = task.par.needed(**inputs)  # (queries, keys)
    recorder = Recorder(inputs["q"], inputs["k"])

    def recorded(*given: Any) -> Any:
        with recorder:
            return answer(*given)

    with sheltered():
        call(recorded, inputs, Clock(task.seconds))
    b = task.par.block
    in_blocks = [x.long().unflatten(1, (-1, b)).unflatten(0, (-1, b)).sum((1, 3)) for x in (needed, recorder.pairs)]
    d, e = inputs["q"].shape[-1], inputs["v"].shape[-1]
    par_adds = int(needed.sum()) * (d + e)
    return Flight(task, *in_blocks, recorder.multiply_adds, par_adds, recorder.largest, recorder.peak)
