"""A bundle that draws, written within a second: its parts are a few operators each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sdpack.documents.bundle import write_bundle
from sdpack.documents.layout import sampler_name, tokenizer_name
from sdpack.documents.manifest import Manifest
from sdpack.documents.profile import find_profile
from sdpack.domain.placement import Role
from sdpack.runtime.sampler import SamplerTable

from tests.sdpack.documents.test_bundle import manifest
from tests.sdpack.runtime.test_pipeline import TABLE, TOKENIZER

SIDE, STEPS, TOKENS, BATCH = 32, TABLE.steps, 16, 4
ONE_STEP = SamplerTable(
    "made up", 1, np.array([500.0]), np.array([[1.0, 0.0]]), np.array([[0.5, 0.3]]), draws=0
)
HEAD = '<ir_version: 10, opset_import: ["": 20]>'
GRAPHS = {
    Role.TEXT_ENCODER: """
        text (int64[N, T] input_ids) => (float[N, T, 1] last_hidden_state)
        <int64[1] last = {-1}, float most = {3000.0}>
        { ids = Cast <to = 1> (input_ids)
          column = Unsqueeze(ids, last)
          last_hidden_state = Div(column, most) }""",
    Role.DENOISER: """
        unet (float[N, 4, h, w] sample, float[1] timestep, float[N, T, 1] encoder_hidden_states)
        => (float[N, 4, h, w] out_sample)
        <int64[2] axes = {1, 2}, int64[1] last = {3}, float share = {0.3}, float most = {1000.0}>
        { mean = ReduceMean <keepdims = 1> (encoder_hidden_states, axes)
          said = Unsqueeze(mean, last)
          time = Div(timestep, most)
          told = Mul(said, time)
          kept = Mul(sample, share)
          out_sample = Add(kept, told) }""",
    Role.DECODER: """
        vae (float[N, 4, h, w] latent_sample) => (float[N, 3, H, W] sample)
        <int64[1] from = {0}, int64[1] to = {3}, int64[1] axis = {1},
         float[4] larger = {1.0, 1.0, 8.0, 8.0}>
        { three = Slice(latent_sample, from, to, axis)
          large = Resize <mode = "nearest"> (three, , larger)
          sample = Tanh(large) }""",
}


def write_drawing_bundle(folder: Path, **changes: Any) -> Manifest:
    """Write a bundle for a CPU that draws blots of colour, other ones for other prompts."""
    part = manifest().parts[Role.DENOISER].model_dump() | {"precision": "fp32"}
    parts = {role: {**part, "graph": f"onnx/{role.value}/model.onnx"} for role in GRAPHS}
    parts[Role.TEXT_ENCODER]["tokens"] = TOKENS
    own = {"steps": STEPS, "other_steps": [1], "height": SIDE, "width": SIDE, "batch": BATCH}
    sampling = manifest().sampling.model_dump() | own
    latents = {"channels": 4, "scaling_factor": 1.0, "shift_factor": 0.0, "pixels": 8}
    made = {
        "profile": find_profile("cpu-2gb").model_dump(by_alias=True),
        "parts": parts,
        "sampling": sampling,
        "latents": latents,
    }

    def fill(new: Path) -> None:
        for role, text in GRAPHS.items():
            path = new / str(parts[role]["graph"])
            path.parent.mkdir(parents=True)
            onnx.save(onnx.parser.parse_model(f"{HEAD} {text}"), path)
        shutil.copytree(TOKENIZER, new / tokenizer_name(Role.TEXT_ENCODER))
        (new / sampler_name()).write_text(json.dumps(TABLE.to_json()))
        (new / sampler_name(steps=1)).write_text(json.dumps(ONE_STEP.to_json()))

    return write_bundle(folder, manifest(**{**made, **changes}), fill)
