"""sdpack: measured text-to-image pipelines for devices with a fixed amount of memory."""

import os

# ONNX Runtime and the hub's client tell their makers what is run with them, where nobody says no.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "1")
