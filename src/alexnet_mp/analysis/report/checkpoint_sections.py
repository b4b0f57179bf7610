"""The sections that the newest checkpoint gives: kernels, confusions, examples."""

from collections.abc import Sequence
from math import sqrt

from torch import Tensor

from alexnet_mp.analysis.evaluate.tables import LARGEST_MATRIX, class_errors, most_confused
from alexnet_mp.analysis.figures.kernels import colorfulness_of_towers, kernel_sheet, separation
from alexnet_mp.analysis.report.checkpoint_analysis import Examination, Example, Seen
from alexnet_mp.analysis.report.html import Html, joined, number, tag
from alexnet_mp.analysis.report.pieces import (
    Section,
    bar,
    code,
    drawing,
    figure,
    paragraph,
    percent,
    picture,
    scrolling,
    section,
    table,
)
from alexnet_mp.common.text import count
from alexnet_mp.errors import ConfigurationError

_SHEET_WIDTH = 700  # pixels, about
_PAIRS = 15
_CLASSES = 10  # at each end, where there are too many for a matrix


def kernels_section(found: Examination) -> Section:
    """The first layer's kernels, tower by tower, and how colorful they are."""
    if not found.kernels:
        return section("kernels", "Kernels of the towers", paragraph("There are no kernels to show."))
    try:
        return section("kernels", "Kernels of the towers", *_kernels(found.kernels))
    except ConfigurationError as error:
        return section("kernels", "Kernels of the towers", paragraph(f"{error}."))


