"""Task 1.5: attention that computes only the blocks it reads."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bigbird_mini.pattern import BlockPattern

from ..catalogue import Case, Mistake, Par, Swap, Task, add
from .common import BLOCKS, INF, LESSON, MASKS, MATRICES, NOTHING, ROOT, attend, randoms, scores_of, table

Lists = list[list[int]]


def block_attention(q: Tensor, k: Tensor, v: Tensor, reads: list[list[int]]) -> Tensor:
    """Attention in which query block i reads the key blocks reads[i]: q, k (n, d), v (n, e) -> (n, e)."""
    b = len(q) // len(reads)  # tokens in a block
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)  # (n, e)
    for i, blocks in enumerate(reads):
        rows = slice(i * b, (i + 1) * b)  # the queries of block i
        keys = [t for j in set(blocks) for t in range(j * b, (j + 1) * b)]  # each block once, as its tokens
        scores = q[rows] @ k[keys].T / q.shape[-1] ** 0.5  # (b, keys that are read)
        out[rows] = torch.softmax(scores, dim=-1) @ v[keys]  # zeros where there are no keys
    return out


def _cases() -> list[Case]:
    def case(words: str, seed: int, b: int, e: int, reads: Lists, size: float = 1.0) -> Case:
        n, d = b * len(reads), 5
        q, k, v = randoms(seed, (n, d), (n, d), (n, e or n))
        axes, block = ("query", "number"), (b, e)
        if not e:
            v, axes, block = torch.eye(n, dtype=torch.float64), ("query", "key"), (b, b)
        return Case(words, {"q": q * size, "k": k, "v": v, "reads": reads}, axes, block)

    start = "With 6 blocks of 2 tokens and one-hot values"
    return [
        case(start, 0, 2, 0, [[1, 0, 3], [0, 1, 5], [2, 1], [5, 3], [3, 4, 0], [5]]),
        case(f"{start}, where a block is named twice", 1, 2, 0, [[0, 1], [2, 0, 2], [3], [2, 4, 3, 4], [5, 4], [0, 5]]),
        case(f"{start}, where block 3 reads nothing", 2, 2, 0, [[1, 0], [1, 2], [0, 2], [], [4, 5], [0]]),
        case("With 4 blocks of 3 tokens, d = 5, e = 7", 3, 3, 7, [[3, 1], [1], [0, 2, 1, 0], []]),
        case("With scores in the thousands", 4, 4, 3, [[1, 0], [2], [], [0, 4], [3, 4, 1]], 1000.0),
    ]


def _course(n_blocks: int, b: int, d: int, e: int) -> dict[str, Any]:
    """A BigBird of that size: window 3, the first and the last block global, two random blocks."""
    p = BlockPattern.bigbird(n_blocks, window=3, global_blocks=(0, -1), random=2, seed=1)
    reads = [[*row.nonzero().flatten().tolist(), 0] for row in p.grid()[0]]  # block 0 is named twice
    q, k, v = randoms(5, (n_blocks * b, d), (n_blocks * b, d), (n_blocks * b, e))
    return {"q": q, "k": k, "v": v, "reads": reads}


def _needed(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    return _mask(reads, len(q) // len(reads))


def _as_attention(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The answer with the signature of bigbird_mini.attention: document by document and head by head."""

    def fn(q: Tensor, k: Tensor, v: Tensor, p: BlockPattern, key_mask: Tensor | None = None) -> Tensor:
        if isinstance(p, list) or (key_mask is not None and not key_mask.all()):
            raise ValueError("block_attention knows no padding: give documents of whole blocks, all of one length")
        reads = [[row.nonzero().flatten().tolist() for row in head] for head in p.grid()]
        B, H = q.shape[:2]
        out = [answer(q[i, h], k[i, h], v[i, h], reads[h % len(reads)]) for i in range(B) for h in range(H)]
        return torch.stack(out).unflatten(0, (B, H))  # (B, H, n, d)

    return fn


