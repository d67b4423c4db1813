"""Score the offline analyzer, as it is shipped, on labelled files: `python training/evaluate.py FILE...`."""

import argparse
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from labelled import LABELS, Labelled, read_labelled  # noqa: E402  the folder is no package

from local_analyzer import WEIGHTS_PATH, LocalAnalysis, LocalAnalyzer  # noqa: E402
from topics import load_topics, topic_patterns  # noqa: E402

BIN_COUNT = 15


def f1(right: int, wrong: int, missed: int) -> float:
    return 2 * right / (2 * right + wrong + missed) if right + wrong + missed else 0.0


def macro_f1(pairs: Counter[tuple[str, str]]) -> float:
    """Mean F1 of the three labels; pairs are (true, given)."""
    total = 0.0
    for label in LABELS:
        right = pairs[label, label]
        wrong = sum(pairs[other, label] for other in LABELS) - right
        missed = sum(pairs[label, other] for other in LABELS) - right
        total += f1(right, wrong, missed)
    return total / len(LABELS)


def calibration_error(answers: Sequence[tuple[float, bool]], bin_count: int = BIN_COUNT) -> float:
    """Expected calibration error: mean of |accuracy - confidence| over equal-width bins, weighted by their size."""
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(bin_count)]
    for confidence, right in answers:
        bins[min(int(confidence * bin_count), bin_count - 1)].append((confidence, right))
    gaps = (abs(sum(right for _, right in box) - sum(confidence for confidence, _ in box)) for box in bins)
    return sum(gaps) / len(answers)


def report_sentiment(rows: Sequence[Labelled], analyses: Sequence[LocalAnalysis]) -> None:
    pairs = Counter((row.label, analysis.sentiment) for row, analysis in zip(rows, analyses, strict=True))
    answers = [(a.confidence, row.label == a.sentiment) for row, a in zip(rows, analyses, strict=True)]
    accuracy = sum(right for _, right in answers) / len(answers)
    print(f"  macro-F1 {macro_f1(pairs):.3f}   accuracy {accuracy:.3f}", end="   ")
    print(f"ECE {calibration_error(answers):.3f} (15 equal-width bins), {calibration_error(answers, 10):.3f} (10)")
    print(f"  {'true / given':14}" + "".join(f"{label:>10}" for label in LABELS))
    for true in LABELS:
        print(f"  {true:14}" + "".join(f"{pairs[true, given]:10}" for given in LABELS))


def report_topics(rows: Sequence[Labelled], analyses: Sequence[LocalAnalysis]) -> None:
    """Micro-F1 and F1 a topic, over the rows whose topics somebody labelled; only topics that occur are counted."""
    labelled = [(row.topics, set(a.clusters)) for row, a in zip(rows, analyses, strict=True) if row.topics is not None]
    if not labelled:
        return
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for true, given in labelled:
        right.update(true & given)
        wrong.update(given - true)
        missed.update(true - given)
    print(f"  topics of {len(labelled)} texts: micro-F1 {f1(right.total(), wrong.total(), missed.total()):.3f}")
    for topic in sorted({*right, *wrong, *missed}):
        counts = right[topic], wrong[topic], missed[topic]
        print(f"    {topic:20} F1 {f1(*counts):.2f}  right {counts[0]:4}  wrong {counts[1]:4}  missed {counts[2]:4}")


def evaluate(path: Path, analyzer: LocalAnalyzer) -> None:
    rows = read_labelled(path)
    print(f"{path.name}: {len(rows)} texts")
    if not rows:
        print("  no row has a text and one of the labels negative, neutral, positive")
        return
    started = time.perf_counter()
    analyses = [analyzer.analyze(row.text) for row in rows]
    elapsed_s = time.perf_counter() - started
    report_sentiment(rows, analyses)
    report_topics(rows, analyses)
    print(f"  {1e6 * elapsed_s / len(rows):.0f} us a text, one pass, words not met before included")


def memory_growth(texts: Sequence[str]) -> tuple[float, float]:
    """MiB that loading, then reading the texts, adds at most."""
    patterns = topic_patterns(load_topics())
    tracemalloc.start()
    analyzer = LocalAnalyzer.load(topic_patterns=patterns)
    loaded = tracemalloc.get_traced_memory()[1]
    for text in texts:
        analyzer.analyze(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return loaded / 2**20, peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, help=".jsonl, .jsonl.gz, .json or .csv with texts and labels")
    files: list[Path] = parser.parse_args().files
    analyzer = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))
    for path in files:
        evaluate(path, analyzer)
    size = WEIGHTS_PATH.stat().st_size + WEIGHTS_PATH.with_suffix(".json").stat().st_size
    loaded, peak = memory_growth([row.text for row in read_labelled(files[0])[:2000]])
    print(f"weights {size / 1e6:.2f} MB on disk; peak memory growth {loaded:.1f} MiB loaded, {peak:.1f} MiB at work")


if __name__ == "__main__":
    main()
