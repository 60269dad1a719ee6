"""Task 2.2: how many layers of a window until one token can hear of another."""

import itertools

from bigbird_mini import graph
from bigbird_mini.pattern import BlockPattern

from ..catalogue import Case, Mistake, Task, add
from .common import CONE, LESSON


def layers_needed(reader: int, source: int, block_size: int, width: int) -> int:
    """Fewest layers of a window of width blocks until token reader can have heard of token source."""
    if reader == source:
        return 0  # it knows itself from the start
    blocks = abs(reader // block_size - source // block_size)  # how many blocks lie between their places
    return max(1, -(-blocks // (width // 2)))  # rounded up; one layer even inside a block


def _cases() -> list[Case]:
    numbers = [
        (66, 1, 4, 7),
        (48, 0, 4, 7),
        (3, 60, 4, 5),
        (8, 7, 4, 3),
        (11, 4, 4, 3),
        (5, 7, 4, 3),
        (7, 7, 4, 3),
        (64, 0, 8, 5),
        (1000, 3, 64, 3),
        (0, 4095, 64, 3),
        (200, 190, 1, 5),
        (31, 0, 32, 3),
    ]
    return [
        Case(
            f"For reader {reader}, source {source}, blocks of {b}, width {width}",
            {"reader": reader, "source": source, "block_size": b, "width": width},
        )
        for reader, source, b, width in numbers
    ]


def _spec(reader: int, source: int, block_size: int, width: int) -> int:
    """Layer by layer: the stretch of tokens that can have heard of the source grows on both sides."""
    first = last = source
    layers = 0
    while not first <= reader <= last:
        block = first // block_size, last // block_size
        first = (block[0] - (width - 1) // 2) * block_size
        last = (block[1] + (width - 1) // 2 + 1) * block_size - 1
        layers += 1
    return layers


def _walk(reader: int, source: int, block_size: int, width: int) -> int:
    place, goal, layers = source // block_size, reader // block_size, 0
    while place != goal:
        left = goal - place
        place += max(-(width // 2), min(width // 2, left))
        layers += 1
    return layers or int(reader != source)


def _from_graph(reader: int, source: int, block_size: int, width: int) -> int:
    blocks = max(reader, source) // block_size + 1
    p, layers = BlockPattern.window(blocks, width), 0
    while not graph.light_cone(p, source, layers, block_size)[-1, reader]:
        layers += 1
    return layers


def _counting(reader: int, source: int, block_size: int, width: int) -> int:
    if reader == source:
        return 0
    blocks = abs(reader // block_size - source // block_size)
    return next(layers for layers in itertools.count(1) if layers * (width // 2) >= blocks)


# ---------------------------------------------------------------- wrong answers


def _apart(reader: int, source: int, b: int) -> int:
    return abs(reader // b - source // b)


def _up(a: int, b: int) -> int:
    return -(-a // b)


def _at_least(layers: int, reader: int, source: int) -> int:
    return 0 if reader == source else max(1, layers)


add(
    Task(
        "2.2",
        "how many layers",
        1,
        layers_needed,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "divided by the whole width",
                "a window of 3 blocks does not carry news 3 blocks on in one layer. How far to one side does it reach?",
                (lambda r, s, b, w: _at_least(_up(_apart(r, s, b), w), r, s),),
            ),
            Mistake(
                "rounded down",
                "the last layer is missing where the blocks cannot be divided evenly. A layer that is needed for one "
                "block only is a whole layer.",
                (lambda r, s, b, w: _at_least(_apart(r, s, b) // (w // 2), r, s),),
            ),
            Mistake(
                "one layer too many",
                "you always add a layer after dividing, also where nothing is left over.",
                (lambda r, s, b, w: _at_least(_apart(r, s, b) // (w // 2) + 1, r, s),),
                small={"reader": 8, "source": 1, "block_size": 2, "width": 5},
            ),
            Mistake(
                "strides counted in tokens",
                "you divide the distance between the two tokens by the tokens of a stride. A reader hears of a whole "
                "block at once, wherever in it the source stands.",
                (lambda r, s, b, w: _at_least(_up(abs(r - s), b * (w // 2)), r, s),),
                small={"reader": 5, "source": 0, "block_size": 3, "width": 3},
            ),
            Mistake(
                "blocks counted from the source",
                "you divide the distance between the two tokens by the size of a block. Two tokens that are next to "
                "each other may stand in two blocks: in which block is each?",
                (lambda r, s, b, w: _at_least(_up(abs(r - s) // b, w // 2), r, s),),
                small={"reader": 6, "source": 2, "block_size": 3, "width": 3},
            ),
            Mistake(
                "a window of tokens",
                "the width counts blocks, and you use it as a number of tokens. How large is a block?",
                (lambda r, s, b, w: _at_least(_up(abs(r - s), w // 2), r, s),),
            ),
            Mistake(
                "news that goes one way only",
                "your answer is right where the source stands before the reader. A window reads to both sides.",
                (
                    lambda r, s, b, w: _at_least(_up(r // b - s // b, w // 2), r, s),
                    lambda r, s, b, w: 0 if r == s else _up(r // b - s // b, w // 2) or 1,
                ),
                small={"reader": 0, "source": 9, "block_size": 2, "width": 3},
            ),
            Mistake(
                "two tokens of one block",
                "two tokens of the same block do not know of each other before the first layer. After no layer at "
                "all, each knows itself alone.",
                (lambda r, s, b, w: _up(_apart(r, s, b), w // 2),),
                small={"reader": 4, "source": 5, "block_size": 3, "width": 3},
            ),
            Mistake(
                "a token that does not know itself",
                "a token needs no layer to know of itself.",
                (lambda r, s, b, w: max(1, _up(_apart(r, s, b), w // 2)),),
                small={"reader": 4, "source": 4, "block_size": 3, "width": 3},
            ),
        ),
        hints=(
            "Forget the tokens at first: in which block does each of the two stand, and how many blocks does news go "
            "in one layer?",
            "`token // block_size` is the block of a token, and half the width, rounded down, is the stride of the "
            "news. How many strides make the way, if a started one counts whole?",
            "`-(-a // b)` divides and rounds up. Two cases are left: a reader that is the source itself, and two "
            "tokens of one block, which are 0 blocks apart and still need a layer.",
        ),
        why="Reach grows by half a window in each layer, so the number of layers grows with the distance, not with its "
        "logarithm: with blocks of 64 and width 3, the two ends of 4,096 tokens are 63 layers apart. "
        "`graph.light_cone` counts the same.",
        also_right=(_walk, _from_graph, _counting),
        small={"reader": 10, "source": 1, "block_size": 2, "width": 5},
        look=CONE,
        lesson=LESSON,
        skill="reach of a window",
    )
)
