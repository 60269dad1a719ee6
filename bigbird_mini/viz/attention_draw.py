"""draw_attention: one head's learned weights in a still picture: block pairs, the tokens of one of them, and kinds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.patches import Rectangle

from bigbird_mini.pattern import NONE
from bigbird_mini.viz.attention_maps import Maps
from bigbird_mini.viz.attention_view import FULL, NAMES, View, chosen_view
from bigbird_mini.viz.draw import INK_COLOUR, PAPER
from bigbird_mini.viz.words import COLOURS, INK, LETTERS

CMAP = "viridis"
OUTSIDE_COLOUR, OUTSIDE_LETTER = "#D8D8D8", "–"
_PIXELS = 256  # a map of more blocks is drawn with as many cells, each the largest of several
_READABLE = 20  # tokens whose text has room


def draw_attention(
    model: Any,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    inputs_embeds: Any = None,
    *,
    tokens: Any = None,
    layer: int = 0,
    head: int | None = None,
    beside: str | None = None,
    locked: Sequence[Any] | None = None,
    cell: Sequence[int] | None = None,
    spot: Sequence[int] | None = None,
    document: int = 0,
) -> Figure:
    """The learned attention of one head on a text: every block pair, and the tokens of one pair; by kind for all heads.

    Args:
        model: an encoder, a model with a head, or any module with an .encoder; or several of these by name.
        input_ids, attention_mask, token_type_ids, inputs_embeds: as for the model; a single text may be (n,).
        tokens: a text for each token, a tokenizer, or a function from an id to its text; ids where None.
        layer, head: which. A head of None is the one whose weights differ most from an even spread.
        beside: what stands beside it: "nothing"; "full attention, same weights"; or "the locked head". None takes the
            locked head where there is one, else full attention where it is cheap.
        locked: [layer, head] or [model, layer, head] to compare with; of several models the second, if None.
        cell: [query block, key block] whose tokens are shown, the strongest random pair if None. spot: [row, column] in
            it, the largest weight if None.
        document: which of a batch.

    Its words: `describe_attention` of the same arguments. Raises ValueError for what is not there or too much.
    """
    return figure_of(
        chosen_view(
            model,
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            tokens=tokens,
            layer=layer,
            head=head,
            beside=beside,
            locked=locked,
            cell=cell,
            spot=spot,
            document=document,
        )
    )


def figure_of(view: View) -> Figure:
    """The figure of :func:`draw_attention` for a view that is there already."""
    sides = [(view.maps, view.head[2], view.name())]
    if view.beside is not None:
        sides.append((*view.beside, FULL if view.full is not None else view.name(view.locked)))
    fig = Figure(figsize=(4.4 * len(sides) + 4.0, 8.4), facecolor=PAPER)  # laid out by hand: that takes half the time
    place = {"left": 0.08, "right": 0.97, "bottom": 0.1, "top": 0.95, "hspace": 0.38, "wspace": 0.35}
    widths = [1.0] * len(sides) + [0.75]
    axes = fig.subplots(2, len(sides) + 1, squeeze=False, width_ratios=widths, gridspec_kw=place)
    tiles = [maps.tile(head, *view.cell) for maps, head, _ in sides]
    top = max([maps.masses(head).share.max(initial=0) for maps, head, _ in sides])
    most = max([float(tile.max()) for tile in tiles if tile is not None], default=0.0)
    images = []
    for k, (maps, head, name) in enumerate(sides):
        images.append(_draw_map(axes[0, k], view, maps, head, top))
        axes[0, k].set_title(name, fontsize=10)
        _draw_tile(axes[1, k], view, tiles[k], most)
    fig.colorbar(images[0], ax=axes[0, : len(sides)], shrink=0.8, format="{x:.0%}", label="share of a query's weight")
    shown = next((ax.images[0] for ax in axes[1, :-1] if ax.images), None)
    if shown is not None:
        fig.colorbar(shown, ax=axes[1, : len(sides)], shrink=0.8, label="weight")
    _draw_shares(axes[0, -1], view)
    _draw_tops(axes[1, -1], view)
    return fig


def colour_of(kind: int) -> tuple[str, str, str]:
    """Of a kind: its colour, that of ink on it, and its letter."""
    return (OUTSIDE_COLOUR, "#000000", OUTSIDE_LETTER) if kind == NONE else (COLOURS[kind], INK[kind], LETTERS[kind])


def _draw_map(ax: Axes, view: View, maps: Maps, head: int, top: float) -> Any:
    N = maps.n_blocks
    cells, share, _ = maps.masses(head)
    fold = -(-N // _PIXELS)
    size = -(-N // fold)
    table = np.full((size, size), np.nan, np.float32)
    rows, keys = np.divmod(cells, N)
    np.fmax.at(table, (rows // fold, keys // fold), share)
    end = size * fold - 0.5
    image = ax.imshow(table, cmap=CMAP, norm=_scale(top), interpolation="nearest", extent=(-0.5, end, end, -0.5))
    i, j = view.cell
    for colour, thick in (("#FFFFFF", 3.5), ("#000000", 1.5)):
        ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=thick))
    ticks = range(0, N, 1 if N <= 16 else 2 if N <= 32 else max(4, N // 8))
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.tick_params(length=0, labelsize=8, colors=INK_COLOUR)
    ax.set(xlabel="key block", ylabel="query block", xlim=(-0.5, N - 0.5), ylim=(N - 0.5, -0.5))
    return image


def _scale(top: float) -> PowerNorm:
    """Colour by the root: one large weight does not make all others dark."""
    return PowerNorm(0.5, 0, max(top, 1e-12))


def _draw_tile(ax: Axes, view: View, tile: np.ndarray | None, top: float) -> None:
    (i, j), b = view.cell, view.maps.block_size
    ax.set_title(f"block {i} reads block {j}: its tokens", fontsize=10)
    if tile is None:
        ax.text(0.5, 0.5, "this block pair\nis not read", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return
    span = min(b, _READABLE)
    r, c = (min(max(0, k - span // 2), b - span) for k in view.spot)
    ax.imshow(tile[r : r + span, c : c + span], cmap=CMAP, norm=_scale(top), interpolation="nearest")
    for colour, thick in (("#FFFFFF", 3.5), ("#000000", 1.5)):
        corner = view.spot[1] - c - 0.5, view.spot[0] - r - 0.5
        ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=thick))
    texts = [[_short(view.texts[block * b + first + k]) for k in range(span)] for block, first in ((j, c), (i, r))]
    ax.set_xticks(range(span), texts[0], rotation=90 if max(map(len, texts[0])) > 2 else 0, fontsize=8)
    ax.set_yticks(range(span), texts[1], fontsize=8)
    ax.tick_params(length=0, colors=INK_COLOUR)
    part = "" if span == b else f" ({span} of {b})"
    ax.set(xlabel=f"key token{part}", ylabel=f"query token{part}")


def _draw_shares(ax: Axes, view: View) -> None:
    """A bar for each head: how much of its weight goes to each kind."""
    rows = view.shares()
    heads = view.maps.heads
    if heads > 16:  # there is room for the one that is shown
        rows = [rows[view.head[2]], *rows[heads:]]
    used = view.kinds()
    for y, (_, share) in enumerate(rows):
        left = 0.0
        for kind in used:
            colour, ink, letter = colour_of(kind)
            ax.barh(y, share[kind], left=left, color=colour, edgecolor=PAPER, height=0.8)
            if share[kind] > 0.08:
                words = f"{letter} {share[kind]:.0%}" if share[kind] > 0.2 else letter
                ax.text(left + share[kind] / 2, y, words, ha="center", va="center", fontsize=7, color=ink)
            left += share[kind]
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    for label, (name, _) in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if name == f"head {view.head[2]}" else "normal")
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xticks=())
    ax.set_title("where the weight goes", fontsize=10)
    ax.set_xlabel(", ".join(f"{colour_of(k)[2]} {NAMES[k]}" for k in used), fontsize=8)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0, colors=INK_COLOUR)


def _draw_tops(ax: Axes, view: View) -> None:
    """The keys to which the query token gives most."""
    tops = view.tops()
    for y, (key, weight, kind) in enumerate(tops):
        ax.barh(y, weight, color=colour_of(kind)[0], height=0.36)
        at = "" if key < view.room else f"token {key - view.room}, "
        words = f"{_short(view.texts[key])}  ({at}{NAMES[kind]}): {weight:.3g}"
        ax.text(0, y - 0.22, words, fontsize=8, va="bottom", color=INK_COLOUR)
    ax.set(yticks=(), xticks=(), ylim=(max(6, len(tops)) - 0.4, -1.1))
    ax.spines[:].set_visible(False)
    words = "gives most to:" if tops else "reads nothing"
    ax.set_title(f"{_printed(view.token(view.place))}\n{words}", fontsize=10)


def _short(text: str) -> str:
    text = _printed(text)
    return text if len(text) <= 9 else f"{text[:8]}…"


def _printed(text: str) -> str:
    """With a box for every letter that matplotlib's own font lacks."""
    return "".join(letter if ord(letter) in _letters() else "□" for letter in text)


@lru_cache(maxsize=1)
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
