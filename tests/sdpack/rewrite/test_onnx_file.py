from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from sdpack.engines.onnxruntime import load
from sdpack.errors import EngineError, GraphError
from sdpack.quantization.layers import layers
from sdpack.rewrite.onnx_file import files_of, read, write, write_beside

from tests.sdpack import graphs

WEIGHT = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
FLOAT = onnx.TensorProto.FLOAT


def saved(folder: Path, nodes: list[onnx.NodeProto], **more: Any) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 48])],
        **more.pop("graph", {}),
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, **more)
    path = folder / "other.onnx"
    onnx.save(model, path)
    return path


def test_weights_in_constants_are_layers_too(tmp_path: Path) -> None:
    value = numpy_helper.from_array(WEIGHT)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="product"),
    ]
    (layer,) = layers(read(saved(tmp_path, nodes)))
    assert layer.name == "product"
    assert np.array_equal(layer.matrix(), WEIGHT.T)


def test_weights_that_are_also_inputs_are_layers_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    path = saved(tmp_path, nodes, graph={"initializer": [numpy_helper.from_array(WEIGHT, "w")]})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, WEIGHT.shape))
    onnx.save(model, path)
    assert [layer.name for layer in layers(read(path))] == ["product"]


def test_functions_are_written_out_and_values_have_types(tmp_path: Path) -> None:
    body = [
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["d"]),
    ]
    function = helper.make_function(
        "mine", "Dense", ["a", "b"], ["d"], body, [helper.make_opsetid("", 21)]
    )
    nodes = [helper.make_node("Dense", ["x", "w"], ["y"], domain="mine")]
    weight = {"initializer": [numpy_helper.from_array(WEIGHT, "w")]}
    model = read(saved(tmp_path, nodes, graph=weight, functions=[function]))
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu"]
    assert all(value.dtype is not None for node in model.graph for value in node.outputs)
    assert len(layers(model)) == 1


def test_what_is_written_is_read_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = {"initializer": [numpy_helper.from_array(WEIGHT, "w")]}
    model = read(saved(tmp_path, nodes, graph=weight))
    one, other = tmp_path / "one.onnx", tmp_path / "other" / "one.onnx"
    other.parent.mkdir()
    for path in (one, other):
        write(model, path)
    assert [p.name for p in files_of(one)] == ["one.onnx", "one.onnx.data"]
    for a, b in zip(files_of(one), files_of(other), strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert np.array_equal(layers(read(one))[0].matrix(), WEIGHT.T)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a"])
def test_what_is_no_graph_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"broken\.onnx"):
        read(path)
    with pytest.raises(GraphError, match="there is no such file"):
        read(tmp_path / "absent.onnx")


