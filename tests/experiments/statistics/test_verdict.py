"""The verdict on simulated comparisons: what is better by construction wins, and copies are not told apart."""

import math

import numpy as np
import pytest

from mtopt.experiments.statistics import judge

SIMULATIONS = 200
MOST_DIFFERENT = 0.05 + 2 * math.sqrt(0.05 * 0.95 / SIMULATIONS)


def simulated(random, rules, *, tasks=10, seeds=3):
    """Scores of ``{rule: edge}``: tasks differ, what is chosen for a rule has its luck on each, and so do seeds."""
    found = {}
    for task in range(tasks):
        level = random.uniform(0.2, 0.8)
        found["suite", f"task {task}"] = {
            rule: np.clip(level * (1 + edge + random.normal(0, 0.05)) + random.normal(0, 0.01, seeds), 0, 1).tolist()
            for rule, edge in rules.items()
        }
    return found


def test_a_planted_rule_wins_with_significance_and_by_what_was_planted():
    random = np.random.default_rng(0)
    verdict = judge(simulated(random, {"linear": 0.0, "planted": 0.2, "copy": 0.0, "harmful": -0.3}), "linear")
    assert (verdict.better, verdict.worse) == (["planted"], ["harmful"])
    planted, *_ = verdict.findings
    assert planted.p_holm < 0.05
    # (1.2 - 1) / 1.2; the luck's standard deviation is 0.05 for each of the two, over ten tasks
    assert planted.gain.value == pytest.approx(0.2 / 1.2, abs=3 * 0.05 * math.sqrt(2 / 10))
    assert planted.gain.low > 0
    assert planted.probability.low > 0.5
    assert planted.run_gain.low > 0
    assert verdict.headline.startswith("1 of the 3 rules beats linear over 10 tasks: planted. 1 is worse: harmful.")
    assert verdict.headline.endswith("No difference could be established for the other one.")
    assert "planted: +" in str(verdict)


@pytest.mark.parametrize("copies", [1, 5])
@pytest.mark.parametrize("tasks", [6, 11])
def test_copies_are_declared_different_in_one_of_twenty_comparisons_at_most(copies, tasks):
    random = np.random.default_rng(7)
    rules = {"linear": 0.0, **{f"copy {number}": 0.0 for number in range(copies)}}
    different = 0
    for _ in range(SIMULATIONS):
        verdict = judge(simulated(random, rules, tasks=tasks), "linear")
        different += bool(verdict.better or verdict.worse)
    assert different / SIMULATIONS <= MOST_DIFFERENT


def test_the_numbers_of_a_pair_do_not_depend_on_who_else_was_entered():
    scores = simulated(np.random.default_rng(1), {"linear": 0.0, "a": 0.1, "b": 0.05, "c": -0.4})
    whole = {row["rule"]: row for row in judge(scores, "linear").rows()}
    for rule in "abc":
        pair = {name: {each: task[each] for each in ("linear", rule)} for name, task in scores.items()}
        (alone,) = judge(pair, "linear").rows()
        assert alone.pop("p_holm") == alone["p_value"] <= whole[rule]["p_holm"]
        alone.pop("outcome")
        assert alone == {name: whole[rule][name] for name in alone}


def test_turned_round_the_verdict_is_the_opposite():
    scores = simulated(np.random.default_rng(2), {"one": 0.0, "other": 0.2})
    (forth,), (back,) = judge(scores, "one").findings, judge(scores, "other").findings
    assert (forth.outcome, back.outcome) == ("better", "worse")
    assert forth.p_value == back.p_value
    assert forth.gain.value == -back.gain.value
    assert forth.probability.value == pytest.approx(1 - back.probability.value)


@pytest.mark.parametrize(("tasks", "least"), [(1, "1"), (3, "0.25"), (5, "0.062")])
def test_few_tasks_are_said_to_be_few(tasks, least):
    verdict = judge(simulated(np.random.default_rng(3), {"linear": 0.0, "planted": 0.9}, tasks=tasks), "linear")
    (finding,) = verdict.findings
    assert (finding.outcome, finding.ahead) == ("undecided", tasks)
    assert finding.p_value == 2.0 ** (1 - tasks)
    told = str(verdict)
    assert f"no p-value below {least}: no difference can be significant" in told
    assert "That takes 6 tasks." in told
    assert "planted cannot be told from linear" in told


