from __future__ import annotations

from sdpack.errors import install_command

from tests.sdpack.cli.calling import read_json, run


def test_the_doctor_names_what_is_missing() -> None:
    packages = {p["name"]: p for p in read_json("doctor")["packages"]}
    assert packages["torch"]["version"] is not None
    output = run("doctor").output
    for package in packages.values():
        assert package["name"] in output
        if package["version"] is None and package["extra"]:
            assert install_command(package["extra"]) in output