def moved(graph: Path, location: str) -> None:
    """Name another place for a graph's weights."""
    model = onnx.load(graph, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    graph.write_bytes(model.SerializeToString())


def in_a_hub_cache(graph: Path, data: Path) -> Path:
    blobs, snapshot = graph.parent / "blobs", graph.parent / "snapshots" / "c0ffee"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for name, file in (("aaa", graph), ("bbb", data)):
        (snapshot / file.name).symlink_to(f"../../blobs/{name}")
        file.rename(blobs / name)
    return snapshot / graph.name


def behind_a_link_out(graph: Path, data: Path) -> Path:
    (graph.parent.parent / "blobs").mkdir()
    data.rename(graph.parent.parent / "blobs" / "bbb")
    data.symlink_to("../blobs/bbb")
    return graph


def behind_a_link_within(graph: Path, data: Path) -> Path:
    data.rename(data.with_name("bbb"))
    data.symlink_to("bbb")
    return graph


def with_a_second_hard_link(graph: Path, data: Path) -> Path:
    os.link(data, data.with_name("second"))
    return graph


def above(graph: Path, data: Path) -> Path:
    data.rename(graph.parent.parent / "w.bin")
    moved(graph, "../w.bin")
    return graph


def below(graph: Path, data: Path) -> Path:
    (graph.parent / "weights").mkdir()
    data.rename(graph.parent / "weights" / "w.bin")
    moved(graph, "weights/w.bin")
    return graph


def at_an_absolute_place(graph: Path, data: Path) -> Path:
    moved(graph, str(data))
    return graph


def asked_for_through_a_link(graph: Path, data: Path) -> Path:
    (graph.parent.parent / "link.onnx").symlink_to(graph)
    return graph.parent.parent / "link.onnx"


PLACES = (
    in_a_hub_cache,
    behind_a_link_out,
    behind_a_link_within,
    with_a_second_hard_link,
    above,
    below,
    at_an_absolute_place,
    asked_for_through_a_link,
)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_weights_are_read_where_onnx_runtime_reads_them(
    place: Callable[[Path, Path], Path],
    relative: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = graphs.saved(graphs.linear(WEIGHT), tmp_path / "model")
    graph = place(first, first.with_name("model.onnx.data"))
    if relative:
        monkeypatch.chdir(graph.parent)
        graph = Path(graph.name)
    try:
        load(graph, threads=1).close()
    except EngineError:
        with pytest.raises(GraphError, match=r"the weight w is stored (in|at)") as caught:
            read(graph)
        assert "\n" not in str(caught.value)
        with pytest.raises(GraphError, match=r"the weight w is stored (in|at)"):
            files_of(graph)
        assert place in (behind_a_link_out, above, at_an_absolute_place, asked_for_through_a_link)
    else:
        assert np.array_equal(layers(read(graph))[0].matrix(), WEIGHT.T)
        assert all(file.is_file() for file in files_of(graph))
        assert files_of(graph)[1].parent in (graph.parent, graph.parent / "weights")


def test_a_second_graph_beside_weights_with_a_second_hard_link_reads_them(tmp_path: Path) -> None:
    graph = graphs.saved(graphs.linear(WEIGHT), tmp_path)
    os.link(tmp_path / "model.onnx.data", tmp_path / "second")
    write_beside(read(graph), tmp_path / "other.onnx")
    assert [p.name for p in files_of(tmp_path / "other.onnx")] == ["other.onnx", "model.onnx.data"]
    batch = {"x": np.eye(64, dtype=np.float32)}
    with load(tmp_path / "other.onnx", threads=1) as session:
        assert np.allclose(session.run(batch)["y"], WEIGHT, atol=1e-6)


def test_a_graph_written_beside_its_weights_is_checked(tmp_path: Path) -> None:
    model = read(graphs.saved(graphs.linear(WEIGHT), tmp_path))
    next(iter(model.graph)).op_type = "Nonsense"
    with pytest.raises(GraphError, match="Nonsense"):
        write_beside(model, tmp_path / "other.onnx")


def test_weights_of_branches_are_files_of_the_graph_and_written_with_it(tmp_path: Path) -> None:
    def branch(name: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(WEIGHT, f"w_{name}")
        node = helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])
        made = helper.make_tensor_value_info(f"y_{name}", FLOAT, ["N", 48])
        return helper.make_graph([node], name, [], [made], [weight])

    both = {"then_branch": branch("then"), "else_branch": branch("else")}
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["is"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["is"], ["y"], **both),
    ]
    inside = read(saved(tmp_path, nodes))
    (tmp_path / "a").mkdir()
    write(inside, tmp_path / "a" / "one.onnx")
    assert [p.name for p in files_of(tmp_path / "a" / "one.onnx")] == ["one.onnx", "one.onnx.data"]
    os.link(tmp_path / "a" / "one.onnx.data", tmp_path / "second")
    write(read(tmp_path / "a" / "one.onnx"), tmp_path / "two.onnx")
    assert [p.name for p in files_of(tmp_path / "two.onnx")] == ["two.onnx", "two.onnx.data"]
    with load(tmp_path / "two.onnx", threads=1) as session:
        found = session.run({"x": np.eye(64, dtype=np.float32)})["y"]
    assert np.allclose(found, WEIGHT, atol=1e-6)


def test_a_folder_is_told_from_a_graph(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="is a folder; give the ONNX file in it"):
        read(tmp_path)
