import torch
from torch import nn

from zoo.optimizer import MuonAdamW


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
    last = trained(network().to(memory_format=torch.channels_last))
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-3)  # Muon iterates in bfloat16
        assert not torch.equal(a, torch.zeros_like(a))


def test_a_matrix_moves_as_torch_moves_it() -> None:
    torch.manual_seed(1)
    mine = nn.Linear(5, 7)
    theirs = nn.Parameter(mine.weight.detach().clone())
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
    assert torch.equal(mine.weight, theirs)


def test_biases_and_named_outer_layers_are_adamw_s() -> None:
    from zoo.optimizer import is_hidden_matrix

    weight = torch.zeros(4, 4)
    assert is_hidden_matrix("mid_block.resnets.0.conv1.weight", weight)
    assert not is_hidden_matrix("conv_in.weight", weight)
    assert not is_hidden_matrix("text_model.embeddings.token_embedding.weight", weight)
    assert not is_hidden_matrix("mid_block.norm.bias", torch.zeros(4))