def test_tasks_that_would_do_for_one_rule_are_too_few_for_many():
    rules = {"linear": 0.0, **{f"rule {n}": 0.9 for n in range(4)}}
    verdict = judge(simulated(np.random.default_rng(4), rules, tasks=7), "linear")
    assert not verdict.better
    assert "That takes 6 tasks for one rule and 8 for 4." in str(verdict)
    assert len(verdict.details) == 3
    enough = judge(simulated(np.random.default_rng(4), rules, tasks=8), "linear")
    assert (len(enough.better), enough.limits) == (4, [])


def test_seeds_are_averaged_within_a_task_and_are_no_replications():
    few = simulated(np.random.default_rng(5), {"linear": 0.0, "planted": 0.3}, tasks=3, seeds=40)
    assert judge(few, "linear").better == []


def test_a_rule_that_failed_loses_its_tasks_and_an_error_of_code_leaves_them_out():
    scores = simulated(np.random.default_rng(6), {"linear": 0.0, "fails": 0.3}, tasks=8)
    broken = {name: {**task, "fails": [0.0, 0.0, 0.0]} for name, task in scores.items()}
    (finding,) = judge(broken, "linear").findings
    assert (finding.outcome, finding.gain.value, finding.behind) == ("worse", -1.0, 8)
    scores["suite", "task 2"]["linear"] = []
    verdict = judge(scores, "linear")
    assert verdict.findings[0].tasks == 7
    assert "an error ended every run of one of the two: fails on suite/task 2." in str(verdict)


def test_rules_meet_on_the_tasks_that_both_were_entered_on():
    scores = simulated(np.random.default_rng(8), {"linear": 0.0, "a": 0.3}, tasks=7)
    other = simulated(np.random.default_rng(9), {"linear": 0.0, "b": 0.3}, tasks=2)
    scores |= {("other", name): task for (_, name), task in other.items()}
    verdict = judge(scores, "linear")
    assert {one.rule: one.tasks for one in verdict.findings} == {"a": 7, "b": 2}
    assert "over 2 to 7 tasks" in verdict.headline
    assert not verdict.findings[0].left_out


def test_one_seed_has_no_intervals_of_runs_and_it_is_said():
    verdict = judge(simulated(np.random.default_rng(10), {"linear": 0.0, "a": 0.3}, seeds=1), "linear")
    assert verdict.findings[0].run_gain.low is None
    assert verdict.better == ["a"]
    assert "Where a task has one seed" in str(verdict)


def test_profiles_fall_and_begin_and_end_where_they_must():
    verdict = judge(simulated(np.random.default_rng(11), {"linear": 0.0, "a": 0.3, "b": -0.3}), "linear")
    found = verdict.profiles(np.linspace(-1.01, 1, 101))
    assert list(found) == ["linear", "a", "b"]
    for shares in found.values():
        assert (shares[0], shares[-1]) == (1.0, 0.0)
        assert (np.diff(shares) <= 0).all()
    assert (found["a"] >= found["b"]).all()


def test_an_object_that_shows_itself():
    verdict = judge(simulated(np.random.default_rng(12), {"linear": 0.0, "<b>": 0.3}), "linear", static=["<b>"])
    assert "chosen in another way than linear: <b>" in str(verdict)
    assert "<b>" not in verdict._repr_html_()
    assert "&lt;b&gt;" in verdict._repr_html_()
    pytest.importorskip("pandas")
    frame = verdict.to_frame()
    assert frame.loc[0, ["rule", "against", "outcome"]].tolist() == ["<b>", "linear", "better"]
    assert frame.loc[0, "difference_low"] < frame.loc[0, "difference"] < frame.loc[0, "difference_high"]


def test_nothing_to_compare_is_said():
    verdict = judge({"task": {"linear": [1.0]}}, "linear")
    assert str(verdict) == "No rule was compared with linear."
    assert verdict.rows() == []


def test_a_rule_that_is_never_behind_is_not_worse():
    """Where most tasks are ties the middle difference is zero."""
    scores = {task: {"linear": [0.5], "mgda": [0.6 if task < 6 else 0.5]} for task in range(21)}
    (found,) = judge(scores, "linear").findings
    assert found.gain.value == 0.0
    assert found.outcome == "better"
    turned = {task: {"linear": rules["mgda"], "mgda": rules["linear"]} for task, rules in scores.items()}
    (found,) = judge(turned, "linear").findings
    assert found.outcome == "worse"


@pytest.mark.parametrize("score", [math.nan, math.inf, -0.1])
def test_scores_that_are_none_are_refused(score):
    with pytest.raises(ValueError, match="scores of 'mgda' on 'a' must be finite and not negative"):
        judge({"a": {"linear": [0.5], "mgda": [score]}}, "linear")
