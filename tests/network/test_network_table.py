"""The network tables: counts from arithmetic written out here, and the rows in which text and original code differ."""

import pytest
from omegaconf import OmegaConf

from alexnet_mp import ConfigurationError, build_model, load_network
from alexnet_mp.common.presets import preset_names
from alexnet_mp.network.costs import network_cost
from alexnet_mp.network.table import parse_network

# Per tower: weights of conv1, conv2, conv3 (both towers), conv4, conv5, fc6 (both), fc7 (both), fc8 (own inputs).
TOWER_WEIGHTS = [
    48 * 3 * 11 * 11,
    128 * 48 * 5 * 5,
    192 * 256 * 3 * 3,
    192 * 192 * 3 * 3,
    128 * 192 * 3 * 3,
    2048 * 256 * 6 * 6,
    2048 * 4096,
    1000 * 2048,
]
TOWER_BIASES = 48 + 128 + 192 + 192 + 128 + 2048 + 2048


@pytest.mark.parametrize("preset", ["paper", "original_2012"])
def test_two_towers_have_the_known_number_of_parameters(preset):
    costs = network_cost(load_network(preset))
    on_each = sum(TOWER_WEIGHTS) + TOWER_BIASES
    assert costs.parameters_per_tower == [on_each + 1000, on_each] == [30_483_112, 30_482_112]
    assert costs.parameters == 60_965_224


def test_one_device_networks_have_the_known_number_of_parameters():
    def count(conv1, conv2, conv3, conv4, conv5, fc):
        convs = [(3, conv1, 11), (conv1, conv2, 5), (conv2, conv3, 3), (conv3, conv4, 3), (conv4, conv5, 3)]
        fcs = [(conv5 * 36, fc), (fc, fc), (fc, 1000)]
        return sum(i * o * k * k + o for i, o, k in convs) + sum(i * o + o for i, o in fcs)

    assert network_cost(load_network("ungrouped")).parameters == count(96, 256, 384, 384, 256, 4096) == 62_378_344
    assert network_cost(load_network("one_column")).parameters == count(48, 128, 192, 192, 256, 4096) == 59_798_312


@pytest.mark.parametrize("preset", ["paper", "original_2012"])
def test_crossing_floats_an_image(preset):
    costs = network_cost(load_network(preset))
    pool2, pool5, fc6, logits = 128 * 13 * 13, 128 * 6 * 6, 2048, 1000
    assert costs.crossing_floats_forward == pool2 + pool5 + fc6 + logits == 29_288
    assert costs.crossing_floats_backward == pool2 + pool5 + fc6 == 28_288


def test_one_tower_crosses_nothing():
    costs = network_cost(load_network("one_column"))
    assert (costs.crossing_floats_forward, costs.crossing_floats_backward) == (0, 0)
    assert costs.crossing_bytes_per_step(batch=128) == 0


def test_four_towers_send_to_three_peers():
    costs = network_cost(load_network("paper", towers=4))
    floats = 2 * (64 * 13 * 13 + 64 * 6 * 6 + 1024) + 1000
    assert costs.crossing_bytes_per_step(batch=2) == 3 * floats * 2 * 4


def test_shapes_and_multiply_adds_of_the_paper():
    costs = network_cost(load_network("paper"))
    shapes = {
        name: costs.row(name).output_shape for name in ("conv1", "pool1", "pool2", "conv5", "pool5", "fc6", "fc8")
    }
    assert shapes == {
        "conv1": (48, 55, 55),
        "pool1": (48, 27, 27),
        "pool2": (128, 13, 13),
        "conv5": (128, 13, 13),
        "pool5": (128, 6, 6),
        "fc6": (2048,),
        "fc8": (1000,),
    }
    outputs = [55 * 55, 27 * 27, 13 * 13, 13 * 13, 13 * 13, 1, 1, 1]
    assert costs.multiply_adds == 2 * sum(w * o for w, o in zip(TOWER_WEIGHTS, outputs, strict=True))
    assert round(costs.multiply_adds / 1e6) == 724


def test_rows_in_which_the_original_code_differs_from_the_text():
    text, code = load_network("paper").rows, load_network("original_2012").rows
    assert list(text)[:4] == ["conv1", "relu1", "lrn1", "pool1"]
    assert list(code)[:4] == ["conv1", "lrn1", "pool1", "relu1"]
    assert list(code)[4:9] == ["conv2", "relu2", "lrn2", "spatial2", "pool2"]
    assert (text["lrn1"].alpha_scales, code["lrn1"].alpha_scales) == ("sum", "mean")
    assert {text[f"conv{i}"].std for i in (3, 4, 5)} == {0.01}
    assert {code[f"conv{i}"].std for i in (3, 4, 5)} == {0.03}
    for rows in (text, code):
        assert rows["conv1"].pad == (0, 3)
        biases = {name: row.bias for name, row in rows.items() if hasattr(row, "bias")}
        ones = {name for name, bias in biases.items() if bias == 1}
        assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}


