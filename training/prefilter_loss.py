"""Count which labelled complaints the prefilter would keep from Grok: `python training/prefilter_loss.py FILE...`."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from labelled import Labelled, read_labelled  # noqa: E402  the folder is no package

from local_analyzer import LocalAnalyzer  # noqa: E402
from prefilter import Ask, Keep, Prefilter, Skip  # noqa: E402
from topics import load_topics, topic_patterns  # noqa: E402


def report(rows: Sequence[Labelled], prefilter: Prefilter, *, quotes: bool) -> None:
    """A line for each thing done with the rows: how many, how many of them complaints, and how many labels it met."""
    total: Counter[str] = Counter()
    negative: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for row in rows:
        verdict = prefilter.sort("", row.text)
        done = "asked" if isinstance(verdict, Ask) else verdict.reason if isinstance(verdict, Skip) else verdict.stage
        total[done] += 1
        negative[done] += row.label == "negative"
        agreed[done] += isinstance(verdict, Keep) and verdict.analysis.sentiment == row.label
        if quotes and row.label == "negative" and done not in {"asked", "cascade"}:
            print(f"  {done}: {row.text!r}")
    for done, count in total.most_common():
        met = f", label met {agreed[done]} ({agreed[done] / count:.3f})" if agreed[done] else ""
        print(f"  {done:16} {count:6} ({count / len(rows):.2%}), negative {negative[done]}{met}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--cascade", type=float, default=None, metavar="CONFIDENCE", help="as CASCADE_CONFIDENCE")
    parser.add_argument("--quotes", action="store_true", help="print the complaints that were lost")
    options = parser.parse_args()
    local = LocalAnalyzer.load(topic_patterns=topic_patterns(load_topics()))
    prefilter = Prefilter(local, cascade_confidence=options.cascade, audit_share=0.0)
    for path in options.files:
        rows = read_labelled(path)
        print(f"{path.name}: {len(rows)} texts")
        report(rows, prefilter, quotes=options.quotes)


if __name__ == "__main__":
    main()
