"""The check of the judge that decides, before a build relies on its scores."""

from __future__ import annotations

from sdpack.errors import CatalogError
from sdpack.evaluate.judge_check import FEWEST_IMAGES, check_judge
from sdpack.pack.judging.checked_images import real
from sdpack.pack.selection.catalog_judge import CatalogJudge
from sdpack.pack.toolchain import Toolchain
from sdpack.progress import counted

JUDGE_CHECK = "judge check"  # kind of the ledger's rows
REVISION = 1  # of the damages; a change makes earlier checks invalid
IMAGES = 64


def check_primary(toolchain: Toolchain) -> None:
    """Refuse a judge that rewards damage to the catalog's real images.

    A catalog with few or no real images, or one caption for all, is not checked. The result is kept
    in the ledger.

    Raises:
        CatalogError: damage raises the judge's scores, at 95 % confidence over all changes.
        SourceError: the judge cannot be loaded, or its scores cannot be used.
    """
    context = toolchain.context
    judging = CatalogJudge(toolchain.request.located, toolchain.candidates.folder)
    given = real(judging.located, IMAGES) if judging.is_judged else None
    if given is None or len(given.images) < FEWEST_IMAGES or len(set(given.captions)) == 1:
        return
    catalog = judging.located.catalog
    inputs = {
        "judge": judging.primary_content,
        "real": judging.real_content,
        "captions": list(given.captions),
        "changed": dict(given.changed),
        "cut": [catalog.image_size, len(given.images)],
        "revision": REVISION,
    }
    found = context.ledger.find(JUDGE_CHECK, inputs)
    if found is None:
        step = counted(context.say, "checking the judge on damaged images")
        checked = check_judge(judging.primary_score, given, step)
        found = {"rewarded": [effect.change for effect in checked.wrong]}
        context.ledger.record(JUDGE_CHECK, inputs, found)
    if found["rewarded"]:
        raise CatalogError(
            f"quality.judge: {catalog.quality.judge} scores real images higher "
            f"after damage ({', '.join(found['rewarded'])}), so it cannot choose; use another "
            "judge, or quality.views that `sdpack judge check` finds without such an effect"
        )
