"""The command line of the jobs: python -m bigbird_mini.jobs NAME [options]; NAME --help tells the options."""

from __future__ import annotations

import argparse
import importlib
import sys

from . import JOBS

_PROG = "python -m bigbird_mini.jobs"


def main(arguments: list[str] | None = None) -> int:
    """Hand over to the job that is named. Bad input ends with one sentence and exit code 2, Ctrl-C with 130."""
    words = sys.argv[1:] if arguments is None else arguments
    first = argparse.ArgumentParser(_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    first.epilog = "jobs:\n" + "\n".join(f"  {name:10}{about}" for name, about in JOBS.items())
    first.add_argument("job", choices=list(JOBS), metavar="NAME", help=", ".join(JOBS))
    job = first.parse_args(words[:1]).job
    module = importlib.import_module(f".{job}", __package__)
    parser = argparse.ArgumentParser(f"{_PROG} {job}", description=JOBS[job])
    module.add_arguments(parser)
    try:
        return module.main(parser.parse_args(words[1:]))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        notes = getattr(stopped, "__notes__", ["Stopped."])
        print(*notes, "The same command goes on, a single training with --resume.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
