"""The recipe: the update rule against its closed form, and the learning rates of both schedules."""

from dataclasses import asdict

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from alexnet_mp import ConfigurationError, build_model
from alexnet_mp.common.presets import preset_path
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.training.lr_schedule import LearningRates
from alexnet_mp.training.optimizer import PaperSGD, make_optimizer, set_learning_rates
from alexnet_mp.training.recipe import LayerRates, Milestone, Plateau, Rates, Recipe, Schedule

LAYERS = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def preset(name: str) -> Recipe:
    return from_mapping(Recipe, OmegaConf.to_container(OmegaConf.load(preset_path("recipe", name))), "recipe")


def recipe(**changes) -> Recipe:
    standard = {"name": "test", "batch_size": 8, "epochs": 1, "momentum": 0.9}
    return Recipe(**{**standard, "weights": Rates(0.01, 0.0005), "biases": Rates(0.02, 0.0), **changes})


def velocity(optimizer: PaperSGD, parameter: nn.Parameter) -> torch.Tensor:
    """The paper's v of the one parameter of an optimizer, named p here: -ε b."""
    optimizer.param_groups[0].update(layer="p", kind="weights")
    return -optimizer.momentum_learning_rates()["p.weights"] * optimizer.momentum({"p": parameter})["p"]


def test_the_update_is_the_papers_across_changes_of_the_learning_rate():
    """v <- 0.9 v - 0.0005 ε w - ε g; w <- w + v, written out here in plain floats."""
    parameter = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimizer = PaperSGD([{"params": [parameter], "lr": 0.01, "weight_decay": 0.0005}], momentum=0.9)
    w, v = [3.0, -2.0], [0.0, 0.0]
    for step, epsilon in enumerate([0.01, 0.01, 0.001, 0.001, 0.02, 0.02]):
        optimizer.param_groups[0]["lr"] = epsilon
        g = [0.5 * step - 1.0, 0.25 + step]
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        v = [0.9 * vi - 0.0005 * epsilon * wi - epsilon * gi for vi, wi, gi in zip(v, w, g, strict=True)]
        w = [wi + vi for wi, vi in zip(w, v, strict=True)]
        assert parameter.tolist() == pytest.approx(w, rel=1e-13)
        assert velocity(optimizer, parameter).tolist() == pytest.approx(v, rel=1e-13)


def test_pytorchs_sgd_differs_after_a_change_of_the_learning_rate():
    ours, theirs = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizers = [
        PaperSGD([{"params": [ours], "lr": 0.1, "weight_decay": 0.0}], momentum=0.9),
        torch.optim.SGD([theirs], lr=0.1, momentum=0.9),
    ]
    differences = []
    for epsilon in (0.1, 0.1, 0.01):
        for optimizer, parameter in zip(optimizers, (ours, theirs), strict=True):
            optimizer.param_groups[0]["lr"] = epsilon
            parameter.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
        differences.append(abs(ours.item() - theirs.item()))
    # After two steps with g = 1 the paper's velocity is -0.19; PyTorch's next step is 0.9 * 0.019 + 0.01 long.
    assert differences[:2] == pytest.approx([0, 0], abs=1e-15)
    assert differences[2] == pytest.approx(0.9 * 0.19 - 0.9 * 0.019)


def test_a_learning_rate_of_zero_freezes_weights_and_velocity():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = PaperSGD([{"params": [parameter], "lr": 0.1, "weight_decay": 0.5}], momentum=0.9)
    parameter.grad = torch.ones(2)
    optimizer.step()
    weight, before = parameter.detach().clone(), velocity(optimizer, parameter).clone()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    assert torch.equal(parameter, weight)
    assert torch.equal(velocity(optimizer, parameter), before)


