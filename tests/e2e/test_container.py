"""Container and Kubernetes files, checked and run as far as that goes without either engine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sdpack.serve.healthcheck import USUAL_PORT
from sdpack.serve.limits import Limits
from sdpack.serve.server import HAND_OUT_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile.gpu"
COMPOSE = ROOT / "deploy" / "compose.yaml"
KUBERNETES = ROOT / "deploy" / "k8s"
RELEASES = ("1.30", "1.33", "1.36")
EXTRAS = "serve,cpu"  # of the image that is tried here: there is no GPU
OPT = "/opt/sdpack"


@dataclass(frozen=True)
class Step:
    """An instruction of a Dockerfile."""

    word: str
    rest: str


def stages() -> list[list[Step]]:
    """The instructions of each stage, those before the first left out."""
    lines = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", lines)
    found: list[list[Step]] = []
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word and found:
            found[-1].append(Step(word, rest))
    return found


def rest(stage: list[Step], word: str) -> str:
    (found,) = [step.rest for step in stage if step.word == word]
    return found


def documents() -> Iterator[tuple[str, Any]]:
    for path in sorted(KUBERNETES.glob("*.yaml")):
        yield path.name, yaml.safe_load(path.read_text())


def test_the_dockerfile_pleases_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def defaults() -> dict[str, str]:
    """The default of each argument that stands before the first stage."""
    head = DOCKERFILE.read_text().partition("\nFROM ")[0]
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", head, re.MULTILINE))


def test_it_builds_with_no_argument_and_on_a_pinned_base() -> None:
    text = DOCKERFILE.read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}"] * 2
    name, _, tag = defaults()["BASE"].partition(":")
    assert name
    assert tag not in ("", "latest")
    without = re.findall(r"^ARG (\w+)$", text, re.MULTILINE)
    assert without == [], "an argument without a default has to be given"


def test_compose_and_the_docs_take_the_default_base_of_the_dockerfile() -> None:
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    base = defaults()["BASE"]
    assert service["build"]["args"] == {"BASE": f"${{BASE:-{base}}}"}
    assert f"--build-arg BASE={base}@sha256:..." in (ROOT / "docs" / "container.md").read_text()


def test_its_steps_make_a_server_without_torch(bundle: Path, tmp_path: Path) -> None:
    build, final = stages()
    source, opt = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    arguments = dict.fromkeys(("EXTRAS",), EXTRAS)
    for step in build[1:]:
        if step.word == "COPY":
            *names, target = step.rest.split()
            for name in names:
                copy(ROOT / name, source / target / (name if (ROOT / name).is_file() else ""))
        elif step.word == "RUN":
            subprocess.run(
                ["bash", "-ec", step.rest.replace(OPT, str(opt))],
                cwd=source,
                check=True,
                env={
                    **clean(),
                    **arguments,
                    "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                },
            )
        else:
            assert step.word in ("WORKDIR", "ARG")
    assert rest(final, "COPY") == f"--from=build {OPT} {OPT}"
    assert rest(final, "USER") == "10001:10001"
    python = opt / "bin" / "python"
    for name in ("torch", "diffusers", "transformers", "onnx"):
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode
    shutil.rmtree(source)  # the final stage has none of it
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    said = dict(word.split("=", 1) for word in shlex.split(rest(final, "ENV")))
    path = said.pop("PATH").replace(OPT, str(opt)).replace("$PATH", "/usr/bin:/bin")
    environment = {**clean(), **said, "PATH": path}
    environment |= {"SDPACK_BUNDLE": str(bundle), "SDPACK_PORT": str(port)}
    check = json.loads(rest(final, "HEALTHCHECK").partition("CMD ")[2])
    begin = [*json.loads(rest(final, "ENTRYPOINT")), *json.loads(rest(final, "CMD"))]
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir(mode=0o555)
    before = subprocess.run(check, env=environment, cwd=nowhere, capture_output=True, text=True)
    assert before.returncode == 1
    assert "no answer on" in before.stderr
    server = subprocess.Popen(
        read_only(begin, tmp_path), env=environment, cwd=nowhere, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        heard = [server.stderr.readline() for _ in range(3)]
        assert heard[-1] == "bundle is ready\n", heard
        after = subprocess.run(check, env=environment, cwd=nowhere)
        assert after.returncode == 0
        server.send_signal(getattr(signal, rest(final, "STOPSIGNAL")))
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()


def read_only(command: list[str], folder: Path) -> list[str]:
    """A command in a file system that nothing can be written into, as far as this user may."""
    mount = 'mount --make-rprivate / && mount -o remount,bind,ro / && exec "$@"'
    within = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    allowed = subprocess.run([*within, "true"], capture_output=True).returncode == 0
    if not allowed:  # it takes a right that root has, and not in every sandbox
        return command
    probe = folder / "written"
    assert subprocess.run([*within, "touch", probe], capture_output=True).returncode
    assert not probe.exists()
    return [*within, *command]


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def clean() -> dict[str, str]:
    """The environment without what this test run has put into it."""
    own = ("PYTHON", "VIRTUAL_ENV", "SDPACK", "COVERAGE", "PYTEST")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def test_the_compose_file_is_one() -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    words = [str(checker), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (service,) = yaml.safe_load(COMPOSE.read_text())["services"].values()
    assert service["read_only"] is True
    assert service["build"]["dockerfile"] == DOCKERFILE.name


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_its_files(release: str) -> None:
    kinds = []
    for name, document in documents():
        if document["kind"] == "Kustomization":
            listed = {other for other, _ in documents()} - {name}
            assert set(document["resources"]) == listed
            continue
        kubernetes_validate.validate(document, release, strict=True)
        kinds.append(document["kind"])
    assert sorted(kinds) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "Service",
    ]


def test_what_kubernetes_is_told_is_what_the_server_does() -> None:
    found = {document["kind"]: document for _, document in documents()}
    pod = found["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",
    }
    (port,) = container["ports"]
    assert str(port["containerPort"]) == USUAL_PORT
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["enableServiceLinks"] is False, "it would set SDPACK_PORT"
    ending = 10 + Limits().timeout_s + Limits().linger_s + HAND_OUT_S
    assert pod["spec"]["terminationGracePeriodSeconds"] > ending
    labels = pod["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == labels
    assert found["Service"]["spec"]["sessionAffinity"] == "ClientIP", "jobs are a pod's own"
    assert "replicas" not in found["Deployment"]["spec"], "it would undo the autoscaler's"
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (metric,) = found["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "sdpack_queue_depth"
