"""A MUSE-style set about the same fictitious authors: news-like articles, and questions on what they report."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain

from .corpus import Corpus, CorpusConfig, Fact, Row, draw_facts, forgotten_authors

FOLDS = 4
"""Forget sets for scalability (their unions) and sustainability (one after another)."""

EXAMPLES = 10
"""Questions in each of the two sets of examples for the prompt."""

ARTICLES = 4
"""Articles on each fictitious author; on those of the background, half as many."""

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OCCASIONS = (
    "a reading in the town hall",
    "the opening of the book fair",
    "a prize ceremony",
    "an interview on the radio",
    "a lecture at the library",
    "the launch of a magazine",
    "a festival by the river",
    "a visit to a school",
)


def generate_muse(config: CorpusConfig | None = None) -> Corpus:
    """MUSE's sets, named ``config/split``, about the world of :func:`~mtopt_suites.unlearning.corpus.generate` with the
    same configuration.

    An article reports an occasion (a day and a kind that its author has no other article on) and then half of an
    author's facts in random order, in the words of the answers; each author has four, which tell every fact twice, in
    different company: what is told only once is learned by its place and cannot be asked for. The last four tenths of
    the authors are four folds of one tenth; the others are halved into ``retain1`` (to regularise with) and ``retain2``
    (to measure utility on):

    - ``raw/forget`` (the first fold), ``raw/retain1``, ``raw/retain2``, ``raw/holdout`` (unknown authors): ``text``.
    - ``verbmem/forget``: the occasion and the first fact of each article as ``prompt``, the rest as ``gt``.
    - ``knowmem/forget_qa`` (the first fold) and ``knowmem/retain_qa`` (as many of ``retain2``): ``question`` and
      ``answer``; ``.._icl``: ten each about background authors, as examples in the prompt. Answers are whole sentences,
      as the pre-trained model gives them, so ROUGE has a floor from the words of the question; the retain model's
      score is the one to compare with.
    - ``privleak/forget``, ``privleak/retain``, ``privleak/holdout``: as many articles each.
    - ``scal/forget_1`` to ``forget_4``: unions of the first folds. ``sust/forget_1`` to ``forget_4``: the folds.
    - ``train/forget`` (all folds), ``train/retain1``, ``train/retain2``: what the target is trained on.
    - ``background/texts`` and ``background/qa``: articles on the background authors, and every known fact as a
      question: pre-training on both teaches that what an article reports can be asked for.
    """
    config = CorpusConfig() if config is None else config
    facts = draw_facts(config)
    draw = random.Random(f"unlearning articles {config.seed}")
    size = forgotten_authors(config, 10)
    retained, forgotten = facts.authors[: -FOLDS * size], facts.authors[-FOLDS * size :]
    half = len(retained) // 2

    def articles(authors: Sequence[list[Fact]], count: int = ARTICLES) -> list[list[str]]:
        return [article for author in authors for article in _articles(author, count, draw)]

    folds = [articles(forgotten[fold * size : (fold + 1) * size]) for fold in range(FOLDS)]
    first, second, holdout = articles(retained[:half]), articles(retained[half:]), articles(facts.holdout)
    background = articles(facts.background, ARTICLES // 2)
    known_of_authors = [fact.plain() for author in facts.background for fact in author]
    if config.questions < 4:
        raise ValueError(
            f"questions must be at least 4, so that an article on half of the facts has something to go on with after "
            f"its first one; got {config.questions}"
        )
    if len(known_of_authors) < 2 * EXAMPLES:
        raise ValueError(
            f"background_authors x questions must be at least {2 * EXAMPLES}, for the questions asked as examples; got "
            f"{config.background_authors} x {config.questions}"
        )
    examples = draw.sample(known_of_authors, 2 * EXAMPLES)

    sets: dict[str, list[Row]] = {
        "raw/forget": _texts(folds[0]),
        "raw/retain1": _texts(first),
        "raw/retain2": _texts(second),
        "raw/holdout": _texts(holdout),
        "verbmem/forget": [{"prompt": " ".join(text[:2]), "gt": " ".join(text[2:])} for text in folds[0]],
        "knowmem/forget_qa": [fact.plain() for author in forgotten[:size] for fact in author],
        "knowmem/retain_qa": [fact.plain() for author in retained[half : half + size] for fact in author],
        "knowmem/forget_qa_icl": examples[:EXAMPLES],
        "knowmem/retain_qa_icl": examples[EXAMPLES:],
        "privleak/forget": _texts(folds[0]),
        "privleak/retain": _texts(second[: len(folds[0])]),
        "privleak/holdout": _texts(holdout),
        "train/forget": _texts(list(chain(*folds))),
        "train/retain1": _texts(first),
        "train/retain2": _texts(second),
        "background/texts": _texts(background),
    }
    for fold in range(FOLDS):
        sets[f"scal/forget_{fold + 1}"] = _texts(list(chain(*folds[: fold + 1])))
        sets[f"sust/forget_{fold + 1}"] = _texts(folds[fold])
    known = [fact for subject in (*facts.background, *facts.countries) for fact in subject]
    sets["background/qa"] = [fact.plain() for fact in known]
    return Corpus(sets, config)


def _articles(author: Sequence[Fact], count: int, draw: random.Random) -> list[list[str]]:
    """The sentences of each of an author's articles; two in a row share out the facts."""
    half = (len(author) + 1) // 2
    shares: list[list[Fact]] = []
    while len(shares) < count:
        order = draw.sample(author, len(author))
        shares += [order[:half], order[half:]]
    occasions = draw.sample([(day, occasion) for day in DAYS for occasion in OCCASIONS], count)
    return [
        [f"On {day} {author[0].subject} appeared at {occasion}.", *(fact.say("answer") for fact in share)]
        for (day, occasion), share in zip(occasions, shares, strict=True)
    ]


def _texts(articles: Sequence[Sequence[str]]) -> list[Row]:
    return [{"text": " ".join(article)} for article in articles]
