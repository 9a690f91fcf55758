"""The graph: specs, interned nodes, programs, and the tensors of a merge."""

from __future__ import annotations

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from merge_support import compiled, decoder_shapes, graph_of, island_of, loads, model, program_of
from plait.engine.compile import merge_equal, verify
from plait.engine.graph import Node, Program, TensorGraph, TensorSpec, postorder
from plait.engine.opdef import GraphError, OpDef, load, write
from plait.ops.elect import agree_sum, elect
from plait.ops.elementwise import add, cast, divide, scale, sub, zeros
from plait.ops.reduce import abs_sum
from plait.ops.sparsify import drop, match_l1

F32 = torch.float32


def wide(count: int, shape: tuple[int, ...] = (64,)) -> list[Node]:
    return [cast(node, dtype=F32) for node in loads(count, shape)]


# ------------------------------------------------------------------------------------------------ specs


@pytest.mark.parametrize(
    ("shape", "elements", "row"),
    [((3, 5), 15, 5), ((7,), 7, 7), ((), 1, 1), ((0, 4), 0, 4), ((2, 3, 4), 24, 4)],
)
def test_a_spec_counts_elements_bytes_and_rows(shape: tuple[int, ...], elements: int, row: int) -> None:
    spec = TensorSpec(shape, torch.bfloat16)
    assert (spec.elements, spec.size_bytes, spec.row_elements) == (elements, 2 * elements, row)


def test_a_spec_keeps_what_is_not_replaced() -> None:
    spec = TensorSpec((3,), torch.float16, "delta")
    assert spec.with_(dtype=F32) == TensorSpec((3,), F32, "delta")
    assert spec.with_(space="sign") == TensorSpec((3,), torch.float16, "sign")


# ------------------------------------------------------------------------------------------------ nodes


def test_equal_nodes_are_one_object() -> None:
    (a, b), (again, _) = wide(2), wide(2)
    assert a is again
    assert sub(a, b) is sub(again, b)
    assert sub(a, b) is not sub(b, a)


def test_attributes_of_other_types_are_other_nodes() -> None:
    (x,) = wide(1)
    # 1 == 1.0 == True in Python, but not in a recipe.
    nodes = [Node(scale, (x,), [("factor", value)], x.spec) for value in (1, 1.0, True)]
    assert len(set(map(id, nodes))) == 3


def test_the_order_of_attributes_does_not_matter() -> None:
    (delta,) = (sub(*wide(2)),)
    one = Node(drop, (delta,), [("density", 0.5), ("ordinal", 1)], delta.spec)
    two = Node(drop, (delta,), [("ordinal", 1), ("density", 0.5)], delta.spec)
    assert one is two
    assert one.attr("density") == 0.5


def test_threads_that_build_the_same_graph_share_its_nodes() -> None:
    def build(_: int) -> Node:
        x, base = wide(2, (63, 65))
        return add(base, scale(sub(x, base), factor=0.3))

    with ThreadPoolExecutor(8) as pool:
        assert len({id(node) for node in list(pool.map(build, range(200)))}) == 1


def test_nodes_that_nobody_holds_are_let_go() -> None:
    node = scale(sub(*wide(2, (61, 67))), factor=0.123)
    alive = weakref.ref(node)
    del node
    gc.collect()
    assert alive() is None


# ------------------------------------------------------------------------------------------------ order


def test_inputs_come_before_users_and_loads_right_before_their_first_user() -> None:
    r"""
    load a ── cast a ─┬─ sub ─┐
    load b ── cast b ─┤       ├─ add ── write
                      └───────┘
    """
    a, b = loads(2)
    wide_a, wide_b = cast(a, dtype=F32), cast(b, dtype=F32)
    difference = sub(wide_a, wide_b)
    root = write(add(wide_b, difference))
    assert postorder([root]) == (b, wide_b, a, wide_a, difference, root.inputs[0], root)


def test_a_deep_graph_does_not_overflow_the_stack() -> None:
    # Built without simplification, which would fold the factors into one.
    (node,) = wide(1, (3,))
    for step in range(100_000):
        node = Node(scale, (node,), [("factor", 1.0 + step)], node.spec)
    program = program_of(node)
    assert len(program.nodes) == 100_003
    verify(program)
    positions = {each: index for index, each in enumerate(program.nodes)}
    assert all(positions[source] < positions[each] for each in program.nodes for source in each.inputs)


# ------------------------------------------------------------------------------------------------ spaces


def test_sign_election_takes_task_vectors_not_weights() -> None:
    x, y = wide(2)
    with pytest.raises(GraphError, match="elect takes a delta, not a weight"):
        elect(x, y)


def test_a_task_vector_is_taken_of_weights_once() -> None:
    x, base = wide(2)
    with pytest.raises(GraphError, match="sub takes a weight, not a delta"):
        sub(sub(x, base), base)


def test_a_weight_stands_first_in_a_sum_with_task_vectors() -> None:
    x, base = wide(2)
    assert add(base, sub(x, base)).spec.space == "weight"
    with pytest.raises(GraphError, match="takes a delta, not a weight"):
        add(sub(x, base), base)


def test_only_a_weight_is_written() -> None:
    with pytest.raises(GraphError, match="write takes a weight, not a delta"):
        write(sub(*wide(2)))


def test_agreement_needs_a_sign_first() -> None:
    delta = sub(*wide(2))
    with pytest.raises(GraphError, match="takes a sign, not a delta"):
        agree_sum(delta, delta)


def test_a_weight_is_neither_dropped_nor_divided() -> None:
    (x,) = wide(1)
    with pytest.raises(GraphError, match="not a weight"):
        drop(x, density=0.5, ordinal=0)
    with pytest.raises(GraphError, match="not a weight"):
        divide(x, x)


