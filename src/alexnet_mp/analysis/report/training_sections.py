"""The sections that need no checkpoint: configuration, learning, throughput, the crossing."""

from statistics import median

from alexnet_mp.analysis.report.chart import Mark, Series, Style, line_chart
from alexnet_mp.analysis.report.curves import changes_of_rate, over_epochs, thinned
from alexnet_mp.analysis.report.folder import ReportedRun
from alexnet_mp.analysis.report.html import Html, joined, tag
from alexnet_mp.analysis.report.pieces import (
    Section,
    amount,
    bar,
    code,
    figure,
    folded,
    paragraph,
    percent,
    section,
    table,
    terms,
)
from alexnet_mp.analysis.report.words import (
    crossing_points_in_words,
    layers,
    listed,
    network_sentences,
    recipe_in_words,
)
from alexnet_mp.common.text import count
from alexnet_mp.network.costs import NetworkCost, RowCost, network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.training.metrics import EvaluationLine, Metrics


def configuration_section(run: ReportedRun, network: Network | None) -> Section:
    """Network, recipe, data and placement in words."""
    entries: list[tuple[str, Html | str]] = []
    if network:
        entries.append(("Network", network_sentences(network)))
    entries.append(("Data", run.data if run.configuration else "not told"))
    if run.recipe:
        entries += recipe_in_words(run.recipe)
    entries.append(("Placement", _placement(run)))
    return section("configuration", "Configuration", terms(entries), _layers(network) if network else None)


def _placement(run: ReportedRun) -> str:
    said, ran = run.said, run.summary
    seed = run.configuration.get("seed")
    sown = f" Seed {seed} keys every random number." if seed is not None else ""
    precision = run.configuration.get("precision", "float32")
    if ran:
        processes = f"{count(ran.world_size, 'process', 'es')} of {count(ran.threads, 'CPU thread')}"
        where = f"{ran.placement}, {count(ran.replicas, 'replica')}, {processes} on {ran.device}; {ran.precision}."
    elif "placement" in said:
        where = f"{said['placement']}; {said.get('devices', 'devices not told')}; {precision}."
    else:
        where = f"{run.configuration.get('placement', 'not told')}; {precision}."
    return where + sown


def _layers(network: Network) -> Html:
    told = layers(network)
    rows = [[code(each.name), each.what, each.reads, each.then, each.output, f"{each.parameters:,}"] for each in told]
    of = "Counts of kernels and units, and the output's shape, are of one tower; parameters are of all."
    header = ["layer", "what", "reads", "then", "output", "parameters"]
    return table(f"The network, layer by layer. {of}", header, rows, words=4, kind="stacked layers")


def learning_section(run: ReportedRun) -> Section:
    """Loss and error over epochs, with the falls of the learning rate; and the numbers themselves."""
    metrics = run.metrics
    if not metrics.steps and not metrics.validations:
        return section("learning", "Learning", paragraph("Nothing was measured yet."))
    best = min(metrics.validations, key=lambda each: each.top1_error, default=None)
    words = None
    if best:
        last = metrics.validations[-1]
        words = paragraph(
            f"After epoch {last.epoch} the top-1 error on the images held out is {percent(last.top1_error)}. "
            + _lowest(best, last)
        )
    charts = [_loss_chart(metrics), *([_error_chart(metrics)] if metrics.validations else [])]
    return section("learning", "Learning", words, tag("div", {"class": "pair"}, *charts), _every_epoch(metrics))


def _lowest(best: EvaluationLine, last: EvaluationLine) -> str:
    if best.top1_error == last.top1_error:
        return "No epoch had a lower one."
    return (
        f"The lowest was {percent(best.top1_error)}, after epoch {best.epoch}; it is picked on the very images that it "
        "is measured on, so it flatters."
    )


def _loss_chart(metrics: Metrics) -> Html:
    losses = over_epochs(metrics, lambda step: step.loss)
    curve = thinned(losses)
    validations = [(float(each.epoch), each.loss) for each in metrics.validations]
    series = [
        Series("training", curve.points, "thin", band=curve.band),
        Series("validation", validations, "dots", f"{validations[-1][1]:.3g}" if validations else ""),
    ]
    ends = [
        f"{name} {points[-1][1]:.3g}" for name, points in (("training", losses), ("validation", validations)) if points
    ]
    description = f"Cross-entropy over {_unit(metrics)}s, at the end {' and '.join(ends)}."
    each = f" Each point of training is the median of {curve.at_each} lines, the shade their range." * bool(curve.band)
    return figure(
        line_chart(
            description,
            series,
            _falls(metrics),
            _unit(metrics),
            "cross-entropy",
            losses[-1][0] if losses else 0,
            log=True,
        ),
        f"Loss of the batches that were trained on, and of the images held out, on a logarithmic scale.{each}",
        _falls_in_words(metrics),
    )


def _error_chart(metrics: Metrics) -> Html:
    def points(epochs: tuple[EvaluationLine, ...], key: str) -> list[tuple[float, float]]:
        return [(float(each.epoch), 100 * getattr(each, key)) for each in epochs]

    def curve(name: str, style: Style, found: list[tuple[float, float]]) -> Series:
        return Series(name, found, style, f"{found[-1][1]:.2f} %" if found else "")

    series = [
        curve("top-1", "dots", points(metrics.validations, "top1_error")),
        curve("top-5", "squares", points(metrics.validations, "top5_error")),
        curve("top-1, training", "diamonds", points(metrics.training, "top1_error")),
    ]
    ends = " and ".join(f"{each.name} {each.end}" for each in series if each.points)
    return figure(
        line_chart(f"Error over epochs, at the end {ends}.", series, _falls(metrics), _unit(metrics), "error, %"),
        "Share of the images held out whose class is not the most probable (top-1), and not among the five most "
        "probable (top-5), after each epoch.",
    )


