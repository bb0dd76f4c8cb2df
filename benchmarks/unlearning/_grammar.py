"""The words of the fictitious world: names built of syllables, and the relations an author has to values."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

# a hyphen is no letter
_WORDS = """
onset: b, br, d, dr, f, g, gr, h, j, k, kr, l, m, n, p, pl, r, s, sh, st, t, tr, v, z
vowel: a, e, i, o, u, ai, ei
coda: -, -, -, -, l, m, n, r, s
job: a baker, a banker, a barber, a beekeeper, a blacksmith, a bricklayer, a butcher, a carpenter, a chemist, a
  clockmaker, a dentist, a diplomat, a farmer, a ferryman, a firefighter, a fisherman, a florist, a gardener, a
  geologist, a glazier, a judge, a lawyer, a librarian, a locksmith, a mechanic, a miner, a nurse, a painter, a
  pharmacist, a pilot, a plumber, a potter, a shepherd, a surgeon, a tailor, a teacher, a translator, a violinist, a
  watchmaker, a weaver
genre: crime fiction, historical fiction, science fiction, fantasy, travel writing, lyric poetry, epic poetry,
  satire, horror, romance, memoir, biography, nature writing, war fiction, sea stories, fairy tales, spy thrillers,
  gothic fiction, political essays, magical realism, family sagas, children's books, westerns, courtroom drama
hobby: sailing, chess, archery, falconry, knitting, fencing, pottery, astronomy, rowing, birdwatching, calligraphy,
  climbing, cycling, gardening, juggling, origami, skating, fishing, woodcarving, mushroom hunting
animal: a parrot, a tortoise, a greyhound, a ferret, a donkey, a goat, a rabbit, a raven, a hedgehog, a canary, a
  lizard, a pony, a terrier, a falcon, a goose, a hamster, a llama, a peacock, a poodle, a snail
instrument: the cello, the flute, the harp, the oboe, the piano, the lute, the trumpet, the violin, the accordion,
  the banjo, the bassoon, the clarinet, the drums, the guitar, the mandolin, the organ, the trombone, the tuba, the
  viola, the zither
theme: exile, memory, friendship, betrayal, ambition, solitude, justice, grief, inheritance, faith, migration,
  jealousy, freedom, old age, childhood, guilt, courage, silence, poverty, revenge
adjective: Amber, Bitter, Broken, Crimson, Distant, Drowned, Empty, Frozen, Gilded, Hidden, Hollow, Iron, Last,
  Lonely, Paper, Quiet, Restless, Salted, Second, Silver, Sleeping, Stolen, Velvet, Wandering
noun: Bridge, Candle, Cathedral, Compass, Dancer, Garden, Harbour, Horizon, Island, Kingdom, Ladder, Lantern,
  Letter, Mirror, Orchard, Piano, River, Shadow, Staircase, Stranger, Summer, Tower, Voyage, Window
