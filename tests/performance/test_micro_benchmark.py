"""benchmarks/micro.py: what its JSON holds."""

import json
from pathlib import Path
from typing import Any

import pytest
from micro import run

from alexnet_mp import ConfigurationError
from alexnet_mp.common.cli import compose
from alexnet_mp.performance.benchmark.interleaved import seconds_interleaved


def figures(folder: Path, *overrides: str) -> list[dict[str, Any]]:
    path = folder / "micro.json"
    run(compose("benchmark/micro", ["batch_size=2", "rounds=2", f"json={path}", *overrides]))
    found: list[dict[str, Any]] = json.loads(path.read_text())["figures"]
    for each in found:
        assert each["median"] > 0 and len(each["rounds"]) == 2
    return found


def test_every_layer_shape_and_format_and_every_message_is_measured(tmp_path: Path, capsys, one_thread) -> None:
    found = figures(tmp_path, "parts=[normalization,crossing]", "maps=[[6,5,4]]", "messages=[4,4096]")
    layers = ["lrn_ours", "lrn_stock", "spatial_norm_ours", "spatial_norm_stock"]
    normalizations = [each for each in found if each["part"] == "normalization"]
    assert [(each["what"], each["shape"], each["memory_format"]) for each in normalizations] == [
        (layer, "6x5x4", memory_format) for memory_format in ("NCHW", "channels-last") for layer in layers
    ]
    assert [each["shape"] for each in found if each["part"] == "crossing"] == ["4 bytes", "4096 bytes"]
    printed = capsys.readouterr().out
    assert "times stock" in printed and "GB/s each way" in printed


def test_every_choice_is_measured_beside_what_it_was_chosen_over(tmp_path: Path, one_thread) -> None:
    found = figures(tmp_path, "parts=[memory_formats,update,lrn_blocks]")
    assert [each["what"] for each in found] == [
        *(["conv1", "conv2", "conv4", "pool1"] * 2),
        *("fused", "foreach"),
        *(f"lrn1, blocks of {size}" for size in ("96 KiB", "192 KiB", "384 KiB", "768 KiB", "1536 KiB", "all at once")),
    ]


@pytest.mark.slow
def test_steps_are_measured_with_large_blocks_kept_and_given_back(tmp_path: Path) -> None:
    kept = [each["what"].split("blocks ")[1] for each in figures(tmp_path, "parts=[large_blocks]")]
    assert kept == ["given back", "kept"]


def test_rounds_go_through_all_calls_and_the_first_ones_are_not_timed() -> None:
    calls, ticks = [], iter(range(100))
    seconds = seconds_interleaved(
        {name: lambda name=name: calls.append(name) for name in "ab"},  # type: ignore[misc]
        rounds=2,
        warmup_rounds=1,
        before=lambda: calls.append("-"),
        clock=lambda: float(next(ticks)),
    )
    assert "".join(calls) == "-a-b" * 3
    assert seconds.keys() == {"a", "b"} and all(each == [1.0, 1.0] for each in seconds.values())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=0", "rounds is 0"),
        ("json=nowhere/micro.json", "must lie in a folder that exists"),
        ("parts=[layers]", "not one of normalization"),
    ],
)
def test_what_cannot_be_measured_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run(compose("benchmark/micro", [override]))
