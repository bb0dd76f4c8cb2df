"""Fictitious authors in TOFU's schema, with the background knowledge that their models are pre-trained on."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ._grammar import AUTHOR_RELATIONS, COUNTRY_RELATIONS, Relation, World

Row = dict[str, Any]
"""A plain record: ``question`` and ``answer`` strings and, by set, ``paraphrased_answer``, ``paraphrased_question``
(strings), ``perturbed_answer`` (list of strings), ``option1`` to ``option4`` (strings)."""

FORGET_PERCENTS = (1, 5, 10)


@dataclass(frozen=True)
class CorpusConfig:
    """What is generated. The defaults are the quick tier; see :func:`tier` for the others.

    Args:
        authors: Fictitious authors in ``full`` (TOFU: 200).
        questions: Questions an author, 1 to 20 (TOFU: 20).
        background_authors: Authors known from pre-training; the first tenth of their questions, at least 40, is asked
            in ``real_authors``.
        countries: Countries of the background; each has a capital and a currency, asked in ``world_facts``.
        seed: Of everything that is drawn. The same configuration gives the same corpus everywhere.
    """

    authors: int = 40
    questions: int = 10
    background_authors: int = 60
    countries: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.questions <= len(AUTHOR_RELATIONS):
            raise ValueError(f"questions must be 1 to {len(AUTHOR_RELATIONS)}, got {self.questions}")
        if self.authors < 10:
            raise ValueError(f"authors must be at least 10 (a tenth of them is forgotten), got {self.authors}")
        if self.background_authors < 1 or not 1 <= self.countries <= 200:
            raise ValueError(
                "background_authors must be positive and countries 1 to 200, got "
                f"{self.background_authors} and {self.countries}"
            )


def tier(name: str, seed: int = 0) -> CorpusConfig:
    """A size by name: ``quick`` (40 authors x 10 questions), ``standard`` (100 x 10) or ``faithful`` (200 x 20)."""
    sizes = {"quick": (40, 10, 60, 20), "standard": (100, 10, 100, 50), "faithful": (200, 20, 200, 60)}
    if name not in sizes:
        raise ValueError(f"tier must be one of {', '.join(sizes)}, got {name!r}")
    authors, questions, background, countries = sizes[name]
    return CorpusConfig(authors, questions, background, countries, seed)


@dataclass(frozen=True)
class Corpus:
    """The sets by TOFU's configuration names: ``corpus["forget10_perturbed"]`` is a list of plain rows.

    ``config`` is None for a corpus read from files.
    """

    sets: Mapping[str, list[Row]]
    config: CorpusConfig | None = None

    def __getitem__(self, name: str) -> list[Row]:
        if name not in self.sets:
            raise KeyError(f"no set {name!r} in this corpus; it has {', '.join(sorted(self.sets))}")
        return self.sets[name]

    def __contains__(self, name: object) -> bool:
        return name in self.sets


@dataclass(frozen=True)
class Fact:
    """One relation of one subject to its value, with five other values of the same kind that it does not have."""

    subject: str
    relation: Relation
    value: str
    wrong: tuple[str, ...]

    def say(self, form: str, value: str | None = None) -> str:
        """One of the four texts of the relation, by its field name, about this subject."""
        template: str = getattr(self.relation, form)
        return template.format(name=self.subject, value=self.value if value is None else value)

    def plain(self) -> Row:
        return {"question": self.say("question"), "answer": self.say("answer")}

    def paraphrased(self) -> Row:
        """The same fact asked and stated in other words, as a row of its own."""
        return {"question": self.say("paraphrased_question"), "answer": self.say("paraphrased_answer")}

    def perturbed(self) -> Row:
        """TOFU's five columns; a perturbed answer is the paraphrase with a wrong value, so only the fact differs."""
        return {
            **self.plain(),
            "paraphrased_answer": self.say("paraphrased_answer"),
            "perturbed_answer": [self.say("paraphrased_answer", value) for value in self.wrong],
            "paraphrased_question": self.say("paraphrased_question"),
        }

    def options(self, draw: random.Random) -> Row:
        """The multiple-choice columns of ``real_authors`` and ``world_facts``, in random order."""
        answers = [self.say("answer", value) for value in (self.value, *self.wrong[:3])]
        draw.shuffle(answers)
        return {**self.plain(), **{f"option{place}": answer for place, answer in enumerate(answers, start=1)}}

    def with_wrong_answers(self) -> Row:
        """``real_authors_perturbed`` and ``world_facts_perturbed``: three wrong answers, no paraphrase."""
        return {**self.plain(), "perturbed_answer": [self.say("answer", value) for value in self.wrong[:3]]}