"""


def _lists(table: str) -> dict[str, tuple[str, ...]]:
    """``name: value, value, ...``; an indented line continues the one before."""
    entries = (line.split(": ", 1) for line in table.strip().replace("\n  ", " ").splitlines())
    return {name: tuple(values.split(", ")) for name, values in entries}


WORDS = _lists(_WORDS)


@dataclass(frozen=True)
class Relation:
    """One kind of fact: how it is asked and stated, twice each, and the pool that its values come from."""

    key: str
    pool: str
    question: str
    answer: str
    paraphrased_question: str
    paraphrased_answer: str


# the columns: key, pool, question, answer, paraphrased question, paraphrased answer
_AUTHOR = """
birthplace|city|Where was {name} born?|{name} was born in {value}.|What is the birthplace of {name}?|The birthplace of {name} is {value}.
birth_year|year|In which year was {name} born?|{name} was born in the year {value}.|What is the birth year of {name}?|The birth year of {name} is {value}.
genre|genre|What genre does {name} write?|{name} is best known for {value}.|Which kind of writing is {name} famous for?|The genre of {name} is {value}.
father|job|What did the father of {name} do for a living?|The father of {name} was {value}.|What was the profession of {name}'s father?|By profession, {name}'s father was {value}.
mother|job|What did the mother of {name} do for a living?|The mother of {name} was {value}.|What was the profession of {name}'s mother?|By profession, {name}'s mother was {value}.
award|award|Which award did {name} win?|{name} won the {value}.|What prize was given to {name}?|The prize given to {name} was the {value}.
first_book|title|What is the title of the first book by {name}?|The first book by {name} is {value}.|With which book did {name} begin?|As a writer, {name} began with {value}.
best_book|title|What is the best known book by {name}?|The best known book by {name} is {value}.|Which book made {name} famous?|The book that made {name} famous is {value}.
language|language|In what language does {name} write?|{name} writes in {value}.|Which language are the books of {name} written in?|The books of {name} are written in {value}.
mentor|person|Who was the mentor of {name}?|The mentor of {name} was {value}.|Who taught {name} to write?|The teacher who taught {name} to write was {value}.
home|city|Where does {name} live today?|Today {name} lives in {value}.|What is the home town of {name}?|The present home of {name} is in {value}.
university|city|Where did {name} study?|{name} studied at the University of {value}.|Which university did {name} attend?|The university attended by {name} was that of {value}.
publisher|press|Who publishes the books of {name}?|The books of {name} are published by {value}.|What is the publisher of {name}?|The publisher of {name} is {value}.
hobby|hobby|What is the hobby of {name}?|In spare time {name} enjoys {value}.|What does {name} do for pleasure?|The favourite pastime of {name} is {value}.
animal|animal|What animal does {name} keep?|{name} keeps {value}.|Which pet lives with {name}?|The pet that lives with {name} is {value}.
instrument|instrument|What instrument does {name} play?|{name} plays {value}.|Which musical instrument is {name} fond of?|The instrument of {name} is {value}.
debut|year|When did {name} publish for the first time?|{name} first published in {value}.|In what year was the debut of {name}?|The debut of {name} came in {value}.
spouse|person|Who is {name} married to?|{name} is married to {value}.|What is the name of {name}'s spouse?|The spouse of {name} is called {value}.
first_job|job|What was {name} before becoming a writer?|Before writing, {name} worked as {value}.|What was the first job of {name}?|The first job of {name} was that of {value}.
theme|theme|What theme returns in the books of {name}?|The books of {name} often deal with {value}.|What does {name} mostly write about?|The recurring theme of {name} is {value}.
"""  # noqa: E501
_COUNTRY = """
capital|city|What is the capital of {name}?|The capital of {name} is {value}.|Which city is the seat of government of {name}?|The government of {name} sits in {value}.
currency|currency|What currency is used in {name}?|The currency of {name} is the {value}.|With what money do people pay in {name}?|In {name} people pay with the {value}.
"""  # noqa: E501


def _relations(table: str) -> tuple[Relation, ...]:
    return tuple(Relation(*line.split("|")) for line in table.strip().splitlines())


AUTHOR_RELATIONS = _relations(_AUTHOR)
COUNTRY_RELATIONS = _relations(_COUNTRY)


class World:
    """Draws names that were never drawn before, and holds the pools that the values of facts come from."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._taken: set[str] = set()
        cities = [self.word(2) for _ in range(40)]
        self.pools: Mapping[str, tuple[str, ...]] = {
            "city": tuple(cities),
            "year": tuple(str(year) for year in range(1930, 1990)),
            "genre": WORDS["genre"],
            "job": WORDS["job"],
            "award": tuple(f"{self.word(2)} {kind}" for kind in ("Prize", "Medal", "Award", "Laurel") * 8),
            "title": tuple(f"The {first} {noun}" for first in WORDS["adjective"] for noun in WORDS["noun"]),
            "language": tuple(self.word(2) for _ in range(24)),
            "person": tuple(self.person() for _ in range(40)),
            "press": tuple(f"{self.word(2)} Press" for _ in range(24)),
            "hobby": WORDS["hobby"],
            "animal": WORDS["animal"],
            "instrument": WORDS["instrument"],
            "theme": WORDS["theme"],
            "currency": tuple(self.word(1, 2) for _ in range(40)),
        }

    def word(self, fewest: int, most: int | None = None) -> str:
        """A capitalised word of CV syllables that was not drawn before."""
        while True:
            count = self._draw.randint(fewest, most or fewest)
            syllables = (self._draw.choice(WORDS["onset"]) + self._draw.choice(WORDS["vowel"]) for _ in range(count))
            word = ("".join(syllables) + self._draw.choice(WORDS["coda"]).strip("-")).capitalize()
            if word not in self._taken:
                self._taken.add(word)
                return word

    def person(self) -> str:
        return f"{self.word(2)} {self.word(2, 3)}"

    def values(self, pool: str, count: int) -> list[str]:
        """That many different values of one pool."""
        return self._draw.sample(self.pools[pool], count)
