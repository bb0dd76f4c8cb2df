"""The stochastic toy problem of the MoCo paper."""

import torch

from mtopt.problems._base import check_count
from mtopt.problems._noise import with_gradient_noise
from mtopt.problems._registry import register_problem
from mtopt.problems.cagrad_toy import CAGradToy


@register_problem("moco_toy")
class MoCoToy(CAGradToy):
    """`CAGradToy` with the first objective doubled, and gradients with the noise of a mini-batch.

    A data set of 5000 draws z_i from N(0, I_2) stands for the data. A batch of b of them adds the mean of its z_i to
    the gradients of both objectives: noise of standard deviation 1/sqrt(b) in each coordinate, the same for both, whose
    mean over the data set is that of the 5000 draws and not exactly zero. `evaluate` is the problem without noise;
    `sample` gives the same values with noisy gradients, a new batch at each call.

    Five starts, Adam at 5e-4 (k+1)^-.05, 70k steps in the paper (Fernando et al., "Mitigating gradient bias in
    multi-objective learning", 2023, and its code). A rule that takes its weights from the noisy gradients (MGDA and its
    kin) has a biased direction, whatever its step; MoCo tracks the gradients instead.

    Args:
        scale: factor of the first objective, default 2.
        batch_size: b, default 100; 1 to 5000.
        seed: of the data set and of the batches, default 0.
    """

    population = 5000

    def __init__(self, scale: float = 2.0, *, batch_size: int = 100, seed: int = 0) -> None:
        super().__init__(scale)
        check_count("batch_size", batch_size)
        if batch_size > self.population:
            raise ValueError(f"batch_size must be at most {self.population}, the size of the data, found {batch_size}")
        self.batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(self.population, 2, generator=self._generator, dtype=torch.float64)

    @property
    def starts(self) -> torch.Tensor:
        points = [(-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0), (0.0, 0.0), (10.0, -8.0)]
        return torch.tensor(points, dtype=torch.float64)

    def sample(self, x: torch.Tensor) -> torch.Tensor:
        """The objectives of `x` (..., 2), as `evaluate` gives them, with gradients as a mini-batch would give them.

        Each of a batch of points gets a batch of data of its own, drawn without replacement.
        """
        self._check(x)
        count = x[..., 0].numel()
        drawn = [
            self._noise[torch.randperm(self.population, generator=self._generator)[: self.batch_size]].mean(dim=0)
            for _ in range(count)
        ]
        noise = torch.stack(drawn).reshape(x.shape) if drawn else torch.zeros_like(x)
        return with_gradient_noise(self.evaluate(x), x, noise)
