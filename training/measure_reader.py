"""Measure pocket-reader: `python -m training.measure_reader`, write its card.

Asked are the questions of two companies that training and threshold never saw, the
shipped one among them; the threshold is chosen on a third, the development company.
"""

import argparse
import json
import tempfile
from pathlib import Path

from qwen_course import loading
from qwen_course.capstones import documents
from qwen_course.capstones.documents import FOLDER, DocumentAssistant, Shares
from qwen_course.models import checksums
from qwen_course.tasks import handbook
from training.figures import Figures, about

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "pocket-reader" / "evaluation.json"
COMPANIES = 2
READ = (1, 2, 3)  # passages


def assistant(company, model, tokenizer, embedder, **options) -> DocumentAssistant:
    """Return an assistant over a company's documents."""
    folder = company.write(tempfile.mkdtemp())
    return DocumentAssistant(folder, model, tokenizer, embedder, **options)


def threshold(model, tokenizer, embedder) -> float:
    """Return the threshold of the development company."""
    alder = handbook.company(1, "development", "Alder Works")
    built = assistant(alder, model, tokenizer, embedder)
    return documents.choose_threshold(built, alder.questions)


def measure(
    model, tokenizer, make_embedder, seeds, k: int = 1, together: bool = False
) -> Shares:
    """Return the shares of all questions about the companies of these seeds."""
    limit = threshold(model, tokenizer, make_embedder())
    cases = []
    for seed in seeds:
        company = handbook.company(seed, "test", "Kestrel Mill")
        built = assistant(
            company,
            model,
            tokenizer,
            make_embedder(),
            k=k,
            threshold=limit,
            together=together,
        )
        asked = [*company.questions, *handbook.elsewhere("test")]
        cases += documents.evaluate(built, asked)
    return documents.shares(cases)


def figures(model, tokenizer, quick: bool = False) -> Figures:
    """Return every figure of the card; those of the shipped company stand alone too."""
    seeds = range(1, 2 if quick else 1 + COMPANIES)
    made = {
        "pocket-embedder": documents.SentenceEmbedder,
        "TF-IDF": documents.WordCounts,
    }
    found: Figures = {**about(model), "companies": len(seeds)}
    found["thresholds"] = {
        name: round(threshold(model, tokenizer, make()), 4)
        for name, make in made.items()
    }
    for name, make in made.items():
        found[name] = list(measure(model, tokenizer, make, seeds))
    first = made["pocket-embedder"]
    found["Kestrel Mill"] = list(measure(model, tokenizer, first, [1]))
    found["together"] = list(measure(model, tokenizer, first, [1], 3, together=True))
    found["read"] = {k: list(measure(model, tokenizer, first, [1], k)) for k in READ}
    return found


def table(found: Figures) -> str:
    """Return the card's table in Markdown: a line a share, a column a way."""
    names = ("pocket-embedder", "TF-IDF", "Kestrel Mill")
    lines = [f"| measured | of | {names[0]} | {names[1]} | {names[2]} alone |"]
    lines.append("|---|---|---|---|---|")
    for rows in zip(*(found[name] for name in names), strict=True):
        cells = [f"{part / whole:.1%}" for _, part, whole in rows]
        lines.append(f"| {rows[0][0]} | {rows[0][2]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_passages(found: Figures) -> str:
    """Return the table of how many passages are read, on the shipped company."""
    shown = ("right value, right citation", "wrong value", "refused, not answered")
    lines = ["| passages read | " + " | ".join(shown) + " |", "|---|---|---|---|"]
    for k, rows in [*found["read"].items(), ("3 together", found["together"])]:
        shares = Shares(map(tuple, rows))
        cells = [f"{shares.share(name):.1%}" for name in shown]
        lines.append(f"| {k} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_card(found: Figures, folder: Path) -> None:
    """Fill the card's template and renew the checksums."""
    card = (HERE / "card_pocket_reader.md").read_text(encoding="utf-8")
    card = card.replace("{table}", table(found)).replace("{read}", by_passages(found))
    for name in ("companies", "torch", "machine"):
        card = card.replace(f"{{{name}}}", str(found[name]))
    million = f"{found['parameters'] / 1e6:.1f}"
    card = card.replace("{parameters}", million)
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")
    checksums.write(folder)


def main(arguments: list[str] | None = None) -> None:
    """Measure, keep the figures, write the card."""
    parser = argparse.ArgumentParser(description="Measure pocket-reader.")
    parser.add_argument("--quick", action="store_true", help="one company")
    parser.add_argument("--reader", type=Path, default=FOLDER / "pocket-reader")
    options = parser.parse_args(arguments)
    model, tokenizer = loading.load(str(options.reader), "fp32")
    found = figures(model, tokenizer, options.quick)
    print(Shares(found["pocket-embedder"]))
    if not options.quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        write_card(json.loads(RESULTS.read_text(encoding="utf-8")), options.reader)


if __name__ == "__main__":
    main()
