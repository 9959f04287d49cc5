from hypothesis import given
from hypothesis import strategies as st
from sdpack.pack.workshop import refused_layers

LAYERS = [f"layer {n}" for n in range(40)]


@given(st.sets(st.sampled_from(LAYERS), max_size=4))
def test_the_layers_that_do_not_build_are_found(bad: set[str]) -> None:
    tried = []

    def builds(layers: list[str]) -> bool:
        tried.append(layers)
        return not bad & set(layers)

    assert set(refused_layers(LAYERS, builds)) == bad
    assert len(tried) <= 1 + 2 * 7 * max(1, len(bad))


def test_layers_that_fail_only_together_are_all_refused() -> None:
    def builds(layers: list[str]) -> bool:
        return not {"layer 3", "layer 30"} <= set(layers)

    refused = refused_layers(LAYERS, builds)
    assert {"layer 3", "layer 30"} <= set(refused)
    assert builds([layer for layer in LAYERS if layer not in refused])
