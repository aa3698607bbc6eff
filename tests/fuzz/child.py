"""One target under the fuzzer, in a process of its own: `python -m tests.fuzz.child`.

    child.py TARGET CORPUS_FOLDER SECONDS SEED

Libfuzzer's log goes to stderr. Exit codes are libfuzzer's: 0 nothing found; else the input that
broke the target is in the corpus folder's parent, as crash-…, timeout-… or oom-….
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

SLOWEST_S = 5  # for one input: a frame takes a millisecond, and thrice that under instruments
MEMORY_MIB = 1024


def main() -> None:
    name, corpus, seconds, seed = sys.argv[1:]
    folder = Path(corpus)
    atheris = importlib.import_module("atheris")  # is in no environment but the fuzzer's
    with atheris.instrument_imports(include=["decoders", "edge_agent"]):
        targets = importlib.import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]
    for number, begin in enumerate(target.seeds()):
        (folder / f"seed-{number:03}").write_bytes(begin)

    def one_input(given: bytes) -> None:
        try:
            target.reads(given)
        except target.refuses:
            return

    options = [
        str(folder),
        f"-max_total_time={seconds}",
        f"-max_len={target.most_bytes}",
        f"-seed={seed}",
        f"-timeout={SLOWEST_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-artifact_prefix={folder.parent}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
