"""Train the whole zoo from scratch: `python -m zoo.training.train --recipe cpu`.

Stages run in order, and each keeps a checkpoint: an interrupted run resumes, and a finished stage
is not run again. zoo/parts is replaced as a whole, after the last stage.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch

from zoo.data import packages
from zoo.errors import ZooError
from zoo.training.recipes import RECIPES
from zoo.training.run import TrainingRun
from zoo.training.shipment import Shipment, shipped_records
from zoo.training.stages import Stages


@click.command(epilog="Example: python -m zoo.training.train --recipe cpu")
@click.option(
    "--recipe", "name", type=click.Choice(list(RECIPES)), default="cpu", show_default=True
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all cores.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the checkpoints; default: in the cache, by recipe.",
)
@click.option(
    "--keep-shipped",
    is_flag=True,
    help="Keep the stages recorded in zoo/parts; train only stages that differ from them.",
)
def main(name: str, threads: int | None, folder: Path | None, keep_shipped: bool) -> None:
    """Train every part of the zoo from scratch, and write them to zoo/parts.

    An interrupted run resumes with the same command.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    folder = folder or packages.cache_folder() / name
    try:
        kept = shipped_records() if keep_shipped else None
        run = TrainingRun(RECIPES[name], folder, device, kept or {})
        Shipment(Stages.of(run)).write()
    except ZooError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("stopped; the same command resumes") from None


if __name__ == "__main__":
    main()