def _falls(metrics: Metrics) -> list[Mark]:
    return [Mark(change.x, f"ε {change.learning_rate:g}") for change in changes_of_rate(metrics)]


def _falls_in_words(metrics: Metrics) -> str | None:
    changes = changes_of_rate(metrics)
    if not changes:
        return None
    told = [f"{each.learning_rate:g} after {_unit(metrics)} {each.x:g}" for each in changes[:8]]
    more = f" and {len(changes) - 8} more" * (len(changes) > 8)
    return f" Dashed lines: the learning rate ε of the classifier's weights changed, to {listed(told)}{more}."


def _unit(metrics: Metrics) -> str:
    return "epoch" if metrics.steps_per_epoch else "step"


def _every_epoch(metrics: Metrics) -> Html | None:
    if not metrics.validations:
        return None
    rows = [
        [str(each.epoch), f"{each.step:,}", f"{each.loss:.4f}", percent(each.top1_error), percent(each.top5_error)]
        for each in metrics.validations
    ]
    header = ["epoch", "steps", "loss", "top-1 error", "top-5 error"]
    return folded("The numbers of every epoch", table("Validation after each epoch.", header, rows))


def throughput_section(run: ReportedRun, network: Network | None) -> Section:
    """How fast the run was, and what crossed between its towers."""
    parts = []
    if run.summary:
        ran = run.summary
        parts.append(
            paragraph(
                f"{ran.images_per_second:,.0f} images a second over all steps, in "
                f"{count(ran.world_size, 'process', 'es')} on {ran.device}. Validation and checkpoints are not counted."
            )
        )
    speeds = over_epochs(run.metrics, lambda step: step.images_per_second)
    if speeds:
        parts.append(_speed_chart(run.metrics, speeds))
    if network and run.batch_size:
        parts.append(_crossing(run, network, run.batch_size))
    return section("throughput", "Throughput and the crossing", *parts)


def _speed_chart(metrics: Metrics, speeds: list[tuple[float, float]]) -> Html:
    values = sorted(speed for _, speed in speeds)
    middle, low, high = median(values), values[len(values) // 20], values[-1 - len(values) // 20]
    curve = thinned(speeds)
    words = f"median {middle:,.0f}, nine tenths of the lines between {low:,.0f} and {high:,.0f}"
    each = f" Each point is the median of {curve.at_each} lines, the shade their range." * bool(curve.band)
    chart = line_chart(
        f"Images a second over {_unit(metrics)}s: {words}.",
        [Series("images a second", curve.points, "thin", f"{curve.points[-1][1]:,.0f}", curve.band)],
        [],
        _unit(metrics),
        "images/s",
        speeds[-1][0],
    )
    return figure(chart, f"Images a second in the training lines: {words}.{each}", kind="narrow")


def _crossing(run: ReportedRun, network: Network, batch: int) -> Html:
    costs = network_cost(network)
    if network.towers == 1:
        return paragraph("The network has one tower, so nothing crosses.")
    rows, total = _crossing_rows(run, costs, batch)
    caption = (
        f"Bytes that one tower sends in a step of {count(batch, 'image')}, by the layer that reads them; in all "
        f"{total:,}, by the network table."
    )
    measured = run.summary.crossing_bytes_per_step if run.summary else None
    words = None
    if measured is not None:
        words = paragraph(
            f"The run counted {measured:,} bytes a step"
            + (", the same." if measured == total else f": not the {total:,} of the table.")
        )
    header = ["into", "forward", "backward", "both", "share", ""]
    return joined([table(caption, header, rows, kind="crossing"), words])


def _crossing_rows(run: ReportedRun, costs: NetworkCost, batch: int) -> tuple[list[list[Html | str]], int]:
    sent = [
        (row, row.crossing_floats_forward * each, row.crossing_floats_backward * each)
        for row in crossing_points_in_words(costs)
        for each in [(costs.towers - 1) * batch * _bytes_of_float(run, row)]
    ]
    total = sum(forward + backward for _, forward, backward in sent)
    rows: list[list[Html | str]] = []
    for row, forward, backward in sent:
        share = (forward + backward) / total if total else 0.0
        both = f"{forward + backward:,}"
        rows.append([code(row.name), f"{forward:,}", f"{backward:,}", both, f"{100 * share:.0f}\u00a0%", bar(share)])
    return rows, total


def _bytes_of_float(run: ReportedRun, row: RowCost) -> int:
    """What crosses has the precision of the weights, or is rounded; partial logits, which do not return, are not."""
    if run.configuration.get("crossing_dtype") and row.crossing_floats_backward:
        return 2
    precision = run.configuration.get("precision")
    if precision == "bf16":
        return 2
    return 8 if precision == "float64" else 4


def crossing_amount(run: ReportedRun) -> str | None:
    """What crosses in a step, where the run counted it."""
    counted = run.summary.crossing_bytes_per_step if run.summary else None
    return amount(counted) if counted else None
