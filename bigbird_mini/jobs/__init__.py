"""Real trainings, one file each, from the command line: python -m bigbird_mini.jobs NAME [options].

A job is a module of this package with ``add_arguments(parser)`` and ``main(arguments) -> int``. It is imported when it
is used. Results are JSON lines in the folder that ``--out`` names.
"""

JOBS = {
    "genome": "which strand leads, from windows of 256 to 16,384 bases of a real genome",
    "mlm": "masked language model on the standard library's text",
    "imports": "which import does this name come from, in the standard library's code",
    "lengthen": "a pretrained encoder of 512 positions made into a block-sparse one of 4,096",
}
