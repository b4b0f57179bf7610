"""Turns a layer definition of the authors' code into a network table.

A definition (`layers-145.cfg`) has a section for every layer of every tower, `[conv2a]` and `[conv2b]`; its parameters
file (`layer-params-145.cfg`) has the numbers of the normalizations, and learning rates. Source: `layer.py` of the
AlexNet-Source-Code release, whose defaults are taken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.authors.sections import Section, read_sections
from alexnet_mp.network.table import Network, parse_network

_TOWERS = "abcdefgh"
_WEIGHTED = {"conv": "conv", "local": "local", "fc": "fc"}
_NAMES = _WEIGHTED | {"cmrnorm": "lrn", "rnorm": "spatial", "pool": "pool", "hs": "dropout"}  # of rows, by type
_OTHERS = {"data": "", "softmax": "", "cost.logreg": ""}  # which are no rows
_KEYS = {  # besides type, inputs, gpu and neuron
    "conv": "channels filters padding stride filterSize initW initB partialSum",
    "local": "channels filters padding stride filterSize initW initB",
    "fc": "outputs initW initB",
    "cmrnorm": "channels size",
    "rnorm": "channels size",
    "pool": "channels pool sizeX stride start outputsX",
    "hs": "keep",
}
_ONLY = {"conv": {"groups": 1, "randSparse": 0, "sharedBiases": 1}, "local": {"groups": 1, "randSparse": 0}}
_POOLS = {"max": "maxpool", "avg": "avgpool"}
_NEURONS = {"relu": ["relu"], "ident": [], "": []}


def read_authors_layers(source: Path, params: Path, name: str, image_size: int) -> tuple[Network, dict[str, Section]]:
    """The network of a definition and its parameters file, for images of `image_size` pixels a side.

    With it, for every row that learns, its section of the parameters file, which is alike for all towers. Rows are
    named as those of the presets are: by kind and the number of the last layer with weights, `conv1`, `lrn1`, ...,
    `fc8`. Raises ConfigurationError, which names file, line and section, for what no row can say.
    """
    sections, parameters = read_sections(source), read_sections(params)
    computing = {each.name: each for each in sections.values() if each.one_of("type", _NAMES | _OTHERS)}
    others = {kind: [each for each in sections.values() if each.values["type"] == kind] for kind in _OTHERS}
    for cost in (parameters[each.name] for each in others["cost.logreg"] if each.name in parameters):
        cost.check(("topk",), {"coeff": 1})
    groups = list(_groups(computing))
    answers = [word for each in others["softmax"] for word in each.words("inputs")]
    if not groups or answers != [each.name for each in groups[-1]] or groups[-1][0].values["type"] != "fc":
        raise ConfigurationError(f"{source}: its last layer must be of type=fc, and be read by one of type=softmax")
    rows = _Rows(parameters, params, max(map(len, groups)), image_size, [each.name for each in others["data"]])
    for group in groups:
        rows.add(group, is_last=group is groups[-1])
    (first, *_), (last, *_) = groups[0], groups[-1]
    table = {"name": name, "towers": rows.towers, "image": [first.count("channels"), image_size, image_size]}
    return parse_network({**table, "classes": last.count("outputs"), "layers": rows.rows}), rows.learned


def _groups(sections: Mapping[str, Section]) -> Iterator[list[Section]]:
    """The sections of one layer, tower by tower: `conv2a` and `conv2b`."""
    for name, section in sections.items():
        stem, letter = name[:-1], name[-1:]
        if letter not in _TOWERS or f"{stem}a" not in sections or f"{stem}b" not in sections:
            yield [section]
        elif letter == "a":
            yield _alike([sections[stem + each] for each in _TOWERS if stem + each in sections])


def _alike(towers: list[Section]) -> list[Section]:
    """The sections, if all say the same but for what they read and on which GPU. Raises ConfigurationError."""
    first = towers[0]
    for other in towers[1:]:
        for key in {**first.values, **other.values}:
            if key not in ("inputs", "gpu") and first.values.get(key) != other.values.get(key):
                raise other.refused(f"its {key} is not that of [{first.name}]; a row is of all towers alike", key)
    return towers


@dataclass
class _Rows:
    """Adds the row of one layer after another; `side` is the width of the maps that the next reads from `before`."""

    parameters: Mapping[str, Section]
    params: Path
    towers: int
    side: int
    images: list[str]
    before: list[str] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    learned: dict[str, Section] = field(default_factory=dict)

    def add(self, group: Sequence[Section], is_last: bool) -> None:
        section = group[0]
        if len(group) != self.towers and not is_last:
            raise section.refused(f"it has {len(group)} of the {self.towers} towers that other layers have")
        kind, reads = section.values["type"], self._reads(group, is_last)
        section.check((*_KEYS[kind].split(), "type", "inputs", "gpu", "neuron"), _ONLY.get(kind, {}))
        said = section if kind == "pool" else self._parameters_of(group)
        number = len(self.learned) + (kind in _WEIGHTED)
        name = f"{_NAMES[kind]}{number}"
        if kind in _WEIGHTED:
            self.learned[name] = said
        if kind != "hs" or said.number("enable"):
            self._put(section, name, self._row(section, said, reads, is_last))
        for neuron in section.one_of("neuron", _NEURONS):
            self._put(section, f"{neuron}{number}", {"kind": neuron})
        self.before = [each.name for each in group]

    def _row(self, section: Section, said: Section, reads: str, is_last: bool) -> dict[str, Any]:
        """The layer as a row of a table; `said` is its section of the parameters file."""
        kind = section.values["type"]
        if kind == "pool":
            before = -section.count("start", 0)
            windows = self._windows(section, section.count("sizeX"), before, self.side + before)
            return {"kind": section.one_of("pool", _POOLS), **windows}
        if kind == "hs":
            return {"kind": "dropout", "p": 1 - section.number("keep")}
        if kind in ("cmrnorm", "rnorm"):
            size, numbers = section.count("size"), {"alpha": said.number("scale"), "beta": said.number("pow")}
            if kind == "rnorm":
                return {"kind": "spatial_norm", "size": size, "k": 1.0, **numbers}
            return {"kind": "lrn", "n": size, "k": said.number("minDiv", 1), **numbers, "alpha_scales": "mean"}
        initial = {"std": section.number("initW", 0.01), "bias": section.number("initB", 0)}
        if kind == "fc":
            hidden = {"kind": "fc", "units": section.count("outputs"), "reads": reads, **initial}
            return {"kind": "classifier", **initial} if is_last else hidden
        padding = section.count("padding", 0)
        windows = self._windows(section, section.count("filterSize"), padding, self.side + 2 * padding)
        return {"kind": kind, "kernels": section.count("filters"), **windows, "reads": reads, **initial}

    def _put(self, section: Section, name: str, row: dict[str, Any]) -> None:
        if name in self.rows:
            raise section.refused(f"would be the second row {name}; rows are named after the last layer with weights")
        self.rows[name] = row

    def _parameters_of(self, group: Sequence[Section]) -> Section:
        for section in group:
            if section.name not in self.parameters:
                raise ConfigurationError(f"{self.params} has no [{section.name}], which {section.file} needs")
        return _alike([self.parameters[section.name] for section in group])[0]

    def _reads(self, group: Sequence[Section], is_last: bool) -> str:
        """What the layer reads, in a table's word."""
        found = [each.words("inputs") for each in group]
        if not self.before and all(len(each) == 1 and each[0] in self.images for each in found):
            return "image"
        if self.before and not is_last and found == [[each] for each in self.before]:
            return "own"
        if self.before and group[0].values["type"] in _WEIGHTED and all(sorted(each) == self.before for each in found):
            return "both"
        before = ", ".join(self.before) or "the images"
        why = f"a row reads the one before it, {before}, of its own tower or, with weights, of all"
        raise group[0].refused(f"reads {', '.join(found[0])}; {why}", "inputs")

    def _windows(self, section: Section, size: int, before: int, width: int) -> dict[str, Any]:
        """Size, stride and pad: theirs are as many as it takes to cover `width` pixels, or `outputsX`."""
        stride = section.count("stride", 1)
        if size < 1 or stride < 1 or before < 0:
            raise section.refused(f"windows of {size} pixels, every {stride}, {before} over the edge: there are none")
        windows = section.count("outputsX", 0) or 1 + ceil((width - size) / stride)
        after = max((windows - 1) * stride + size - self.side - before, 0)
        if windows < 1 or (self.side + before + after - size) // stride + 1 != windows:
            raise section.refused(f"{windows} windows of {size} pixels on maps {self.side} wide: no row can say so")
        self.side = windows
        return {"size": size, "stride": stride, "pad": [before, after]}
