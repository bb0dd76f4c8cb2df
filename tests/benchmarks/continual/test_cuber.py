"""CUBER's bases, regimes and projection against computations of their own, and what it promises of old tasks."""

import numpy as np
import pytest
import torch
from scipy.linalg import null_space

import mtopt
from benchmarks.continual.cuber import input_basis, joint_basis, project, regime, remove
from benchmarks.continual.cuber_trainer import CuberTrainer
from benchmarks.continual.network import Classifier, scaled
from benchmarks.continual.streams import InTurn, Places, split_digits


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis_of(dimensions, count, seed):
    return torch.linalg.qr(random(dimensions, count, seed=seed))[0]


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.97])
def test_a_basis_holds_the_energy_with_as_few_directions_as_can_be(energy):
    inputs = random(200, 12) * torch.linspace(0.1, 3.0, 12)
    basis = input_basis(inputs, energy)
    # the eigenvalues of the second moment say how much any k directions can hold at most
    values = np.linalg.eigvalsh((inputs.T @ inputs).numpy())[::-1]
    needed = int((np.cumsum(values) / values.sum() < energy).sum()) + 1
    assert basis.shape == (12, needed)
    assert torch.allclose(basis.T @ basis, torch.eye(needed, dtype=torch.float64))
    assert float((inputs @ basis).square().sum()) == pytest.approx(values[:needed].sum())


def test_a_basis_of_all_the_energy_is_no_larger_than_the_rank():
    inputs = (random(50, 3) @ random(3, 10, seed=1)).float()
    basis = input_basis(inputs, 1.0)
    assert basis.shape == (10, 3)
    assert torch.allclose(inputs @ basis @ basis.T, inputs, atol=1e-5)
    with pytest.raises(ValueError, match="energy"):
        input_basis(inputs, 1.5)


@pytest.mark.parametrize("overlap", [False, True])
def test_what_is_removed_is_the_part_in_the_sum_of_the_spaces(overlap):
    gradient, first, second = random(4, 10), basis_of(10, 3, 1), basis_of(10, 2, 2)
    if overlap:  # a direction that both have: the sum of the two projections would remove it twice
        second = torch.linalg.qr(torch.stack([first[:, 0], second[:, 0]], 1))[0]
    result = remove(gradient, joint_basis([first, second]))
    # the nearest matrix whose rows are orthogonal to everything in both spaces
    rest = null_space(np.hstack([first.numpy(), second.numpy()]).T)
    assert rest.shape[1] == (6 if overlap else 5)
    assert np.allclose(result.numpy(), gradient.numpy() @ rest @ rest.T)


def test_no_space_removes_nothing():
    gradient = random(4, 10)
    assert torch.equal(remove(gradient, joint_basis([])), gradient)


def test_a_projection_is_least_squares():
    gradient, basis = random(4, 10), basis_of(10, 3, 1)
    fitted, *_ = np.linalg.lstsq(basis.numpy(), gradient.numpy().T, rcond=None)
    assert np.allclose(project(gradient, basis).numpy(), (basis.numpy() @ fitted).T)


def test_the_three_regimes_on_gradients_made_by_hand():
    basis = torch.eye(4)[:, :2]  # the old inputs are in the first two coordinates
    inside, outside = torch.tensor([[3.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 4.0]])
    gradient = inside + outside  # of length 5, its projection of length 3: a share of 0.6
    options = {"sufficient": 0.5, "positive": 0.0}
    assert regime(gradient, basis, inside, **options) == "free"
    assert regime(gradient, basis, -inside, **options) == "scaled"
    assert regime(gradient, basis, inside, sufficient=0.7, positive=0.0) == "orthogonal"
    assert regime(gradient, basis, -inside, sufficient=0.7, positive=0.0) == "orthogonal"
    # the cosine of gradient and inside is 0.6, too
    assert regime(gradient, basis, inside, sufficient=0.5, positive=0.55) == "free"
    assert regime(gradient, basis, inside, sufficient=0.5, positive=0.65) == "scaled"
    # scales do not matter
    assert regime(1e-6 * gradient, basis, 1e6 * inside, sufficient=0.5, positive=0.55) == "free"


def test_scaled_weights_are_the_papers():
    weight, basis, scale = random(5, 8), basis_of(8, 3, 1), random(3, 3, seed=2)
    with torch.no_grad():
        found = scaled(weight.float(), [(basis.float(), scale.float())])
    wanted = weight - weight @ basis @ basis.T + weight @ basis @ scale @ basis.T
    assert torch.allclose(found.double(), wanted, atol=1e-5)
    same = scaled(weight.float(), [(basis.float(), torch.eye(3))])
    assert torch.allclose(same.double(), weight, atol=1e-6)


def trained(**options):
    stream = split_digits()
    torch.manual_seed(0)
    rule = mtopt.create_combiner("linear", preference=(1.0, 0.0))
    trainer = CuberTrainer(Classifier(), rule, stream, InTurn(5), learning_rate=0.1, seed=0, **options)
    seen = {}

    class Looks(mtopt.Callback):
        """Logits of the first part's training images, after its stage and at the end."""

        def on_step_end(self, trainer, record):
            if record.step in (20, 100):
                with torch.no_grad():
                    seen[record.step] = trainer.logits(stream.splits["train"][0][0], 0)[:, :2]

    trainer.callbacks.append(Looks())
    trainer.fit(Places(stream, seed=0, batch_size=32), steps=100)
    return trainer, seen


def test_with_every_task_orthogonal_old_outputs_stay_as_they_were():
    trainer, seen = trained(energy=1.0, sufficient=2.0)
    assert {kind for layers in trainer.regimes.values() for each in layers for kind in each.values()} == {"orthogonal"}
    assert torch.allclose(seen[20], seen[100], atol=1e-4)
    assert trainer.matrix("test")[-1, 4] > 0.8  # and still it learns, by what is left of the layers and by its head


def test_a_free_task_is_changed():
    trainer, seen = trained(sufficient=0.0, positive=-1.0)
    assert {kind for layers in trainer.regimes.values() for each in layers for kind in each.values()} == {"free"}
    assert not torch.allclose(seen[20], seen[100], atol=0.1)


def test_the_penalty_keeps_free_weights_near_where_they_were():
    # from the start of the last stage to its end, in the space of the first part
    def change(penalty):
        trainer, _ = trained(sufficient=0.0, positive=-1.0, penalty=penalty)
        moved = trainer.classifier.weights()[0].detach() - trainer.start[0]
        return float(project(moved, trainer.done[0].bases[0]).norm())

    assert change(0.5) < 0.8 * change(0.0)


def test_scales_are_learned_and_leave_old_outputs_alone():
    trainer, seen = trained(energy=1.0, sufficient=0.0, positive=2.0)
    assert {kind for layers in trainer.regimes.values() for each in layers for kind in each.values()} == {"scaled"}
    moved = [float((q.detach() - torch.eye(len(q))).norm()) for _, q in trainer.scales[4][0]]
    assert len(moved) == 4
    assert min(moved) > 1e-3
    assert torch.allclose(seen[20], seen[100], atol=1e-4)
