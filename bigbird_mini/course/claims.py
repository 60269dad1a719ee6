"""Numbers in prose that are computed anew: `805 million<!--= 12 * 4096**2 * 4 / 1e6 -->`.

The comment stands right behind the number and its unit, and readers do not see it. Its expression gives the number as
it is written, rounded to the digits that are shown; it may use math, torch and the public names of bigbird_mini.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

_CLAIM = re.compile(r"<!--=(.*?)-->", re.S)
# a number, perhaps in bold or in quotes, perhaps with a unit of one word, right before the comment
_STATED = re.compile(r"([-\u2212]?\d[\d,]*(?:\.\d+)?)[*`_]*\s*(?:%|[^\W\d_]+|×)?[*`_]*$")


@cache
def _names() -> dict[str, Any]:
    library = importlib.import_module("bigbird_mini")
    names = {name: getattr(library, name) for name in library.__all__}
    for room in ("cost", "graph"):
        names[room] = importlib.import_module(f"bigbird_mini.{room}")
    return names | {"math": importlib.import_module("math"), "torch": importlib.import_module("torch")}


def wrong_claims(prose: str) -> Iterator[str]:
    """A sentence for each claim that does not hold, or cannot be read or computed."""
    for claim in _CLAIM.finditer(prose):
        expression = " ".join(claim[1].split())
        stated = _STATED.search(_CLAIM.sub("", prose[: claim.start()]))
        if not stated:
            yield f"no number stands right before the claim {expression!r}"
            continue
        written = stated[1].replace(",", "").replace("\u2212", "-")
        try:
            ast.parse(expression, mode="eval")
            value = float(eval(expression, dict(_names())))
        except Exception as error:
            yield f"the claim {expression!r} cannot be computed ({type(error).__name__}: {error})"
            continue
        digits = len(written.partition(".")[2])
        if round(value, digits) != float(written):
            yield f"{stated[1]} is stated, and {expression} is {value:,.{digits + 2}f}"
