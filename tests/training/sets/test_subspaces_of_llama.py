"""PaMaL and PaLoRA on the layers of a causal language model: attention, gated perceptrons, tied embeddings."""

import copy

import pytest
import torch

from mtopt.training import PaLoRA, PaMaL

transformers = pytest.importorskip("transformers")

HIDDEN, INNER, LAYERS, VOCABULARY, KEYS = 16, 24, 2, 20, 8
"""Of the keys and values: one head where the queries have two."""
SCALE, RANK = 2.0, 3
CORNERS = torch.eye(2, dtype=torch.float64)


def llama(seed):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HIDDEN // KEYS,
        num_key_value_heads=1,
        max_position_embeddings=32,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config).double()


def tokens():
    return torch.randint(VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))


def palora():
    """Adapters that are not zero, so that both of their halves have gradients."""
    model = PaLoRA(llama(0), 2, rank=RANK, scale=SCALE)
    with torch.no_grad():
        for up in model.up:
            up.normal_(0.0, 0.1)
    return model


@pytest.mark.parametrize("member", [0, 1])
def test_a_corner_of_palora_is_the_llama_with_one_adapter(member):
    model, alone = palora(), llama(0)
    with torch.no_grad():
        for name, up, down in zip(model.adapted, model.up, model.down, strict=True):
            alone.get_parameter(name).add_(SCALE / RANK * up[member] @ down[member])
    made = model.parameters_for(CORNERS[member])
    assert set(made) == {name for name, param in alone.named_parameters() if param.ndim == 2}
    for name, matrix in made.items():
        torch.testing.assert_close(matrix, alone.get_parameter(name), rtol=0, atol=1e-14)
    ids, expected = tokens(), alone(tokens()).logits
    torch.testing.assert_close(model(ids, preference=CORNERS[member]).logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model.extract(CORNERS[member])(ids).logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("member", [0, 1])
def test_a_corner_of_pamal_is_its_member_bit_for_bit(member):
    members = [llama(0), llama(1)]
    model, ids = PaMaL(members), tokens()
    for name, made in model.parameters_for(CORNERS[member]).items():
        assert torch.equal(made, members[member].get_parameter(name))
    assert torch.equal(model(ids, preference=CORNERS[member]).logits, members[member](ids).logits)


def test_tied_embeddings_stay_tied():
    for model in (palora(), PaMaL([llama(0), llama(1)])):
        plain = model.extract(torch.tensor([0.3, 0.7], dtype=torch.float64))
        assert plain.lm_head.weight is plain.model.embed_tokens.weight


def loss_of(model, **options):
    return model(tokens(), **options).logits.logsumexp(-1).square().mean()


def test_gradients_reach_every_adapter_by_the_chain_rule_in_proportion_to_its_share():
    model, shares = palora(), torch.tensor([0.2, 0.8], dtype=torch.float64)
    plain = model.extract(shares)
    loss_of(plain).backward()
    loss_of(model, preference=shares).backward()
    for name, up, down in zip(model.adapted, model.up, model.down, strict=True):
        gradient = plain.get_parameter(name).grad  # of the mixed matrix
        torch.testing.assert_close(model.template.get_parameter(name).grad, gradient)
        for k, share in enumerate(shares * SCALE / RANK):
            torch.testing.assert_close(up.grad[k], share * gradient @ down[k].T)
            torch.testing.assert_close(down.grad[k], share * up[k].T @ gradient)
            assert up.grad[k].any()
            assert down.grad[k].any()


def test_gradients_reach_every_member_in_proportion_to_its_share():
    members, shares = [llama(0), llama(1)], torch.tensor([0.2, 0.8], dtype=torch.float64)
    model = PaMaL(copy.deepcopy(members))
    plain = model.extract(shares)
    loss_of(plain).backward()
    loss_of(model, preference=shares).backward()
    for name, mixed in plain.named_parameters():
        assert mixed.grad.any()
        for share, member in zip(shares, model.members, strict=True):
            torch.testing.assert_close(member.get_parameter(name).grad, share * mixed.grad)


def test_palora_adds_two_thin_matrices_an_objective_to_each_matrix():
    of_a_layer = 2 * (HIDDEN + HIDDEN) + 2 * (KEYS + HIDDEN) + 3 * (INNER + HIDDEN)  # q o, k v, gate up down
    adapters = 2 * RANK * (LAYERS * of_a_layer + VOCABULARY + HIDDEN)  # the tied embeddings count once
    plain, model = sum(param.numel() for param in llama(0).parameters()), palora()
    assert sum(param.numel() for param in model.parameters()) == plain + adapters
    frozen = PaLoRA(llama(0), 2, rank=RANK, train_base=False)
    assert sum(param.numel() for param in frozen.parameters() if param.requires_grad) == adapters