def test_norms_come_from_reductions() -> None:
    delta = sub(*wide(2))
    with pytest.raises(GraphError, match="takes a state, not a delta"):
        match_l1(delta, delta, delta)


def test_shapes_and_dtypes_must_agree() -> None:
    (a,), (b,) = wide(1, (4, 2)), wide(1, (2, 4))
    with pytest.raises(GraphError, match=r"\[4, 2\].*\[2, 4\]"):
        sub(a, b)
    with pytest.raises(GraphError, match="bfloat16"):
        sub(a, loads(1, (4, 2))[0])


def test_integers_are_not_cast() -> None:
    (x,) = loads(1, dtype=torch.int32)
    with pytest.raises(GraphError, match="int32"):
        cast(x, dtype=F32)


# ------------------------------------------------------------------------------------------------ verification


def test_a_program_ends_in_a_write() -> None:
    with pytest.raises(GraphError, match="ends in a write"):
        verify(Program(cast(*loads(1), dtype=F32)))


def test_an_unregistered_op_is_refused() -> None:
    (x,) = loads(1)
    stray = OpDef("stray", "element", lambda specs, _: specs[0], lambda *_: None, "")
    with pytest.raises(GraphError, match="stray is not a registered op"):
        verify(program_of(stray(x)))


def test_an_op_under_a_registered_name_is_not_that_op() -> None:
    (x,) = loads(1)
    impostor = OpDef("scale", "element", lambda specs, _: specs[0], lambda *_: None, "")
    real = Node(scale, (x,), [("factor", 0.5)], x.spec)
    assert impostor(x, factor=0.5) is not real
    with pytest.raises(GraphError, match="scale is not a registered op"):
        verify(program_of(impostor(x, factor=0.5)))


def test_slots_count_from_zero_without_gaps() -> None:
    a = load(slot=0, shape=(4,), dtype=F32)
    b = load(slot=2, shape=(4,), dtype=F32)
    with pytest.raises(GraphError, match="slots"):
        verify(program_of(add(a, b)))


def test_every_value_has_the_outputs_shape() -> None:
    (a,) = loads(1, (4, 2), F32)
    reshape = OpDef("scale", "element", lambda specs, _: TensorSpec((8,), specs[0].dtype), lambda *_: None, "")
    node = Node(scale, (a,), [("factor", 2.0)], reshape.infer([a.spec], {}))
    with pytest.raises(GraphError, match="another shape"):
        verify(program_of(node))


def test_reductions_may_have_their_own_shape() -> None:
    delta = sub(*wide(2))
    kept = drop(delta, density=0.5, ordinal=0)
    base = wide(2)[1]
    verify(program_of(add(base, match_l1(kept, abs_sum(delta), abs_sum(kept)))))


# ------------------------------------------------------------------------------------------------ programs


def test_a_copy_is_a_load_that_is_written_as_it_is() -> None:
    (x,) = loads(1)
    assert program_of(x).is_copy
    assert not program_of(cast(x, dtype=F32)).is_copy
    assert not program_of(zeros(x.spec)).is_copy


def test_a_random_mask_makes_a_program_depend_on_its_site() -> None:
    x, base = wide(2)
    delta = sub(x, base)
    assert not program_of(add(base, delta)).site_dependent
    assert program_of(add(base, drop(delta, density=0.5, ordinal=0))).site_dependent


def test_a_program_as_a_networkx_graph() -> None:
    x, base = wide(2)
    graph = program_of(add(base, sub(x, base))).to_networkx()
    assert sorted(data["op"] for _, data in graph.nodes(data=True)) == [
        *("add", "cast", "cast", "load", "load", "sub", "write")
    ]
    assert set(graph.predecessors(sub(x, base))) == {x, base}


# ------------------------------------------------------------------------------------------------ tensors


def test_equal_results_are_made_once() -> None:
    (x,) = loads(1)
    program = program_of(cast(x, dtype=F32))
    one, two = island_of(program, "layers.0.w"), island_of(program, "layers.1.w")
    (joined,) = merge_equal([one, two])
    assert joined.outputs == ("layers.0.w", "layers.1.w")
    assert joined.name == "layers.0.w"


def test_random_results_are_equal_only_by_name() -> None:
    x, base = wide(2)
    program = program_of(add(base, drop(sub(x, base), density=0.5, ordinal=0)))
    islands = [island_of(program, name) for name in ("layers.0.w", "layers.1.w")]
    assert merge_equal(islands) == tuple(islands)


def test_tensors_alike_share_one_program() -> None:
    text = """
        merge_method: linear
        models:
          - {model: a, parameters: {weight: 0.25}}
          - {model: b, parameters: {weight: 0.75}}
        """
    graph = compiled(text, model("a", decoder_shapes(6)), model("b", decoder_shapes(6))).graph
    assert len(graph.islands) == 3 * 6 + 3
    # Embedding and head are alike, and so are all norms: four shapes in all.
    assert {program.spec.shape for program in graph.programs} == {(16, 8), (8, 8), (8, 16), (8,)}
    assert len(graph.programs) == 4


def test_a_tensor_graph_as_a_networkx_graph() -> None:
    program = program_of(sum_of_two())
    graph = graph_of(program).to_networkx()
    assert set(graph.predecessors("out0")) == {"m:a", "m:b"}
    assert graph.nodes["out0"]["program"] is program


def sum_of_two() -> Node:
    return add(*wide(2))


def test_a_cycle_among_tensors_is_refused() -> None:
    program = program_of(sum_of_two())
    islands = graph_of(program, program).islands
    assert list(TensorGraph(islands, ((0, 1),)).dependencies().edges) == [(0, 1)]
    with pytest.raises(ValueError, match="cycle"):
        TensorGraph(islands, ((0, 1), (1, 0))).dependencies()