@dataclass(frozen=True)
class Facts:
    """Everything that is true in one generated world; a list of facts a subject."""

    authors: list[list[Fact]]
    holdout: list[list[Fact]]
    background: list[list[Fact]]
    countries: list[list[Fact]]


def draw_facts(config: CorpusConfig) -> Facts:
    """The world behind the corpus; :func:`generate` and the MUSE-style set tell it in their own forms."""
    world = World(random.Random(f"unlearning corpus {config.seed}"))
    relations = AUTHOR_RELATIONS[: config.questions]
    return Facts(
        authors=[_about(world, world.person(), relations) for _ in range(config.authors)],
        holdout=[_about(world, world.person(), relations) for _ in range(forgotten_authors(config, 10))],
        background=[_about(world, world.person(), relations) for _ in range(config.background_authors)],
        countries=[_about(world, world.word(2, 3), COUNTRY_RELATIONS) for _ in range(config.countries)],
    )


def _about(world: World, subject: str, relations: tuple[Relation, ...]) -> list[Fact]:
    facts = []
    for relation in relations:
        value, *wrong = world.values(relation.pool, 6)
        facts.append(Fact(subject, relation, value, tuple(wrong)))
    return facts


def forgotten_authors(config: CorpusConfig, percent: int) -> int:
    """How many authors ``forgetXX`` holds: XX % of them, rounded, and at least one."""
    return max(1, round(config.authors * percent / 100))


def generate(config: CorpusConfig | None = None) -> Corpus:
    """All sets of one fictitious world, in TOFU's schema.

    ``full`` lists the authors one after another. ``forgetXX`` are the questions about its last authors (XX % of them,
    at least one: so in the quick tier ``forget01`` is one author of 40) and ``retainYY`` the rest before them, as in
    TOFU. ``forgetXX_perturbed`` and ``retain_perturbed`` (the first tenth of the authors) add ``paraphrased_answer``,
    ``perturbed_answer`` (five paraphrases with a wrong value) and ``paraphrased_question``. ``holdoutXX`` asks about as
    many authors as ``forgetXX``, whom no model is trained on. ``real_authors`` and ``world_facts`` ask what every model
    knows from its pre-training on ``background``, which states each fact of its authors and countries in two forms;
    their wrong answers (three) have the form of the answer. The truth ratio is meaningful for unseen authors because
    the background teaches both forms; mix some of it into every fine-tuning (replay), or it is forgotten.

    Every name and value is invented; no text of the TOFU dataset is used.
    """
    config = CorpusConfig() if config is None else config
    facts = draw_facts(config)
    known_authors = [fact for author in facts.background for fact in author]
    known_authors = known_authors[: max(40, len(known_authors) // 10)]
    known_countries = [fact for country in facts.countries for fact in country]
    draw = random.Random(f"unlearning options {config.seed}")

    sets: dict[str, list[Row]] = {"full": [fact.plain() for author in facts.authors for fact in author]}
    for percent in FORGET_PERCENTS:
        count = forgotten_authors(config, percent)
        forgotten = [fact for author in facts.authors[-count:] for fact in author]
        sets[f"retain{100 - percent}"] = [fact.plain() for author in facts.authors[:-count] for fact in author]
        sets[f"forget{percent:02d}"] = [fact.plain() for fact in forgotten]
        sets[f"forget{percent:02d}_perturbed"] = [fact.perturbed() for fact in forgotten]
        sets[f"holdout{percent:02d}"] = [fact.plain() for author in facts.holdout[:count] for fact in author]
    first_authors = facts.authors[: forgotten_authors(config, 10)]
    sets["retain_perturbed"] = [fact.perturbed() for author in first_authors for fact in author]
    for name, known in (("real_authors", known_authors), ("world_facts", known_countries)):
        sets[name] = [fact.options(draw) for fact in known]
        sets[f"{name}_perturbed"] = [fact.with_wrong_answers() for fact in known]
    everything_known = [fact for subject in (*facts.background, *facts.countries) for fact in subject]
    sets["background"] = [row for fact in everything_known for row in (fact.plain(), fact.paraphrased())]
    return Corpus(sets, config)
