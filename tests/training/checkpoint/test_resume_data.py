"""A run that is interrupted goes on with the batches it would have had, whatever gives them."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from tests.training.support import BATCH, Stateful, data_set, fingerprint, interrupted, loader, two_losses


def augmented():
    """Batches that depend on numpy's and Python's global generators, drawn between the model's own draws."""

    class Augmented(torch.utils.data.Dataset):
        def __init__(self):
            self.items = data_set()
            self.own = np.random.default_rng(2)

        def __len__(self):
            return len(self.items)

        def __getitem__(self, index):
            inputs, targets = self.items[index]
            noise = np.random.normal() + random.gauss(0, 1) + self.own.normal() + float(torch.randn(()))  # noqa: NPY002
            return inputs + 0.1 * noise, targets

    return DataLoader(Augmented(), batch_size=BATCH, shuffle=True)


def paired():
    """Two loaders of different lengths, as in unlearning: the shorter one starts again within the epoch."""

    class Paired:
        def __init__(self):
            generators = [torch.Generator().manual_seed(k) for k in range(2)]
            self.long = DataLoader(data_set(1), batch_size=4, shuffle=True, generator=generators[0])
            self.short = DataLoader(data_set(2), batch_size=16, shuffle=True, generator=generators[1])

        def __iter__(self):
            short = iter(self.short)
            for inputs, targets in self.long:
                other = next(short, None)
                if other is None:
                    short = iter(self.short)
                    other = next(short)
                yield torch.cat([inputs, other[0]]), torch.cat([targets, other[1]])

    return Paired()


def streamed():
    class Stream(IterableDataset):
        def __iter__(self):
            order = torch.randperm(44)
            return (data_set()[i] for i in order)

    return DataLoader(Stream(), batch_size=BATCH)


def with_workers():
    return DataLoader(data_set(), batch_size=BATCH, shuffle=True, num_workers=1, multiprocessing_context="fork")


def drawn():
    """No data set at all: each batch is drawn when it is needed."""

    class Drawn:
        def __iter__(self):
            for _ in range(6):
                inputs = torch.randn(8, 6)
                yield inputs, inputs[:, :2] * 2

    return Drawn()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(
    "make_data",
    [lambda: loader(own_generator=True), augmented, paired, streamed, drawn, with_workers, lambda: list(loader())],
    ids=["own_generator", "augmented", "paired", "streamed", "drawn", "with_workers", "list"],
)
def test_every_kind_of_data(make_data, tmp_path):
    def seeded():
        # a list is made once and for all; the others draw later, when fit has seeded or restored the generators
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make_data()

    whole = two_losses("pcgrad")
    whole.fit(seeded(), steps=20)
    resumed = interrupted(lambda: two_losses("pcgrad"), seeded, tmp_path, [2, 9, 13], steps=20)
    assert fingerprint(resumed) == fingerprint(whole)


def test_a_stateful_loader_passes_nothing_over(tmp_path):
    whole = two_losses("mgda")
    whole.fit(Stateful(), steps=17)
    last = Stateful()
    stops = iter([3, 6, 10])
    resumed = interrupted(
        lambda: two_losses("mgda"),
        lambda: last if next(stops, None) is None else Stateful(),
        tmp_path,
        [3, 6, 10],
        steps=17,
    )
    assert fingerprint(resumed) == fingerprint(whole)
    assert last.given == 7


def test_a_stateful_loader_whose_length_is_too_low(tmp_path):
    class TooLow(Stateful):
        def __len__(self):
            return 4

    whole = two_losses("mgda")
    whole.fit(TooLow(), steps=11)
    for stops in ([4], [5, 10]):
        resumed = interrupted(lambda: two_losses("mgda"), TooLow, tmp_path / str(stops), stops, steps=11)
        assert fingerprint(resumed) == fingerprint(whole)


def test_a_list_whose_length_is_too_low(tmp_path):
    class TooLow(list):
        def __len__(self):
            return 4

    def make():
        return TooLow(DataLoader(data_set(), batch_size=BATCH))

    whole = two_losses("mgda")
    whole.fit(make(), steps=11)
    for stops in ([4], [5, 10]):
        resumed = interrupted(lambda: two_losses("mgda"), make, tmp_path / str(stops), stops, steps=11)
        assert fingerprint(resumed) == fingerprint(whole)


def test_an_epoch_number_reaches_data_that_shuffles_by_it(tmp_path):
    class Shuffles(list):
        epoch = -1

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            order = np.random.default_rng(self.epoch).permutation(len(self))
            return (self[i] for i in order)

    def make():
        return Shuffles(DataLoader(data_set(), batch_size=BATCH))

    whole = two_losses("mgda")
    whole.fit(make(), steps=17)
    resumed = interrupted(lambda: two_losses("mgda"), make, tmp_path, [3, 8, 12], steps=17)
    assert fingerprint(resumed) == fingerprint(whole)
