"""The losses by plain computations in float64: a row at a time without padding, token by token."""

import numpy as np
import torch

from benchmarks.unlearning.encoding import IGNORED


def plain_rows(model, batch):
    """For each row, the logits that predict its answer (n, V) and the answer (n,)."""
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        ids = batch["input_ids"][row, :length]
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0].numpy()
        scored = [place for place in range(1, length) if batch["labels"][row, place] != IGNORED]
        yield logits[[place - 1 for place in scored]], ids[scored].numpy()


def number(value):
    return value.item()


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_p(model, batch):
    """The log-probabilities of each row's answer tokens."""
    return [
        np.array([log_softmax(z)[y] for z, y in zip(logits, answer, strict=True)])
        for logits, answer in plain_rows(model, batch)
    ]


def sums(model, batch):
    return np.array([-values.sum() for values in log_p(model, batch)])


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


def by_token(values):
    """The two reductions of values that are a list of arrays, one for each row."""
    return np.concatenate(values).mean(), np.array([row.mean() for row in values])


def by_row(values):
    return np.mean(values), values


def plain_kl(model, reference, batch, positions):
    values = []
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        ids = batch["input_ids"][row : row + 1, :length]
        with torch.no_grad():
            p, q = (log_softmax(each(input_ids=ids).logits[0, :-1].numpy()) for each in (reference, model))
        kl = (np.exp(p) * (p - q)).sum(axis=-1)
        if positions == "answer":
            kl = kl[(batch["labels"][row, 1:length] != IGNORED).numpy()]
        values.append(kl)
    return by_token(values)


def plain_undial(model, reference, batch, beta):
    values = []
    pairs = zip(plain_rows(model, batch), plain_rows(reference, batch), strict=True)
    for (logits, answer), (teacher, _) in pairs:
        teacher = teacher.copy()
        teacher[np.arange(len(answer)), answer] -= beta
        values.append(-(np.exp(log_softmax(teacher)) * log_softmax(logits)).sum(axis=-1))
    return by_token(values)


def plain_ce_u(model, batch, ignore_first):
    values = []
    for logits, answer in plain_rows(model, batch):
        p = np.exp(log_softmax(logits))
        row = []
        for place in range(ignore_first, len(answer)):
            q = p[place].copy()
            q[answer[place]] = 0
            row.append(-(q / q.sum() * np.log(p[place])).sum())
        values.append(np.array(row))
    return by_token(values)


def plain_rmu(model, batch, layer, expected):
    """``expected(row, places)`` is what the hidden states are compared with."""
    values = []
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        ids = batch["input_ids"][row : row + 1, :length]
        scored = [place for place in range(length) if batch["labels"][row, place] != IGNORED]
        kept = {}
        hook = model.model.layers[layer].register_forward_hook(
            lambda module, args, output, kept=kept: kept.update(out=output)
        )
        with torch.no_grad():
            model(input_ids=ids)
        hook.remove()
        hidden = (kept["out"][0] if isinstance(kept["out"], tuple) else kept["out"]).reshape(length, -1)[scored]
        values.append(number(((hidden.numpy() - expected(ids, scored)) ** 2).mean(axis=-1).mean()))
    return by_row(np.array(values))


def hidden_of(model, layer):
    def states(ids, scored):
        with torch.no_grad():
            return model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0, scored].numpy()

    return states
