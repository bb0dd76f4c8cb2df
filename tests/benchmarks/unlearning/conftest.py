"""One tiny language model for all tests of the metrics, since importing Transformers and training take seconds."""

from types import SimpleNamespace

import pytest

from benchmarks.unlearning.corpus import CorpusConfig, generate
from benchmarks.unlearning.encoding import encode
from benchmarks.unlearning.models import FitConfig, ModelConfig, build, corpus_tokenizer, fit


@pytest.fixture(scope="session")
def authors():
    """A small corpus, its tokenizer, and a Llama that has half learned it (``model``) beside an untrained one
    (``untrained``). No test may change them."""
    corpus = generate(CorpusConfig(authors=10, questions=4, background_authors=4, countries=3))
    tokenizer = corpus_tokenizer(corpus, 400)
    config = ModelConfig(hidden=32, layers=1, heads=2, vocabulary=400, positions=1024)
    model, untrained = build(config, tokenizer), build(config, tokenizer, seed=1)
    rows = [encode(tokenizer, row["question"], row["answer"]) for row in (*corpus["full"], *corpus["background"])]
    fit(model, rows, FitConfig(30, 1.5e-2, batch_size=16), pad_id=tokenizer.pad_token_id, seed=0)
    return SimpleNamespace(corpus=corpus, tokenizer=tokenizer, config=config, model=model, untrained=untrained)
