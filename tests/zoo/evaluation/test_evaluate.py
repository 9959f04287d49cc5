import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from sdpack.domain.estimate import Estimate

from zoo.data import prompts
from zoo.errors import DataError
from zoo.evaluation import evaluate
from zoo.evaluation.evaluate import QualityRow


def quality(low: float, high: float) -> QualityRow:
    estimate = Estimate((low + high) / 2, low, high)
    return QualityRow("unseen_pairs", "s/s", estimate, estimate, estimate, None)


def test_real_pictures_survive_the_sheet(tmp_path: Path) -> None:
    name: prompts.ListName = "unseen_pairs"
    real = evaluate.read_real(name)
    assert real.shape == (len(prompts.read_list(name)), 64, 64, 3)
    evaluate.write_real(real[:30], tmp_path / "unseen_pairs.png")
    lines = (prompts.PROMPTS_FOLDER / "unseen_pairs.jsonl").read_text().splitlines()[:30]
    (tmp_path / "unseen_pairs.jsonl").write_text("\n".join(lines))
    assert torch.equal(evaluate.read_real(name, tmp_path), real[:30])


def test_a_damaged_sheet_is_named(tmp_path: Path) -> None:
    (tmp_path / "unseen_pairs.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"unseen_pairs\.png cannot be read"):
        evaluate.read_real("unseen_pairs", tmp_path)


def test_a_part_of_a_list_keeps_each_prompt_s_own_seed() -> None:
    part, whole = evaluate.Evaluation(limit=10), evaluate.Evaluation()
    picked = part._picked("unseen_pairs")
    assert len(picked) == 10
    assert part.prompts("unseen_pairs") == [whole.prompts("unseen_pairs")[i] for i in picked]


def test_rows_meet_only_when_intervals_overlap() -> None:
    assert evaluate.meets(quality(0.1, 0.3), quality(0.2, 0.4))
    assert not evaluate.meets(quality(0.1, 0.2), quality(0.21, 0.4))


def test_the_card_is_read_back(tmp_path: Path) -> None:
    row = quality(0.1, 0.3)
    (tmp_path / "r.json").write_text(json.dumps({"quality": [asdict(row)]}))
    assert evaluate.read_card(tmp_path / "r.json") == {("unseen_pairs", "s/s"): row}


def test_quick_figures_are_never_recorded_as_the_card_s() -> None:
    result = CliRunner().invoke(evaluate.main, ["--quick", "--write"])
    assert result.exit_code == 2
    assert "leave out --quick" in result.output


def test_the_card_shows_the_recorded_figures() -> None:
    recorded = json.loads(evaluate.RESULTS.read_text())
    measured = evaluate.Measured(
        [evaluate.PartSize(**values) for values in recorded["sizes"]],
        {name: Estimate(**values) for name, values in recorded["psnr_db"].items()},
        list(evaluate.read_card().values()),
    )
    assert measured.markdown() in evaluate.CARD.read_text()


def test_the_recorded_sizes_are_those_of_the_shipped_files() -> None:
    recorded = json.loads(evaluate.RESULTS.read_text())["sizes"]
    assert [asdict(part) for part in evaluate.part_sizes()] == recorded


def test_a_card_without_its_marks_is_not_overwritten(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("a card")
    with pytest.raises(DataError, match="put them back"):
        evaluate.write_card(evaluate.Measured([], {}, []), card, tmp_path / "r.json")
    assert card.read_text() == "a card"
    assert not (tmp_path / "r.json").exists()
