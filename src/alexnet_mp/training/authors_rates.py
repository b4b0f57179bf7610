"""Reads the learning rates, momentum and weight decay of the authors' parameter files as a recipe."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from alexnet_mp.common.schema import from_mapping
from alexnet_mp.network.authors.sections import Section
from alexnet_mp.training.recipe import LayerRates, Rates, Recipe

_ONLY = {"wball": 0.0, "superEps": 0.0, "superMom": 0.0}


def read_authors_rates(parameters: Mapping[str, Section], name: str) -> Recipe:
    """The recipe of a parameters file, by its section for every row that learns.

    Such a file holds the rates of the end of a run, and no batches, augmentation or schedule: those are run #145's,
    but for the milestones, of which there are none. Raises ConfigurationError, which names section and line, for what
    no recipe can say.
    """
    momenta = {section.number(key): section for section in parameters.values() for key in ("momW", "momB")}
    rates = {row: _rates(section) for row, section in parameters.items()}
    if len(momenta) > 1:
        one, other, *_ = momenta
        raise momenta[other].refused(f"momentum {other:g}, elsewhere {one:g}; a recipe has one")
    [(usual, _)] = Counter(rates.values()).most_common(1)
    changed = {"name": name, "momentum": next(iter(momenta)), **asdict(usual), "schedule": {}}
    changed["layers"] = {row: asdict(each) for row, each in rates.items() if each != usual}
    return from_mapping(Recipe, asdict(Recipe.load("original_2012")) | changed, "recipe")


def _rates(section: Section) -> LayerRates:
    section.check(("epsW", "epsB", "momW", "momB", "wc"), _ONLY)
    of_weights = Rates(section.number("epsW"), section.number("wc", 0))
    return LayerRates(of_weights, Rates(section.number("epsB"), 0.0))
