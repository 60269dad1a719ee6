"""draw_cost: bytes against tokens, for dense, sparse and the wrong arithmetic, with the device's memory across."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bigbird_mini.model import BigBirdConfig
from bigbird_mini.viz.cost import MODES, WAYS, Cost, gigabytes, lengths
from bigbird_mini.viz.draw import FAINT, INK_COLOUR, PAPER

# Each way has a colour, a marker and a dash, and its name at the end of its line.
STYLES = {
    "wrong": ("#CC79A7", "X", ":"),
    "dense": ("#D55E00", "s", "-"),
    "fused": ("#E69F00", "^", "--"),
    "sparse": ("#0072B2", "o", "-"),
}


def draw_cost(config: BigBirdConfig, tokens: int = 4096, memory: float = 11.0, mode: str = "layer") -> Figure:
    """Bytes of one document against its length, both logarithmic; a ring where a way stops fitting into ``memory`` GB.

    mode: "layer", "inference" or "training". Its words: `describe_cost` of the same arguments.
    """
    cost = Cost(config, tokens, memory, mode)
    fig = Figure(figsize=(7.6, 4.6), layout="constrained", facecolor=PAPER)
    ax = fig.subplots()
    for way, (colour, marker, dash) in STYLES.items():
        values = [cost.bytes(way, n) for n in lengths()]
        ax.plot(lengths(), values, color=colour, marker=marker, linestyle=dash, markersize=5, label=WAYS[way])
        name = ax.annotate(WAYS[way], (lengths()[-1], values[-1]), (8, 0), textcoords="offset points", va="center")
        name.set(color=colour, fontsize=9, fontweight="bold", annotation_clip=False)
        if most := cost.longest(way):
            ax.plot([most], [memory * 1e9], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=colour)
            number = ax.annotate(f"{most:,}", (most, memory * 1e9), (0, 9), textcoords="offset points", ha="center")
            number.set(fontsize=8, path_effects=[withStroke(linewidth=2.5, foreground=PAPER)])
    ax.axhline(memory * 1e9, color=INK_COLOUR, linewidth=1)
    ax.text(lengths()[0], memory * 1e9, f"{memory:g} GB", va="bottom", fontsize=8, color=INK_COLOUR)
    ax.axvline(tokens, color=INK_COLOUR, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(lengths(), [f"{n:,}" for n in lengths()], rotation=35, ha="right", fontsize=8)
    ax.xaxis.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: gigabytes(value))
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel="tokens", ylabel="bytes of one document", title=MODES[mode])
    return fig
