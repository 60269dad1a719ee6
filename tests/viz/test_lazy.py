"""What loads what: the library without the lab extra, and one sentence where the extra is missing."""

import subprocess
import sys

import pytest


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_library_does_not_load_viz_and_words_do_not_load_matplotlib():
    heavy = "[m for m in ('bigbird_mini.viz', 'matplotlib', 'anywidget', 'IPython') if m in sys.modules]"
    assert python(f"import sys, bigbird_mini; bigbird_mini.BlockPattern; print({heavy})") == "[]"
    assert python(f"import sys; from bigbird_mini.viz import show, describe_pattern; print({heavy})") == (
        "['bigbird_mini.viz']"
    )


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("matplotlib", "from bigbird_mini.viz import draw_pattern"),
        ("anywidget", "from bigbird_mini.viz import explore_pattern"),
        ("anywidget", "from bigbird_mini.course import predict"),
    ],
)
def test_a_missing_extra_is_one_sentence(missing, use):
    hide = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == '{missing}':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    code = f"{hide}try:\n    {use}\nexcept ImportError as error:\n    print(error)\n"
    said = python(code)
    assert said.startswith(use.split()[-1]) and missing in said and 'pip install "bigbird-mini[lab]"' in said
    assert "\n" not in said


def test_show_stays_the_function():
    code = "from bigbird_mini import viz; import bigbird_mini.viz.show; print(callable(viz.show))"
    assert python(code) == "True"


def test_all_names_are_there():
    from bigbird_mini import viz

    assert all(callable(getattr(viz, name)) or isinstance(getattr(viz, name), dict) for name in viz.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = viz.nothing
