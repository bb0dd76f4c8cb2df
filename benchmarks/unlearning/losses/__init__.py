"""Losses of unlearning, as plain functions that work in any loop: ``loss(model, batch, **context) -> scalar``.

``model`` is a Hugging Face causal language model (or anything that is called like one), ``batch`` what
:func:`mtopt_suites.unlearning.encoding.collate` gives: ``input_ids``, ``attention_mask`` and ``labels``, (B, T) each,
with the label -100 wherever a position is not scored. All are to be minimised, and computed in float32 where the model
is in half precision. ``reduction="none"`` gives one value per row, (B,).
"""

from ._likelihood import grad_ascent, kl_to_reference, nll, satimp, wga
from ._logits import ce_u, logit_flattening, max_entropy, undial
from ._preferences import idk_dpo, idk_nll, npo, simnpo
from ._representations import control_vector, rmu_forget, rmu_retain
from ._tokens import logits_of, mean_nll, sequence_nll, token_nll

__all__ = [
    "ce_u",
    "control_vector",
    "grad_ascent",
    "idk_dpo",
    "idk_nll",
    "kl_to_reference",
    "logit_flattening",
    "logits_of",
    "max_entropy",
    "mean_nll",
    "nll",
    "npo",
    "rmu_forget",
    "rmu_retain",
    "satimp",
    "sequence_nll",
    "simnpo",
    "token_nll",
    "undial",
    "wga",
]
