"""The tasks of exercise 01, dense attention. `one_head.py` is the pattern to write another task by.

How to add a task
-----------------
The tasks of a lesson stand in one file, `tasks_NN.py` (NN is the lesson); where that would outgrow 400 lines, as here,
in a folder `tasks_NN/` with one file for each. A file holds, for each task:

1. The worked solution: a plain function, body and docstring word for word as in the answer cell of
   `solutions/NN_name.ipynb`. Learners see its source after their hints.
2. `cases`: a function that gives a list of `Case`, each with words, the inputs by name, and what the dimensions of the
   result count. Choose inputs on which mistakes show: all sizes different, nothing symmetric, large scores, padding,
   rows that read nothing, windows wide enough to wrap. Where the values are one-hot, the result is the attention
   weights and the picture shows who reads whom: begin with such a case.
3. `spec`: the right result in plain loops, sharing no code with the solution (left out where the solution is that).
4. At least four `Mistake`s that people really make: a name; a sentence or two that explain without giving the answer;
   one function or more that makes it. On the first case where a mistake shows, no other may give the same result.
5. Three `hints`, from a nudge to nearly there; `why`, what the solution teaches; `small`, inputs to follow with a
   pencil, on which the mistakes show (a mistake may have inputs of its own); `look`, a cell of the lesson;
   `also_right`, three right answers written in other ways.
6. Where it fits: `large`, inputs for `beside`, which measures time and memory; `par`, for the flight recorder; `swap`,
   into a model; for a long function `distractors`, two wrong lines, each like a right one, for the warm-up.
7. `add(Task(...))`. Then `python -m bigbird_mini.course mistakes NN.k` tries all of this and says what is missing, as
   the tests do. Put `check("NN.k", name)` and `hint("NN.k")` into cells of the solution, and build.

A right result is the one that `spec` gives; a tensor, a whole number, or any value with `==`. Where many results are
right (a random pattern), set `by_rule=True` and give each mistake `seen(result, **inputs)`: whether a result shows it.
"""

from . import block_attention, block_grid, many_heads, memory, one_head  # noqa: F401
