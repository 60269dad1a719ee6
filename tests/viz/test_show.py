"""show: a picture never goes without words, in any front end."""

import base64

import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from bigbird_mini.viz import picture_bundle, show
from bigbird_mini.viz.show import data_url, encode

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"></svg>'


def figure():
    fig = Figure(figsize=(1, 1))
    fig.subplots().plot([1, 2])
    return fig


def test_alt_is_required():
    with pytest.raises(TypeError, match="say in words what it shows"):
        show(figure())
    with pytest.raises(TypeError, match="say in words what it shows"):
        show(figure(), 3)
    with pytest.raises(ValueError, match="alt is blank"):
        show(figure(), "  ")


def test_figure_bundle_holds_words_html_and_png():
    bundle = picture_bundle(figure(), 'a line from 1 to 2, "rising" <fast>')
    assert set(bundle) == {"text/plain", "text/html", "image/png"}
    assert bundle["text/plain"] == 'a line from 1 to 2, "rising" <fast>'
    assert 'alt="a line from 1 to 2, &quot;rising&quot; &lt;fast&gt;"' in bundle["text/html"]
    assert f"data:image/png;base64,{bundle['image/png']}" in bundle["text/html"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_paper_is_opaque_and_light_so_that_ink_reads_in_the_dark_theme():
    fig = figure()
    fig.set_facecolor("none")
    import io

    import matplotlib.image

    pixels = matplotlib.image.imread(io.BytesIO(encode(fig)[1]))
    assert pixels[0, 0].tolist() == [1.0, 1.0, 1.0, 1.0]


def test_png_bytes_and_svg_text_are_taken_as_they_are_but_for_the_words():
    png = encode(figure())[1]
    assert base64.b64decode(picture_bundle(png, "a line")["image/png"]) == png
    bundle = picture_bundle(SVG, 'a "square" & \\1')
    words = 'role="img" aria-label="a &quot;square&quot; &amp; \\1" '
    assert bundle["image/svg+xml"] == SVG.replace("<svg ", f"<svg {words}") and "image/png" not in bundle
    has_words = SVG.replace("<svg", '<svg aria-label="its own"')
    assert picture_bundle(has_words, "a square")["image/svg+xml"] == has_words
    assert base64.b64decode(data_url(SVG).split(",")[1]).decode() == SVG


@pytest.mark.parametrize("thing", [b"GIF89a", "picture.png", None, 3])
def test_other_things_are_refused(thing):
    with pytest.raises(TypeError, match="a matplotlib Figure, PNG bytes or SVG text"):
        picture_bundle(thing, "words")


def test_show_displays_the_bundle(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    show(SVG, "a square")
    assert shown == [(picture_bundle(SVG, "a square"), True)]
