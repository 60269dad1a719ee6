"""Lengthen: a real encoder of 512 positions reads 4,096 tokens, with full attention and with sparse patterns.

No training: all-MiniLM-L6-v2 as it is, its positions tiled, interpolated or drawn fresh. A document's embedding is the
mean of its token vectors, of length 1. Asked is how far a sparse pattern changes it, and how far the longer model is
from the original, which reads the document in pieces of 512. The documents are the docstrings of the standard
library's modules, so they differ a little from one Python to the next.
"""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F

from ..data import minilm, stdlib_text
from ..model import BigBirdConfig, BigBirdModel, lengthen

RESULTS = "results.jsonl"
WAYS = ("tiled", "interpolated", "fresh")
PATTERNS: dict[str, dict[str, Any]] = {
    "full": {"attention_type": "original_full"},
    "W": {"global_blocks": (), "num_random_blocks": 0},
    "W+G": {"num_random_blocks": 0},
    "W+R": {"global_blocks": ()},
    "W+G+R": {},
}
SPARSE = {"attention_type": "block_sparse"}
Record = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bigbird_mini.jobs lengthen``."""
    add = parser.add_argument
    add("--length", type=int, default=4096, help="tokens of a document (default: 4096)")
    add("--documents", type=int, default=6, help="how many (default: 6)")
    add("--how", nargs="+", default=list(WAYS), choices=WAYS, help="where the positions come from (default: all)")
    add("--seed", type=int, default=0, help="of random blocks and fresh positions (default: 0)")
    add("--threads", type=int, default=1, help="of torch (default: 1)")
    add("--quick", action="store_true", help="two documents, tiled positions")
    add("--out", type=Path, default=Path("runs/lengthen"), help="folder for results.jsonl (default: runs/lengthen)")


def main(arguments: argparse.Namespace) -> int:
    """Measure, write a JSON line for each embedding and each pattern's cost, and print the table."""
    count, ways = (2, ["tiled"]) if arguments.quick else (arguments.documents, arguments.how)
    if count < 2 or arguments.threads < 1:
        raise ValueError(f"documents={count} must be at least 2, and threads={arguments.threads} at least 1")
    torch.set_num_threads(arguments.threads)
    texts = documents(arguments.length, count)
    arguments.out.mkdir(parents=True, exist_ok=True)
    records = []
    with (arguments.out / RESULTS).open("w", encoding="utf-8", newline="\n") as file:
        for record in measured(texts, ways, arguments.seed):
            records.append(record)
            file.write(json.dumps(record) + "\n")
            file.flush()
        for pattern in PATTERNS:
            records.append({"pattern": pattern, "memory_mb": memory(pattern, arguments.length, arguments.threads)})
            file.write(json.dumps(records[-1]) + "\n")
    print(table(records))
    return 0


def documents(length: int, count: int) -> dict[str, torch.Tensor]:
    """Module name -> ids (1, length) of its docstrings, [CLS] and [SEP] included; the first ``count`` by name."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise OSError('the encoder needs the package tokenizers: pip install "bigbird-mini[lab]"') from error
    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.no_truncation(), tokenizer.no_padding()
    found = {}
    for name, source in stdlib_text():
        ids = tokenizer.encode(docstrings(source)).ids if len(source) > 2 * length else ()
        if len(ids) >= length:
            found[name] = torch.tensor([[*ids[: length - 1], ids[-1]]])
        if len(found) == count:
            return found
    raise ValueError(f"only {len(found)} modules of this Python have docstrings of {length} tokens, not {count}")


def docstrings(source: str) -> str:
    """All of a module, in the order of the source; none where it cannot be parsed."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return ""
    owners = [x for x in ast.walk(tree) if isinstance(x, ast.Module | ast.ClassDef | ast.FunctionDef)]
    owners.sort(key=lambda x: getattr(x, "lineno", 0))
    return "\n\n".join(filter(None, map(ast.get_docstring, owners)))


