import pytest
import torch
from torch import nn

from zoo.training.muon import NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, MuonAdamW, orthogonalized


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4, 6))


def trained(model: nn.Sequential, steps: int = 5) -> nn.Sequential:
    optimizer = MuonAdamW(model, weight_decay=0.01)
    for step in range(steps):
        x = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step(lr=0.01)
    return model


def test_memory_order_of_convolutions_makes_no_difference() -> None:
    plain = trained(network())
    # PyTorch's overloads of `to` leave memory_format out.
    last = trained(network().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
        assert not torch.equal(a, torch.zeros_like(a))


def test_a_matrix_moves_as_torch_moves_it() -> None:
    torch.manual_seed(1)
    mine = nn.Linear(5, 7)
    before = mine.weight.detach().clone()
    theirs = nn.Parameter(before.clone())
    ours = MuonAdamW(mine, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        gradient = torch.randn(7, 5)
        mine.weight.grad, mine.bias.grad = gradient.clone(), torch.zeros(7)
        theirs.grad = gradient.clone()
        ours.step(lr=0.02)
        reference.step()
    assert torch.allclose(mine.weight, theirs, atol=1e-3)  # theirs iterates in bfloat16
    assert not torch.allclose(mine.weight, before, atol=1e-2)


def test_biases_and_named_outer_layers_are_adamw_s() -> None:
    from zoo.training.muon import is_hidden_matrix

    weight = torch.zeros(4, 4)
    assert is_hidden_matrix("mid_block.resnets.0.conv1.weight", weight)
    assert not is_hidden_matrix("conv_in.weight", weight)
    assert not is_hidden_matrix("text_model.embeddings.token_embedding.weight", weight)
    assert not is_hidden_matrix("mid_block.norm.bias", torch.zeros(4))


@pytest.mark.parametrize("shape", [(3, 12, 40), (2, 40, 12), (1, 16, 16)])
def test_the_gram_iteration_is_the_plain_iteration(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(2)
    stack = torch.randn(shape)
    wanted = stack.double()
    wanted = wanted / wanted.norm(dim=(-2, -1), keepdim=True)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wanted @ wanted.mT
        wanted = a * wanted + (b * gram + c * gram @ gram) @ wanted
    assert torch.allclose(orthogonalized(stack).double(), wanted, atol=1e-4)
    values = torch.linalg.svdvals(orthogonalized(stack))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_a_matrix_of_low_rank_stays_finite() -> None:
    column = torch.arange(1.0, 9.0)[:, None]
    turned = orthogonalized((column @ torch.ones(1, 20))[None])
    assert torch.isfinite(turned).all()
    assert torch.linalg.svdvals(turned[0])[0] < 1.3


def test_an_interrupted_optimizer_goes_on() -> None:
    whole, first, second = network(), network(), network()
    one = MuonAdamW(whole, weight_decay=0.01)
    two = MuonAdamW(first, weight_decay=0.01)
    three = MuonAdamW(second, weight_decay=0.01)

    def step(model: nn.Sequential, optimizer: MuonAdamW, seed: int) -> None:
        x = torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
        model(x).square().mean().backward()
        optimizer.step(lr=0.01)

    step(whole, one, 0)
    step(whole, one, 1)
    step(first, two, 0)
    second.load_state_dict(first.state_dict())
    three.load_state_dict(two.state_dict())
    step(second, three, 1)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