def _spec(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    b, rows = len(q) // len(reads), []
    for t, query in enumerate(q.tolist()):
        read = [j // b in reads[t // b] for j in range(len(k))]
        rows += attend([query], k.tolist(), v.tolist(), read)
    return table(rows)


def _mask(reads: Lists, b: int) -> Tensor:
    """(n, n) bool: which key tokens a query token reads."""
    grid = torch.zeros(len(reads), len(reads), dtype=torch.bool)
    for i, blocks in enumerate(reads):
        grid[i, blocks] = True
    return grid.repeat_interleave(b, 0).repeat_interleave(b, 1)


def _masked(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    mask = _mask(reads, len(q) // len(reads))
    weights = torch.softmax(scores_of(q, k).masked_fill(~mask, -INF), -1)
    return weights.masked_fill(~mask, 0.0) @ v


def _query_by_query(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    b, out = len(q) // len(reads), []
    for t in range(len(q)):
        keys = [s for s in range(len(k)) if s // b in reads[t // b]]
        scores = torch.tensor([float(q[t] @ k[s]) for s in keys], dtype=q.dtype) / q.shape[1] ** 0.5
        weights = (scores - scores.max()).exp() if keys else scores
        out.append((weights[:, None] * v[keys]).sum(0) / (weights.sum() if keys else 1))
    return torch.stack(out)


def _gathered(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    blocks = len(reads)
    q3, k3, v3 = (x.unflatten(0, (blocks, -1)) for x in (q, k, v))  # (N, b, d)
    out = torch.zeros_like(q3[..., :1]).expand(-1, -1, v.shape[1]).clone()
    for i, row in enumerate(reads):
        if row:
            chosen = torch.tensor(row).unique()
            scores = torch.einsum("qd,jkd->qjk", q3[i], k3[chosen]).flatten(1) / q.shape[1] ** 0.5
            out[i] = torch.einsum("qk,ke->qe", torch.softmax(scores, -1), v3[chosen].flatten(0, 1))
    return out.flatten(0, 1)


# ---------------------------------------------------------------- wrong answers


def _by_keys(
    pick: Callable[..., list[int]], softmax: Any = lambda s: torch.softmax(s, -1), scale: bool = True
) -> Callable[..., Tensor]:
    """A wrong answer that picks other keys, or weighs them in another way. pick: (blocks, b, N) -> token numbers."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
        b, out = len(q) // len(reads), torch.zeros(len(q), v.shape[1], dtype=v.dtype)
        for i, blocks in enumerate(reads):
            keys = pick(blocks, b, len(reads))
            scores = q[i * b : (i + 1) * b] @ k[keys].T / (q.shape[-1] ** 0.5 if scale else 1.0)
            out[i * b : (i + 1) * b] = softmax(scores) @ v[keys]
        return out

    return wrong


def _tokens(blocks: list[int], b: int, _n: int) -> list[int]:
    return [t for j in dict.fromkeys(blocks) for t in range(j * b, (j + 1) * b)]


def _block_by_block(q: Tensor, k: Tensor, v: Tensor, reads: Lists, mean: bool) -> Tensor:
    b, out = len(q) // len(reads), torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i, blocks in enumerate(reads):
        for j in set(blocks):
            one = torch.softmax(scores_of(q[i * b : (i + 1) * b], k[j * b : (j + 1) * b]), -1)
            out[i * b : (i + 1) * b] += one @ v[j * b : (j + 1) * b] / (len(set(blocks)) if mean else 1)
    return out


def _strided(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    n = len(reads)
    order = torch.arange(len(q)).view(-1, n).T.flatten()  # block 0 is tokens 0, N, 2N, ...
    return _masked(q[order], k[order], v[order], reads)[order.argsort()]


def _turned(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    return _masked(q, k, v, [[i for i, row in enumerate(reads) if j in row] for j in range(len(reads))])


def _after(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    return (torch.softmax(scores_of(q, k), -1) * _mask(reads, len(q) // len(reads))) @ v


def _zeros(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    return torch.softmax(scores_of(q, k) * _mask(reads, len(q) // len(reads)), -1) @ v


def _nan(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    mask = _mask(reads, len(q) // len(reads))
    return torch.softmax(scores_of(q, k).masked_fill(~mask, -INF), -1) @ v


def _mean(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    mask = _mask(reads, len(q) // len(reads))
    return torch.softmax(scores_of(q, k).masked_fill(~mask, -1e30), -1) @ v


def _joined(q: Tensor, k: Tensor, v: Tensor, reads: Lists) -> Tensor:
    b, out = len(q) // len(reads), []
    for i, blocks in enumerate(reads):
        keys, values = (torch.cat([x[j * b : (j + 1) * b] for j in set(blocks)]) for x in (k, v))
        out.append(torch.softmax(scores_of(q[i * b : (i + 1) * b], keys), -1) @ values)
    return torch.cat(out)


def _small(reads: Lists, d: int = 1) -> dict[str, Any]:
    """Four tokens in two blocks, every score 0 but that of a query with itself."""
    x = (
        table([[0.0], [1.0], [2.0], [0.0]])
        if d == 1
        else table([[0, 0, 0, 0], [1, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    )
    return {"q": x, "k": x.clone(), "v": table([[1], [2], [4], [8]]), "reads": reads}


add(
    Task(
        "1.5",
        "only the blocks that are read",
        3,
        block_attention,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "block numbers used as token numbers",
                "block 3 is not token 3: your queries read one token where they should read a whole block of them.",
                (_by_keys(lambda blocks, b, n: list(dict.fromkeys(blocks))), _by_keys(lambda blocks, b, n: blocks)),
            ),
            Mistake(
                "a block counted twice",
                "where a block is named twice, its keys stand in your softmax twice and get twice their share. The "
                "lists say which blocks are read, not how often.",
                (_by_keys(lambda blocks, b, n: [t for j in blocks for t in range(j * b, (j + 1) * b)]),),
                small=_small([[0, 1, 1], [1]]),
            ),
            Mistake(
                "a softmax for each block",
                "each block is weighed by itself, so that every block gets the same in all, however badly it fits. "
                "Over which keys do the weights of a query sum to 1?",
                (
                    lambda q, k, v, reads: _block_by_block(q, k, v, reads, mean=False),
                    lambda q, k, v, reads: _block_by_block(q, k, v, reads, mean=True),
                ),
                look=MATRICES,
            ),
            Mistake(
                "blocks cut with a stride",
                "your block 0 holds the tokens 0, N, 2N and so on. A block is a stretch of neighbours.",
                (_strided,),
            ),
            Mistake(
                "the lists read the wrong way round",
                "where block i is to read block j, your block j reads block i. Whose list is reads[i]?",
                (_turned,),
            ),
            Mistake(
                "masked after the softmax",
                "blocks that are not read have had their share of the softmax before you took them away: the weights "
                "that are left sum to less than 1.",
                (_after,),
                look=MASKS,
            ),
            Mistake(
                "unread scores set to 0",
                "0 is a score like any other, and exp(0) is 1: the blocks that are not read are still in the sum.",
                (_zeros,),
                look=MASKS,
            ),
            Mistake(
                "no 1/√d",
                "the right keys are read, with weights that are too sharp. Each score is still to be divided by "
                "something.",
                (_by_keys(_tokens, scale=False),),
                small=_small([[0, 1], [1]], d=4),
                look=ROOT,
            ),
            Mistake(
                "softmax over the queries",
                "your weights sum to 1 over the queries of a block. Each query has one unit of attention of its own.",
                (_by_keys(_tokens, lambda s: torch.softmax(s, 0)),),
                look=MATRICES,
            ),
            Mistake(
                "nothing read, and no zeros",
                "a query block with an empty list is to give zeros. A row with nothing in it has no mean, so this "
                "needs a line of its own.",
                (_nan, _mean, _joined),
                small=_small([[], [1]]),
                look=NOTHING,
            ),
        ),
        hints=(
            "Do one query block at a time. Which rows of `q` belong to block i, and where in the result do their rows "
            "go?",
            "Make a list of token numbers from `reads[i]`: block j is the tokens from j * b up to (j + 1) * b. "
            "`k[keys]` then takes just these rows, and `v[keys]` the values that belong to them.",
            "With the keys of a query block gathered, it is task 1.1 once more. `set(blocks)` names each block once; "
            "and begin with a result full of zeros, so that a block without keys needs nothing.",
        ),
        why="Gather, then attend as ever: the scores that are not read are never computed, so the work is that of the "
        "lists and not of n times n. One softmax runs over all keys that a query reads. `bigbird_mini.attention` with "
        'backend="gather" does this for all query blocks of equal length at once.',
        also_right=(_masked, _query_by_query, _gathered),
        small=_small([[0, 1], [1]]),
        look=BLOCKS,
        lesson=LESSON,
        skill="block-sparse attention",
        par=Par(lambda: _course(16, 4, 8, 6), _needed, 4),
        large=lambda: _course(64, 32, 64, 64),
        swap=Swap(_as_attention, lambda n: BlockPattern.bigbird(n, window=3, global_blocks=(0,), random=1, seed=1)),
        distractors=("keys = list(set(blocks))", "out[rows] = torch.softmax(scores, dim=0) @ v[keys]"),
    )
)
