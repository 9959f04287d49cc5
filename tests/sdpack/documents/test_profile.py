from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sdpack.documents.profile import (
    Profile,
    Throughput,
    find_profile,
    format_size,
    parse_batch,
    parse_budgets,
    parse_sizes,
    profiles_folder,
    read_profile,
    shipped_profiles,
)
from sdpack.domain.placement import Loading
from sdpack.domain.precision import Precision, Runtime
from sdpack.errors import InputError, ProfileError

MIB = 2**20

GIB = 2**30
WANTED = {
    "4gb-gpu": "SM86",
    "gtx-1650-4gb": "SM75",
    "6gb-gpu": "SM86",
    "8gb-gpu": "SM89",
    "12gb-gpu": "SM89",
    "16gb-gpu": "SM89",
    "24gb-gpu": "SM89",
    "rtx-5090-32gb": "SM120",
    "jetson-orin-nano-8gb": "SM87",
    "h200": "SM90",
    "cpu-2gb": "",
    "cpu-4gb": "",
    "cpu-8gb": "",
}


def values(**changes: Any) -> dict[str, Any]:
    base = yaml.safe_load((profiles_folder() / "4gb-gpu.yaml").read_text())
    return {**base, **changes}


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def refusal(folder: Path, **changes: Any) -> str:
    path = written(folder, yaml.safe_dump(values(**changes), sort_keys=False))
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_shipped_profiles_are_the_promised_ones() -> None:
    assert {p.name: p.sm for p in shipped_profiles()} == WANTED
    assert all((profiles_folder() / f"{p.name}.yaml").is_file() for p in shipped_profiles())


def test_the_4gb_laptop() -> None:
    profile = find_profile("4gb-gpu")
    assert profile.runtime is Runtime.TENSORRT_RTX
    assert profile.budget_bytes == profile.memory.total - profile.memory.reserve < 4 * GIB
    assert Precision.W4 in profile.allowed_precisions
    assert profile.loading == tuple(Loading)


def test_turing_has_no_int4_and_cpus_no_fp16() -> None:
    assert Precision.W4 not in find_profile("gtx-1650-4gb").allowed_precisions
    assert Precision.FP16 not in find_profile("cpu-4gb").allowed_precisions


def test_fp8_begins_with_ada() -> None:
    assert Precision.FP8 in find_profile("8gb-gpu").allowed_precisions
    assert Precision.FP8 not in find_profile("6gb-gpu").allowed_precisions
    assert Precision.FP8 not in find_profile("cpu-4gb").allowed_precisions


def test_a_narrowed_list_keeps_the_widest_first(tmp_path: Path) -> None:
    path = written(tmp_path, yaml.safe_dump(values(precisions=["w4", "fp16"])))
    assert read_profile(path).allowed_precisions == (Precision.FP16, Precision.W4)


def test_an_unknown_key_is_named_with_its_line(tmp_path: Path) -> None:
    text = (profiles_folder() / "4gb-gpu.yaml").read_text().replace("  total:", "  totl:")
    line = text.splitlines().index("  totl: 4GiB") + 1
    with pytest.raises(ProfileError, match=rf"line {line}: memory\.totl: unknown key"):
        read_profile(written(tmp_path, text))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": {"total": "-4GiB"}}, "'-4GiB' is not a size"),
        ({"compute_capability": None}, "runs on a GPU"),
        ({"runtime": "onnxruntime-cpu"}, "compute_capability does not apply"),
        ({"runtime": "tensorrt-rtz"}, "tensorrt-rtz"),
        ({"compute_capability": "eight"}, "'eight' is not a compute capability"),
        ({"compute_capability": "7.5", "precisions": ["w4"]}, "needs compute capability 8.0"),
        ({"precisions": ["fp8"]}, "cannot run fp8 (fp8 needs compute capability 8.9)"),
        ({"precisions": ["mixed"]}, "builds make mixed"),
        ({"precisions": []}, "precisions is empty"),
        ({"precisions": ["fp12"]}, "fp12"),
        ({"shapes": {"height": 0}}, "shapes.height"),
        ({"loading": []}, "loading"),
        ({"schema": 2}, "schema"),
        ({"name": "My GPU"}, "name"),
    ],
)
def test_a_broken_rule_is_explained(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, **changes)


