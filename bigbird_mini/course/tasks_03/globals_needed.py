"""Task 3.4: how many facts have to pass through the globals."""

from collections import Counter

import torch

from ..catalogue import Case, Mistake, Task, add
from .common import DOOR, LESSON

Wants = list[int | None]


def globals_needed(wants: list[int | None], block_size: int) -> int:
    """The fewest extra globals, one fact each, through which every token gets what it wants in two layers."""
    far = set()
    for token, source in enumerate(wants):
        if source is not None and source // block_size != token // block_size:  # in no block that it reads itself
            far.add(source)  # wanted by one or by many, it passes once
    return len(far)


def _cases() -> list[Case]:
    def case(words: str, wants: Wants, block_size: int) -> Case:
        return Case(words, {"wants": wants, "block_size": block_size})

    shifted: Wants = [(i + 8) % 16 for i in range(16)]
    return [
        case("For 18 tokens in blocks of 3", [2, 4, 1, 2, 13, 5, 2, 10, 6, 11, 10, 4, 11, 15, 15, 4, 15, 10], 3),
        case("For 12 tokens in blocks of 2", [3, None, 3, 5, 8, 8, 9, 6, 9, 3, 0, 10], 2),
        case("For 12 tokens in blocks of 3 that all want the fact of token 7", [7] * 12, 3),
        case("For 16 tokens in blocks of 2, each wanting that of the token 8 places on", shifted, 2),
        case("For 12 tokens in blocks of 4", [1, 2, None, 0, 3, 6, None, 4, 7, 8, 7, 9], 4),
        case("For 6 tokens in blocks of 2 that want nothing", [None] * 6, 2),
        case("For 4 tokens in blocks of 1", [0, 2, 2, 1], 1),
    ]


def _spec(wants: Wants, block_size: int) -> int:
    """Each fact by itself: is there anybody in another block who wants it?"""
    blocks = [set(range(start, start + block_size)) for start in range(0, len(wants), block_size)]
    needed = 0
    for fact in range(len(wants)):
        own = next(block for block in blocks if fact in block)
        needed += any(wants[reader] == fact for reader in range(len(wants)) if reader not in own)
    return needed


def _rank(wants: Wants, block_size: int) -> int:
    n = len(wants)
    wish = torch.zeros(n, n, dtype=torch.float64)
    for i, j in enumerate(wants):
        if j is not None:
            wish[i, j] = 1
    block = torch.arange(n) // block_size
    return int(torch.linalg.matrix_rank(wish.masked_fill(block[:, None] == block, 0.0)))


def _comprehension(wants: Wants, block_size: int) -> int:
    pairs = [(i, j) for i, j in enumerate(wants) if j is not None]
    return len({j for i, j in pairs if i // block_size != j // block_size})


def _sorted(wants: Wants, block_size: int) -> int:
    count, last = 0, None
    far = (j for i, j in enumerate(wants) if j is not None and not 0 <= j - i // block_size * block_size < block_size)
    for fact in sorted(far):
        count += fact != last
        last = fact
    return count


# ---------------------------------------------------------------- wrong answers


def _far(wants: Wants, b: int) -> list[tuple[int, int]]:
    return [(i, j) for i, j in enumerate(wants) if j is not None and i // b != j // b]


def _known(wants: Wants) -> list[tuple[int, int]]:
    return [(i, j) for i, j in enumerate(wants) if j is not None]


add(
    Task(
        "3.4",
        "how many must pass",
        2,
        globals_needed,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "every reader counted",
                "you count how often something is wanted from afar. When ten tokens want the same fact, how many "
                "globals carry it?",
                (lambda wants, b: len(_far(wants, b)),),
            ),
            Mistake(
                "near facts counted too",
                "a fact of its own block a token reads directly, without any global.",
                (lambda wants, b: len({j for _, j in _known(wants)}),),
            ),
            Mistake(
                "all that is wanted counted",
                "you count each token that wants something. Some of these wishes are met inside the block, and some "
                "are for the same fact.",
                (lambda wants, b: len(_known(wants)), lambda wants, b: len(wants)),
            ),
            Mistake(
                "nothing counted as a fact",
                "None stands for a token that wants nothing, and in your count it is one fact more.",
                (lambda wants, b: len({j for i, j in enumerate(wants) if j is None or i // b != j // b}),),
                small={"wants": [2, None, 3, 1], "block_size": 2},
            ),
            Mistake(
                "blocks counted, not facts",
                "you count the blocks that something is wanted from. Two tokens of one block hold two facts, and a "
                "global carries one.",
                (lambda wants, b: len({j // b for _, j in _far(wants, b)}),),
                small={"wants": [2, 3, None, 1], "block_size": 2},
            ),
            Mistake(
                "pairs of blocks counted",
                "you count from which block to which. A global is read by all blocks at once.",
                (lambda wants, b: len({(i // b, j // b) for i, j in _far(wants, b)}),),
                small={"wants": [4, None, 4, None, None, None], "block_size": 2},
            ),
            Mistake(
                "nearness counted in tokens",
                "for you near is what is fewer than a block's length away. Neighbours on the two sides of a border are "
                "in different blocks, and do not read each other.",
                (
                    lambda wants, b: len({j for i, j in _known(wants) if abs(i - j) >= b}),
                    lambda wants, b: len({j for i, j in _known(wants) if abs(i - j) > b}),
                ),
                small={"wants": [None, 2, None, 0], "block_size": 2},
            ),
            Mistake(
                "only its own fact is near",
                "you leave out a token that wants its own fact, and nothing else. It reads its whole block.",
                (lambda wants, b: len({j for i, j in _known(wants) if i != j}),),
                small={"wants": [0, 0, 1, 1], "block_size": 2},
            ),
            Mistake(
                "what somebody finds near, left out for all",
                "a fact that one token reads in its own block may be wanted from afar by another, and then it has to "
                "pass.",
                (
                    lambda wants, b: len(
                        {j for _, j in _far(wants, b)} - {j for i, j in _known(wants) if i // b == j // b}
                    ),
                ),
                small={"wants": [1, None, 1, 0], "block_size": 2},
            ),
            Mistake(
                "readers counted, not facts",
                "you count, for the fact that most tokens want, how many they are. They all read the same global.",
                (lambda wants, b: max(Counter(j for _, j in _far(wants, b)).values(), default=0),),
            ),
        ),
        hints=(
            "Take the wish `broadcast` of the lesson: many tokens, one fact. How many globals did it need? And `copy`?",
            "Token i is in block `i // block_size`. If the fact that it wants is of a token of the same block, no "
            "global is needed for it.",
            "Put the facts that are wanted from another block into a `set`, which holds each of them once, and leave "
            "out None.",
        ),
        why="Each fact that is wanted from afar passes once, however many want it. The count is the rank of the wish, "
        "the near wishes left out; and what arrives, `read @ gather`, has no rank above the number of globals.",
        also_right=(_rank, _comprehension, _sorted),
        small={"wants": [2, 2, 3, 3], "block_size": 2},
        look=DOOR,
        lesson=LESSON,
        skill="what passes through globals",
    )
)
