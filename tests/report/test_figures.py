"""Figures become inline SVG that takes its colours and fonts from the page."""

import re
from xml.etree import ElementTree

from aurora_m.report.figures import INK, NEW, SERIES, drawing, new_figure, series_style, to_svg, token_axis


def picture(name: str = "a", label: str = "tokens") -> str:
    with drawing():
        figure = new_figure(3, 2)
        axes = figure.add_subplot()
        axes.plot([0, 5_000_000], [1, 2], color=NEW)
        axes.fill_between([0, 5_000_000], [0, 1], [1, 2], color=SERIES[2], alpha=0.2)
        axes.axhline(1.5, color=INK)
        axes.set_ylabel(label)
        token_axis(axes, [("CAP", 1_000_000)])
        return to_svg(figure, name, "a title")


def test_stand_in_colours_become_the_pages_variables():
    svg = picture()
    assert {"var(--new)", "var(--series-3)", "var(--ink)", "var(--grid)"} <= set(re.findall(r"var\(--[\w-]+\)", svg))
    assert not re.findall(r"#0[0-9a-f]{5}", svg)


def test_metadata_fonts_and_style_sheets_are_gone():
    svg = picture()
    assert not [word for word in ("metadata", "<style", "http", "font-family", "DejaVu") if word in svg]


def test_formulas_markup_and_foreign_scripts_are_plain_text():
    label = "日本語 हिन्दी $x^$ --><script>alert(1)</script> url(#a)"
    root = ElementTree.fromstring(picture(label=label))
    assert label in [element.text for element in root.iter("text")]


def test_ids_carry_the_figures_name_and_drawing_is_repeatable():
    svg = picture("loss")
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert ids and all(name.startswith("loss-") for name in ids)
    assert svg == picture("loss")


def test_tokens_are_written_for_people():
    assert ">2M<" in picture() and ">CAP<" in picture()


def test_more_domains_than_colours_are_told_apart_by_dashes():
    styles = [tuple(series_style(n).values()) for n in range(24)]
    assert len(set(styles)) == 24
