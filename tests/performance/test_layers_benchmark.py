"""benchmarks/layers.py: what its JSON holds."""

import json
from pathlib import Path

import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.common.cli import compose
from alexnet_mp.performance.benchmark.layers import run


def test_every_layer_shape_and_format_and_every_message_is_measured(tmp_path: Path, capsys, one_thread) -> None:
    path = tmp_path / "layers.json"
    run(compose("layers", ["batch_size=2", "maps=[[6,5,4]]", "messages=[4,4096]", "rounds=2", f"json={path}"]))
    report = json.loads(path.read_text())
    found = [(each["layer"], each["maps"], each["memory_format"]) for each in report["normalization"]]
    layers = ["lrn_ours", "lrn_stock", "spatial_norm_ours", "spatial_norm_stock"]
    assert found == [(layer, [6, 5, 4], f) for f in ("NCHW", "channels-last") for layer in layers]
    assert [each["bytes_each_way"] for each in report["crossing"]] == [4, 4096]
    for each in (*report["normalization"], *report["crossing"]):
        assert each["seconds"] > 0 and len(each["seconds_of_rounds"]) == 2
    assert "times stock" in capsys.readouterr().out


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="rounds is 0"):
        run(compose("layers", ["rounds=0"]))
    with pytest.raises(ConfigurationError, match="there is no folder"):
        run(compose("layers", ["json=nowhere/layers.json"]))
