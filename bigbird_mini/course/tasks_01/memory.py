"""Task 1.3: how many bytes the attention scores of one layer take."""

from ..catalogue import Case, Look, Mistake, Task, add
from .common import LESSON, MEMORY

PAIR = Look("Where the memory goes", "138f1607", "def plain(q, k, v):")


def score_bytes(n: int, heads: int, bytes_per_number: int = 4) -> int:
    """Bytes of all attention scores of one layer for one document of n tokens."""
    return heads * n * n * bytes_per_number  # each head scores every query against every key


def _cases() -> list[Case]:
    out = []
    for n, heads, size in [(7, 3, None), (1, 1, None), (4096, 12, None), (4096, 12, 2), (333, 5, 8)]:
        inputs = {"n": n, "heads": heads} | ({} if size is None else {"bytes_per_number": size})
        out.append(Case("For " + ", ".join(f"{name} = {value}" for name, value in inputs.items()), inputs))
    return out


def _spec(n: int, heads: int, bytes_per_number: int = 4) -> int:
    """The pairs, counted one query at a time."""
    return sum(n for _ in range(n)) * heads * bytes_per_number


def _one_by_one(n: int, heads: int, bytes_per_number: int = 4) -> int:
    total = 0
    for _ in range(heads):
        for _ in range(n):
            total += n * bytes_per_number
    return total


def _power(n: int, heads: int, bytes_per_number: int = 4) -> int:
    return bytes_per_number * heads * pow(n, 2)


def _from_torch(n: int, heads: int, bytes_per_number: int = 4) -> int:
    import torch

    return torch.empty(heads, n, n, dtype=torch.int8, device="meta").numel() * bytes_per_number


add(
    Task(
        "1.3",
        "the memory of the scores",
        1,
        score_bytes,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "the heads left out",
                "that is the matrix of one head. Every head routes in its own way.",
                (lambda n, heads, bytes_per_number=4: n * n * bytes_per_number,),
            ),
            Mistake(
                "half of the pairs",
                "you count a pair of tokens once, or leave pairs out. That i reads j says nothing about whether j "
                "reads i: how many cells has the whole square?",
                (
                    lambda n, heads, bytes_per_number=4: heads * n * (n + 1) // 2 * bytes_per_number,
                    lambda n, heads, bytes_per_number=4: heads * n * (n - 1) // 2 * bytes_per_number,
                    lambda n, heads, bytes_per_number=4: heads * (n * n // 2) * bytes_per_number,
                    lambda n, heads, bytes_per_number=4: heads * n * (n - 1) * bytes_per_number,
                ),
            ),
            Mistake(
                "the head size counted too",
                "the numbers of a head are multiplied and summed up on the way to a score. How many numbers are left "
                "for each pair?",
                (
                    lambda n, heads, bytes_per_number=4: heads * n * n * 64 * bytes_per_number,
                    lambda n, heads, bytes_per_number=4: n * n * 768 * bytes_per_number,
                ),
                look=PAIR,
            ),
            Mistake(
                "one score for each token",
                "that grows with n alone, like the vectors do. A score belongs to a query and a key.",
                (
                    lambda n, heads, bytes_per_number=4: heads * n * bytes_per_number,
                    lambda n, heads, bytes_per_number=4: heads * 2 * n * bytes_per_number,
                ),
            ),
            Mistake(
                "numbers, not bytes",
                "that is how many scores there are. How much does each take?",
                (lambda n, heads, bytes_per_number=4: heads * n * n,),
            ),
            Mistake(
                "always 4 bytes",
                "that holds for float32 only; the third input is not used.",
                (lambda n, heads, bytes_per_number=4: heads * n * n * 4,),
                small={"n": 2, "heads": 1, "bytes_per_number": 2},
            ),
            Mistake(
                "bits, not bytes",
                "a byte has eight bits, and the result is asked for in bytes.",
                (lambda n, heads, bytes_per_number=4: heads * n * n * bytes_per_number * 8,),
            ),
            Mistake(
                "scores and weights",
                "the weights that the softmax makes take as much again. Here the scores alone are asked for, before "
                "it.",
                (lambda n, heads, bytes_per_number=4: 2 * heads * n * n * bytes_per_number,),
            ),
            Mistake(
                "in kilobytes or megabytes",
                "the result is asked for in bytes, as a whole number.",
                tuple(
                    lambda n, heads, bytes_per_number=4, unit=unit: heads * n * n * bytes_per_number // unit
                    for unit in (1000, 1024, 10**6, 2**20)
                ),
            ),
        ),
        hints=(
            "Draw the matrix of one head for three tokens, and count its cells.",
            "Each of the heads has a matrix of its own, n by n, and each number in it takes `bytes_per_number` bytes.",
            "The result is a product of four factors, and one of them stands there twice.",
        ),
        why="n queries times n keys, in each head, whatever the head's size: that is why twice the text takes four "
        "times the memory. At n = 4,096 and 12 heads it is 805 million bytes for one layer and one document.",
        also_right=(_one_by_one, _power, _from_torch),
        small={"n": 3, "heads": 2},
        look=MEMORY,
        lesson=LESSON,
        skill="the price of dense attention",
    )
)
