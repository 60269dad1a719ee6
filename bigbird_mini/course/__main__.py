"""python -m bigbird_mini.course build: make the exercises and the manifest from the solutions."""

import argparse
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 1 a fault in a source or a file out of date."""
    parser = argparse.ArgumentParser(prog="python -m bigbird_mini.course", description="Keep the course's notebooks.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser(
        "build",
        help="normalise lessons and solutions, generate exercises and the manifest of check cells",
        description="Normalise lessons and solutions, generate exercises and the manifest of check cells.",
    )
    build.add_argument("--run", action="store_true", help="run lessons and solutions first and store their outputs")
    build.add_argument("--check", action="store_true", help="write nothing; exit 1 naming the files out of date")
    build.add_argument("--root", type=Path, default=CHECKOUT, help="the course's folder (default: this checkout)")
    return _build(parser.parse_args(arguments))


def _build(options: argparse.Namespace) -> int:
    root: Path = options.root.resolve()
    if not (root / "solutions").is_dir():
        print(f"{options.root} has no folder solutions/: name the course's checkout with --root", file=sys.stderr)
        return 1
    from .build import SourceError, plan

    try:
        wanted = plan(root, run=options.run)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        stale = wanted.stale()
        for path in stale:
            print(f"out of date: {path.as_posix()}")
        if stale:
            print("Run: python -m bigbird_mini.course build")
        return 1 if stale else 0
    for path in wanted.write():
        print(f"written: {path.as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
