"""What the tasks of exercise 03 share: places in the lesson."""

from ..catalogue import Look

LESSON = "03_globals"

SPEC = Look("Loops, then blocks", "star-loops", "keys = [j for j in range(len(k))")
BLOCKS = Look("Loops, then blocks", "star-blocks", "keys = torch.cat([K[:1]")
HALVES = Look("Half a star", "halves-reach", "heard = graph.reach(p, 10)")
TOKENS = Look("Which tokens deserve it?", "tokens", "first = BlockPattern.window(N, 3)")
NEW = Look("Tokens of the text, or new ones", "etc-picture", "window.with_extra_globals(1)")
GATE = Look("Cousins: mean pooling, squeeze-and-excitation", "se-code", "gate = torch.sigmoid")
SINK = Look("Sinks", "sink", "as_number = weights[:-1] @ values")
CHOICE = Look("Chosen by the model", "choose", "score = (x @ w).unflatten(1, (16, 2))")
DOOR = Look("A path is not bandwidth", "train", "arrives = read.softmax(-1) @ gather.softmax(-1)")