def _kernels(towers: Sequence[Tensor]) -> list[Html]:
    colors = colorfulness_of_towers(towers)
    parts = []
    for tower, (kernels, color) in enumerate(zip(towers, colors, strict=True)):
        living = color[~color.isnan()]
        side = kernels.shape[-1]
        sheet = kernel_sheet([kernels], scale=max(1, _SHEET_WIDTH // (16 * (side + 1))))
        dead = len(color) - len(living)
        median = f"median colorfulness {float(living.median()):.2f}" if len(living) else "all of them dead"
        ended = f", {dead} of them dead" if dead and len(living) else ""
        words = f"Tower {tower}: {len(kernels)} kernels of {side}×{side}{ended}, {median}."
        parts.append(figure(drawing(sheet, f"A sheet of small pictures. {words}"), words, kind="sheet"))
    how = (
        "Each kernel is scaled to its own range around zero, which is gray. Colorfulness is the share of a kernel's "
        "energy that lies off the gray axis: 0 for one whose color planes are equal; noise has 2/3. "
    )
    return [paragraph(how, _separation(colors)), *parts]


def _separation(colors: Sequence[Tensor]) -> str | None:
    try:
        apart = separation(colors)
    except ConfigurationError:
        return None
    return (
        f"A kernel of tower {apart.more} is more colorful than one of tower {apart.less} with probability "
        f"{apart.auc:.2f} (one half: the towers are alike; p = {apart.p_value:.2g} by permutation). The paper's towers "
        "came apart, one gray and one colored, in every run (§6.1)."
    )


def confusion_section(seen: Seen | None) -> Section:
    """What was taken for what: all of it for few classes, or the pairs that are confused most."""
    title = "Confusion"
    if seen is None:
        return section("confusion", title, paragraph("No images were classified for this page."))
    pairs = most_confused(seen.evaluation, seen.class_names)
    words = paragraph(of_images(seen), " " + _worst_pair(seen))
    if len(seen.class_names) <= LARGEST_MATRIX:
        return section("confusion", title, words, _matrix(seen))
    rows: list[list[Html | str]] = [
        [pair.label, pair.predicted, f"{pair.count:,}", percent(pair.fraction), bar(pair.fraction)]
        for pair in pairs[:_PAIRS]
    ]
    header = ["label", "taken for", "images", "of the label's", ""]
    caption = f"The {len(rows)} pairs that are confused most, of {len(pairs):,}."
    return section("confusion", title, words, table(caption, header, rows, words=2), _classes(seen))


def of_images(seen: Seen) -> str:
    """Which images were classified, and how many were wrong."""
    errors = seen.evaluation.errors
    all_of_them = errors.images == seen.of
    which = f"all {seen.of:,}" if all_of_them else f"{errors.images:,} of the {seen.of:,}"
    chosen = "" if all_of_them else ", chosen by a keyed draw"
    return (
        f"{which[:1].upper()}{which[1:]} images of {seen.data}, split {seen.split}{chosen}, were classified for this "
        f"page, one center view each: top-1 error {percent(errors.top1_error)}, top-5 {percent(errors.top5_error)}, "
        f"loss {errors.loss:.3g}."
    )


def _worst_pair(seen: Seen) -> str:
    pairs = most_confused(seen.evaluation, seen.class_names)
    if not pairs:
        return "None was taken for another class."
    worst = pairs[0]
    return (
        f"Most often {worst.label} was taken for {worst.predicted}: {count(worst.count, 'image')}, "
        f"{percent(worst.fraction)} of those of {worst.label}."
    )


def _matrix(seen: Seen) -> Html:
    names = seen.class_names
    counts = seen.evaluation.confusions
    head = [tag("th", {"scope": "col"}, tag("span", {}, name)) for name in names]
    body = []
    for label, row in enumerate(counts.tolist()):
        total = max(sum(row), 1)
        cells = [_cell(each, each / total, place == label) for place, each in enumerate(row)]
        body.append(tag("tr", {}, tag("th", {"scope": "row"}, names[label]), *cells))
    caption = (
        "Images by their label (rows) and by the class that was most probable (columns). The diagonal, outlined, is "
        "right; the deeper the shade, the larger the share of the row; an empty cell is 0."
    )
    corner = tag("th", {"scope": "col"}, "label ↓ taken for →")
    return scrolling(
        tag(
            "table",
            {"class": "matrix"},
            tag("caption", {}, tag("span", {}, caption)),
            tag("thead", {}, tag("tr", {}, corner, *head)),
            tag("tbody", {}, *body),
        )
    )


def _cell(images: int, share: float, is_right: bool) -> Html:
    style = f"--depth:{number(sqrt(share))}" if images else None  # the root, so that a few can be seen too
    return tag("td", {"class": "right" if is_right else None, "style": style}, f"{images}" if images else None)


def _classes(seen: Seen) -> Html:
    known = sorted(
        (each for each in class_errors(seen.evaluation, seen.class_names) if each.images),
        key=lambda each: -(each.top1_error or 0),
    )
    ends = [("Worst", known[:_CLASSES]), ("Best", known[::-1][:_CLASSES])]
    tables = []
    for which, classes in ends:
        rows = [
            [each.name, str(each.images), percent(each.top1_error or 0), percent(each.top5_error or 0)]
            for each in classes
        ]
        caption = f"{which} {len(rows)} classes of {len(known):,} that have images here."
        tables.append(table(caption, ["class", "images", "top-1 error", "top-5 error"], rows))
    return tag("div", {"class": "pair"}, *tables)


def examples_section(seen: Seen | None) -> Section:
    """Images with their five most probable classes: wrong ones, then right ones."""
    title = "Examples"
    if seen is None:
        return section("examples", title, paragraph("No images were classified for this page."))
    how = (
        "The first ones of the draw, not picked by anybody. Bars are probabilities of the five most probable classes; "
        "the label is marked with ✓."
    )
    parts = [paragraph(how)]
    for name, examples in (("Wrong", seen.wrong), ("Right", seen.right)):
        parts.append(tag("h3", {}, name))
        if examples:
            parts.append(tag("div", {"class": "examples"}, *(_example(each, seen) for each in examples)))
        else:
            parts.append(paragraph(f"None of the images was {name.lower()}."))
    return section("examples", title, *parts)


def _example(example: Example, seen: Seen) -> Html:
    names = seen.class_names
    label, best = names[example.label], names[example.classes[0]]
    is_right = example.classes[0] == example.label
    description = f"Image {example.number} of {seen.split}: {label}, taken for {'it' if is_right else best}"
    chances = zip(example.classes, example.probabilities, strict=True)
    bars = tag("ol", {}, *(_chance(names[each], chance, each == example.label) for each, chance in chances))
    missed = "" if example.label in example.classes else " (not among the five)"
    caption = tag("figcaption", {}, tag("b", {}, label), None if is_right else f", taken for {best}{missed}")
    return tag("figure", {"class": "example"}, picture(example.pixels, description), joined([caption, bars]))


def _chance(name: str, chance: float, is_label: bool) -> Html:
    mark = tag("span", {"class": "tick", "title": "the label"}, "✓\u00a0") if is_label else None
    return tag(
        "li",
        {"class": "label" if is_label else None},
        tag("span", {"class": "name"}, mark, name),
        tag("span", {"class": "chance"}, f"{100 * chance:.0f}\u00a0%"),
        bar(chance),
    )


def checkpoint_in_words(found: Examination) -> Html | str:
    """Which checkpoint was looked at."""
    if found.checkpoint is None:
        return "none that is whole"
    epoch, step = (found.progress.get(key) for key in ("epoch", "step"))
    when = f", epoch {epoch}, step {step:,}" if isinstance(epoch, int) and isinstance(step, int) else ""
    return joined([code(found.checkpoint), when])
