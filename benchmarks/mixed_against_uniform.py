"""Mixed precision compared with one precision per part: python -m benchmarks.mixed_against_uniform

At budgets of weight bytes between uniform w4 and uniform w8, the allocator's mixed mix is compared
with the best uniform mix that fits: of all choices of int8, w8, w4 and fp32 for the three parts,
the one whose images are closest to fp32. A few images preselect the best choices, and all images
decide between these, once by latents and once by the judge.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from sdpack.documents.catalog_files import read_catalog
from sdpack.documents.profile import find_profile
from sdpack.domain.arrays import Float64Array
from sdpack.domain.estimate import Estimate, mean_estimate
from sdpack.domain.precision import Precision
from sdpack.pack.candidates import Candidates
from sdpack.pack.mixed.allocate import Limit, allocate
from sdpack.pack.mixed.choices import Choices
from sdpack.pack.planning.feasible import buildable
from sdpack.pack.planning.mix import Mix
from sdpack.pack.request import BuildRequest
from sdpack.pack.toolchain import Toolchain, open_toolchain

from benchmarks.measured_on import machine_and_versions
from benchmarks.mix_drawing import Drawn, MixDrawing
from benchmarks.predicted_peaks import narrowed

BUDGETS = 5
SCREENED = 32  # pictures of every uniform mix that fits
FINAL = 3  # uniform mixes drawn in full at each budget, and as many again by the judge
HEADS = (
    "weights",
    "mixed",
    "filled",
    "latent PSNR",
    "judge, against fp32",
    "best uniform",
    "latent PSNR",
    "judge, against fp32",
    "mixed is better by: latents",
    "pictures",
    "judge similarity",
)


@dataclass
class MixedComparison:
    """Mixes of one set of parts, each drawn once."""

    toolchain: Toolchain
    pictures: int
    console: Console
    _drawn: dict[tuple[Mix, int], Drawn] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uniform = buildable(self.toolchain)
        self.choices = Choices.of_toolchain(self.toolchain)
        self.reference = self.same(Precision.FP32)
        self.evaluation = MixDrawing(self.toolchain, self.reference)

    def same(self, precision: Precision) -> Mix:
        """Return the mix with all parts at the same precision."""
        own = (all(v.precision is precision for v in m.variants) for m in self.uniform)
        return next(mix for mix, same in zip(self.uniform, own, strict=True) if same)

    def bytes(self, mix: Mix) -> int:
        """Return the size of the graphs' files."""
        variants = self.toolchain.variants
        return sum(variants.built(variant).artifact.bytes for variant in mix.variants)

    def drawn(self, mix: Mix, count: int) -> Drawn:
        if (mix, count) not in self._drawn:
            self.console.log(f"drawing {count} pictures with {mix}")
            variants = self.toolchain.variants
            graphs = {v.role: variants.built(v).path for v in mix.variants}
            self._drawn[mix, count] = self.evaluation.draw(graphs, count)
        return self._drawn[mix, count]

    def latents(self, mix: Mix, count: int) -> float:
        """Return the mean PSNR of the latents in dB."""
        wanted = self.drawn(self.reference, count)
        return float(self.drawn(mix, count).latent_psnr(wanted).mean())

    def pictured(self, mix: Mix, count: int) -> float:
        """Return the mean PSNR of the images in dB, which includes errors of the decoder."""
        wanted = self.drawn(self.reference, count)
        return float(self.drawn(mix, count).picture_psnr(wanted).mean())

    def judged(self, mix: Mix, count: int) -> Estimate:
        """Return the judge similarity, less that of fp32."""
        wanted = self.drawn(self.reference, count)
        return self.mean(self.drawn(mix, count).scores - wanted.scores)

    def mean(self, values: Float64Array) -> Estimate:
        """Return the mean over prompts, since images of the same prompt are not independent."""
        most = len(self.evaluation.prompts)
        whole = len(values) // most
        if whole > 1:
            values = values[: whole * most].reshape(whole, most).mean(axis=0)
        return mean_estimate(values)

    def mixed(self, budget: int) -> Mix:
        """Return the mixed mix that the allocator proposes for this number of bytes."""
        narrow = self.same(Precision.W4)
        choices = self.choices.of_mix(narrow)
        besides = self.bytes(narrow) - sum(self.choices.layer_bytes(v) for v in narrow.variants)
        roles = frozenset(role.value for role in narrow.roles)
        for _ in range(3):
            allocation = allocate(choices, [Limit(roles, budget - besides)])
            mix = self.choices.mix(narrow, choices, allocation)
            over = self.bytes(mix) - budget
            if over <= 0:
                return mix
            besides += over  # names of nodes and other metadata
        raise click.ClickException(f"no mixed mix of {budget} bytes")

    def rivals(self, budget: int) -> list[Mix]:
        """Return the uniform mixes that fit and are best on a few images, by latents or images."""
        fit = [mix for mix in self.uniform if self.bytes(mix) <= budget]
        by_picture = sorted(fit, key=lambda mix: -self.pictured(mix, SCREENED))
        by_latents = sorted(fit, key=lambda mix: -self.latents(mix, SCREENED))
        return list(dict.fromkeys([*by_picture[:FINAL], *by_latents[:FINAL]]))

    def row(self, budget: int) -> list[str]:
        mixed, count = self.mixed(budget), self.pictures
        rivals = self.rivals(budget)
        wanted = self.drawn(self.reference, count)
        ours = self.drawn(mixed, count)
        by_latents = max(rivals, key=lambda mix: self.latents(mix, count))
        by_picture = max(rivals, key=lambda mix: self.pictured(mix, count))
        by_judge = max(rivals, key=lambda mix: self.judged(mix, count).value)
        latents = ours.latent_psnr(wanted) - self.drawn(by_latents, count).latent_psnr(wanted)
        pictures = ours.picture_psnr(wanted) - self.drawn(by_picture, count).picture_psnr(wanted)
        judged = ours.scores - self.drawn(by_judge, count).scores
        return [
            f"{budget / 2**20:.2f} MiB",
            str(mixed),
            f"{self.bytes(mixed) / budget:.2%}",
            f"{self.latents(mixed, count):.2f} dB",
            self.judged(mixed, count).to(4),
            str(by_latents),
            f"{self.latents(by_latents, count):.2f} dB",
            f"{self.judged(by_judge, count).to(4)} ({by_judge})",
            f"{self.mean(latents).to(2)} dB",
            f"{self.mean(pictures).to(2)} dB",
            self.mean(judged).to(4),
        ]


