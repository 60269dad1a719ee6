"""Time and memory: measure() and kept_bytes() for any function, and a table of attentions side by side.

`python -m bigbird_mini.bench` prints the table: ours beside torch's dense attention and named peers. Figures belong to
one run on one machine; compare columns, not numbers from different days.
"""

from .measuring import Measured, kept_bytes, measure

__all__ = ["Measured", "kept_bytes", "measure"]
