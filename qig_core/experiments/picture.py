"""A picture of an experiment's document: its curves above, its claims below. The same document, the same bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qig_core.errors import MissingExtra
from qig_core.experiments.verdict import p_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#1f6fb4", "#d1762b", "#6b6b6b")
"""Of the labels of a panel, in the order in which they come; told apart also where colours are not."""
_DASHES = ("-", "--", ":")
_OF_VERDICT = {"pass": "#2b7a3d", "fail": "#b3261e", "inconclusive": "#8a6d00"}
_WIDTH_IN = 10.0
_CURVES_IN, _CLAIM_IN, _HEAD_IN = 3.7, 1.15, 0.7


def draw(found: Mapping[str, Any]) -> bytes:
    """The document of an experiment as SVG. No global state of matplotlib is read or left changed.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context, rcdefaults, rcParams
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        wanted = "pip install 'qig-tui[experiments]'"
        raise MissingExtra(f"the picture needs matplotlib; install it with: {wanted}") from error
    panels, findings, verdict = found["panels"], found["findings"], found["verdict"]
    heights = (_CURVES_IN, _CLAIM_IN * len(findings))
    with rc_context():
        rcdefaults()
        rcParams.update({"svg.hashsalt": found["experiment"], "svg.fonttype": "none"})
        figure = Figure(figsize=(_WIDTH_IN, _HEAD_IN + sum(heights)), layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(f"{found['experiment']}: {verdict}", color=_OF_VERDICT[verdict], fontweight="bold")
        whole = figure.add_gridspec(2, 1, height_ratios=heights)
        upper, lower = whole[0, 0].subgridspec(1, len(panels)), whole[1, 0].subgridspec(len(findings), 1)
        for column, panel in enumerate(panels):
            _curves(figure.add_subplot(upper[0, column]), panel)
        for row, finding in enumerate(findings):
            _claim(figure.add_subplot(lower[row, 0]), finding)
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()


def _curves(axes: "Axes", panel: Mapping[str, Any]) -> None:
    labels = list(dict.fromkeys(line["label"] for line in panel["lines"]))
    named: set[str] = set()
    for line in panel["lines"]:
        label, which = line["label"], labels.index(line["label"]) % len(_COLOURS)
        axes.plot(
            line["steps"],
            line["values"],
            color=_COLOURS[which],
            linestyle=_DASHES[which],
            linewidth=1.1,
            label=label if label not in named else None,
        )
        named.add(label)
    axes.set_title(panel["title"])
    axes.set_xlabel("step")
    axes.set_ylabel(panel["label"])
    axes.grid(alpha=0.25)
    # Below the axes: nothing that was measured is covered.
    axes.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(labels))


def _claim(axes: "Axes", finding: Mapping[str, Any]) -> None:
    """Each seed, the mean with its 90 % interval, and where the claim says that it lies."""
    values = [value for value in finding["values"].values() if value is not None]
    found, above, below = finding["estimate"], finding["above"], finding["below"]
    limits = [limit for limit in (above, below) if limit is not None]
    shown: Sequence[float] = [*values, *limits, *([found["low"], found["high"]] if found else [])]
    room = 0.08 * (max(shown) - min(shown)) or 1.0
    left, right = min(shown) - room, max(shown) + room
    axes.axvspan(left if above is None else above, right if below is None else below, color="#2b7a3d", alpha=0.12, lw=0)
    for limit in limits:
        axes.axvline(limit, color="#2b7a3d", linewidth=1.0)
    axes.plot(values, [0.0] * len(values), linestyle="", marker="o", markersize=5, color="#6b6b6b", alpha=0.8)
    if found:
        axes.plot([found["low"], found["high"]], [1.0, 1.0], color="#1f6fb4", linewidth=3.0, solid_capstyle="butt")
        axes.plot([found["mean"]], [1.0], marker="D", markersize=6, color="#1f6fb4")
    axes.set_xlim(left, right)
    axes.set_ylim(-0.7, 1.7)
    axes.set_yticks([0.0, 1.0], ["each seed", "mean, 90 %"])
    axes.set_title(_sentence(finding), loc="left", fontsize="medium", color=_OF_VERDICT[finding["verdict"]])


def _sentence(finding: Mapping[str, Any]) -> str:
    """ "held-out loss, less the branch's < 0.05 nats: pass, p = 0.003"."""
    unit = f" {finding['unit']}" if finding["unit"] else ""
    lower = f"{finding['above']:g} < " if finding["above"] is not None else ""
    upper = f" < {finding['below']:g}" if finding["below"] is not None else ""
    return f"{lower}{finding['claim']}{upper}{unit}: {finding['verdict']}, {p_text(finding)}"
