"""Formulas as text: a table of drawings, and what holds for every source."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from qig_core.rundir.printable import printable
from qig_tui.latex.boxes import Box
from qig_tui.latex.layout import MAX_SOURCE, inline, layout


def table() -> list[tuple[str, str]]:
    """Sources and their drawings."""
    text = Path(__file__).with_name("latex_table.txt").read_text()
    blocks = text.split("%% ")[1:]
    return [(block.partition("\n")[0], block.partition("\n")[2].rstrip("\n")) for block in blocks]


def drawn(box: Box) -> str:
    return "\n".join(line.rstrip() for line in box.lines)


@pytest.mark.parametrize(("source", "drawing"), table(), ids=lambda text: text.partition("\n")[0][:40])
def test_a_formula_is_drawn_as_it_was_read(source: str, drawing: str) -> None:
    assert drawn(layout(source)) == drawing


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (r"\kappa_{ij} = x^2", "κᵢⱼ = x²"),
        (r"\frac{a+b}{2c}", "(a + b)/(2c)"),
        (r"-\frac12\log x", "−½ log x"),
        (r"\frac{df}{dx}", "df/dx"),
        (r"2\arccos\sum_i\sqrt{p_iq_i}", "2 arccos ∑ᵢ √(pᵢqᵢ)"),
        (r"\sum_{i=1}^n x_i", "∑ᵢ₌₁ⁿ xᵢ"),
        (r"\sqrt x + \sqrt[3]{a+b}", "√x + ³√(a + b)"),
        (r"e^{-\Phi/K}", "e^(−Φ/K)"),
        (r"x_B^2", "x_B²"),
        (r"d(p, q) \le 0.60\,\mathrm{rad}", "d(p, q) ≤ 0.60 rad"),
        (r"\hat a + \hat\rho + \overline{AB}", "â + ρ̂ + A̅B̅"),
        (r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}", "(1 0; 0 1)"),
        (r"\left|\frac ab\right|", "|a/b|"),
        (r"\mathrm{KL}(p \,\|\, q)", "KL(p ‖ q)"),
        (r"\argmin_{k} f", "argminₖ f"),
        (r"f'_i, f''^2", "f′ᵢ, f′′²"),
        (r"\foo{x} + \widehat{xyz}", r"\foo{x} + \widehat{xyz}"),
        (r"\frac{a}{", r"\frac{a}{"),
    ],
)
def test_a_formula_within_a_sentence_is_one_line(source: str, line: str) -> None:
    assert inline(source) == line


WORDS = (
    r"\frac \sqrt [ ] { } ^ _ \sum \int a x 1 + - = & \\ \begin{cases} \end{cases} \begin{array}{c|c} \end{array} "
    r"\left( \right) \left\{ \right| \middle| \hat \text{a~b} \foo \alpha ' ~ \, \overbrace \underset \not \binom "
    r"\operatorname \displaystyle \limits \tag{1} \hline \substack | \mathbb \xrightarrow % $ # \bar \overline "
    r"\begin{no} \end{no} ́ 漢"
).split()
SOURCES = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join),
    st.text(max_size=40),
    st.sampled_from([source for source, _ in table()]).flatmap(
        lambda source: st.integers(0, len(source)).map(lambda cut: source[:cut])
    ),
)


@given(SOURCES, st.one_of(st.none(), st.integers(1, 60)))
@example("", None)
@example("\\", 1)
@example("\x1b[31m\u202e\ud800\x00\r\n", 3)
def test_whatever_the_source_is_it_is_drawn_and_nothing_of_it_reaches_the_terminal(
    source: str, width: int | None
) -> None:
    box = layout(source, max_width=width)
    assert len({cell_len(line) for line in box.lines}) == 1
    assert 0 <= box.baseline < box.height
    for line in (*box.lines, inline(source)):
        assert printable(line) == line


@given(st.sampled_from([source for source, _ in table()]), st.from_regex(r"\A[a-z]{3,9}zz\Z"), st.data())
def test_an_unknown_command_shows_its_source_wherever_it_stands(source: str, name: str, data: st.DataObject) -> None:
    for written in (rf"\{name} + {source}", rf"\frac{{\{name}{{x}}}}{{{source}}}", rf"\sqrt{{x_{{\{name}}}}}"):
        if "&" not in source:
            assert f"\\{name}" in drawn(layout(written))
            assert f"\\{name}" in inline(written)


@given(st.integers(1, 6), st.sampled_from(["()", "[]", "||", "⌊⌋", "⟨⟩"]))
def test_delimiters_grow_with_what_they_hold(depth: int, pair: str) -> None:
    inside = "x"
    for _ in range(depth):
        inside = rf"\frac{{{inside}}}{{2}}"
    held, whole = layout(inside), layout(rf"\left{pair[0]} {inside} \right{pair[1]}")
    assert whole.height == held.height
    assert whole.baseline == held.baseline
    for line in whole.lines:
        assert line.strip()[0] in "⎛⎜⎝⎡⎢⎣│╱⟨╲"
        assert line.strip()[-1] in "⎞⎟⎠⎤⎥⎦│╲⟩╱"


BROKEN = {
    "a brace that nobody closes": r"\frac{a}{b",
    "one too many": r"a}",
    "a fraction without its second part": r"\frac{a}",
    "a right without a left": r"a \right)",
    "an environment that ends as another": r"\begin{matrix} a \end{cases}",
    "two powers": "x^2^3",
    "10 000 braces": "{" * 10_000,
    "10 000 braces, closed": "{" * 10_000 + "}" * 10_000,
    "fractions in fractions": r"\frac{" * 2_000,
    "roots in roots": r"\sqrt" * 900 + "x",
    "a megabyte": "x+" * 500_000,
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("width", [None, 80])
def test_what_is_no_formula_stands_there_as_its_source(source: str, width: int | None) -> None:
    box = layout(source, max_width=width)
    assert "".join(line.rstrip() if width is None else line for line in box.lines).rstrip() == source
    assert width is None or box.width <= width
    assert inline(source) == source


def test_a_formula_that_is_too_wide_is_broken_before_what_stands_between_its_parts() -> None:
    source = r"a = b + c + \frac{d}{e} \le f(x + y) + g"
    assert drawn(layout(source, max_width=14)) == "\n".join(
        [
            "            d",
            "a = b + c + ─",
            "            e",
            "",
            "     ≤ f(x + y)",
            "",
            "     + g",
        ]
    )
    assert drawn(layout("a" * 40, max_width=10)) == "a" * 40


@pytest.mark.parametrize(
    ("opening", "closing"),
    [(r"\frac{1}{1+", "}"), (r"\sqrt{", "}"), ("x^{", "}"), (r"\hat{", "}"), (r"\begin{matrix}", r"\end{matrix}")],
)
def test_what_is_nested_as_deep_as_it_may_be_is_drawn_at_once(opening: str, closing: str) -> None:
    """Each level once: twice would be for ever."""
    source = opening * 35 + "x" + closing * 35
    assert any("x" in line for line in layout(source).lines)
    assert "\\frac" not in inline(source)


def test_the_largest_that_is_taken_for_a_formula_is_still_one() -> None:
    source = "x+" * (MAX_SOURCE // 2 - 1) + "x"
    assert layout(source).lines[0].startswith("x + x + x")
    assert layout(source + "+x+x").lines[0].startswith("x+x+x")


def test_a_terminal_that_has_no_formula_to_draw_loads_nothing_for_it() -> None:
    """And what is loaded when there is one is small."""
    code = (
        "import sys, qig_tui.cli, qig_tui.app, qig_tui.screens.run, qig_tui.screens.runs\n"
        "print([name for name in sys.modules if 'latex' in name or 'markdown' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