def test_cutting_into_more_towers_keeps_the_totals():
    four = load_network("paper", towers=4).rows
    assert [four[f"conv{i}"].kernels for i in range(1, 6)] == [24, 64, 96, 96, 64]
    assert (four["fc6"].units, four["fc7"].units) == (1024, 1024)


def test_towers_that_do_not_divide_the_units_are_refused_with_the_numbers():
    with pytest.raises(
        ConfigurationError, match=r"3 towers do not divide the 256 kernels of conv2.*\[1, 2, 4, 8, 16\]"
    ):
        load_network("paper", towers=3)


@pytest.mark.parametrize("preset", preset_names("network"))
def test_a_table_survives_writing_and_reading(preset, tmp_path):
    network = load_network(preset)
    path = tmp_path / "table.yaml"
    OmegaConf.save(OmegaConf.create(network.to_mapping()), path)
    assert load_network(path) == network


def test_a_row_set_to_null_is_left_out():
    mapping = load_network("paper").to_mapping()
    mapping["layers"] |= {"lrn1": None, "lrn2": None}
    assert [name for name in parse_network(mapping).rows if name.startswith("lrn")] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv1": {"kind": "conv"}}, "missing key 'network.layers.conv1.kernels'"),
        ({"conv1": {"kind": "con"}}, "did you mean 'conv'"),
        ({"lrn1": {"kind": "lrn", "n": 4, "k": 2, "alpha": 1, "beta": 1, "alpha_scales": "sum"}}, "must be odd"),
        ({"relu1": {"kind": "relu", "slope": 1}}, "unknown key 'network.layers.relu1.slope'"),
        ({"conv3": {"kind": "fc", "units": 0, "reads": "own", "std": 1, "bias": 0}}, "units is 0, must be at least 1"),
        ({"conv2": {"kind": "fc", "units": 1, "reads": "image", "std": 1, "bias": 0}}, "conv2 reads image"),
        ({"fc8": None}, "last row must be the classifier"),
        (
            {"fc6": {"kind": "fc", "units": 2048, "reads": "all", "std": 1, "bias": 0}},
            "'all', not one of image, own, both",
        ),
        ({"dropout6": {"kind": "dropout", "p": 1.0}}, "p is 1.0"),
    ],
)
def test_a_wrong_row_is_refused_by_name(change, message):
    mapping = load_network("paper").to_mapping()
    mapping["layers"] |= change
    with pytest.raises(ConfigurationError, match=message):
        parse_network(mapping)


def test_a_window_larger_than_its_input_is_refused():
    mapping = load_network("paper").to_mapping() | {"image": [3, 32, 32]}
    with pytest.raises(ConfigurationError, match="pool5: a 3x3 window does not fit an input 1 px wide"):
        network_cost(parse_network(mapping))


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("layers: [")
    with pytest.raises(ConfigurationError, match=r"cannot read the network table .*table\.yaml"):
        load_network(path)


def test_a_row_that_says_after_stands_there() -> None:
    table = load_network("paper").to_mapping()
    table["layers"]["conv6"] = {**table["layers"]["conv5"], "after": "pool5", "reads": "both"}
    table["layers"]["relu6c"] = {"kind": "relu", "after": "conv6"}
    names = list(parse_network(table).rows)
    assert names[names.index("pool5") :][:4] == ["pool5", "conv6", "relu6c", "fc6"]
    assert names[-1] == "fc8"
    del table["layers"]["conv6"]["after"]
    table["layers"]["conv6"]["before"] = "fc6"
    assert list(parse_network(table).rows) == names
    table["layers"]["conv6"]["after"] = "pool6"
    with pytest.raises(ConfigurationError, match=r"network\.layers\.conv6\.after is 'pool6', not one of.*'pool5'"):
        parse_network(table)


@pytest.mark.parametrize("name", ["a.b", "1st", "", "conv 1", "conv-1"])
def test_a_row_has_a_name_that_can_stand_in_a_parameters(name: str) -> None:
    table = load_network("paper").to_mapping()
    table["layers"] = {name: table["layers"].pop("conv1"), **table["layers"]}
    with pytest.raises(ConfigurationError, match=r"a row is called .*; its name stands in those of parameters"):
        parse_network(table)


@pytest.mark.parametrize("name", ["stages", "index", "training", "half", "forward"])
def test_a_row_is_not_called_like_what_a_module_has(name: str) -> None:
    table = load_network("small").to_mapping()
    layers = {name if old == "relu1" else old: row for old, row in table["layers"].items()}
    with pytest.raises(ConfigurationError, match=f"a row cannot be called '{name}'"):
        build_model(parse_network({**table, "layers": layers}))
