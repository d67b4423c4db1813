"""Fit the weights and calibrations of the offline analyzer; the only program here that needs scikit-learn.

    python training/train.py --public semeval_train.jsonl.gz --texts tse_train.jsonl.gz \
        --foreign xlmt_*_train.jsonl.gz --calibrate-public semeval_val.jsonl.gz \
        --calibrate-support airline.jsonl.gz support_dev.json
"""

import argparse
import json
import os
import random
import sys
import time
import zlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import scipy.sparse as sp  # noqa: E402
from calibrate import fit_setting  # noqa: E402
from labelled import LABELS, read_labelled  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from support_sentences import all_sentences  # noqa: E402

from local_analyzer import text_features  # noqa: E402

SEED = 20
HELD_OUT = 0.1  # of every file of texts: never fitted, used to calibrate
TWEET_MIX = (0.32, 0.48, 0.20)  # negative, neutral, positive among general tweets of 2017; validation sets are sunnier
Rows = list[tuple[str, str]]

text_features.word_buckets = lru_cache(maxsize=400_000)(text_features.word_buckets)


def vectorize(texts: Sequence[str]) -> sp.csr_matrix:
    """One row a text: how often each bucket occurs, divided by the root of the number of pieces."""
    starts, buckets, values = [0], [], []
    for text in texts:
        pieces = np.array(text_features.all_buckets(text_features.read(text)), dtype=np.int32)
        unique, counts = np.unique(pieces, return_counts=True)
        buckets.append(unique)
        values.append((counts / np.sqrt(len(pieces))).astype(np.float32))
        starts.append(starts[-1] + len(unique))
    shape = (len(texts), text_features.BUCKET_COUNT)
    return sp.csr_matrix((np.concatenate(values), np.concatenate(buckets), np.array(starts)), shape=shape)


def label_numbers(rows: Rows) -> np.ndarray:
    return np.array([LABELS.index(label) for _, label in rows])


def split(files: Sequence[Path], share: float) -> tuple[Rows, Rows]:
    """The rows of the files, and the share of them that is held out."""
    fitted, held = [], []
    for path in files:
        rows = [(row.text, row.label) for row in read_labelled(path)]
        random.Random(SEED).shuffle(rows)
        cut = int(len(rows) * share)
        held += rows[:cut]
        fitted += rows[cut:]
    return fitted, held


def fit(parts: Sequence[tuple[Rows, float]], strength: float, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (3 x buckets) and intercepts; labels weigh the same, texts as much as their part says."""
    rows = [row for part, _ in parts for row in part]
    labels = label_numbers(rows)
    weights = np.concatenate([np.full(len(part), weight) for part, weight in parts])
    totals = np.array([weights[labels == label].sum() for label in range(3)])
    weights = weights * (weights.sum() / 3 / totals)[labels]
    model = LogisticRegression(C=strength, max_iter=rounds, tol=1e-4)
    model.fit(vectorize([text for text, _ in rows]), labels, sample_weight=weights)
    return model.coef_, model.intercept_


def quantize(coefficients: np.ndarray) -> tuple[np.ndarray, float]:
    """Whole weights from -127 to 127, three a bucket side by side, and the step between two of them."""
    step = float(np.quantile(np.abs(coefficients[coefficients != 0]), 0.9999)) / 127
    return np.clip(np.round(coefficients.T / step), -127, 127).astype(np.int8), step


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public", nargs="+", type=Path, required=True, help="general English tweets, to train on")
    parser.add_argument("--texts", nargs="*", type=Path, default=[], help="other English texts, to train on")
    parser.add_argument("--foreign", nargs="*", type=Path, default=[], help="texts in other languages, to train on")
    parser.add_argument("--calibrate-public", nargs="*", type=Path, default=[], help="never trained on")
    parser.add_argument("--calibrate-support", nargs="+", type=Path, required=True, help="never trained on")
    parser.add_argument("--own-weight", type=float, default=0.24, help="of a sentence from phrases/, a tweet has 1")
    parser.add_argument("--per-pattern", type=int, default=100, help="sentences made from each line of phrases/")
    parser.add_argument("--strength", type=float, default=2.0, help="C of the logistic regression")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("weights.bin"))
    return parser.parse_args()


def main() -> None:
    options, started = parse(), time.perf_counter()
    general, held_general = split(options.public, HELD_OUT)
    texts, _ = split(options.texts, 0)
    foreign, held_foreign = split(options.foreign, HELD_OUT)
    own = [(s.text, s.label) for s in all_sentences(per_pattern=options.per_pattern, seed=SEED)]
    parts = [(general + texts, 1.0), (foreign, 1.0), (own, options.own_weight)]
    coefficients, intercept = fit(parts, options.strength, options.rounds)
    weights, step = quantize(coefficients)
    print(f"fitted {len(general + texts)} + {len(foreign)} + {len(own)} texts in {time.perf_counter() - started:.0f} s")

    def sums(rows: Rows) -> np.ndarray:
        return np.asarray(vectorize([text for text, _ in rows]) @ (weights.astype(np.float32) * step)) + intercept

    public = split(options.calibrate_public, 1)[1] + held_general
    groups = {
        "support": [split([path], 1)[1] for path in options.calibrate_support],
        "public": [public],
        "foreign": [held_foreign],
    }
    settings = {}
    for name, files in groups.items():
        mix = TWEET_MIX if name == "public" else None
        settings[name] = fit_setting([(sums(rows), label_numbers(rows)) for rows in files], mix=mix)
        print(name, json.dumps(settings[name]))
    packed = (weights.astype(np.int16) + 128).astype(np.uint8).tobytes()
    options.output.write_bytes(packed)
    described = {
        "weights_crc32": zlib.crc32(packed),
        "step": step,
        "intercept": [round(float(value), 5) for value in intercept],
        "settings": settings,
    }
    options.output.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.output.name}, {weights.nbytes / 1e6:.2f} MB, in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