def test_a_reserve_that_leaves_nothing(tmp_path: Path) -> None:
    memory = {**values()["memory"], "reserve": "5GiB"}
    assert "leaves nothing of 4.00 GiB" in refusal(tmp_path, memory=memory)


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "\t- x", "name: &a [*a]", "\x00"])
def test_what_is_no_profile_gets_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        read_profile(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_suggests_the_right_one() -> None:
    with pytest.raises(ProfileError, match="did you mean 4gb-gpu"):
        find_profile("4gb-gp")


def test_a_name_is_never_a_way_out_of_the_folder() -> None:
    with pytest.raises(ProfileError):
        find_profile("../pyproject")


leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(list(values())) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
def test_any_yaml_is_a_profile_or_a_clear_refusal(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    path = written(tmp_path_factory.mktemp("p"), yaml.safe_dump(tree))
    with pytest.raises(ProfileError):
        read_profile(path)


@pytest.mark.parametrize("profile", shipped_profiles(), ids=lambda p: p.name)
def test_a_profile_survives_json(profile: Profile) -> None:
    values = json.loads(json.dumps(profile.model_dump(mode="json", by_alias=True)))
    assert Profile.model_validate(values) == profile


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("512", ((512, 512),)),
        ("512,768x512", ((512, 512), (512, 768))),
        (" 64 x 128 ,64", ((128, 64), (64, 64))),
        ("512,512", ((512, 512),)),
    ],
)
def test_sizes_are_width_by_height(text: str, sizes: tuple[tuple[int, int], ...]) -> None:
    assert parse_sizes(text) == sizes
    assert parse_sizes(",".join(format_size(size) for size in sizes)) == sizes


@pytest.mark.parametrize(
    "text", ["", "0", "-8", "8x", "x8", "0x9", "512;512", "8x8x8", "512x100000"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError):
        parse_sizes(text)


@pytest.mark.parametrize(("text", "batch"), [("4", 4), ("1-4", 4), ("1 - 1", 1)])
def test_batches_begin_at_one(text: str, batch: int) -> None:
    assert parse_batch(text) == batch


@pytest.mark.parametrize("text", ["", "0", "4-1", "a", "-1", "1-", "0-2"])
def test_what_is_no_batch(text: str) -> None:
    with pytest.raises(InputError, match="is not a batch size"):
        parse_batch(text)


def test_a_batch_takes_in_single_pictures() -> None:
    with pytest.raises(InputError, match=r"'2-4' excludes single images.*write 4, or 1-4"):
        parse_batch("2-4")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8MiB:64MiB:8", tuple(range(8 * MIB, 65 * MIB, 8 * MIB))),
        ("24MiB,16MiB,16MiB", (16 * MIB, 24 * MIB)),
        ("4gb-gpu, 1GiB", (2**30, find_profile("4gb-gpu").budget_bytes)),
    ],
)
def test_budgets_are_understood(text: str, wanted: tuple[int, ...]) -> None:
    assert parse_budgets(text) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("much", "unknown budget 'much': neither a size like 24MiB nor a profile"),
        ("8MiB:64MiB", "not a range of budgets; write it like 8MiB:64MiB:8"),
        ("64MiB:8MiB:8", "give the smaller budget first"),
        ("8MiB:64MiB:1", "2 to 64 of them"),
        ("8MiB:64MiB:x", "not a range of budgets"),
        ("", "unknown budget ''"),
        ("0MiB:1MiB:3", "less than one byte"),
    ],
)
def test_budgets_that_are_none_are_explained(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_budgets(text)


@pytest.mark.parametrize("written", ["12TFLOPS", "0.05GFLOPS", "12.3456789TFLOPS", "989 TFLOPS"])
def test_a_throughput_survives_writing(written: str) -> None:
    throughput = Throughput.model_validate({"fp16": written, "source": "data sheet"})
    dumped = throughput.model_dump(mode="json")
    assert Throughput.model_validate(dumped) == throughput


@pytest.mark.parametrize("written", ["12", "12TOPS", "-1TFLOPS", "0TFLOPS", 12])
def test_other_values_are_not_a_throughput(written: object) -> None:
    with pytest.raises(ValidationError):
        Throughput.model_validate({"fp16": written, "source": "data sheet"})
