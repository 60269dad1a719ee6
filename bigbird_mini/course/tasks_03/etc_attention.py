"""Task 3.2: attention of a text with extra global tokens before it."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from ..tasks_01.common import INF, attend, randoms, scores_of, table
from .common import BLOCKS, HALVES, LESSON, NEW, SPEC


def etc_attention(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    """Attention of g extra global tokens and, behind them, a text in blocks of b: (g + n, d) -> (g + n, e)."""
    root = q.shape[-1] ** 0.5
    top = torch.softmax(q[:g] @ k.T / root, dim=-1) @ v  # (g, e): the globals read everything
    Q, K, V = (x[g:].unflatten(0, (-1, b)) for x in (q, k, v))  # (N, b, ...): the text in blocks
    keys = torch.cat([k[:g].expand(len(K), -1, -1), K], 1)  # (N, g + b, d): the globals, and its own block
    values = torch.cat([v[:g].expand(len(V), -1, -1), V], 1)  # (N, g + b, e)
    text = torch.softmax(Q @ keys.mT / root, dim=-1) @ values  # (N, b, e)
    return torch.cat([top, text.flatten(0, 1)])  # (g + n, e)


def _cases() -> list[Case]:
    def case(words: str, seed: int, g: int, b: int, blocks: int, e: int, size: float = 1.0) -> Case:
        n, d = g + b * blocks, 5
        q, k, v = randoms(seed, (n, d), (n, d), (n, e or n))
        v = v if e else torch.eye(n, dtype=torch.float64)
        return Case(words, {"q": q * size, "k": k, "v": v, "g": g, "b": b}, ("query", "number" if e else "key"))

    return [
        case("With 3 globals, 4 blocks of 2 and one-hot values", 0, 3, 2, 4, 0),
        case("With 1 global, 3 blocks of 3, e = 4", 1, 1, 3, 3, 4),
        case("With 4 globals, 3 blocks of 2, e = 7", 2, 4, 2, 3, 7),
        case("With no globals, 3 blocks of 2, e = 3", 3, 0, 2, 3, 3),
        case("With scores in the thousands", 4, 2, 3, 3, 4, 1000.0),
    ]


def _spec(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    rows = []
    for i in range(len(q)):
        read = [i < g or j < g or (i - g) // b == (j - g) // b for j in range(len(k))]
        rows += attend([q[i].tolist()], k.tolist(), v.tolist(), read)
    return table(rows)


def _reads(n: int, g: int, b: int) -> Tensor:
    """(n, n) bool, all tokens: who reads whom."""
    t = torch.arange(n)
    block = (t - g).div(b, rounding_mode="floor")
    return (t[:, None] < g) | (t < g) | (block[:, None] == block)


def _with_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Masked and dense; a row that reads nothing gives zeros."""
    weights = torch.softmax(scores_of(q, k).masked_fill(~mask, -INF), -1)
    return weights.masked_fill(~mask, 0.0) @ v