def measured(texts: dict[str, torch.Tensor], ways: list[str], seed: int) -> Iterator[Record]:
    """A record for each way to lengthen, pattern and document."""
    original = BigBirdModel.from_pretrained(minilm())
    length = next(iter(texts.values())).shape[1]
    pieces = {name: in_pieces(original, ids) for name, ids in texts.items()}
    for how in ways:
        torch.manual_seed(seed)
        longer = lengthen(original, length, how, pattern_seed=seed, **PATTERNS["full"])
        wanted: dict[str, torch.Tensor] = {}
        for pattern, changes in PATTERNS.items():
            model = lengthen(longer, length, **SPARSE | changes)  # the same positions for all patterns
            found, seconds = {}, {}
            for name, ids in texts.items():
                start = time.perf_counter()
                found[name] = embedding(model, ids)
                seconds[name] = time.perf_counter() - start
            wanted = wanted or found
            for name, vector in found.items():
                to_full = {other: float(vector @ wanted[other]) for other in texts}
                yield {
                    "how": how,
                    "pattern": pattern,
                    "seed": seed,
                    "document": name,
                    "tokens": length,
                    "full": to_full[name],
                    "pieces": float(vector @ pieces[name]),
                    "nearest_is_own": max(to_full, key=to_full.__getitem__) == name,
                    "others": mean(x for other, x in to_full.items() if other != name),
                    "seconds": seconds[name],
                }


@torch.inference_mode()
def embedding(model: BigBirdModel, ids: torch.Tensor) -> torch.Tensor:
    """(hidden,), of length 1: the mean of the token vectors of ids (1, n)."""
    return F.normalize(model(ids).last_hidden_state[0].mean(0), dim=0)


@torch.inference_mode()
def in_pieces(original: BigBirdModel, ids: torch.Tensor) -> torch.Tensor:
    """The embedding of ids (1, n) by the original model: in pieces that it can read, the mean of all their tokens."""
    cls, *inside, sep = ids[0].tolist()
    most = original.config.max_position_embeddings - 2
    pieces = [torch.tensor([[cls, *inside[i : i + most], sep]]) for i in range(0, len(inside), most)]
    return F.normalize(torch.cat([original(piece).last_hidden_state[0] for piece in pieces]).mean(0), dim=0)


def memory(pattern: str, length: int, threads: int) -> float | None:
    """Most memory of one forward beyond weights and imports, in 10^6 bytes, in a fresh process; None without psutil."""
    config = json.loads((minilm() / "config.json").read_text("utf-8"))
    sizes = {name: config[name] for name in ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size")}
    sizes |= {"num_hidden_layers": config["num_hidden_layers"], "max_position_embeddings": length} | PATTERNS[pattern]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
        return alone.submit(_extra_megabytes, BigBirdConfig(**sizes), length, threads).result()


@torch.inference_mode()
def _extra_megabytes(config: BigBirdConfig, length: int, threads: int) -> float | None:
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    torch.set_num_threads(threads)
    model, used = BigBirdModel(config).eval(), psutil.Process().memory_info
    model(torch.ones(1, 2 * config.block_size, dtype=torch.long))  # what loads at the first use is not counted
    before = peak = used().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, used().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(3):  # a short peak may be missed once
        model(torch.ones(1, length, dtype=torch.long))
    done.set(), watcher.join()
    return (peak - before) / 1e6


def table(records: list[Record]) -> str:
    """Markdown: a row for each way to lengthen and pattern, the means over the documents (seconds: the median)."""
    lines = [
        "| positions | pattern | cosine with full (least) | own is nearest | cosine with pieces | seconds | MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    megabytes = {record["pattern"]: record["memory_mb"] for record in records if "memory_mb" in record}
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if "how" in record:
            cells.setdefault((record["how"], record["pattern"]), []).append(record)
    for (how, pattern), own in cells.items():
        full, pieces, seconds = ([record[name] for record in own] for name in ("full", "pieces", "seconds"))
        nearest = f"{sum(record['nearest_is_own'] for record in own)} of {len(own)}"
        room = "-" if megabytes[pattern] is None else f"{megabytes[pattern]:.0f}"
        lines.append(
            f"| {how} | {pattern} | {mean(full):.4f} ({min(full):.4f}) | {nearest} | {mean(pieces):.4f} | "
            f"{median(seconds):.2f} | {room} |"
        )
    others = {how: mean(r["others"] for r in cells[how, "full"]) for how, _ in cells}
    lines += ["", "Cosine of two different documents, full attention: " + _listed(others)]
    return "\n".join(lines)


def _listed(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {number:.4f}" for name, number in numbers.items())
