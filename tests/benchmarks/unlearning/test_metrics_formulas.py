"""The figures' formulas on numbers: identities, limits, and values that were published."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.unlearning.metrics.generation import cut
from benchmarks.unlearning.metrics.membership import attack_auc, min_k, muse_privleak, tofu_privleak
from benchmarks.unlearning.metrics.memorisation import exact_memorisation, extraction_strength
from benchmarks.unlearning.metrics.similarity import rouge_l
from benchmarks.unlearning.metrics.truth_ratio import (
    DEFINITIONS,
    aggregate,
    forget_quality,
    log_truth_ratio,
    model_utility,
    probability_among,
)

losses = st.floats(0.0, 15.0)


class TestTruthRatio:
    @given(losses, st.lists(losses, min_size=1, max_size=5))
    def test_logs_are_those_of_the_plain_formulas(self, right, wrong):
        p, q = math.exp(-right), [math.exp(-loss) for loss in wrong]
        geometric = math.prod(q) ** (1 / len(q)) / (p + 1e-10)
        arithmetic = sum(q) / len(q) / p
        assert log_truth_ratio(right, wrong) == pytest.approx(math.log(geometric), abs=1e-9)
        assert log_truth_ratio(right, wrong, "openunlearning") == log_truth_ratio(right, wrong)
        assert log_truth_ratio(right, wrong, "paper") == pytest.approx(math.log(arithmetic), abs=1e-9)
        # the inequality of the means, but for the 1e-10
        assert log_truth_ratio(right, wrong) <= log_truth_ratio(right, wrong, "paper") + 1e-9

    def test_five_answers_by_hand(self):
        wrong = [-math.log(p) for p in (0.1, 0.1, 0.1, 0.1, 0.4)]
        assert math.exp(log_truth_ratio(-math.log(0.5), wrong, "paper")) == pytest.approx(0.16 / 0.5)
        assert math.exp(log_truth_ratio(-math.log(0.5), wrong)) == pytest.approx(0.1 * 4**0.2 / 0.5)

    @given(st.lists(st.floats(-20, 20), min_size=1, max_size=9))
    def test_aggregations(self, logs):
        ratios = [math.exp(value) for value in logs]
        assert aggregate(logs, forget=True) == pytest.approx(np.mean([min(r, 1 / r) for r in ratios]))
        assert aggregate(logs, forget=False) == pytest.approx(np.mean([max(0, 1 - r) for r in ratios]))
        share = np.mean([1 / (1 + r) for r in ratios])
        for forget in (True, False):
            assert aggregate(logs, forget=forget, definition="openunlearning") == pytest.approx(share)

    @pytest.mark.parametrize("definition", DEFINITIONS)
    @pytest.mark.parametrize("loss", [0.0, 50.0, 5000.0])
    def test_models_beyond_floats_are_still_measured(self, definition, loss):
        """Unlearned too far, probabilities underflow; ratios and figures stay finite numbers."""
        for right, wrong in ((loss, 0.0), (0.0, loss), (loss, loss)):
            log_ratio = log_truth_ratio(right, [wrong] * 5, definition)
            assert math.isfinite(log_ratio)
            for forget in (True, False):
                assert 0 <= aggregate([log_ratio], forget=forget, definition=definition) <= 1
        assert 0 <= probability_among(loss, [loss] * 3) <= 0.25

    def test_an_unknown_definition(self):
        with pytest.raises(ValueError, match="tofu-code, paper, openunlearning, got 'arithmetic'"):
            log_truth_ratio(1.0, [1.0], "arithmetic")
        with pytest.raises(ValueError, match="definition must be"):
            aggregate([0.0], forget=True, definition="arithmetic")


class TestUtilityAndForgetQuality:
    def test_the_harmonic_mean(self):
        figures = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
        assert model_utility(figures) == pytest.approx(9 / sum(1 / value for value in figures))
        assert model_utility([0.62] * 9) == pytest.approx(0.62)
        assert model_utility([0.0, *figures[1:]]) == 0.0
        unbelieved = aggregate([1.0, 2.0], forget=False)  # more likely wrong than right: zero, and not minus zero
        assert math.copysign(1.0, unbelieved) == 1.0
        assert model_utility([-0.0, 0.0, *figures[2:]]) == 0.0
        with pytest.raises(ValueError, match="nine figures, got 3"):
            model_utility(figures[:3])

    @pytest.mark.parametrize(("n", "published"), [(40, "1.9e-23"), (200, "1.9e-119"), (400, "1.1e-239")])
    def test_full_separation_is_the_floor_that_was_published(self, n, published):
        """2 / C(2n, n): the forget quality that open-unlearning reports for models that GradAscent has destroyed on
        forget05 (200 items) and forget10 (400)."""
        quality = forget_quality(np.arange(n) / n, 2 + np.arange(n) / n)
        assert math.log(quality) == pytest.approx(math.log(2) - math.log(math.comb(2 * n, n)), rel=1e-9)
        assert f"{quality:.1e}" == published

    def test_the_same_ratios_are_not_told_apart(self):
        ratios = [random.Random(1).gauss(0, 1) for _ in range(40)]
        assert forget_quality(ratios, ratios) == 1.0

    @settings(max_examples=30)
    @given(st.lists(st.floats(-3, 3), min_size=5, max_size=20, unique=True), st.randoms(use_true_random=False))
    def test_only_the_order_counts(self, ratios, draw):
        """So R, 1/R and log R give the same p-value."""
        others = [draw.gauss(0.5, 1) for _ in ratios]
        quality = forget_quality(ratios, others)
        assert forget_quality([-value for value in ratios], [-value for value in others]) == pytest.approx(quality)
        assert forget_quality(others, ratios) == pytest.approx(quality)


class TestMemorisation:
    @pytest.mark.parametrize(
        ("correct", "extraction", "memorisation"),
        [
            ([1, 1, 1, 1], 1.0, 1.0),
            ([0, 1, 1, 1], 0.75, 0.75),
            ([1, 0, 1, 1], 0.5, 0.75),
            ([1, 1, 0, 1], 0.25, 0.75),
            # nothing is completed where the last token is wrong
            ([1, 1, 1, 0], 0.0, 0.75),
            ([0, 0, 0, 0], 0.0, 0.0),
            ([0], 0.0, 0.0),
            ([1], 1.0, 1.0),
        ],
    )
    def test_by_hand(self, correct, extraction, memorisation):
        flags = np.array(correct, dtype=bool)
        assert extraction_strength(flags) == pytest.approx(extraction)
        assert exact_memorisation(flags) == pytest.approx(memorisation)

    @given(st.lists(st.booleans(), min_size=1, max_size=30))
    def test_what_is_extracted_is_memorised(self, correct):
        flags = np.array(correct)
        assert 0 <= extraction_strength(flags) <= exact_memorisation(flags) <= 1

    def test_nothing_to_memorise(self):
        with pytest.raises(ValueError, match="no token besides its end"):
            extraction_strength(np.array([], dtype=bool))


class TestMembership:
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.lists(st.integers(0, 9), min_size=1, max_size=12))
    def test_auc_is_the_chance_of_the_right_order(self, forget, holdout):
        wins = [(out > own) + 0.5 * (out == own) for own in forget for out in holdout]
        assert attack_auc(forget, holdout) == pytest.approx(np.mean(wins))
        assert attack_auc(forget, holdout) + attack_auc(holdout, forget) == pytest.approx(1)

    def test_min_k_takes_the_lowest(self):
        values = np.array([-1.0, -5.0, -2.0, -4.0, -3.0])
        assert min_k(values) == 4.5
        assert min_k(values, 1.0) == 3.0
        # fewer than one: one
        assert min_k(values[:2]) == 5.0
        with pytest.raises(ValueError, match="share=0"):
            min_k(values, 0.0)
        with pytest.raises(ValueError, match="0 held out"):
            attack_auc([1.0], [])

    @given(st.floats(0, 1), st.floats(0, 0.99))
    def test_both_conventions_agree(self, auc, auc_retain):
        muse = muse_privleak(1 - auc, 1 - auc_retain)
        assert tofu_privleak(auc, auc_retain) == pytest.approx(muse, rel=1e-6, abs=1e-6)

    def test_marks(self):
        assert tofu_privleak(1.0) == pytest.approx(-100)
        assert tofu_privleak(0.476, 0.476) == 0
        # nothing left of an AUC that was nearly one: it is unbounded
        assert tofu_privleak(0.0, 0.98) == pytest.approx(4900)
        # what was reported of a fine-tuned Phi-3.5, AUC about 0.98 and PrivLeak about -96: against one half
        assert tofu_privleak(0.98) == pytest.approx(-96, abs=0.5)
        with pytest.raises(ValueError, match="auc_retrained must be positive"):
            muse_privleak(0.5, 0.0)


class TestRouge:
    def test_by_hand(self):
        # the cat sat (3) of six and of four words
        score = rouge_l("The cat sat on the mat.", "the CAT, sat down", stem=False)
        assert score.recall == pytest.approx(3 / 6)
        assert score.precision == pytest.approx(3 / 4)
        assert score.f1 == pytest.approx(2 * 0.5 * 0.75 / 1.25)

    def test_stems(self):
        assert rouge_l("he was painting houses", "he was painted house", stem=True).recall == 1.0
        assert rouge_l("he was painting houses", "he was painted house", stem=False).recall == 0.5

    def test_order_counts_and_nothing_is_zero(self):
        assert rouge_l("a b c", "c b a", stem=False).recall == pytest.approx(1 / 3)
        assert rouge_l("a b c", "", stem=False) == (0, 0, 0)
        assert rouge_l("a b c", "x", stem=True) == (0, 0, 0)


def test_an_answer_is_cut_at_the_first_stop():
    assert cut(" Bo.\n\nQuestion: Who?", ("\n\n", "\nQuestion", "Question:")) == "Bo."
    assert cut("Bo Question: Who?\n\n", ("\n\n", "\nQuestion", "Question:")) == "Bo"
    assert cut("Bo ", ()) == "Bo"
