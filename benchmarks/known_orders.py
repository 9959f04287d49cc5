"""Do the judges reproduce orders that are known without them? python -m benchmarks.known_orders

A table of pairs of pipelines says of each pair which one draws better, and how that is known. Both
draw the same prompts from the same noise in fp32, and every judge of the catalog scores them. The
order is reproduced if the whole 95 % interval of the difference is above zero. A pair whose weights
are not on this machine is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.table import Table
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import difference_estimate
from sdpack.errors import SdpackError

from benchmarks.measured_on import machine_and_versions
from benchmarks.sides import Side, SideScores

ORDERS = Path(__file__).with_name("known_orders.yaml")


@click.command()
@click.option("--table", type=click.Path(path_type=Path), default=ORDERS, show_default=True)
@click.option("--prompts", default=192, show_default=True, help="Number of prompts per side.")
def main(table: Path, prompts: int) -> None:
    """Print one table."""
    console = Console(width=160)
    shown = Table("better", "worse", "known from", "judge", "difference, 95 %", "reproduced")
    reproduced: dict[str, list[bool]] = {}
    with ExitStack() as stack:
        scores = SideScores(prompts, console, stack)
        for order in yaml.safe_load(table.read_text())["orders"]:
            better, worse = Side.read(order["better"]), Side.read(order["worse"])
            words = (str(better), str(worse), str(order["known_from"]))
            try:
                rows = list(_rows(scores.of(better), scores.of(worse)))
            except (SdpackError, StopIteration) as error:
                shown.add_row(*words, "-", "not here", str(error).split(";")[0][:60])
                continue
            for judge, difference, is_reproduced in rows:
                reproduced.setdefault(judge, []).append(is_reproduced)
                shown.add_row(*words, judge, difference, "yes" if is_reproduced else "NO")
                words = ("", "", "")
    console.print(shown)
    for judge, results in reproduced.items():
        console.print(f"{judge}: {sum(results)} of {len(results)} orders reproduced")
    console.print(machine_and_versions("sdpack", "onnxruntime"))


def _rows(
    better: Mapping[str, Float64Array], worse: Mapping[str, Float64Array]
) -> Iterator[tuple[str, str, bool]]:
    for judge, scores in better.items():
        apart = difference_estimate(scores - worse[judge])
        yield judge, apart.signed(), apart.low > 0


if __name__ == "__main__":
    main()
