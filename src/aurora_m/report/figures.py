"""Figures as inline SVG that follows the page: its fonts, its colours, its dark mode.

matplotlib draws with stand-in colours; `to_svg` exchanges them for the page's CSS variables, so that one picture is
readable on light and dark paper. All text stays text, in the reader's own fonts, whatever the script.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from aurora_m.workspace import RecipeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES_COUNT = 8
INK, FAINT, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
BEFORE, AFTER, NEW, KNOWN, OTHER = "#050505", "#060606", "#070707", "#080808", "#090909"
SERIES = [f"#0{n}1000" for n in range(1, SERIES_COUNT + 1)]

_CSS_OF = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    NEW: "var(--new)",
    KNOWN: "var(--known)",
    OTHER: "var(--other)",
} | {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, 1)}

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a domain named `$x^$` is a name, not a formula
    "font.family": "DejaVu Sans",  # for the layout only; wider than the page's font, so nothing overlaps there
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}
# For figures that are files of their own: the stand-ins are colours that only the page knows.
GREYS: dict[Any, Any] = {
    "grid.color": "#dddddd",
    "axes.edgecolor": "#aaaaaa",
    "xtick.color": "#aaaaaa",
    "ytick.color": "#aaaaaa",
}
_FILE_SUFFIXES = (".svg", ".png", ".pdf")


def check_plot(path: Path) -> None:
    """Refuses the name of a figure's file that says no format.

    Raises:
        RecipeError: it ends otherwise than in .svg, .png or .pdf.
    """
    if path.suffix not in _FILE_SUFFIXES:
        raise RecipeError(f"--plot {path}: expected a file name that ends in {', '.join(_FILE_SUFFIXES)}")


@contextmanager
def drawing() -> Iterator[None]:
    """The house style for the figures made inside; glyphs that only the reader's fonts have raise no warning."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of the given size in inches, away from pyplot's global state (and from any screen)."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def series_style(index: int) -> dict:
    """Colour and dash of the n-th domain: eight colours, and dashes where there are more than eight."""
    return {"color": SERIES[index % SERIES_COUNT], "linestyle": ("-", "--", ":")[index // SERIES_COUNT % 3]}


def series_hatch(index: int) -> str | None:
    """The hatching that tells areas apart where the colours come round again."""
    return (None, "////", "....")[index // SERIES_COUNT % 3]


def token_axis(axes: "Axes", boundaries: list[tuple[str, int]], named: bool = True) -> None:
    """Labels the x axis in tokens and marks where each phase (name, first token) starts."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from aurora_m.workspace import format_count

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tokens, _: format_count(tokens)))
    left, right = axes.get_xlim()
    for name, start in boundaries:
        if left <= start < right:
            axes.axvline(start, color=FAINT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1.5)
            if named:
                place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
                axes.annotate(name, (start, 1), xytext=(4, 2), color=FAINT, fontsize=8, va="bottom", **place)


def to_svg(figure: "Figure", name: str, title: str) -> str:
    """The figure as an `<svg>` element for the page; `name` keeps its ids apart from those of other figures.

    `title` is what a screen reader says.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _keep_drawing_only(root)
    for element in root.iter():
        _rename(element, name)
        element.attrib.update({key: _restyle(value) for key, value in element.attrib.items() if key != "id"})
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": title, "class": "figure"}
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return re.sub(r"\s*\n\s*", "\n", text.replace(f' xmlns="{_SVG}"', "", 1))


def _keep_drawing_only(root: ElementTree.Element) -> None:
    """Drops matplotlib's metadata (addresses of vocabularies) and its style, which would reach the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rsplit("}", 1)[-1] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rsplit("}", 1)[-1]


def _rename(element: ElementTree.Element, name: str) -> None:
    """Puts `name-` before every id and every mention of one. Groups are never mentioned and lose theirs."""
    if element.tag == "g":
        element.attrib.pop("id", None)
    if target := element.attrib.pop(_XLINK, None):
        element.set("href", target)
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == "href":
            element.set(key, value.replace("#", f"#{name}-", 1))
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))


def _restyle(value: str) -> str:
    """Page colours for the stand-ins, no fonts (the page's style sheet names them once), hundredths of a point."""
    value = re.sub(r"#[0-9a-f]{6}", lambda match: _CSS_OF.get(match[0], match[0]), value)
    value = re.sub(r"font-family: [^;]*(; )?", "", value)
    value = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", value)
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
