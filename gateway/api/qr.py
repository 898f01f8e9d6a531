"""A QR as the pages and the API draw it: a file of its own kind, without words and without colours but black."""

import segno


def qr_svg(text: str) -> str:
    """One `<svg>` of the text, as large as its place, with the four empty modules around it that a reader needs.

    Error correction M: it is read from a folded sheet too.
    """
    return segno.make(text, error="m", micro=False).svg_inline(border=4, omitsize=True, svgclass=None, lineclass=None)
