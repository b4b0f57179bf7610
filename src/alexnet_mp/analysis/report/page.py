"""The report: one page, with its style in it, that needs no network and no script."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from alexnet_mp.analysis.report.checkpoint_analysis import Examination, Wishes, examine
from alexnet_mp.analysis.report.checkpoint_sections import confusion_section, examples_section, kernels_section
from alexnet_mp.analysis.report.folder import ReportedRun, read_folder
from alexnet_mp.analysis.report.html import Content, Html, joined, tag
from alexnet_mp.analysis.report.outcome_sections import end_section, how_made, published_section
from alexnet_mp.analysis.report.pieces import Section, bullets, duration, paragraph, percent, terms
from alexnet_mp.analysis.report.training_sections import (
    configuration_section,
    crossing_amount,
    learning_section,
    throughput_section,
)
from alexnet_mp.analysis.report.words import in_words
from alexnet_mp.analysis.results.groups import PublishedResult
from alexnet_mp.common.disk import write_whole
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import Network


def write_report(
    folder: Path, out: Path, wishes: Wishes, published: Mapping[str, PublishedResult], command: str
) -> list[str]:
    """Write the page of the run in `folder` to the file `out`, whole or not at all; return what is missing on it.

    `command` is what makes the page again.

    Raises ConfigurationError for a folder that has nothing of a run, and where `out` cannot be written.
    """
    run = read_folder(folder)
    found = examine(folder, wishes)
    page = as_html(run, found, published, command)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, page.encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write out={out}: {error}") from error
    return [*run.missing, *found.missing]


def as_html(run: ReportedRun, found: Examination, published: Mapping[str, PublishedResult], command: str) -> Html:
    """The page; `command` is what makes it again."""
    network = run.network or found.network
    sections = [
        configuration_section(run, network),
        learning_section(run),
        kernels_section(found),
        confusion_section(found.seen),
        examples_section(found.seen),
        throughput_section(run, network),
        published_section(run, published),
        end_section(run, found),
    ]
    name = _network_name(run, network)
    header = tag(
        "header",
        {},
        tag("p", {"class": "kicker"}, "alexnet-mp · report of a run"),
        tag("h1", {}, run.experiment),
        tag("p", {"class": "lede"}, _in_one_sentence(run, name, network)),
        terms(_key_figures(run, network), "figures"),
        _missing([*run.missing, *found.missing]),
    )
    body = tag(
        "div",
        {"class": "page"},
        header,
        _contents(sections),
        tag("main", {}, *(_as_section(each) for each in sections)),
        tag("footer", {}, how_made(command, run)),
    )
    style = Html(files("alexnet_mp.analysis.report").joinpath("style.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", {}, f"{run.experiment}: report of a run of {name}"),
        tag("style", {}, style),
    )
    return joined([Html("<!DOCTYPE html>\n"), tag("html", {"lang": "en"}, head, tag("body", {}, body)), Html("\n")])


def _network_name(run: ReportedRun, network: Network | None) -> str:
    return run.summary.network if run.summary else network.name if network else "a network that is not told"


def _in_one_sentence(run: ReportedRun, name: str, network: Network | None) -> str:
    towers = f", cut into {in_words(network.towers)} towers," if network and network.towers > 1 else ""
    last = run.metrics.validations[-1] if run.metrics.validations else None
    path = run.part("data", "path")
    data = Path(str(path)).name if path else run.part("data", "source") or "data that are not told"
    if last is None:
        return f"The network {name}{towers} was begun to train on {data}; it was not validated yet."
    error = f"mistakes {percent(last.top1_error)} of the held-out images for another class"
    if run.record is None and not run.summary:
        of = f" of {run.recipe.epochs}" if run.recipe else ""
        return f"Not finished: after {last.epoch}{of} epochs on {data} the network {name}{towers} {error}."
    return f"The network {name}{towers} was trained for {count(last.epoch, 'epoch')} on {data} and {error}."


def _key_figures(run: ReportedRun, network: Network | None) -> list[tuple[str, Content]]:
    last = run.metrics.validations[-1] if run.metrics.validations else None
    figures: list[tuple[str, Content]] = []
    if last:
        figures += [("top-1 error", percent(last.top1_error)), ("top-5 error", percent(last.top5_error))]
    if network:
        figures.append(("parameters", f"{network_cost(network.without_auxiliaries()).parameters:,}"))
    if run.summary:
        figures.append(("images a second", f"{run.summary.images_per_second:,.0f}"))
        figures.append(("of training", duration(run.summary.seconds)))
    crossing = crossing_amount(run)
    return figures + ([("cross in a step", crossing)] if crossing else [])


def _missing(missing: Sequence[str]) -> Html | None:
    if not missing:
        return None
    return tag("aside", {"class": "missing"}, tag("h2", {}, "Not on this page"), bullets(missing))


def _contents(sections: Sequence[Section]) -> Html:
    links = [tag("li", {}, tag("a", {"href": f"#{each.name}"}, each.title)) for each in sections]
    return tag("nav", {"aria-label": "Contents"}, paragraph("Contents"), tag("ol", {}, *links))


def _as_section(each: Section) -> Html:
    return tag("section", {"id": each.name}, tag("h2", {}, each.title), each.body)
