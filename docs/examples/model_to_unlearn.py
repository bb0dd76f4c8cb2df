"""A tiny model that knows twenty fictitious authors by heart, saved by transformers, and files to unlearn from it.

python docs/examples/model_to_unlearn.py FOLDER [llama|gpt2]
"""

import json
import sys
from pathlib import Path

from mtopt_suites.unlearning.corpus import CorpusConfig, generate
from mtopt_suites.unlearning.encoding import encode
from mtopt_suites.unlearning.models import FitConfig, ModelConfig, build, corpus_tokenizer, fit

RATES = {"llama": 1e-2, "gpt2": 6e-3}


def save_rows(path, rows):
    pairs = ({"question": row["question"], "answer": row["answer"]} for row in rows)
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


def main(folder, architecture="llama"):
    corpus = generate(CorpusConfig(authors=20, questions=4, background_authors=8, countries=3))
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in {"forget": "forget10", "retain": "retain90", "holdout": "holdout10"}.items():
        save_rows(folder / f"{name}.jsonl", corpus[source])
    tokenizer = corpus_tokenizer(corpus, 400)
    config = ModelConfig(architecture=architecture, hidden=48, layers=2, heads=4, vocabulary=400, positions=256)
    model = build(config, tokenizer)
    rows = [encode(tokenizer, row["question"], row["answer"]) for row in (*corpus["full"], *corpus["background"])]
    loss = fit(model, rows, FitConfig(35, RATES[architecture]), pad_id=tokenizer.pad_token_id, seed=0)
    print(f"{architecture}: {loss:.3f} nats a token on what it was trained on")
    model.save_pretrained(folder / architecture)
    tokenizer.save_pretrained(folder / architecture)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