def _masked(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    return _with_mask(q, k, v, _reads(len(q), g, b))


def _query_by_query(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        start = g + (i - g) // b * b
        keys = list(range(len(k))) if i < g else [*range(g), *range(start, start + b)]
        weights = torch.softmax(k[keys] @ q[i] / q.shape[1] ** 0.5, 0)
        out[i] = weights @ v[keys]
    return out


def _block_by_block(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    out = [torch.einsum("ij,je->ie", torch.softmax(torch.einsum("id,jd->ij", q[:g], k) / q.shape[1] ** 0.5, 1), v)]
    for start in range(g, len(q), b):
        own = slice(start, start + b)
        keys, values = torch.cat([k[:g], k[own]]), torch.cat([v[:g], v[own]])
        out.append(torch.softmax(scores_of(q[own], keys), -1) @ values)
    return torch.cat(out)


# ---------------------------------------------------------------- wrong answers


def _reading(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Wrong answers in which others are read. rule: (i, j, same, g, n) -> mask; i a column, j a row of token numbers,
    same (n, n): both of the text, in one block."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
        t = torch.arange(len(q))
        i, j, block = t[:, None], t[None], (t - g).div(b, rounding_mode="floor")
        same = (block[:, None] == block) & (i >= g) & (j >= g)
        return _with_mask(q, k, v, rule(i, j, same, g, len(q)))

    return wrong


def _from_the_start(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    t = torch.arange(len(q))
    block = t // b
    return _with_mask(q, k, v, (t[:, None] < g) | (t < g) | (block[:, None] == block))


def _first_block(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    t = torch.arange(len(q))
    block = t // b
    top = block == 0
    return _with_mask(q, k, v, top[:, None] | top | (block[:, None] == block))


def _apart(q: Tensor, k: Tensor, v: Tensor, g: int, b: int, share: float) -> Tensor:
    t, own = torch.arange(len(q)), _reads(len(q), g, b)
    top = t < g
    globals_ = _with_mask(q, k, v, own & top)
    text = _with_mask(q, k, v, own & ~top)
    return torch.where(top[:, None], _masked(q, k, v, g, b), (globals_ + text) * share)


def _after(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    return torch.softmax(scores_of(q, k), -1) * _reads(len(q), g, b) @ v


def _no_root(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    return _masked(q * q.shape[1] ** 0.5, k, v, g, b)


def _behind(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    out = etc_attention(q, k, v, g, b)
    return torch.cat([out[g:], out[:g]])


def _at_the_end(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    q, k, v = (x.roll(g, 0) for x in (q, k, v))
    return etc_attention(q, k, v, g, b).roll(-g, 0)


def _text_only(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    return etc_attention(q, k, v, g, b)[g:]


def _strided(q: Tensor, k: Tensor, v: Tensor, g: int, b: int) -> Tensor:
    t = torch.arange(len(q))
    n_blocks = (len(q) - g) // b
    block = (t - g) % n_blocks
    return _with_mask(q, k, v, (t[:, None] < g) | (t < g) | (block[:, None] == block))


def _small(d: int = 1, g: int = 1) -> dict[str, object]:
    """One global or two, and two blocks of two, with scores of few different sizes."""
    x = torch.zeros(g + 4, d, dtype=torch.float64)
    x[:, 0] = table([1, 1, 0, 1, 0, 2])[-g - 4 :]
    v = table([[1], [2], [4], [8], [16], [32]])[: g + 4]
    return {"q": x, "k": x.clone(), "v": v, "g": g, "b": 2}


add(
    Task(
        "3.2",
        "a text with extra global tokens",
        3,
        etc_attention,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "blocks cut from the first global on",
                "your first block of the text holds globals too, and each later one begins too early. The text is cut "
                "from its own first token on.",
                (_from_the_start,),
            ),
            Mistake(
                "the first block global, whatever g says",
                "as many tokens as a block has are global in yours. Here the globals are no block of the text, and "
                "there are g of them.",
                (_first_block,),
            ),
            Mistake(
                "globals that nobody reads",
                "your globals read everything, and the text reads its own blocks only: the globals can tell nobody.",
                (_reading(lambda i, j, same, g, n: (i < g) | same),),
                look=HALVES,
            ),
            Mistake(
                "globals that do not read the text",
                "your globals read each other only, so they never hear what the text says.",
                (_reading(lambda i, j, same, g, n: (j < g) | same),),
                look=HALVES,
            ),
            Mistake(
                "globals that do not read each other",
                "a global reads everything: the text, itself and the other globals.",
                (
                    _reading(lambda i, j, same, g, n: ((i < g) & (j >= g)) | ((i >= g) & (j < g)) | same),
                    _reading(lambda i, j, same, g, n: ((i < g) ^ (j < g)) | same | ((i == j) & (i < g))),
                ),
                small=_small(g=2),
                look=SPEC,
            ),
            Mistake(
                "a text that reads everything",
                "that is dense attention. A token of the text reads the globals and its own block, and no other block.",
                (lambda q, k, v, g, b: torch.softmax(scores_of(q, k), -1) @ v,),
            ),
            Mistake(
                "a text that does not read its own block",
                "your text reads the globals only. Its own block belongs to its keys as well.",
                (_reading(lambda i, j, same, g, n: (i < g) | (j < g)),),
            ),
            Mistake(
                "a softmax for each part",
                "the globals and the own block are weighed apart, so that each part gets as much as the other, however "
                "badly it fits. Over which keys do the weights of a query sum to 1?",
                (
                    lambda q, k, v, g, b: _apart(q, k, v, g, b, 1.0),
                    lambda q, k, v, g, b: _apart(q, k, v, g, b, 0.5),
                ),
                look=BLOCKS,
            ),
            Mistake(
                "masked after the softmax",
                "keys that are not read have had their share of the softmax before you took them away: the weights "
                "that are left sum to less than 1.",
                (_after,),
                look=SPEC,
            ),
            Mistake(
                "no 1/√d",
                "the right keys are read, with weights that are too sharp. Each score is still to be divided by "
                "something.",
                (_no_root,),
                small=_small(4),
                look=SPEC,
            ),
            Mistake(
                "blocks cut with a stride",
                "your block 0 holds the tokens 0, N, 2N and so on of the text. A block is a stretch of neighbours.",
                (_strided,),
            ),
            Mistake(
                "the last tokens taken for the globals",
                "the globals are the first g rows, before the text, not behind it.",
                (_at_the_end,),
            ),
            Mistake(
                "the globals handed back last",
                "all rows are right, and stand in another order: the result has the globals first, as the inputs have.",
                (_behind,),
            ),
            Mistake(
                "the text alone handed back",
                "the rows of the globals are missing: the next layer needs what they have gathered.",
                (_text_only,),
            ),
        ),
        hints=(
            "It is two attentions, put together at the end. Which queries belong to the first g rows, and which keys "
            "do they read? And which keys does one block of the text read?",
            "The rows of the globals are dense attention with the queries `q[:g]` and all keys. For the text, cut "
            "`q[g:]`, `k[g:]` and `v[g:]` into blocks, with `unflatten(0, (-1, b))` or in a loop.",
            "The keys of a block are `torch.cat([k[:g], own])`, where `own` are its b keys, and the values "
            "are put together alike. One softmax over these g + b, and `torch.cat` of all rows, the globals first.",
        ),
        why="The globals cost g rows and g columns, and the text stays in its blocks: g + b keys for each token, "
        "however long the text is. `BlockPattern.with_extra_globals` puts whole blocks before the text and masks the "
        "places that are too many; here g is free, since the keys are gathered by hand.",
        also_right=(_masked, _query_by_query, _block_by_block),
        small=_small(),
        look=NEW,
        lesson=LESSON,
        skill="attention with extra globals",
    )
)
