"""Turns during which something else took the machine are recognized and repeated; the parts of a step add up."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from alexnet_mp.common.cli import compose
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.performance.benchmark import rounds
from alexnet_mp.performance.benchmark.calibration import Calibration
from alexnet_mp.performance.benchmark.matrix_bound import MATRIX_BOUND
from alexnet_mp.performance.benchmark.measurement import MatrixWork, Measurement, Sent
from alexnet_mp.performance.benchmark.settings import BenchmarkSettings
from alexnet_mp.performance.benchmark.step_parts import PRODUCTS, step_parts


def test_the_machine_is_taken_if_the_fixed_work_takes_a_quarter_longer_than_at_its_quickest() -> None:
    seconds = iter([1.2, 1.0, 1.24, 1.26, 0.9, 1.13])
    calibration = Calibration(lambda: next(seconds))
    assert [calibration.is_taken() for _ in range(6)] == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("seconds", "kept", "repeated"),
    [
        ([1, 1, 1, 1], [1.0, 1.0], 0),
        ([1, 2, 1, 1, 1, 1], [2.0, 1.0], 1),  # taken at the end of the first turn
        ([1, 1, 2, 1, 1, 1], [1.0, 2.0], 1),  # before the second
        ([1, 2, 2, 2, 1, 1], [3.0, 1.0], 2),  # and again: the third time counts, whatever happens
    ],
)
def test_a_disturbed_turn_is_repeated_twice_at_most(
    seconds: Sequence[float], kept: list[float], repeated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: dict[str, int] = {"single_stock": 0, MATRIX_BOUND: 0}

    def run_turn(task: Any, processes: int, where: str, kind: type) -> list[Any]:
        turns[task.variant] += 1
        if kind is MatrixWork:
            return [MatrixWork({"conv1 forward": float(turns[task.variant])}, {"conv1 forward": "whole"}, 1)]
        step = float(turns[task.variant])
        return [Measurement(1, step, 0.0, 0.0, False, 1, 1, Sent(), 0, None, None, None, 1, ("CPU",))]

    clock = iter(seconds)
    monkeypatch.setattr(rounds, "run_turn", run_turn)
    monkeypatch.setattr(rounds, "Calibration", lambda: Calibration(lambda: next(clock)))
    overrides = ["network=small", "batch_size=8", "rounds=1", "variants=[single_stock]", "device=cpu"]
    settings = from_mapping(BenchmarkSettings, compose("benchmark/split_vs_single", overrides), "")
    measured = [rounds.choose_variants(settings, setup) for setup in settings.setups()]
    assert rounds.run_rounds(settings, measured, threads=2) == (1, repeated)
    ((turn,),) = measured[0].turns.values()
    ((bound,),) = measured[0].bound[0:1]
    assert [turn[0].step_seconds, bound.step_seconds] == kept


def test_the_parts_of_a_step_tell_products_from_the_rest() -> None:
    values = torch.randn(400, 400)
    parts = step_parts(lambda: [values @ values for _ in range(50)])
    assert parts[PRODUCTS] > 0.5 * sum(parts.values())
    assert parts["pooling"] == 0
