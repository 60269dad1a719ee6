"""The failure picture: which block is boxed, what is said, and that the drawing holds no more than it should."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bigbird_mini.viz.failure import Failure, _short, describe_failure, draw_failure, draw_numbers, first_difference

SVG = "{http://www.w3.org/2000/svg}"


def failure(expected, found, **more):
    expected, found = np.asarray(expected), np.asarray(found)
    return Failure(expected, found, ~((expected == found) | (np.isnan(expected * 1.0) & np.isnan(found * 1.0))), **more)


def grid():
    """6 blocks of 2 by 3: blocks (1, 0) and (2, 1) differ."""
    expected = np.arange(36.0).reshape(6, 6)
    found = expected.copy()
    found[3, 1] += 1
    found[5, 4:] = np.nan, 0
    return failure(expected, found, axes=("query", "key"), block=(2, 3))


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def rects(svg, **wanted):
    nodes = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return [node for node in nodes if all(node.get(key.replace("_", "-")) == value for key, value in wanted.items())]


def test_the_first_differing_block():
    f = grid()
    assert f.blocks.tolist() == [[False, False], [True, False], [False, True]]
    assert f.first == (1, 0) and f.inside() == (slice(2, 4), slice(0, 3))
    odd = failure(np.zeros((5, 4)), np.eye(5)[:, 1:], block=(2, 3))
    assert odd.blocks.tolist() == [[True, False], [True, False], [False, True]]
    assert Failure(odd.expected, odd.found, np.arange(20).reshape(5, 4) == 19, block=(2, 3)).inside() == (
        slice(4, 5),
        slice(3, 4),
    )


def test_in_words():
    assert first_difference(grid()) == (
        "First differing block: query block 1, key block 0 (queries 2 and 3, keys 0-2): "
        "expected 12 to 20, yours 12 to 20 (2 of 6 blocks differ)."
    )
    assert describe_failure(grid()).endswith(" Different are: query block 1: key block 0; query block 2: key block 1.")
    last = Failure(grid().expected, grid().found, np.isnan(grid().found), ("query", "key"), (2, 3), "head 4")
    assert (
        "block: head 4, query block 2, key block 1 (queries 4 and 5, keys 3-5): expected 27 to 35,"
        in describe_failure(last)
    )
    assert "yours 0 to 33 and nan (1 of 6 blocks differs)." in describe_failure(last)


def test_single_places_and_truth_values():
    f = failure(np.eye(3) > 0, np.ones((3, 3)) > 0, axes=("query block", "key block"))
    assert describe_failure(f) == (
        "First differing block: query block 0, key block 1: expected False, yours True (6 of 9 blocks differ). "
        "Different are: query block 0: key blocks 1 and 2; query block 1: key blocks 0 and 2; "
        "query block 2: key blocks 0 and 1."
    )
    f = failure([[1.0, 2.0]], [[1.0, np.nan]], axes=("query", "number"))
    assert (
        first_difference(f)
        == "First differing place: query 0, number 1: expected 2, yours nan (1 of 2 places differs)."
    )


def test_long_lists_are_cut():
    found = np.zeros((9, 9))
    for i in range(9):
        found[i, : i + 1] = 1
    words = describe_failure(failure(np.zeros((9, 9)), found, axes=("query", "key")))
    assert words.endswith("query 3: keys 0-3; query 4: keys 0-4; and more in 4 other rows.") and len(words) < 500


def test_the_drawing():
    svg = draw_failure(grid())
    said = texts(svg)
    assert [word for word in said if word in ("expected", "yours", "difference")] == ["expected", "yours", "difference"]
    assert said.count("key →") == 3 and said.count("← query") == 1
    assert said.count("+") == 1 and said.count("−") == 1 and said.count("?") == 1 and said.count("nan") == 1
    assert said[-1] == "+ yours is larger; − yours is smaller; ? no number; boxed: the first differing block"
    boxes = rects(svg, fill="none", stroke_width="3")
    assert len(boxes) == 3 and {(b.get("x"), b.get("y"), b.get("width"), b.get("height")) for b in boxes} == {
        ("0", "72", "108", "72")
    }
    paper = rects(svg, fill="#FFFFFF")[0]
    assert paper.get("width") == ElementTree.fromstring(svg).get("width"), "light paper of its own, for dark themes"


def test_truth_values_say_which_way():
    svg = draw_failure(failure(np.eye(3) > 0, np.eye(3) < 0, axes=("query block", "key block")))
    assert texts(svg)[-1] == "− yours is False, should be True; boxed: the first differing block"
    assert texts(svg).count("1") == 3 + 4, "three in the table, and the numbers of row and column 1"


def test_signs_stand_beside_colours():
    """Larger and smaller differ by sign, and by blue and orange, which colour-blind readers tell apart."""
    svg = draw_failure(failure([[0.0, 0.0]], [[1.0, -1.0]]))
    assert len(rects(svg, fill="#F5C396")) == 1 and len(rects(svg, fill="#9CCBE8")) == 1
    assert "+" in texts(svg) and "−" in texts(svg)


@pytest.mark.parametrize("shape, place", [((70, 5), (40, 0)), ((5, 70), (0, 69)), ((200, 200), (0, 150))])
def test_of_large_tables_the_part_with_the_box_is_drawn(shape, place):
    expected = np.zeros(shape)
    found = expected.copy()
    found[place] = 1
    svg = draw_failure(failure(expected, found, axes=("query", "key"), block=(4, 1)))
    assert len(svg) < 600_000 and "drawn: query" in texts(svg)[-1] and f"of {shape[0]} by {shape[1]}" in texts(svg)[-1]
    assert texts(svg).count("+") == 1
    page = ElementTree.fromstring(svg)
    for box in rects(svg, fill="none", stroke_width="3"):
        right = 46 + float(box.get("x")) + float(box.get("width"))
        assert float(box.get("x")) >= 0 and right < float(page.get("width"))


def test_wild_numbers_do_not_hide_the_others():
    svg = draw_failure(failure([[1.0, 0.5]], [[1e9, 0.5]]))
    assert rects(svg, fill="#80B8D8"), "0.5 is drawn at half of the strongest blue, not as white"
    assert "inf" in texts(draw_failure(failure([[1.0]], [[np.inf]])))


def test_numbers_in_cells_are_short():
    values = [0.0, 1.0, 0.999, 0.001, -0.5, -1.0, 12.345, 123456.0, 0.25, -0.004]
    written = ["0", "1", "1", ".00", "\u2212.50", "\u22121", "12.3", "1.23e+05", ".25", "\u2212.00"]
    assert [_short(value) for value in values] == written
    svg = draw_failure(failure(np.full((12, 12), -0.25), np.full((12, 12), 1.0)))
    assert texts(svg).count("\u2212.25") == 144, "also in small cells"


def test_numbers():
    svg = draw_numbers(588, 196)
    assert texts(svg) == ["expected", "588", "yours", "196"]
    expected, found = (float(bar.get("width")) for bar in rects(svg, stroke="#1A1A1A"))
    assert expected == 300 and found == 100
    assert ElementTree.fromstring(draw_numbers(0, 0)) is not None


def test_words_are_escaped():
    svg = draw_failure(failure([[1.0]], [[2.0]], axes=("<row>", "a & b"), place="<b>"))
    assert "<b>" in texts(svg) and "a & b →" in texts(svg)


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match=r"of one shape are compared, not \(2, 2\), \(2, 3\)"):
        Failure(np.zeros((2, 2)), np.zeros((2, 3)), np.ones((2, 2), bool))
    with pytest.raises(ValueError, match="do not differ"):
        failure(np.zeros((2, 2)), np.zeros((2, 2)))
