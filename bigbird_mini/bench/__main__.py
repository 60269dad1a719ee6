"""The command line of the bench: see --help."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from ..attention import BACKENDS
from .alone import figure
from .models import MODELS
from .peers import DIRECTIONS, ROUTES, Case
from .report import sentences, text
from .sweep import Settings, sweep

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768]
# Ours through FlexAttention is not asked for where this version does not have it.
DEFAULT_ROUTES = [route for route in ROUTES if route != "flex" or route in BACKENDS]


def main(arguments: list[str] | None = None) -> int:
    """Measure, or read a stored result, and show it as tables and a plot."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.alone:
        order = json.loads(options.alone)
        print(json.dumps(figure(Case(**order["case"]), order["repeats"], order["memory"])))
        return 0
    _complete(parser, options)
    _check(parser, options)
    if options.stored:
        result = _load(parser, options.stored)
    else:

        def save(result: dict[str, Any]) -> None:
            if options.json:
                options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")

        settings = Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)})
        result = sweep(settings, lambda line: print(line, file=sys.stderr, flush=True), save)
        save(result)
    print(text(result, options.markdown), end="")
    if options.plot:
        from .plot import draw

        draw(result, options.plot)
        print("", f"{options.plot} shows time against length, both axes logarithmic:", *sentences(result), sep="\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "bigbird_mini.bench", description="Sparse beside dense and named peers, on this machine."
    )
    add = parser.add_argument
    add(
        "what",
        nargs="?",
        default="attention",
        choices=["attention", "model"],
        help="attention alone (default), or a whole encoder",
    )
    add(
        "--lengths",
        type=int,
        nargs="+",
        metavar="N",
        help="tokens (default: 512 to 32768, doubled; of a model, to 16384)",
    )
    add("--routes", nargs="+", metavar="ROUTE", help=f"{', '.join(ROUTES)}; of a model: {', '.join(MODELS)}")
    add("--directions", nargs="+", choices=DIRECTIONS, help="both: forward and backward; of a model: forward")
    add("--layers", type=int, help="of a model (default: 12)")
    add("--heads", type=int, default=12, help="heads of 64 (default: 12)")
    add("--block", type=int, default=64, help="tokens of a block (default: 64)")
    add("--window", type=int, default=3, help="blocks of the window (default: 3)")
    add("--random", type=int, default=3, help="random blocks of a row (default: 3)")
    add("--repeats", type=int, default=3, help="least runs of each figure; its median counts (default: 3)")
    add("--rounds", type=int, default=1, help="times to go through everything; median of the ratios (default: 1)")
    add("--limit", type=float, default=120.0, help="longest expected seconds of one measurement (default: 120)")
    add("--extras", type=int, nargs="?", const=4096, metavar="N", help="a ragged batch too, at 4096 or N tokens")
    add("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add("--json", type=Path, metavar="FILE", help="write all raw figures, again after each length")
    add("--plot", type=Path, metavar="FILE", help="draw time against length, .svg or .png (needs matplotlib)")
    add("--markdown", action="store_true", help="tables for a Markdown page")
    add("--from", type=Path, metavar="FILE", dest="stored", help="show a result that --json wrote; measure nothing")
    add("--alone", help=argparse.SUPPRESS)
    return parser


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What the choice of attention or model leaves open."""
    model = options.what == "model"
    known = MODELS if model else ROUTES
    options.routes = options.routes or (list(MODELS) if model else DEFAULT_ROUTES)
    options.directions = options.directions or (["forward"] if model else list(DIRECTIONS))
    options.lengths = options.lengths or (LENGTHS[:-1] if model else LENGTHS)
    if options.layers is not None and not model:
        parser.error(f"--layers {options.layers} is for bench model")
    options.layers = (12 if options.layers is None else options.layers) if model else 0
    for route in options.routes:
        if route not in known:
            parser.error(f"--routes {route} is not known; allowed: {', '.join(known)}")
    if model and (options.directions != ["forward"] or options.extras or options.layers < 1):
        parser.error("bench model measures forward only, without --extras, and --layers of at least 1")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Say what is wrong before anything is measured."""
    for name in ("heads", "block", "window", "repeats", "rounds", "limit"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} {getattr(options, name):g} is too small; it must be more than 0")
    if options.random < 0 or options.window % 2 == 0:
        parser.error(f"--random {options.random} must be at least 0, --window {options.window} odd")
    for n in [*options.lengths, *([] if options.extras is None else [options.extras])]:
        if n < options.block or n % options.block:
            parser.error(f"length {n} is not a multiple of {options.block}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; use cpu")
    for file in (options.json, options.plot):
        if file and not file.absolute().parent.is_dir():
            parser.error(f"{file}: there is no folder {file.parent}")
    if options.plot and options.plot.suffix not in (".svg", ".png"):
        parser.error(f"--plot {options.plot}: the name must end in .svg or .png")
    if options.plot and not importlib.util.find_spec("matplotlib"):
        parser.error('--plot needs matplotlib: pip install "bigbird-mini[lab]"')


def _load(parser: argparse.ArgumentParser, file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as e:
        parser.error(f"--from {file} cannot be read: {e}")
    if not isinstance(result, dict) or not {"machine", "settings", "density", "figures"} <= result.keys():
        parser.error(f"--from {file} is not a result of --json")
    return result


if __name__ == "__main__":
    raise SystemExit(main())
