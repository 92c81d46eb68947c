#!/usr/bin/env python3
"""Prints the tables of docs/performance.md from what `benches/compare.sh --json` has written.

    benches/tables.py benches/results/2026-11-26-b.json
"""
import json
import statistics
import sys

STEPS = [("full", "full backup"), ("incremental 1000", "incremental, 1,000 transactions"),
         ("incremental 40000", "incremental, 40,000 transactions"), ("restore", "restore"),
         ("delta restore", "restore with `--delta`"), ("push, a segment", "push, a segment"),
         ("fetch, a segment", "fetch, a segment"),
         ("a push of a history", "push, 40 bytes"),
         ("a fetch of nothing", "fetch, of what is not there")]


def number(value):
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def row(title, step, tools, segments):
    ours, theirs = tools["pgrecall"], tools["pgbackrest"]
    middle = lambda runs, key: statistics.median(run[key] for run in runs)
    ratio = lambda key: statistics.median(a[key] / b[key] for a, b in zip(ours, theirs))
    cells = [title, number(middle(ours, "wall")), number(middle(theirs, "wall")), f"{ratio('wall'):.2f}",
             f"{ratio('cpu'):.2f}"]
    if ours[0].get("stored"):
        each = segments if step.startswith("push") else 1
        cells += [number(middle(ours, "stored") / each), number(middle(theirs, "stored") / each),
                  f"{ratio('stored'):.2f}"]
    else:
        cells += ["", "", ""]
    return "| " + " | ".join(cells + [f"{max(run['memory'] for run in ours):.0f}"]) + " |"


def main():
    with open(sys.argv[1]) as f:
        report = json.load(f)
    print(", ".join(f"{name}: {value}" for name, value in report["machine"].items()))
    for dataset, found in report["datasets"].items():
        for label in ("", ", clear"):
            if not any(step + label in found["rounds"] for step, _ in STEPS):
                continue
            print(f"\n## {dataset}, {found['bytes'] / 1e9:.1f} GB{label or ', both encrypted'}\n")
            print("| step | wall, s | pgBackRest | ratio | CPU ratio | stored, MB | pgBackRest | ratio | memory, MiB |")
            print("|---|---|---|---|---|---|---|---|---|")
            for step, title in STEPS:
                tools = found["rounds"].get(step + label)
                if tools:
                    print(row(title, step, tools, found.get("segments", 64)))


if __name__ == "__main__":
    main()
