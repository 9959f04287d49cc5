from sdpack.documents.catalog_files import default_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Guidance, Loading, Placement
from sdpack.domain.precision import Precision
from sdpack.pack.planning.mix import mixes, placements


def test_every_combination_is_listed_once() -> None:
    listed = list(mixes(default_catalog().catalog, [Precision.FP16, Precision.W4]))
    assert len(listed) == len(set(listed)) == 18 * 2**3


def test_each_number_of_steps_is_a_mix_of_its_own() -> None:
    choices = {"s": (4, 16), "m": (None,), "l": (None,)}
    listed = list(mixes(default_catalog().catalog, [Precision.FP16], choices.__getitem__))
    assert len(listed) == len(set(listed)) == 18 + 6
    small = [mix for mix in listed if mix.denoiser.candidate == "s"]
    assert {mix.steps for mix in small} == {4, 16}
    assert str(small[0].in_steps(4)).endswith(" in 4 steps")
    assert str(small[0].in_steps(None)) == str(small[0]).removesuffix(" in 4 steps")
    other = small[0].replacing(small[0].decoder)
    assert other == small[0]


def test_a_text_encoder_has_the_denoiser_of_its_bridge_as_partner() -> None:
    for mix in mixes(default_catalog().catalog, [Precision.FP16]):
        assert mix.text_encoder.partner == mix.denoiser.candidate
        assert mix.decoder.partner is None


def test_placements_go_from_fast_to_slow() -> None:
    listed = placements(find_profile("4gb-gpu"), 128)
    assert listed[0] == Placement(Loading.RESIDENT, Guidance.BATCHED)
    assert listed[1] == Placement(Loading.RESIDENT, Guidance.SEQUENTIAL)
    assert listed[-1] == Placement(Loading.PHASED, Guidance.SEQUENTIAL, 32)
    assert {p.tile for p in listed} == {None, 64, 32}
    loadings = [p.loading for p in listed]
    assert loadings == sorted(loadings, key=list(Loading).index)


def test_a_cpu_prefers_phased_loading_to_tiles() -> None:
    cpu = placements(find_profile("cpu-2gb"), 64)
    gpu = placements(find_profile("4gb-gpu"), 64)
    whole = [p for p in cpu if p.tile is None]
    assert cpu[: len(whole)] == whole
    assert (cpu[0], cpu[-1], set(cpu)) == (gpu[0], gpu[-1], set(gpu))
    assert {p.loading for p in whole} == set(Loading)


def test_a_profile_restricts_the_placements() -> None:
    profile = find_profile("4gb-gpu").model_copy(update={"loading": (Loading.PHASED,)})
    assert {p.loading for p in placements(profile, 8)} == {Loading.PHASED}
    assert {p.tile for p in placements(profile, 8)} == {None}
