"""Extraction of all layers to disk against a plain forward pass over the very same batches, in turn, in one run.

::

    python benchmarks/bench_extraction.py DATA MODEL [--samples 300] [--rounds 3]

Prints one JSON line: seconds of each round, and the median ratio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import superactivators as sa
from superactivators.states.extraction import plan_extraction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    dataset = sa.load_dataset(options.data)
    dataset = dataset.subset(range(0, len(dataset), max(1, len(dataset) // options.samples)))
    backbone = sa.Backbone.from_pretrained(options.model)
    layout = plan_extraction(backbone, dataset).layout
    encoding = layout.encoding
    backbone.forward_plain(dataset.samples[:20], backbone.encode(dataset.samples[:20]))
    plain, whole = [], []
    for number in range(options.rounds):
        start = time.perf_counter()
        # Shard by shard, as extraction does, so that the batches are the same and only hooks and the store differ.
        for begin, stop in itertools.pairwise(layout.shards.tolist()):
            rows = np.arange(begin, stop)
            backbone.forward_plain(dataset.samples[begin:stop], encoding.subset(rows))
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            sa.extract(backbone, dataset, out=Path(folder) / "states")
            end = time.perf_counter()
        plain.append(middle - start)
        whole.append(end - middle)
        print(f"round {number}: plain {plain[-1]:.2f} s, extraction {whole[-1]:.2f} s", flush=True)
    ratios = [b / a for a, b in zip(plain, whole, strict=True)]
    print(
        json.dumps(
            {
                "data": Path(options.data).name,
                "model": Path(options.model).name,
                "samples": len(dataset),
                "tokens": encoding.n_tokens,
                "sites": backbone.n_blocks,
                "plain_s": [round(value, 2) for value in plain],
                "extraction_s": [round(value, 2) for value in whole],
                "ratio_median": round(statistics.median(ratios), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
