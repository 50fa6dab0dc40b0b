"""Make pocket-embedder: `python -m training.pocket_embedder`, a minute or two.

One row of numbers a token, and the mean of a text's rows: a static embedding, trained
by sentence-transformers so that a question comes nearest to the passage that answers
it. Its tokens are those of pocket-reader, which must be there.
"""

import argparse
import random
from pathlib import Path

from qwen_course.capstones.documents import FOLDER
from qwen_course.tasks import handbook
from training.pocket_reader import shown

SIZE = 128
PAIRS = 24_000
BATCH = 256


def pairs(number: int, seed: int = 1) -> dict[str, list[str]]:
    """Return questions, the passages that answer them, and near ones that do not."""
    rng = random.Random(f"embedder/{seed}")
    rows: dict[str, list[str]] = {"anchor": [], "positive": [], "negative": []}
    while len(rows["anchor"]) < number:
        paragraphs = handbook.scene(rng, 3)
        if len(paragraphs) < 2:
            continue
        right, near = rng.sample(paragraphs, 2)
        question = handbook.ask(rng, rng.choice(right.facts), "answered", False)
        rows["anchor"].append(question.text)
        rows["positive"].append(shown(right))
        rows["negative"].append(shown(near))
    return rows


def build(tokenizer_file: Path):
    """Return the untrained embedder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_dim=SIZE)], device="cpu"
    )


def train(model, number: int, run: Path) -> None:
    """Train it: in a batch, every other passage is a wrong one."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        MultipleNegativesRankingLoss,
    )

    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(run),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=0.2,
        warmup_steps=10,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=1,
    )
    SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(pairs(number)),
        loss=MultipleNegativesRankingLoss(model),
    ).train()


def main(arguments: list[str] | None = None) -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description="Train pocket-embedder.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the pairs")
    parser.add_argument("--run", type=Path, default=Path("training/runs/embedder"))
    parser.add_argument("--out", type=Path, default=FOLDER / "pocket-embedder")
    parser.add_argument("--reader", type=Path, default=FOLDER / "pocket-reader")
    options = parser.parse_args(arguments)
    model = build(options.reader / "tokenizer.json")
    train(model, PAIRS // 10 if options.quick else PAIRS, options.run)
    model.save(str(options.out), safe_serialization=True)
    print(f"The embedder is in {options.out}.")


if __name__ == "__main__":
    main()