@click.command()
@click.option("--profile", "name", default="cpu-2gb", show_default=True)
@click.option("--parts", default="l/l/kl", show_default=True, help="Parts of the zoo.")
@click.option(
    "--pictures", default=384, show_default=True, help="Images of each mix: prompts x seeds."
)
def main(name: str, parts: str, pictures: int) -> None:
    """Print one table."""
    console = Console(width=220)
    with tempfile.TemporaryDirectory() as scratch:
        encoder, denoiser, decoder = parts.split("/")
        catalog = read_catalog(narrowed(Path(scratch), encoder, denoiser, decoder))
        request = BuildRequest(find_profile(name), catalog, Path("unused"))
        table = Table(*HEADS, title=f"mixed and uniform, {parts}, {pictures} pictures of each")
        with open_toolchain(Candidates(request), lambda words: console.log(words)) as toolchain:
            comparison = MixedComparison(toolchain, pictures, console)
            least, most = (
                comparison.bytes(comparison.same(p)) for p in (Precision.W4, Precision.W8)
            )
            for budget in np.linspace(least, most, BUDGETS + 2)[1:-1].astype(int):
                row = comparison.row(int(budget))
                table.add_row(*row)
                console.log(" | ".join(row))
            quoted = comparison.drawn(comparison.reference, pictures).scores
            console.print(table)
            console.print(f"fp32: judge similarity {comparison.mean(quoted).to(4)}")
    console.print(machine_and_versions("sdpack", "onnxruntime"))


if __name__ == "__main__":
    main()
