"""The authors' files become tables and recipes row by row, and what no row can say is refused by line and section."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet_mp import ConfigurationError
from alexnet_mp.commands import convert
from alexnet_mp.common.cli import compose
from alexnet_mp.network.authors.layers import read_authors_layers
from alexnet_mp.network.table import load_network
from alexnet_mp.training.authors_rates import read_authors_rates
from alexnet_mp.training.recipe import LayerRates, Rates, Recipe

Edit = Callable[[str], str]


def section(name: str, **keys: object) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()) + "\n"


def tower(letter: str) -> dict[str, dict[str, object]]:
    """The layers of one tower of run #145 by name (layers-145.cfg), in the grammar of the authors' code."""
    own = "abcdefgh".index(letter)

    def conv(inputs: str, **more: object) -> dict[str, object]:
        return {"type": "conv", "inputs": inputs, "sharedBiases": 1, "partialSum": 3, "gpu": own, **more}

    def pool(inputs: str, channels: int, **more: object) -> dict[str, object]:
        return {"type": "pool", "pool": "max", "inputs": inputs, "channels": channels, "sizeX": 3, "stride": 2, **more}

    def fc(inputs: str) -> dict[str, object]:
        initial = {"initW": "0.01,0.01", "initB": 1, "neuron": "relu"}
        return {"type": "fc", "inputs": inputs, "outputs": 2048, **initial, "gpu": own}

    def padded(size: int, channels: int, std: float) -> dict[str, object]:
        geometry = {"padding": size // 2, "stride": 1, "filterSize": size, "channels": channels}
        return {**geometry, "initW": std, "initB": 1, "neuron": "relu"}

    both = {key: f"{value},{value}" for key, value in padded(3, 128, 0.03).items() if key not in ("initB", "neuron")}
    first = {"channels": 3, "padding": 0, "stride": 4, "filterSize": 11, "initW": 0.01}
    unlike = padded(3, 192, 0.03)
    del unlike["neuron"]
    return {
        f"conv1{letter}": conv("data", filters=48, **first),
        f"rnorm1{letter}": {"type": "cmrnorm", "inputs": f"conv1{letter}", "channels": 48, "size": 5},
        f"pool1{letter}": pool(f"rnorm1{letter}", 48, neuron="relu"),
        f"conv2{letter}": conv(f"pool1{letter}", filters=128, **padded(5, 48, 0.01)),
        f"rnorm2{letter}": {"type": "cmrnorm", "inputs": f"conv2{letter}", "channels": 128, "size": 5},
        f"cnorm2{letter}": {"type": "rnorm", "inputs": f"rnorm2{letter}", "channels": 128, "size": 5},
        f"pool2{letter}": pool(f"cnorm2{letter}", 128),
        f"conv3{letter}": conv("pool2a, pool2b", filters="192,192", neuron="relu", **both),
        f"conv4{letter}": conv(f"conv3{letter}", filters=192, **padded(3, 192, 0.03)),
        f"conv5{letter}": conv(f"conv4{letter}", filters=128, groups=1, randSparse=0, **unlike),
        f"pool3{letter}": pool(f"conv5{letter}", 128, neuron="relu"),
        f"fc2048{letter}": fc("pool3a,pool3b"),
        f"hs1{letter}": {"type": "hs", "keep": 0.5, "inputs": f"fc2048{letter}"},
        f"fc2048b{letter}": fc("hs1b,hs1a"),
        f"hs2{letter}": {"type": "hs", "keep": 0.5, "inputs": f"fc2048b{letter}"},
    }


def definition() -> str:
    both = zip(tower("a").items(), tower("b").items(), strict=True)
    layers = [section(name, **keys) for pair in both for name, keys in pair]
    data = [section("data", type="data", dataIdx=0), section("labels", type="data", dataIdx=1)]
    last = {"type": "fc", "inputs": "hs2a,hs2b", "outputs": 1000, "initW": "0.01,0.01"}
    cost = section("logprob", type="cost.logreg", inputs="labels,probs")
    return "".join([*data, *layers, section("fc1000", **last), section("probs", type="softmax", inputs="fc1000"), cost])


def parameters(conv1: float = 0.0) -> str:
    """Rates in the manner of the end of run #145: conv1 frozen (layer-params-145.cfg)."""
    text = "# comments\n" + section("logprob", coeff=1, topk=5) + section("fc1000", **rates("0.00001, 0.00001", 0.02))
    for name, keys in {**tower("a"), **tower("b")}.items():
        if keys["type"] in ("conv", "fc"):
            text += section(name, **(rates(conv1, conv1) if name.startswith("conv1") else rates(0.00001, 0.02)))
        elif keys["type"] == "cmrnorm":
            text += section(name, scale=0.0001, pow=0.75, minDiv=2)
        elif keys["type"] == "rnorm":
            text += section(name, scale=0.001, pow=0.75)
        elif keys["type"] == "hs":
            text += section(name, enable="true")
    return text


def rates(weights: object, biases: object) -> dict[str, object]:
    return {"epsW": weights, "epsB": biases, "momW": 0.9, "momB": 0.9, "wc": 0.0005, "wball": "0.00"}


def files(folder: Path, layers: str | None = None, params: str | None = None) -> tuple[Path, Path]:
    paths = folder / "layers-145.cfg", folder / "layer-params-145.cfg"
    for path, text in zip(paths, (layers or definition(), params or parameters()), strict=True):
        path.write_text(text, "utf-8")
    return paths


def test_run_145_becomes_its_preset_row_by_row(tmp_path: Path) -> None:
    network, learned = read_authors_layers(*files(tmp_path), "original_2012", 224)
    assert list(network.rows.items()) == list(load_network("original_2012").rows.items())
    assert network == load_network("original_2012")
    recipe = read_authors_rates(learned, "original_2012")
    assert (recipe.weights, recipe.biases) == (Rates(0.00001, 0.0005), Rates(0.02, 0))
    assert recipe.layers == {"conv1": LayerRates(Rates(0, 0.0005), Rates(0, 0))}
    assert recipe.momentum == 0.9
    assert recipe.schedule.milestones == ()
    assert recipe.augmentation == Recipe.load("original_2012").augmentation


def test_what_is_written_composes_and_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, params = files(tmp_path)
    command = [f"source={source}", f"params={params}", f"out={tmp_path}/mine/run_145.yaml"]
    convert.run(compose("convert", command))
    assert "1e-05 for weights, 0.02 for biases, and others for 1 layer" in capsys.readouterr().out
    written = load_network(tmp_path / "mine/network/run_145.yaml")
    assert written.rows == load_network("original_2012").rows
    recipe = Recipe.load(tmp_path / "mine/recipe/run_145.yaml")
    assert recipe == read_authors_rates(read_authors_layers(source, params, "run_145", 224)[1], "run_145")
    with pytest.raises(ConfigurationError, match=r"network/run_145\.yaml exists already; nothing was written"):
        convert.run(compose("convert", command))


def test_towers_of_one_and_windows_over_both_edges(tmp_path: Path) -> None:
    conv = {
        "type": "conv",
        "inputs": "data",
        "channels": 3,
        "filters": 32,
        "padding": 2,
        "filterSize": 5,
        "initW": 1e-4,
    }
    layers = [
        section("data", type="data", dataIdx=0),
        section("conv1", **conv, partialSum=4),
        section("pool1", type="pool", pool="avg", inputs="conv1", channels=32, start=-1, sizeX=3, stride=2, outputsX=0),
        section("local2", **conv | {"type": "local", "inputs": "pool1", "channels": 32, "padding": 0, "stride": 2}),
        section("fc10", type="fc", inputs="local2", outputs=10, neuron="ident"),
        section("probs", type="softmax", inputs="fc10"),
    ]
    params = "".join(section(name, **rates(0.001, 0.002)) for name in ("conv1", "local2", "fc10"))
    network, _ = read_authors_layers(*files(tmp_path, "".join(layers), params), "one", 24)
    assert network.towers == 1
    # Windows of 3 pixels begin at -1, 1, ..., 21, and the last ends with the maps: 12 of them. Then windows of 5 begin
    # at 0, 2, ..., 8, and the last hangs over by one pixel.
    assert {name: row.to_mapping().get("pad") for name, row in network.rows.items()} == {
        "conv1": [2, 2],
        "pool1": [1, 0],
        "local2": [0, 1],
        "fc3": None,
    }
    assert network.to_mapping()["layers"]["fc3"] == {"kind": "classifier", "std": 0.01, "bias": 0.0}


def swap(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    "of_layers, edit, said",
    [
        (
            True,
            swap("type=softmax", "type=eltsum"),
            r"145\.cfg, line \d+, \[probs\]: type=eltsum; a table can",
        ),
        (True, lambda text: text.replace("pool=max", "pool=rand"), r"\[pool1a\]: pool=rand; a table can say max, avg"),
        (True, swap("neuron=relu", "neuron=logistic"), r"\[pool1b\]: its neuron is not that of \[pool1a\]"),
        (True, lambda text: text.replace("sharedBiases=1", "sharedBiases=0"), r"\[conv1a\]: .*sharedBiases=0, only 1"),
        (
            True,
            swap("inputs=conv3b", "inputs=conv3a"),
            r"\[conv4a\]: reads conv3a; a row reads the one before",
        ),
        (
            True,
            swap("inputs=conv3a", "inputs=conv2a"),
            r"\[conv4a\]: reads conv2a; .* before it, conv3a,",
        ),
        (True, swap("[conv2b]", "[conv2a]"), r"\[conv2a\]: it stands in line \d+ already"),
        (True, swap("[conv2b]", "[conv9]"), r"\[conv2a\]: it has 1 of the 2 towers that other layers have"),
        (True, swap("filterSize=11", "filterSize=11\nfilterSize=11"), r"line \d+, \[conv1a\]: it has filterSize twice"),
        (True, swap("stride=1,1", "stride=1,2"), r"\[conv3b\]: its stride is not that of \[conv3a\]"),
        (True, swap("initW=0.01", "initWFunc=f.g()"), r"\[conv1b\]: its initWFunc is not that of \[conv1a\]"),
        (True, swap("[labels]", "labels"), r"145\.cfg, line 5: 'labels' is neither \[name\] nor key=value"),
        (True, swap("outputs=1000", "outputs=ten"), r"\[fc1000\]: outputs=ten; it must be one number"),
        (True, swap("outputs=1000", ""), r"\[fc1000\]: outputs is missing; it must be one number"),
        (True, swap("type=softmax\ninputs=fc1000", "type=softmax\ninputs=hs2a"), "last layer must be of type=fc"),
        (False, swap("coeff=1", "coeff=2"), r"params-145\.cfg, line \d+, \[logprob\]: .*coeff=2, only 1"),
        (False, swap("wball=0.00", "wball=0.1"), r"\[fc1000\]: .*wball=0\.1, only 0"),
        (False, swap("wball=0.00", "schedW=exp[2]"), r"\[fc1000\]: .*can say schedW=exp"),
        (False, swap("momW=0.9", "momW=0.5"), r"\[\w+\]: momentum 0\.\d, elsewhere 0\.\d; a recipe has one"),
        (False, swap("[hs1a]", "[hs9a]"), r"params-145\.cfg has no \[hs1a\], which .*layers-145\.cfg needs"),
        (False, swap("minDiv=2", "minDiv=1"), r"\[rnorm1b\]: its minDiv is not that of \[rnorm1a\]"),
    ],
)
def test_what_no_row_can_say_is_refused_by_line_and_section(
    of_layers: bool, edit: Edit, said: str, tmp_path: Path
) -> None:
    layers, params = (edit(definition()), parameters()) if of_layers else (definition(), edit(parameters()))
    with pytest.raises(ConfigurationError, match=said):
        read_authors_rates(read_authors_layers(*files(tmp_path, layers, params), "x", 224)[1], "x")


def test_dropout_that_is_switched_off_is_no_row(tmp_path: Path) -> None:
    off = parameters().replace("[hs2a]\nenable=true", "[hs2a]\nenable=false")
    off = off.replace("[hs2b]\nenable=true", "[hs2b]\nenable=0")
    with pytest.raises(ConfigurationError, match=r"\[hs2b\]: its enable is not that of \[hs2a\]"):
        read_authors_layers(*files(tmp_path, params=off), "x", 224)
    rows = read_authors_layers(*files(tmp_path, params=off.replace("enable=0", "enable=false")), "x", 224)[0].rows
    assert [name for name in load_network("original_2012").rows if name not in rows] == ["dropout7"]


def damaged(text: str, rng: np.random.Generator) -> str:
    """The text with a line lost, doubled or moved, a character changed, or its end cut off."""
    lines = text.splitlines()
    line, kind = int(rng.integers(len(lines))), rng.integers(5)
    if kind == 0:
        del lines[line]
    elif kind == 1:
        lines.insert(int(rng.integers(len(lines))), lines[line])
    elif kind == 2:
        at, new = int(rng.integers(len(lines[line]) + 1)), str(rng.choice(list("=[],.-x0\x009é\ud800 ")))
        lines[line] = lines[line][:at] + new + lines[line][at + 1 :]
    elif kind == 3:
        lines[line] = lines[line].partition("=")[0] + "=" + str(rng.choice(["-1", "1e999", "nan", "0", "", "1e6,1e6"]))
    else:
        return text[: int(rng.integers(len(text)))]
    return "\n".join(lines)


def test_two_hundred_damages_are_read_or_refused(tmp_path: Path) -> None:
    rng, refused = np.random.default_rng(0), 0
    for number in range(200):
        texts = [definition(), parameters()]
        texts[number % 2] = damaged(texts[number % 2], rng)
        paths = files(tmp_path)
        for path, text in zip(paths, texts, strict=True):
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            read_authors_rates(read_authors_layers(*paths, "x", 224)[1], "x")
        except ConfigurationError:
            refused += 1
    assert refused > 100


def test_what_belongs_to_a_definition_is_asked_for_and_refused_elsewhere(tmp_path: Path) -> None:
    source, params = files(tmp_path)
    for command in ([f"out={tmp_path}/x.yaml"], [f"params={params}", f"out={tmp_path}/x"]):
        with pytest.raises(ConfigurationError, match=r"needs params=FILE\.cfg and out=FOLDER/NAME\.yaml"):
            convert.run(compose("convert", [f"source={source}", *command]))
    for key in ("network=paper", "dropout=inverted", "channels=bgr"):
        with pytest.raises(ConfigurationError, match=r"layers-145\.cfg has no weights, which network="):
            convert.run(compose("convert", [f"source={source}", f"params={params}", f"out={tmp_path}/x.yaml", key]))
    with pytest.raises(ConfigurationError, match="belongs to a layer definition of the authors"):
        convert.run(compose("convert", [f"source={tmp_path}", f"params={params}", "out=x"]))
    with pytest.raises(ConfigurationError, match=r"cannot read .*nowhere\.cfg"):
        convert.run(
            compose("convert", [f"source={tmp_path}/nowhere.cfg", f"params={params}", f"out={tmp_path}/x.yaml"])
        )
