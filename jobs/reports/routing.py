"""The report of a routing benchmark: one page that needs no other file, with its measures as numbers and as plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BadInput
from jobs.reports import tables
from jobs.reports.showing import count, excerpt, interval, name, number, percent, written
from jobs.reports.tables import Found, Table, part
from jobs.writing import complete_file

_TEMPLATE = "routing.html.j2"
_PAIRS = 30
_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Plot:
    """An svg element and how to read it. A ``matrix`` and what is ``wide`` scroll on a small screen."""

    svg: str
    caption: str
    shape: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """``n`` queries of label ``true`` that were sent to ``chosen``, with some of them."""

    true: str
    chosen: str
    n: str
    examples: Sequence[str]


@dataclass(frozen=True, slots=True)
class Router:
    """What is shown of one router; ``curves`` holds the numbers that the plots show."""

    title: str
    plots: Sequence[Plot]
    pairs: Sequence[Pair]
    pairs_left_out: int
    tables: Sequence[Table]
    curves: Sequence[Table]


def write_routing_report(found: Found, path: Path) -> None:
    """Write what a routing benchmark found as an HTML page; the file appears when it is complete.

    The same findings always make the same page. Raises BadInput without the packages for reports, and Failed where the
    page cannot be written.
    """
    page = _page(found).encode("utf-8", "backslashreplace")
    with complete_file(path) as file:
        file.write(page)


def _page(found: Found) -> str:
    try:
        import jinja2

        from jobs.reports import plots
    except ModuleNotFoundError as error:
        raise BadInput(f"reports need the package {error.name}; install adaptive-moe[reports]") from None

    data = part(found, "data")
    results = {str(kind): result or {} for kind, result in part(found, "results").items()}
    routers = {
        kind: _router(kind, result, data, key=f"r{place}") for place, (kind, result) in enumerate(results.items())
    }
    named = found.get("default")
    default = named if named in results else next(iter(results), None)
    compared = [tables.side_by_side(results, default), tables.paired(found), tables.targets(found)]
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(_TEMPLATE).render(
        file=name(data.get("file"), 120),
        lead=_lead(results, default),
        facts=_facts(found),
        accuracies=plots.accuracies(results, key="accuracies"),
        compared=[table for table in compared if table.rows],
        main=routers.pop(default) if default is not None else None,
        left_out=tables.left_out(found, list(results)),
        others=list(routers.values()),
    )


def _lead(results: Mapping[str, Found], default: str | None) -> str:
    if default is None:
        return "Nothing was measured."
    accuracy, ends = results[default].get("accuracy"), interval(results[default].get("ci"))
    if number(accuracy) is None:
        return f"The accuracy of the default router, {name(default)}, could not be measured."
    return (
        f"The default router, {name(default)}, chose the right label for {percent(accuracy)} of the test queries"
        f" (95 % interval {ends})."
    )


def _facts(found: Found) -> list[tuple[str, str]]:
    """What was measured on what."""
    data = part(found, "data")
    labels = data.get("labels")
    shots = data.get("shots")
    return [
        ("File", name(data.get("file"), 120)),
        ("Rows", count(data.get("rows"))),
        ("Train · dev · test", " · ".join(count(data.get(split)) for split in ("train", "dev", "test"))),
        ("Labels", count(len(labels)) if labels is not None else count(None)),
        ("Label of what lies outside", name(data.get("oos_label"))),
        ("Groups by", name(data.get("group_field"))),
        ("Training queries per label", "all" if shots is None else count(shots)),
        ("Encoder", name(found.get("encoder"))),
        ("Seeds", count(found.get("seeds"))),
        ("Time taken", f"{written(found.get('seconds'), ',.1f')} s"),
    ]


def _router(kind: str, result: Found, data: Found, *, key: str) -> Router:
    confused = result.get("confused") or ()
    shown = [tables.by_group(result, data), tables.by_label(result), tables.risk(result), tables.balance(result)]
    return Router(
        title=name(kind),
        plots=_plots(result, key),
        pairs=[_pair(pair) for pair in confused[:_PAIRS]],
        pairs_left_out=max(0, len(confused) - _PAIRS),
        tables=[table for table in shown if table.rows],
        curves=[table for table in tables.curves(result) if table.rows],
    )


def _plots(result: Found, key: str) -> list[Plot]:
    from jobs.reports import plots

    confusion = part(result, "confusion")
    drawn = [
        Plot(
            plots.confusion(confusion.get("labels") or (), confusion.get("matrix") or (), key=f"{key}-confusion"),
            "Numbers are queries. The stronger a cell's colour, the larger its share of the true label's queries.",
            shape="matrix" if len(confusion.get("labels") or ()) <= plots.FEW_LABELS else "wide",
        ),
        Plot(
            plots.reliability(result.get("reliability") or (), result.get("ece"), key=f"{key}-reliability"),
            "On the dashed line, a confidence of 80 % means that 80 % are right; below it the router is too sure.",
        ),
        Plot(
            plots.distributions(
                part(result, "confidence_histogram"),
                {"right": "right", "wrong": "wrong"},
                title="Confidence of right and wrong choices",
                x="confidence [0–1]",
                key=f"{key}-confidences",
            ),
            "The less the two overlap, the better the confidence tells right choices from wrong ones.",
        ),
        Plot(
            plots.curves(
                result.get("threshold_curve") or (),
                {"answered": "answered", "accuracy": "accuracy among them"},
                title="Threshold on the confidence",
                x="threshold on the confidence [0–1]",
                y="queries inside [%]",
                key=f"{key}-threshold",
            ),
            "How many queries inside the domains reach a threshold, and how many of these go to the right label.",
        ),
        Plot(
            plots.curves(
                result.get("coverage_curve") or (),
                {"inside_kept": "inside, kept", "outside_caught": "outside, caught"},
                title="Threshold on the coverage",
                x="threshold on the coverage [0–1]",
                y="share of these queries [%]",
                key=f"{key}-coverage",
            ),
            "A higher threshold catches more queries outside every domain, and loses more of those inside.",
        ),
        Plot(
            plots.distributions(
                part(result, "coverage_histogram"),
                {"inside": "inside", "outside": "outside"},
                title="Coverage of queries inside and outside",
                x="coverage [0–1]",
                key=f"{key}-coverages",
            ),
            "The less the two overlap, the better the router knows what lies outside every domain.",
        ),
    ]
    return [plot for plot in drawn if plot.svg]


def _pair(pair: Found) -> Pair:
    examples = (pair.get("examples") or ())[:_EXAMPLES]
    return Pair(name(pair.get("true")), name(pair.get("chosen")), count(pair.get("n")), [excerpt(e) for e in examples])
