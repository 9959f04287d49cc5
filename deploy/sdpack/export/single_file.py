"""Error messages for a file where a folder is needed."""

from __future__ import annotations

from pathlib import Path

SINGLE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf")  # checkpoints in one file
CATALOGS = (".yaml", ".yml")


def is_single_file(name: str) -> bool:
    """Whether this is the name of a checkpoint in a single file."""
    return name.lower().endswith(SINGLE)


def explain_single_file(path: Path) -> str:
    """Describe the file, and how to make a folder of it, in one line."""
    if path.suffix.lower() in CATALOGS:
        return f"{path} is a file, not a model; if it is a catalog, use --catalog"
    if not is_single_file(path.name):
        return (
            f"{path} is a file; give the folder of a diffusers pipeline, which has model_index.json"
        )
    target = path.with_suffix("")
    return (
        f"{path} is a checkpoint in a single file, which is not supported yet; convert it with "
        'python -c "from diffusers import StableDiffusionPipeline as P; '
        f'P.from_single_file({str(path)!r}).save_pretrained({str(target)!r})", with the '
        f"pipeline's own class (StableDiffusionXLPipeline for SDXL), and give {target}"
    )
