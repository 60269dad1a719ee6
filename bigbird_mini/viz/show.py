"""show: a picture with a text alternative that JupyterLab, nbconvert and GitHub keep.

JupyterLab and nbconvert both drop the alt text that a notebook can carry beside a PNG, but both keep an <img alt=...>
in HTML; so a picture is sent as both.
"""

from __future__ import annotations

import base64
import html
import io
import re
from typing import Any

DPI = 144  # pixels per inch of the PNG
_CSS_DPI = 96  # the browser's inch; the PNG is sharper than that by DPI / _CSS_DPI, for screens with fine pixels
_STYLE = "max-width:100%;height:auto;border:1px solid #8888;border-radius:8px;background:#fff"


def show(picture: Any, alt: str | None = None) -> None:
    """Show a picture in a notebook, with words for readers who cannot see it.

    picture: a matplotlib Figure, the bytes of a PNG, or the text of an SVG. alt: what the picture shows, in a sentence
    or two. Raises TypeError or ValueError where alt is missing or blank, or the picture is something else.
    """
    bundle = picture_bundle(picture, alt)
    from IPython.display import display

    display(bundle, raw=True)


def picture_bundle(picture: Any, alt: str | None = None) -> dict[str, str]:
    """The same as a MIME bundle: text/plain (the words), text/html (an img with alt), image/png or image/svg+xml."""
    if alt is None or not isinstance(alt, str):
        raise TypeError("a picture needs alt: say in words what it shows, for readers who cannot see it")
    if not alt.strip():
        raise ValueError("alt is blank: say in words what the picture shows, for readers who cannot see it")
    mime, picture = encode(picture)
    bundle = {"text/plain": alt, "text/html": img_tag(picture, alt)}
    # a notebook file holds a PNG as base64 and an SVG as text, which carries its words itself
    bundle[mime] = base64.b64encode(picture).decode() if isinstance(picture, bytes) else _labelled(picture, alt)
    return bundle


def img_tag(picture: Any, alt: str) -> str:
    """An HTML <img> that holds the picture itself, with its text alternative."""
    _, picture = encode(picture)
    width = f' width="{_png_width(picture) * _CSS_DPI // DPI}"' if isinstance(picture, bytes) else ""
    return f'<img alt="{html.escape(alt)}" src="{data_url(picture)}"{width} style="{_STYLE}">'


def data_url(picture: Any) -> str:
    """The picture as a data: address, for an <img>."""
    mime, picture = encode(picture)
    raw = picture if isinstance(picture, bytes) else picture.encode()
    return f"data:{mime};base64,{base64.b64encode(raw).decode()}"


def encode(picture: Any) -> tuple[str, bytes | str]:
    """(MIME type, PNG bytes or SVG text) of a Figure, PNG bytes or SVG text; TypeError for anything else."""
    if hasattr(picture, "savefig"):
        memory = io.BytesIO()
        # its own light paper, with a margin: dark ink then reads in the dark theme too
        picture.savefig(memory, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.12, facecolor="white")
        return "image/png", memory.getvalue()
    if isinstance(picture, bytes) and picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", picture
    if isinstance(picture, str) and picture.lstrip().startswith(("<svg", "<?xml")):
        return "image/svg+xml", picture
    raise TypeError(f"a picture is a matplotlib Figure, PNG bytes or SVG text, not {type(picture).__name__}")


def _labelled(svg: str, alt: str) -> str:
    """The SVG with its words in the first tag, unless some are there."""
    label = f'<svg role="img" aria-label="{html.escape(alt)}"'
    return re.sub(r"<svg\b(?![^>]*\baria-label=)", lambda _: label, svg, count=1)


def _png_width(png: bytes) -> int:
    """Width in pixels, from the header of a PNG."""
    return int.from_bytes(png[16:20], "big")
