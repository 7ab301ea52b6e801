"""What every benchmark suite shares: paired timing, medians, the table and the JSON file.

Figures are medians of interleaved rounds: each round runs every contestant once, so that a
machine whose speed drifts slows all of them alike. Nothing here judges; a figure is printed
beside its budget.
"""

import json
import os
import statistics
import subprocess
import sys
import time


def run(argv, **options):
    """Runs a command that must succeed; returns its wall time in seconds."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.DEVNULL)
    start = time.perf_counter()
    done = subprocess.run(argv, stderr=subprocess.PIPE, **options)
    took = time.perf_counter() - start
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise SystemExit(f"bench: {' '.join(map(str, argv))}: status {done.returncode}: {said}")
    return took


def wait_gone(pid):
    """Waits until a process that was killed has ended, whoever reaps it."""
    for _ in range(500):
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
                if stat.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.01)


def interleaved(contestants, rounds, warm_up=1):
    """Times {name: callable} in turn; returns {name: [seconds, ...]}.

    A callable returns its own time, or None to be timed from outside.
    """
    times = {name: [] for name in contestants}
    for number in range(-warm_up, rounds):
        for name, contestant in contestants.items():
            start = time.perf_counter()
            own = contestant()
            took = own if own is not None else time.perf_counter() - start
            if number >= 0:
                times[name].append(took)
    return times


def median(values):
    return statistics.median(values)


def paired(ours, theirs, combine):
    """The median over rounds of combine(ours, theirs)."""
    return statistics.median(combine(a, b) for a, b in zip(ours, theirs))


class Report:
    """The rows of a suite."""

    def __init__(self, suite):
        self.suite = suite
        self.rows = []
        self._spread = {}

    def add(self, name, value, unit, budget=None, peer=None, spread=None):
        self.rows.append(
            {"name": name, "value": round(value, 4), "unit": unit, "budget": budget, "peer": peer}
        )
        if spread:
            self._spread[name] = (min(spread), max(spread))

    def write(self, directory):
        width = max(len(row["name"]) for row in self.rows)
        for row in self.rows:
            line = f"{row['name']:<{width}}  {row['value']:>10.3f} {row['unit']:<6}"
            if row["name"] in self._spread:
                low, high = self._spread[row["name"]]
                line += f" [{low:.3f} – {high:.3f}]"
            if row["budget"] is not None:
                line += f"  budget {row['budget']}"
            if row["peer"]:
                line += f"  ({row['peer']})"
            print(line)
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, self.suite + ".json")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.rows, file, indent=2)
            file.write("\n")
        os.replace(path + ".new", path)
        print(f"written: {path}", file=sys.stderr)
