"""Task 3.5: the global blocks of each document, chosen by a score."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from ..tasks_01.common import randoms, table
from .common import CHOICE, LESSON


def choose_globals(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    """Of each document the `count` blocks whose best token scores highest with w: x (B, n, d) -> bool (B, N)."""
    scores = (x @ w).unflatten(1, (-1, block_size)).amax(-1)  # (B, N): of each block, that of its best token
    best = scores.topk(count, dim=-1).indices  # (B, count): block numbers
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)  # (B, N)


def _cases() -> list[Case]:
    def case(seed: int, documents: int, blocks: int, b: int, d: int, count: int) -> Case:
        x, w = randoms(seed, (documents, blocks * b, d), (d,))
        what = f"{blocks} blocks of {b}, of which {count} {'is' if count == 1 else 'are'} to be global"
        inputs = {"x": x, "w": w, "count": count, "block_size": b}
        return Case(f"For {documents} documents of {what}", inputs, ("document", "block"))

    return [case(3, 5, 6, 3, 4, 2), case(1, 4, 7, 2, 3, 1), case(2, 3, 5, 4, 2, 3), case(4, 2, 4, 1, 3, 4)]


def _spec(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    rows = []
    for document in x.tolist():
        scores = [sum(a * c for a, c in zip(token, w.tolist(), strict=True)) for token in document]
        best = [max(scores[i : i + block_size]) for i in range(0, len(scores), block_size)]
        rows.append([sum(other > own for other in best) < count for own in best])
    return torch.tensor(rows)


def _loops(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    out = torch.zeros(len(x), x.shape[1] // block_size, dtype=torch.bool)
    for document in range(len(x)):
        scores = [max(float(token @ w) for token in block) for block in x[document].split(block_size)]
        for block in sorted(range(len(scores)), key=lambda i: -scores[i])[:count]:
            out[document, block] = True
    return out


def _threshold(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    scores = torch.einsum("bnd,d->bn", x, w).view(len(x), -1, block_size).max(-1).values
    return scores >= scores.sort(-1, descending=True).values[:, count - 1 : count]


def _ranks(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    scores = torch.nn.functional.max_pool1d((x * w).sum(-1), block_size)
    return scores.argsort(-1, descending=True).argsort(-1) < count


# ---------------------------------------------------------------- wrong answers


def _by(
    score: Callable[[Tensor, Tensor], Tensor] = lambda x, w: x @ w,
    pool: Callable[[Tensor], Tensor] = lambda s: s.amax(-1),
    largest: bool = True,
    stride: bool = False,
    more: int = 0,
) -> Callable[..., Tensor]:
    """Wrong answers that score tokens, blocks or documents in another way."""

    def wrong(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
        scores = score(x, w)
        cut = scores.unflatten(1, (block_size, -1)).mT if stride else scores.unflatten(1, (-1, block_size))
        scores = pool(cut)
        best = scores.topk(min(max(count + more, 0), scores.shape[1]), -1, largest=largest).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(1, best, True)

    return wrong


def _best_tokens(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    best = (x @ w).topk(count, -1).indices // block_size
    out = torch.zeros(len(x), x.shape[1] // block_size, dtype=torch.bool)
    return out.scatter(1, best, True)


def _tokens_as_blocks(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    best = (x @ w).topk(count, -1).indices
    out = torch.zeros(len(x), x.shape[1] // block_size, dtype=torch.bool)
    return out.scatter(1, best, True)


def _one_for_all(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    scores = (x @ w).unflatten(1, (-1, block_size)).amax(-1)
    best = scores.mean(0).topk(count).indices
    out = torch.zeros_like(scores, dtype=torch.bool)
    out[:, best] = True
    return out


def _over_the_batch(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    scores = (x @ w).unflatten(1, (-1, block_size)).amax(-1)
    out = torch.zeros(scores.numel(), dtype=torch.bool)
    out[scores.flatten().topk(count).indices] = True
    return out.view_as(scores)


def _above_zero(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    return (x @ w).unflatten(1, (-1, block_size)).amax(-1) > 0


def _first(x: Tensor, w: Tensor, count: int, block_size: int) -> Tensor:
    out = torch.zeros(len(x), x.shape[1] // block_size, dtype=torch.bool)
    out[:, :count] = True
    return out


add(
    Task(
        "3.5",
        "globals chosen by a score",
        2,
        choose_globals,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "the mean of a block in place of its best token",
                "in a large block one token that scores high is lost in the mean, as the flag was. Which number of a "
                "block tells that it holds such a token?",
                (_by(pool=lambda s: s.mean(-1)), _by(pool=lambda s: s.sum(-1))),
            ),
            Mistake(
                "the best tokens in place of the best blocks",
                "two of your best tokens may stand in one block, and then too few blocks are chosen. First a score for "
                "each block, then the choice.",
                (_best_tokens,),
                small={
                    "x": table([[[3], [4], [1], [0], [2], [0]]]),
                    "w": table([1]),
                    "count": 2,
                    "block_size": 2,
                },
            ),
            Mistake(
                "token numbers used as block numbers",
                "what `topk` gave you counts tokens, and the result has a place for each block.",
                (_tokens_as_blocks,),
            ),
            Mistake(
                "the lowest scores chosen",
                "you take the blocks that fit worst. A high score means a good fit.",
                (_by(largest=False), _by(pool=lambda s: s.amin(-1), largest=False)),
            ),
            Mistake(
                "the worst token of a block",
                "the score of a block is that of its best token, and you take its lowest.",
                (_by(pool=lambda s: s.amin(-1)),),
            ),
            Mistake(
                "only the first token of a block",
                "the score of a block is that of its best token, wherever in the block it stands.",
                (_by(pool=lambda s: s[..., 0]), _by(pool=lambda s: s[..., -1])),
                small={"x": table([[[0], [5], [0], [1], [1], [1]]]), "w": table([1]), "count": 1, "block_size": 3},
            ),
            Mistake(
                "the size of the score, without its sign",
                "a score far below zero says that a token does not fit at all, and you count it as a good one.",
                (_by(score=lambda x, w: (x @ w).abs()), _by(score=lambda x, w: (x @ w).square())),
            ),
            Mistake(
                "the length of the vectors",
                "you choose tokens that have large numbers, whatever w is. The score is the product with w.",
                (_by(score=lambda x, w: x.norm(dim=-1)), _by(score=lambda x, w: x.sum(-1))),
                small={
                    "x": table([[[1, 0], [0, 0], [3, 3], [0, 0]]]),
                    "w": table([1, -1]),
                    "count": 1,
                    "block_size": 2,
                },
            ),
            Mistake(
                "the same blocks in every document",
                "each document has its own scores, and is to have its own globals.",
                (_one_for_all,),
                small={
                    "x": table([[[3], [0], [1], [0]], [[0], [0], [1], [0]]]),
                    "w": table([1]),
                    "count": 1,
                    "block_size": 2,
                },
            ),
            Mistake(
                "the best of the whole batch",
                "all documents together get as many globals as each should have. Along which dimension is the choice?",
                (_over_the_batch,),
                small={
                    "x": table([[[3], [0], [1], [0]], [[0], [0], [1], [0]]]),
                    "w": table([1]),
                    "count": 1,
                    "block_size": 2,
                },
            ),
            Mistake(
                "all blocks above zero",
                "how many blocks are chosen depends on the scores in yours. It should be `count` of them, always.",
                (_above_zero,),
            ),
            Mistake(
                "one block too many or too few",
                "the order of the blocks is right, and their number is not `count`.",
                (_by(more=1), _by(more=-1)),
            ),
            Mistake(
                "blocks cut with a stride",
                "your block 0 holds the tokens 0, N, 2N and so on. A block is a stretch of neighbours.",
                (_by(stride=True),),
                small={"x": table([[[0], [5], [0], [0]]]), "w": table([1]), "count": 1, "block_size": 2},
            ),
            Mistake(
                "block numbers handed back",
                "you return which blocks were chosen, as numbers. The result has a place for every block, and True or "
                "False in it.",
                (
                    lambda x, w, count, b: (x @ w).unflatten(1, (-1, b)).amax(-1).topk(count, -1).indices,
                    lambda x, w, count, b: choose_globals(x, w, count, b).nonzero()[:, 1].view(len(x), count),
                ),
            ),
            Mistake(
                "the first blocks chosen",
                "your choice does not look at the scores at all.",
                (_first,),
            ),
        ),
        hints=(
            "Three steps: a score for each token, from these one for each block, and then the choice. What shape has "
            "the result of each?",
            "`x @ w` has the shape (B, n). `unflatten(1, (-1, block_size))` cuts it into blocks, and `.amax(-1)` takes "
            "the best score of each.",
            "`scores.topk(count, dim=-1).indices` gives block numbers for each document. Begin with zeros (B, N) of "
            "type bool, and put True there, with `scatter` or in a loop over the documents.",
        ),
        why="A learned score, the best of each block, and the best few blocks of each document: with one such choice "
        "for every query in place of one for a document, it is how later models find their blocks.",
        also_right=(_loops, _threshold, _ranks),
        small={"x": table([[[1], [1], [-4], [0], [-1], [3]]]), "w": table([1]), "count": 1, "block_size": 2},
        look=CHOICE,
        lesson=LESSON,
        skill="chosen globals",
    )
)
