"""The image and the manifest for builds on a Ray cluster, against linter, schemas and sdpack."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from sdpack.cli import build
from sdpack.store.artifacts import CACHE_VARIABLE
from sdpack.store.opening import LIMIT_VARIABLE, SHARED_VARIABLE
from sdpack.units import parse_bytes

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "deploy" / "k8s" / "cluster" / "rayjob.yaml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile.build"
RELEASES = ("1.30", "1.33", "1.36")
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
POD = {"type": "object", "required": ["spec"]}
GROUP = {
    "type": "object",
    "additionalProperties": False,
    "required": ["groupName", "minReplicas", "maxReplicas", "template"],
    "properties": {
        "groupName": {"type": "string"},
        "replicas": COUNT,
        "minReplicas": COUNT,
        "maxReplicas": COUNT,
        "rayStartParams": PARAMETERS,
        "template": POD,
    },
}
# The fields of KubeRay's API that the manifest may use; pods are validated as Kubernetes' own.
RAY_JOB = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"]},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"},
                "entrypointNumCpus": {"type": "number"},
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
                "rayClusterSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["headGroupSpec"],
                    "properties": {
                        "headGroupSpec": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["template"],
                            "properties": {"rayStartParams": PARAMETERS, "template": POD},
                        },
                        "workerGroupSpecs": {"type": "array", "items": GROUP},
                    },
                },
            },
        },
    },
}


@pytest.fixture
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(MANIFEST.read_text())
    return found


def templates(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of the head and of the workers."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_the_manifest_uses_fields_that_kuberay_has(job: dict[str, Any]) -> None:
    jsonschema.validate(job, RAY_JOB)
    job["spec"]["entryPoint"] = job["spec"].pop("entrypoint")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


@pytest.mark.parametrize("release", RELEASES)
def test_its_pods_are_pods(release: str, job: dict[str, Any]) -> None:
    for template in templates(job):
        spec = {**template["spec"], "restartPolicy": "Never"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, release, strict=True)


def test_its_command_is_one_that_sdpack_takes(job: dict[str, Any]) -> None:
    program, subcommand, *words = shlex.split(job["spec"]["entrypoint"])
    assert (program, subcommand) == ("sdpack", "build")
    context = build.command.make_context("build", words)
    assert (context.params["executor"], context.params["address"]) == ("ray", "auto")
    out = context.params["out"]
    for template in templates(job):
        (container,) = template["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment[CACHE_VARIABLE] == mount["mountPath"]
        assert environment[SHARED_VARIABLE].startswith("s3://")
        assert parse_bytes(environment[LIMIT_VARIABLE]) > 2**30
        assert out.is_relative_to(mount["mountPath"])


def test_the_image_pleases_its_linter_and_copies_what_there_is() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    ignored = (DOCKERFILE.parent / f"{DOCKERFILE.name}.dockerignore").read_text().splitlines()
    for line in DOCKERFILE.read_text().splitlines():
        if line.startswith("COPY "):
            *names, _ = line.removeprefix("COPY ").split()
            for name in names:
                assert (ROOT / name).exists(), name
                assert f"!{name}" in ignored, name
