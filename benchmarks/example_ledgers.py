"""Ledgers of made-up builds and studies, with known scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sdpack.documents.manifest import MemoryFigures, SamplingDefaults
from sdpack.documents.profile import find_profile
from sdpack.documents.record import (
    BEST,
    BUILD,
    DENOISER_FIRST,
    ENCODER_FIRST,
    LATENCY,
    LIKE_STABLE_DIFFUSION,
    STUDY,
    BuildRecord,
    DrawnRecord,
    Entrant,
    StudyRecord,
)
from sdpack.domain.placement import Role
from sdpack.domain.workload import WORKLOAD
from sdpack.store.ledger import Ledger

METRIC = "judge similarity"
DRAWN_WITH = "a test"
MIB = 2**20
PROMPTS = 32
TIMED = 10
ROLES = (Role.TEXT_ENCODER, Role.DENOISER, Role.DECODER)
WIDTHS = {"fp16": 4 * MIB, "w8": 2 * MIB, "w4": MIB}


def entrant(names: Sequence[str], precisions: Sequence[str], **more: Any) -> Entrant:
    parts = {
        role: {
            "candidate": name,
            "precision": precision,
            "parameters": 10,
            "weight_bytes": WIDTHS[precision] * (number + 1),
            "content": f"{role}/{name}/{precision}",
        }
        for number, (role, name, precision) in enumerate(zip(ROLES, names, precisions, strict=True))
    }
    weights = {role: part["weight_bytes"] for role, part in parts.items()}
    values = {
        "mix": " + ".join(f"{n}/{p}" for n, p in zip(names, precisions, strict=True)),
        "parts": parts,
        "recipe": "a recipe",
        "judge": "a judge",
        "placement": {"loading": "resident", "guidance": "batched", "tile": None},
        "peak": {
            "weights": weights,
            "activation_bytes": MIB,
            "activation_role": Role.DENOISER,
            "fixed_bytes": 0,
        },
        "fits": True,
        "size_bytes": sum(int(str(size)) for size in weights.values()),
        "prompts": PROMPTS,
    }
    return Entrant.model_validate({**values, **more})


def record(entrants: Sequence[Entrant], count: int, **more: Any) -> BuildRecord:
    winner = next(each for each in entrants if each.outcome == "won")
    memory = MemoryFigures.model_validate(
        {
            "budget_bytes": 64 * MIB,
            "predicted_bytes": winner.peak.bytes,
            "predicted_from": "the graphs",
            "weights": dict(winner.peak.weights),
            "activation_bytes": winner.peak.activation_bytes,
            "activation_role": winner.peak.activation_role,
            "fixed_bytes": 0,
        }
    )
    sampling = SamplingDefaults(
        steps=4, guidance_scale=2.0, negative_prompt="", height=64, width=64, batch=1
    )
    values = {
        "schema": 1,
        "name": "test",
        "catalog": "none",
        "profile": find_profile("4gb-gpu"),
        "memory": memory,
        "sampling": sampling,
        "height": 64,
        "width": 64,
        "metric": METRIC,
        "measured_on": "nothing",
        "drawn_with": DRAWN_WITH,
        "prompts": [f"prompt {number}" for number in range(count)],
        "fitting": len(entrants),
        "screened": None,
        "confidence": 0.95,
        "indifference": 0.01,
        "winner": winner.mix,
        "entrants": list(entrants),
        "shown": [],
        "shown_prompts": 0,
        "origins": {},
        "tools": {"sdpack": "test"},
        "real": None,
        "machine": "test",
        "platform": "test",
        "cores": 2,
    }
    return BuildRecord.model_validate({**values, **more})


def write_scores(
    ledger: Ledger,
    found: DrawnRecord,
    each: Entrant,
    scores: Sequence[float],
    start: int = 0,
    **more: Any,
) -> None:
    """Write scores as the runner does: one row for every sixteen prompts, starting at `start`."""
    for first in range(start, len(scores), WORKLOAD.chunk):
        numbers = range(first, min(first + WORKLOAD.chunk, len(scores)))
        inputs = {
            **each.contents,
            "prompts": [found.prompts[number] for number in numbers],
            "seeds": list(numbers),
            "size": found.size,
            "judge": each.judge,
            "measured_on": found.drawn_with,
        }
        value = {"scores": [float(scores[number]) for number in numbers], **more}
        ledger.record(found.metric, inputs, value)


def write_latency(ledger: Ledger, found: BuildRecord, each: Entrant, seconds: float) -> None:
    inputs = {
        **each.contents,
        "prompts": [found.prompts[0]],
        "seeds": [0],
        "size": found.size,
        "judge": each.judge,
        "measured_on": found.drawn_with,
        "guidance": "batched",
        "tile": None,
        "machine": found.platform,
        "cores": found.cores,
    }
    ledger.record(LATENCY, inputs, {"seconds": seconds})


def write_build(ledger: Ledger, found: BuildRecord) -> None:
    ledger.record(BUILD, {"name": found.name}, found.model_dump(mode="json", by_alias=True))


def ledger_of_many(
    path: Path, candidates: Sequence[str] = ("a", "b"), prompts: int = PROMPTS, seed: int = 0
) -> tuple[BuildRecord, Mapping[str, np.ndarray[Any, Any]]]:
    """Write a ledger of every mix of these candidates and three precisions.

    The wider a part, the higher its scores. The first mix wins.
    """
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.3, 0.1, prompts)
    entrants: list[Entrant] = []
    scores: dict[str, np.ndarray[Any, Any]] = {}
    for names in product(candidates, repeat=3):
        for precisions in product(WIDTHS, repeat=3):
            outcome = "worse" if entrants else "won"
            seen = prompts if outcome == "won" else prompts // 2
            timed = len(entrants) < TIMED
            each = entrant(names, precisions, outcome=outcome, prompts=seen, timed=timed)
            entrants.append(each)
            loss = sum(list(WIDTHS).index(p) for p in precisions) * 0.01
            loss += 0.02 * sum(name != candidates[0] for name in names)
            scores[each.mix] = (noise - loss + rng.normal(0, 0.01, prompts))[:seen]
    found = record(entrants, prompts)
    ledger = Ledger(path)
    with ledger._database:  # one transaction, or thousands of rows take minutes
        for number, each in enumerate(entrants):
            write_scores(ledger, found, each, list(scores[each.mix]))
            if number < TIMED:
                write_latency(ledger, found, each, 0.1 + 0.01 * number)
        write_build(ledger, found)
    ledger.close()
    return found, scores


def ledger_of_study(
    path: Path, name: str = "study", prompts: int = PROMPTS, **more: Any
) -> StudyRecord:
    """Write a ledger of a study with three budgets; no mix fits the first.

    At the second, "encoder first" is better than "denoiser first" by 0.05; at the third, both are
    the same mix. The best mix of the second differs from "all w8" by less than the noise.
    """
    rng = np.random.default_rng(1)
    noise = rng.normal(0.3, 0.1, prompts)
    losses = {
        ("bab", ("w8", "w4", "w8")): 0.0,
        ("aaa", ("w8", "w8", "w8")): 0.0,
        ("aba", ("w8", "w8", "w8")): 0.05,
        ("aaa", ("fp16", "fp16", "fp16")): -0.01,
        ("bbb", ("fp16", "fp16", "fp16")): -0.02,
    }
    entrants = {key: entrant(list(key[0]), key[1], prompts=prompts) for key in losses}
    best = next(iter(entrants.values()))
    budgets = _budgets(*entrants.values())
    base = record([best.model_copy(update={"outcome": "won"})], prompts, name=name, **more)
    fields = {
        key: value
        for key, value in base.model_dump(mode="json", by_alias=True).items()
        if key not in BUILD_ONLY
    }
    found = StudyRecord.model_validate(
        {
            **fields,
            "profile": base.profile,
            "entrants": list(entrants.values()),
            "budgets": budgets,
        }
    )
    ledger = Ledger(path)
    for key, loss in losses.items():
        scores = noise - loss + rng.normal(0, 0.004, prompts)
        write_scores(ledger, found, entrants[key], [float(score) for score in scores])
    value = found.model_dump(mode="json", by_alias=True)
    ledger.record(STUDY, {"name": name}, value)
    ledger.close()
    return found


def _run(why: str, each: Entrant) -> dict[str, Any]:
    placement = asdict(each.placement)
    return {"why": why, "mix": each.mix, "placement": placement, "peak_bytes": each.peak.bytes}


def _budgets(
    best: Entrant, level: Entrant, denoiser: Entrant, wide: Entrant, widest: Entrant
) -> list[dict[str, Any]]:
    """Return the study's figures for each budget."""
    return [
        {"budget_bytes": 8 * MIB, "infeasible": "nothing fits into 8.0 MiB"},
        {
            "budget_bytes": 16 * MIB,
            "fitting": 3,
            "runs": [
                _run(BEST, best),
                _run("all w8", level),
                _run(ENCODER_FIRST, best),
                _run(DENOISER_FIRST, denoiser),
                _run(LIKE_STABLE_DIFFUSION, denoiser),
            ],
            "level": [best.mix, level.mix],
            "by_encoder": [_run("b/w8", best), _run("a/w8", level)],
        },
        {
            "budget_bytes": 64 * MIB,
            "fitting": 5,
            "runs": [
                _run(BEST, widest),
                _run("all fp16", wide),
                _run(ENCODER_FIRST, widest),
                _run(DENOISER_FIRST, widest),
            ],
            "level": [widest.mix],
            "by_encoder": [_run("b/fp16", widest), _run("a/fp16", wide)],
        },
    ]


BUILD_ONLY = BuildRecord.model_fields.keys() - StudyRecord.model_fields.keys()
