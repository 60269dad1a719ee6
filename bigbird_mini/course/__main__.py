"""The command line of the course: python -m bigbird_mini.course VERB [options]; VERB --help tells the options."""

from __future__ import annotations

import argparse
import importlib
import sys

_PROG = "python -m bigbird_mini.course"

# A verb is a module of this package with add_arguments(parser) and main(options) -> exit status, loaded when used.
VERBS = {
    "build": "for authors: run the notebooks, normalise them, generate exercises and the manifest of check cells",
    "export": "for teachers: the exercises as assignments of nbgrader, for a JupyterHub",
    "lint": "for authors: cell lengths, words, alt text, hints, points, and what must not stand in a notebook",
    "mistakes": "for authors: hand in every planted mistake and every right answer, and print what becomes of them",
    "progress": "the map of lessons and skills: what you passed, tried, and should look at again",
    "restore": "mend an exercise whose check cells are missing or edited, or whose file is damaged; your work is kept",
}
_MODULES = {"progress": "progressing"}  # whose module cannot have the verb's name: a function has it


def main(arguments: list[str] | None = None) -> int:
    """Hand over to the verb that is named. Bad input ends with one sentence and exit code 2, Ctrl-C with 130."""
    words = sys.argv[1:] if arguments is None else arguments
    first = argparse.ArgumentParser(_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    first.epilog = "verbs:\n" + "\n".join(f"  {name:10}{about}" for name, about in VERBS.items())
    first.add_argument("verb", choices=list(VERBS), metavar="VERB", help=", ".join(VERBS))
    verb = first.parse_args(words[:1]).verb
    module = importlib.import_module(f".{_MODULES.get(verb, verb)}", __package__)
    about = VERBS[verb]
    parser = argparse.ArgumentParser(f"{_PROG} {verb}", description=f"{about[:1].upper()}{about[1:]}.")
    module.add_arguments(parser)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # old Windows terminals have no check marks
    try:
        return module.main(parser.parse_args(words[1:]))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