def test_every_parameter_is_in_the_group_of_its_layer_and_kind():
    model = build_model("small")
    optimizer = make_optimizer(dict(model.towers.items()), recipe(layers={}))
    groups = {(g["layer"], g["kind"]): g for g in optimizer.param_groups}
    assert set(groups) == {(layer, kind) for layer in LAYERS for kind in ("weights", "biases")}
    assert len(groups["conv3", "weights"]["params"]) == 4  # own and peer weight of two towers
    assert len(groups["fc8", "biases"]["params"]) == 1  # tower 0's
    assert sum(len(g["params"]) for g in groups.values()) == len(list(model.parameters()))
    assert {(g["kind"], g["lr"], g["weight_decay"]) for g in groups.values()} == {
        ("weights", 0.01, 0.0005),
        ("biases", 0.02, 0.0),
    }
    set_learning_rates(optimizer, {key: 0.5 if key == ("fc7", "biases") else 0.1 for key in groups})
    assert [key for key, group in groups.items() if group["lr"] == 0.5] == [("fc7", "biases")]


@pytest.mark.parametrize(
    ("epochs", "conv1", "others"),
    [
        (0, 0.01, 0.01),
        (24, 0.01, 0.01),
        (25, 0.001, 0.001),
        (51, 0.0001, 0.0001),
        (66, 0.0001, 0.0001),
        (67, 0.00001, 0.0001),
        (71, 0.00001, 0.0001),
        (72, 0.0, 0.0001),
        (79, 0.0, 0.00001),
        (90, 0.0, 0.00001),
    ],
)
def test_run_145s_learning_rates(epochs, conv1, others):
    """Run #145 after `epochs` epochs (layer-params-145.cfg); conv1 is frozen after 72."""
    rates = LearningRates(preset("original_2012"), LAYERS).after(epochs)
    assert rates["conv1", "weights"] == conv1
    assert {rates[layer, "weights"] for layer in LAYERS[1:]} == {others}
    assert rates["conv1", "biases"] == (0.0 if epochs >= 72 else 0.02)
    assert {rates[layer, "biases"] for layer in LAYERS[1:]} == {0.02}


def test_run_145s_last_drop_is_also_of_a_layer_that_its_network_did_not_have():
    rates = LearningRates(preset("original_2012"), [*LAYERS, "conv6"])
    for epochs in range(91):
        found = rates.after(epochs)
        assert {found["conv6", kind] == found["conv2", kind] for kind in ("weights", "biases")} == {True}, epochs


def test_the_papers_recipe():
    paper = preset("paper")
    assert (paper.batch_size, paper.epochs, paper.momentum, paper.input.pixel_divisor) == (128, 90, 0.9, 1)
    assert (paper.weights, paper.biases) == (Rates(0.01, 0.0005), Rates(0.01, 0.0))
    assert paper.schedule.plateau is not None
    assert (paper.schedule.plateau.factor, paper.schedule.plateau.drops) == (0.1, 3)


def test_plateau_divides_by_ten_three_times_and_no_more():
    rates = LearningRates(recipe(schedule=Schedule(plateau=Plateau(patience=2))), ["fc8"])
    lowered = [rates.validated(error) for error in [0.5, 0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]]
    #                                                better  -    1    2   better 1    2    1    2    1    2
    assert lowered == [False, False, False, True, False, False, True, False, True, False, False]
    assert rates.after(11)["fc8", "weights"] == pytest.approx(0.01 / 1000)
    assert rates.after(11)["fc8", "biases"] == pytest.approx(0.02 / 1000)


def test_layers_may_have_rates_of_their_own():
    changed = from_mapping(
        Recipe,
        {
            "name": "t",
            "batch_size": 1,
            "epochs": 1,
            "momentum": 0.9,
            "weights": {"learning_rate": 1, "weight_decay": 2},
            "biases": {"learning_rate": 3, "weight_decay": 4},
            "layers": {"fc8": {"biases": {"learning_rate": 5, "weight_decay": 6}}},
        },
        "recipe",
    )
    assert changed.rates("fc8", "biases") == Rates(5.0, 6.0)
    assert changed.rates("fc8", "weights") == Rates(1.0, 2.0)
    assert changed.rates("fc7", "biases") == Rates(3.0, 4.0)


