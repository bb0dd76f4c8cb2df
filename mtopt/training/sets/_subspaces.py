"""Networks that are mixtures by preference: of K members (PaMaL), or of K low-rank adapters on one network (PaLoRA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtopt.training._conditioned import MadeForPreference


class PaMaL(MadeForPreference):
    """Pareto manifold learning: ``theta(p) = sum_k p_k theta_k``, the mixtures of K networks of one kind.

    Trained with :class:`PreferenceTrainer`, each network becomes that of one objective, and the simplex between them
    the front. Dimitriadis, Frossard and Fleuret, "Pareto manifold learning: tackling multiple tasks via ensembles of
    single-task models", ICML 2023. Their normalisation of gradients is a rule here
    (``Normalized(create_combiner("linear"))``), and their several preferences per step are several steps.

    Args:
        members: K networks alike but for their parameters, which may be equal at first; they are used as they are.
            Buffers, such as running statistics, are those of the first: mind BatchNorm.

    Raises:
        ValueError: fewer than two members, or members that differ in their parameters' names or shapes.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        looks = [{name: param.shape for name, param in member.named_parameters()} for member in members]
        if len(members) < 2 or any(look != looks[0] for look in looks):
            found = f"{len(members)} that differ; copy one of them" if len(members) > 1 else f"{len(members)}"
            raise ValueError(
                f"members must be two or more networks with parameters of the same names and shapes, found {found}"
            )
        self.members = nn.ModuleList(members)
        self.num_objectives = len(members)

    @property
    def template(self) -> nn.Module:  # type: ignore[override]
        """The first member."""
        return self.members[0]

    def parameters_for(self, preference: Tensor) -> dict[str, Tensor]:
        """``sum_k p_k theta_k`` by the members' names, for a preference (K,)."""
        self._require(preference)
        every = [dict(member.named_parameters()) for member in self.members]
        shares = preference.tolist() if not preference.requires_grad else list(preference)
        return {
            name: torch.stack([share * one[name] for share, one in zip(shares, every, strict=True)]).sum(0)
            for name in every[0]
        }


class PaLoRA(MadeForPreference):
    """Pareto low-rank adapters: ``W(p) = W + (scale / rank) sum_k p_k B_k A_k`` for each matrix of a network.

    W is shared by all preferences, and each objective has adapters of its own, whose mixture the preference makes: K
    (m + n) rank more numbers for an (m, n) matrix. A starts random, B at zero, so that training starts from the network
    as it is. Vectors, such as biases, are shared.

    Dimitriadis, Frossard and Fleuret, "Pareto low-rank adapters: efficient multi-task learning with preferences", ICLR
    2025 (arXiv 2407.08056). They train with a deterministic schedule of preferences: ``schedule=`` of
    :class:`PreferenceTrainer`, such as :func:`mtopt.pareto.uniform_preferences`. How theirs anneals is not known here.

    Args:
        network: a copy is taken. Kernels of convolutions are matrices of (out, everything else).
        num_objectives: K.
        rank: of each adapter, >= 1. Default: 4.
        scale: > 0. Default: 1.
        train_base: train W, too. Default: True.
    """

    def __init__(
        self, network: nn.Module, num_objectives: int, *, rank: int = 4, scale: float = 1.0, train_base: bool = True
    ) -> None:
        super().__init__()
        for name, count in (("num_objectives", num_objectives), ("rank", rank)):
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} must be a positive int, found {count!r}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, found {scale}")
        self.template = copy.deepcopy(network)
        self.num_objectives, self.rank, self.scale = num_objectives, rank, scale
        self.adapted = [n for n, param in self.template.named_parameters() if param.ndim >= 2 and param.requires_grad]
        if not self.adapted:
            raise ValueError("network must have a matrix that requires gradients, found none")
        self.down, self.up = nn.ParameterList(), nn.ParameterList()  # A and B of each matrix
        for name in self.adapted:
            matrix = self.template.get_parameter(name).detach()
            rows, columns = len(matrix), matrix[0].numel()
            self.down.append(matrix.new_empty(num_objectives, rank, columns).normal_(0.0, 1.0 / math.sqrt(columns)))
            self.up.append(matrix.new_zeros(num_objectives, rows, rank))
        if not train_base:
            self.template.requires_grad_(False)

    def parameters_for(self, preference: Tensor) -> dict[str, Tensor]:
        """W(p) of the adapted matrices, by the network's names, for a preference (K,)."""
        self._require(preference)
        found = {}
        for name, down, up in zip(self.adapted, self.down, self.up, strict=True):
            base = self.template.get_parameter(name)
            mixed = torch.einsum("k,kmr,krn->mn", preference.to(up), up, down)
            found[name] = base + (self.scale / self.rank) * mixed.reshape(base.shape)
        return found
