import pytest
import torch
from sdpack.evaluate.metrics import Panel

from zoo import parts
from zoo.data import prompts
from zoo.evaluation import evaluate, metrics
from zoo.training import judge_views


@pytest.fixture(scope="module")
def panel() -> Panel:
    return Panel(parts.load_judge(), parts.load_tokenizer())


@pytest.mark.parametrize("name", evaluate.EVALUATED)
def test_a_real_picture_s_own_caption_comes_first_far_above_chance(
    panel: Panel, name: prompts.ListName
) -> None:
    listed = prompts.read_list(name)
    fair = [i for i, prompt in enumerate(listed) if not prompt.judge_saw][::4]
    asked = [listed[i] for i in fair]
    embedded = panel.embed_features(panel.features(evaluate.read_real(name)[fair]))
    hits = metrics.r_precision(panel, embedded, asked, evaluate.read_labels())
    assert hits.mean() > 0.3  # chance is 0.01


def test_noise_is_told_from_pictures(panel: Panel) -> None:
    asked = list(prompts.read_list("unseen_pairs"))[::8]
    noise = torch.randint(
        256, (len(asked), 64, 64, 3), generator=torch.Generator().manual_seed(0)
    ).byte()
    hits = metrics.r_precision(
        panel, panel.embed_features(panel.features(noise)), asked, evaluate.read_labels()
    )
    assert hits.mean() < 0.1


def test_blur_keeps_brightness_and_softens_edges() -> None:
    edge = torch.zeros(1, 3, 16, 16)
    edge[..., 8:] = 1
    soft = judge_views._blur(edge, torch.tensor([1.0]))
    assert soft[0, :, 8, 4:12].mean() == pytest.approx(0.5, abs=1e-5)
    assert (soft[0, :, 8, 7] > 0.2).all()