EVERYWHERE = recipe(
    batch_size=128,
    layers={"fc8": LayerRates(weights=Rates(0.04, 0.01)), "conv1": LayerRates(biases=Rates(0.0, 0.0))},
    schedule=Schedule((Milestone(3, 0.001, "weights"), Milestone(5, 0.0, layers=("conv1",)))),
)


def rates_of(given: Recipe) -> list[float]:
    layers = [rates for each in given.layers.values() for rates in (each.weights, each.biases) if rates]
    found = [rates.learning_rate for rates in (given.weights, given.biases, *layers)]
    return found + [milestone.learning_rate for milestone in given.schedule.milestones]


def decays_of(given: Recipe) -> list[float]:
    layers = [rates for each in given.layers.values() for rates in (each.weights, each.biases) if rates]
    return [rates.weight_decay for rates in (given.weights, given.biases, *layers)]


@pytest.mark.parametrize(
    ("rule", "batch", "rate", "decay"),
    # Krizhevsky 2014, section 5, from 128 images to 8 times as many.
    [("fixed", 128, 1, 1), ("linear", 1024, 8, 1), ("square_root", 1024, 8**0.5, 8**0.5)],
)
def test_batch_and_every_learning_rate_scale_by_the_rule(rule, batch, rate, decay):
    scaled = EVERYWHERE.scaled(rule, 8)
    assert scaled.batch_size == batch
    expected = [0.01, 0.02, 0.04, 0.0, 0.001, 0.0]
    assert rates_of(EVERYWHERE) == expected
    assert rates_of(scaled) == pytest.approx([rate * each for each in expected])
    assert decays_of(scaled) == pytest.approx([decay * each for each in [0.0005, 0.0, 0.01, 0.0]])
    assert scaled.rates("fc8", "weights").learning_rate == pytest.approx(0.04 * rate)
    assert [each.after_epoch for each in scaled.schedule.milestones] == [3, 5]
    # What an epoch takes of a weight by decay, ε times weight decay a step, does not depend on the rule.
    per_image = [
        given.weights.learning_rate * given.weights.weight_decay / given.batch_size for given in (scaled, EVERYWHERE)
    ]
    assert per_image[0] == pytest.approx(per_image[1])


@pytest.mark.parametrize("rule", ["fixed", "linear", "square_root"])
def test_one_replica_trains_by_the_recipe_as_it_is(rule):
    assert EVERYWHERE.scaled(rule, 1) == EVERYWHERE


def test_a_plateau_lowers_scaled_rates_by_the_same_factor():
    scaled = recipe(schedule=Schedule(plateau=Plateau())).scaled("linear", 4)
    assert scaled.schedule.plateau == Plateau()
    assert scaled.weights == Rates(0.04, 0.0005)


LATE_FIRST = [asdict(Milestone(9, 0.1)), asdict(Milestone(3, 0.2))]


@pytest.mark.parametrize(
    ("changes", "replicas", "message"),
    [
        ({"batch_size": 9}, 2, "batch_size=9 cannot be shared equally by 2 replicas"),
        ({"batch_size": 0}, 1, "must be positive"),
        ({"momentum": 1.0}, 1, "momentum"),
        ({"layers": {"conv9": LayerRates()}}, 1, "'conv9'"),
        ({"schedule": Schedule((Milestone(1, 0.1, layers=("fc9",)),))}, 1, "'fc9'"),
        ({"schedule": {"milestones": [asdict(Milestone(1, 0.1))], "plateau": {}}}, 1, "both milestones and plateau"),
        ({"schedule": {"milestones": LATE_FIRST}}, 1, r"not in order of after_epoch: \[9, 3\]"),
        ({"weights": Rates(float("nan"), 0.0)}, 1, "recipe.weights.learning_rate is nan"),
        ({"biases": Rates(0.1, -1.0)}, 1, "recipe.biases.weight_decay is -1.0, must be a number of at least 0"),
        ({"schedule": Schedule(plateau=Plateau(factor=0.0))}, 1, "factor is 0.0, must be more than 0 and less than 1"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(changes, replicas, message):
    with pytest.raises(ConfigurationError, match=message):
        from_mapping(Recipe, asdict(recipe(**changes)), "recipe").check(LAYERS, replicas)
