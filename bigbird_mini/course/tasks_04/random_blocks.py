"""Task 4.1: random blocks that avoid what is read already, fixed by a seed."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from ..running import drew_globally
from .common import LESSON, LOOPS, TENSORS, TICKET, band, with_globals


def random_blocks(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    """For each seed, per_row free blocks in every row: taken bool (N, N) -> bool (S, N, N)."""
    n = len(taken)
    drawn = torch.zeros(len(seeds), n, n, dtype=torch.bool)
    for k, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)  # one of its own
        for row in range(n):
            free = (~taken[row]).nonzero().flatten()
            order = torch.randperm(len(free), generator=generator)
            drawn[k, row, free[order[:per_row]]] = True  # fewer where fewer are free
    return drawn


def _cases() -> list[Case]:
    nothing = torch.zeros(40, 40, dtype=torch.bool)
    return [
        Case(
            "For 16 blocks, a window of 3 and two global blocks, 2 in a row, seeds [3, 8, 3]",
            {"taken": with_globals(band(16, 3), 0, -1), "per_row": 2, "seeds": [3, 8, 3]},
        ),
        Case(
            "For 7 blocks, a window of 5 and one global block, 3 in a row (some rows have fewer left), seeds [0, 1]",
            {"taken": with_globals(band(7, 5), 2), "per_row": 3, "seeds": [0, 1]},
        ),
        Case(
            "For 40 blocks, of which none is taken, 2 in a row, seeds 0 to 11",
            {"taken": nothing, "per_row": 2, "seeds": list(range(12))},
        ),
        Case(
            "For 9 blocks, a window of 3, 1 in a row, seeds 100 to 299",
            {"taken": band(9, 3), "per_row": 1, "seeds": list(range(100, 300))},
        ),
        Case(
            "For 5 blocks, none in a row, seeds [0]",
            {"taken": band(5, 1), "per_row": 0, "seeds": [0]},
        ),
    ]


def _hashed(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
    for k, seed in enumerate(seeds):
        for i, row in enumerate(taken.tolist()):
            free = [j for j, closed in enumerate(row) if not closed]
            out[k, i, sorted(free, key=lambda j: _ticket(seed, i, j))[:per_row]] = True
    return out


def _ticket(*place: int) -> bytes:
    return hashlib.sha256(str(place).encode()).digest()


def _at_once(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    tickets = torch.stack([torch.rand(taken.shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    rank = tickets.masked_fill(taken, 2.0).argsort(-1).argsort(-1)
    return (rank < per_row) & ~taken


def _numpy(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    out = np.zeros((len(seeds), *taken.shape), bool)
    for k, seed in enumerate(seeds):
        for i, row in enumerate(taken.numpy()):
            free = np.flatnonzero(~row)
            rng = np.random.default_rng([seed, i])
            out[k, i, rng.choice(free, min(per_row, len(free)), replace=False)] = True
    return torch.from_numpy(out)


# ---------------------------------------------------------------- wrong answers

Choose = Callable[[list[int], int, random.Random], list[int]]


def _by_row(choose: Choose, start: Callable[..., Any] = lambda seed, row: seed * 1000 + row) -> Any:
    """A wrong answer. choose: (free, per_row, generator) -> blocks; start: what the generator of a row starts from."""

    def wrong(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
        out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
        for k, seed in enumerate(seeds):
            for i, row in enumerate(taken.tolist()):
                free = [j for j, closed in enumerate(row) if not closed]
                out[k, i, choose(free, per_row, random.Random(start(seed, i)))] = True
        return out

    return wrong


def _sample(free: list[int], per_row: int, rng: random.Random) -> list[int]:
    return rng.sample(free, min(per_row, len(free)))


def _seeded_globally(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
    for k, seed in enumerate(seeds):
        torch.manual_seed(seed)
        for i in range(len(taken)):
            free = (~taken[i]).nonzero().flatten()
            out[k, i, free[torch.randperm(len(free))[:per_row]]] = True
    return out


def _numpy_globally(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
    for k, seed in enumerate(seeds):
        np.random.seed(seed)
        for i in range(len(taken)):
            out[k, i, np.random.permutation(np.flatnonzero(~taken[i].numpy()))[:per_row]] = True
    return out


def _one_generator(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    rng = random.Random(seeds[0])
    return torch.stack([_by_row(_sample, lambda seed, row: rng.random())(taken, per_row, [s])[0] for s in seeds])


def _topk(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    """The lowest tickets of a row, those of taken blocks raised: where too few are free, taken ones come in."""
    tickets = torch.stack([torch.rand(taken.shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
    return tickets.masked_fill(taken, 2.0).argsort(-1).argsort(-1) < per_row


def _from_all(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    return _at_once(torch.zeros_like(taken), per_row, seeds)


def _own_row_only(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    return _at_once(torch.eye(len(taken), dtype=torch.bool), per_row, seeds)


def _one_order(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    """One order of the blocks for all rows; each row takes the first that are free."""
    out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
    for k, seed in enumerate(seeds):
        order = torch.randperm(len(taken), generator=torch.Generator().manual_seed(seed)).tolist()
        for i, row in enumerate(taken.tolist()):
            out[k, i, [j for j in order if not row[j]][:per_row]] = True
    return out


def _both_ways(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    drawn = random_blocks(taken, per_row, seeds)
    return (drawn | drawn.mT) & ~taken


def _next_free(taken: Tensor, per_row: int, seeds: list[int]) -> Tensor:
    """A block of all; where that is taken, the next one that is not."""
    out = torch.zeros(len(seeds), *taken.shape, dtype=torch.bool)
    n = len(taken)
    for k, seed in enumerate(seeds):
        rng = random.Random(seed)
        for i, row in enumerate(taken.tolist()):
            closed = list(row)
            for _ in range(min(per_row, n - sum(row))):
                j = rng.randrange(n)
                while closed[j]:
                    j = (j + 1) % n
                closed[j] = out[k, i, j] = True
    return out


# ---------------------------------------------------------------- what a result shows


def _counts(found: Tensor, taken: Tensor, per_row: int) -> tuple[Tensor, Tensor]:
    """(how many blocks each row drew, how many it should), both (S, N)."""
    should = (~taken).sum(-1).clamp(max=per_row)
    return found.sum(-1), should.expand(len(found), -1)


def _unlike_itself(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    return any(not torch.equal(found[k], found[seeds.index(seed)]) for k, seed in enumerate(seeds))


def _all_alike(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    return per_row > 0 and len(taken) > 8 and len(set(seeds)) > 1 and bool((found == found[0]).all())


def _taken_though_free(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    enough = (~taken).sum(-1) >= per_row
    return bool((found & taken)[:, enough].any())


def _filled_up(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    return bool((found & taken).any())


def _too_few(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    count, should = _counts(found, taken, per_row)
    return bool((count < should).any())


def _too_many(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    count, should = _counts(found, taken, per_row)
    return bool((count > should).any())


def _rows_alike(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    return per_row > 0 and len(taken) > 8 and not taken.any() and bool((found == found[:, :1]).all())


def _rows_lent(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    """Row i + 1 of a seed is row i of the next seed."""
    if not per_row or len(taken) < 9 or len(seeds) < 2 or taken.any() or seeds[1] != seeds[0] + 1:
        return False
    return bool((found[:-1, 1:] == found[1:, :-1]).all())


def _never(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    """Blocks that no row of any seed drew, though each might have come up ten times and more."""
    expected = (per_row / (~taken).sum(-1).clamp(min=1)[:, None] * ~taken).sum(0) * len(set(seeds))
    return bool(((expected > 10) & ~found.any(0).any(0)).any())


def _uneven(found: Tensor, taken: Tensor, per_row: int, seeds: list[int]) -> bool:
    """Cells that come up so often, or so seldom, that an even draw would do it once in a million times."""
    share = per_row / (~taken).sum(-1).clamp(min=1)[:, None].double().expand(taken.shape)  # of each free block
    spread = (len(seeds) * share * (1 - share)).clamp(min=1e-9).sqrt()
    off = (found.double().sum(0) - len(seeds) * share).abs() / spread
    return len(seeds) >= 100 and bool((off > 5)[~taken].any())


add(
    Task(
        "4.1",
        "random blocks",
        3,
        random_blocks,
        _cases,
        by_rule=True,
        mistakes=(
            Mistake(
                "a seed that does not fix the draw",
                "one seed stands twice in the list, and its two draws differ. Whatever was drawn before, a seed must "
                "give the same blocks: from what does your draw start?",
                (
                    _by_row(_sample, lambda seed, row: random.random()),
                    lambda taken, r, seeds: _at_once(taken, r, torch.randint(10**9, (len(seeds),)).tolist()),
                    _one_generator,
                ),
                seen=_unlike_itself,
                look=TICKET,
            ),
            Mistake(
                "the seed not used",
                "two different seeds give the same blocks.",
                (
                    _by_row(_sample, lambda seed, row: row),
                    lambda taken, r, seeds: random_blocks(taken, r, [0 for _ in seeds]),
                ),
                seen=_all_alike,
                look=TICKET,
            ),
            Mistake(
                "the global random state touched",
                "the draw is right, and it uses or resets the random numbers that all of the program shares: whoever "
                "draws next gets others. Where could a generator of its own come from?",
                (_seeded_globally, _numpy_globally),
                seen=lambda found, **_: drew_globally(),
                look=TICKET,
            ),
            Mistake(
                "blocks drawn that are taken",
                "a row draws a block that it reads already, and has one long step less than it could have.",
                (_from_all, _own_row_only),
                seen=_taken_though_free,
            ),
            Mistake(
                "taken blocks where too few are free",
                "a row that has fewer free blocks than it wants fills up with taken ones. It takes all that are free, "
                "and no more.",
                (_topk,),
                seen=_filled_up,
                look=TENSORS,
            ),
            Mistake(
                "too few random blocks",
                "a row gets fewer blocks than it could have. Drawing one after the other may give the same one twice; "
                "and what is drawn and then thrown away is missing in the end.",
                (
                    _by_row(lambda free, r, rng: [rng.choice(free) for _ in range(r)] if free else []),
                    lambda taken, r, seeds: _from_all(taken, r, seeds) & ~taken,
                    _by_row(lambda free, r, rng: rng.sample(free, r) if len(free) >= r else []),
                ),
                seen=_too_few,
            ),
            Mistake(
                "too many random blocks",
                "a row gets more blocks than `per_row`. A row chooses whom it reads; it has no say in who reads it.",
                (_both_ways, lambda taken, r, seeds: random_blocks(taken, r + 1, seeds)),
                seen=_too_many,
            ),
            Mistake(
                "one draw for all rows",
                "all rows draw the same blocks: a few blocks are read by everybody, the others by nobody.",
                (_one_order, _by_row(_sample, lambda seed, row: seed)),
                seen=_rows_alike,
            ),
            Mistake(
                "rows lent to the next seed",
                "row 1 of one seed is row 0 of the next, row 2 its row 1, and so on: a sum of the two numbers is the "
                "same for many pairs. Two seeds should have nothing in common.",
                (_by_row(_sample, lambda seed, row: seed + row),),
                seen=_rows_lent,
                look=TICKET,
            ),
            Mistake(
                "part of the text never drawn",
                "some blocks come up in no row of any seed. Every free block of the text should have its chance.",
                (
                    _by_row(lambda free, r, rng: _sample(free[: max(len(free) // 4, r)], r, rng)),
                    _by_row(lambda free, r, rng: _sample(free[: max(len(free) - 1, r)], r, rng)),
                ),
                seen=_never,
            ),
            Mistake(
                "an uneven draw",
                "over hundreds of seeds, some free blocks come up far more often than others of the same row. A block "
                "beside a taken one must not inherit its chance.",
                (_next_free,),
                seen=_uneven,
            ),
        ),
        hints=(
            "Begin with one seed and one row: make the list of the blocks that are free, and bring it into an order "
            "that the seed decides. Then take the first ones.",
            "`torch.Generator().manual_seed(seed)` makes a generator of its own, and `torch.randperm(m, "
            "generator=...)` an order of m things; `random.Random(...)` or the tickets of the lesson do as well.",
            "Make the generator once for each seed, not for each row. `free = (~taken[row]).nonzero().flatten()` are "
            "the free blocks of a row, and a slice of too short a list is simply shorter.",
        ),
        why="Each seed has a generator of its own, so that nothing else in the program changes its draw or is changed "
        "by it, and a row chooses among free blocks only. One weak point is left: with one more row, or one more taken "
        "block, all rows after it are drawn anew. BlockPattern.random hashes (seed, layer, head, row, length) instead, "
        "so that each row stands by itself; and PyTorch does not promise the same numbers from version to version.",
        also_right=(_hashed, _at_once, _numpy),
        look=LOOPS,
        lesson=LESSON,
        skill="drawing random blocks",
        seconds=20.0,
    )
)
