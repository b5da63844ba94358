"""Times the preparation of text against the tokenizer alone and against the guide's way, on one corpus, in turn.

    nox -s bench -- prepare [rounds]

The corpus is what every Python brings, its library's source, in documents of some 2,000 characters, as those of the
guide have; a byte-level BPE of 50,257 entries is trained on it.
Each way runs in a process of its own, once a round, so that what slows the machine slows all of them; the
table has medians over the rounds, and of the ratios of each round. "x 10" is the same text ten times over, to see
whether memory grows with it; it runs once.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from itertools import chain
from pathlib import Path

BLOCK, LEAST_BYTES, DOCUMENT = 128, 20_000_000, 2_000
WAYS = ("raw", "guide", "guide, 2 processes", "guide, chain", "clm", "clm, fastokens")
ONCE = ("clm, x 10", "clm, fastokens, x 10")


def main(rounds: int) -> None:
    """Build the corpus, run every way in turn, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_HOME": f"{folder}/hub", "CLM_CACHE": f"{folder}/cache", "HF_HUB_OFFLINE": "1"}
        size, documents = build_corpus(Path(folder))
        print(
            f"{size / 1e6:.1f} MB in {documents:,} documents; {platform.machine()}, {os.cpu_count()} cores", flush=True
        )
        found = {way: [measure(way, folder)] for way in WAYS}
        for _ in range(rounds - 1):
            for way in WAYS:
                found[way].append(measure(way, folder))
        found |= {way: [measure(way, folder)] for way in ONCE}
    print_table(found)


def build_corpus(folder: Path) -> tuple[int, int]:
    """Write corpus.jsonl, a document a row, and train the tokenizer; return its bytes, and how many rows it has."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    texts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text(encoding="utf-8", errors="ignore")
            size += len(text.encode())
            texts += documents(text)
    if size < LEAST_BYTES:
        raise SystemExit(f"the library of this Python has {size} bytes, {LEAST_BYTES} are needed")
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=50_257, special_tokens=["<|endoftext|>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder / "tokenizer"
    )
    return size, len(texts)


def documents(text: str) -> list[str]:
    """A text in pieces that end with a line."""
    pieces = [""]
    for line in text.splitlines(keepends=True):
        if len(pieces[-1]) > DOCUMENT:
            pieces.append("")
        pieces[-1] += line
    return [piece for piece in pieces if piece.strip()]


def measure(way: str, folder: str) -> dict[str, float]:
    """Run a way in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--way", way, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(f"{way}: {found['seconds']:.2f} s", file=sys.stderr, flush=True)
    return found


def run(way: str, folder: Path) -> dict[str, float]:
    """Carry out a way in this process, and say what it took; imports and the tokenizer are not counted."""
    import datasets  # noqa: F401
    from transformers import AutoTokenizer

    import clm_core.data.preparation  # noqa: F401

    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    corpus = str(folder / "corpus.jsonl")
    work = {"raw": raw, "guide": guide, "clm": clm_way}[way.split(",")[0]]
    prepared = work(way, tokenizer, corpus)
    before = peak_mb()
    start = time.perf_counter()
    tokens, disk, dropped = prepared()
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "tokens": tokens,
        "peak_mb": peak_mb() - before,
        "bytes_per_token": disk / tokens,
        "dropped": dropped,
    }


def peak_mb() -> float:
    """The most memory that this process had. Not what getrusage says, which begins with that of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def raw(way, tokenizer, corpus):
    """The tokenizer's own encode_batch_fast over all texts in memory, and nothing else."""
    texts = [json.loads(line)["text"] for line in Path(corpus).read_text(encoding="utf-8").split("\n") if line]
    backend = tokenizer.backend_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    return lambda: (sum(len(encoding) for encoding in backend.encode_batch_fast(texts)), 0, 0)


def guide(way, tokenizer, corpus):
    """The guide's two maps, as it has them; with itertools.chain in the place of sum(lists, [])."""
    from datasets import load_dataset

    def group_texts(examples):
        if "chain" in way:
            joined = {key: list(chain(*examples[key])) for key in examples}
        else:
            joined = {key: sum(examples[key], []) for key in examples}  # noqa: RUF017  (this is the guide's)
        length = len(joined["input_ids"]) // BLOCK * BLOCK
        result = {key: [ids[i : i + BLOCK] for i in range(0, length, BLOCK)] for key, ids in joined.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    def work():
        rows = load_dataset(
            "json", data_files=corpus, split="train", cache_dir=tempfile.mkdtemp(dir=Path(corpus).parent)
        )
        count = 2 if "2 processes" in way else 1
        tokens = rows.map(lambda part: tokenizer(part["text"]), batched=True, num_proc=count, remove_columns=["text"])
        blocks = tokens.map(group_texts, batched=True, num_proc=count)
        made = sum(len(ids) for part in tokens.select_columns("input_ids").iter(1000) for ids in part["input_ids"])
        return made, blocks.data.nbytes, made - len(blocks) * BLOCK

    return work


def clm_way(way, tokenizer, corpus):
    """The whole of clm's preparation, from the file to the manifest on disk, hashes and fsync included."""
    from clm_core.data.preparation import Preparation, prepare
    from clm_core.options import from_arguments, resolve

    files = [corpus] * (10 if "x 10" in way else 1)
    options = {"train_file": files, "validation_split_percentage": 0, "append_eos": False, "tokenizer_name": "t"}
    config = resolve.preparation(from_arguments(options), file=None)
    target = Path(tempfile.mkdtemp(dir=Path(corpus).parent)) / "prepared"
    workers = None if "fastokens" in way else os.cpu_count()

    def work():
        prepared, _ = prepare(Preparation.make(config, tokenizer), target, workers=workers)
        disk = sum(path.stat().st_size for path in target.iterdir())
        return prepared.manifest.splits["train"].tokens, disk, prepared.count("train", BLOCK).tokens_dropped

    return work


def print_table(found: dict[str, list[dict[str, float]]]) -> None:
    """Medians, and the ratios of each round to the raw tokenizer and to the guide."""
    heads = (
        "",
        "seconds",
        "tokens/s",
        "x raw",
        "faster than the guide",
        "peak MB",
        "bytes per token",
        "tokens dropped",
    )
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for way, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        disk = f"{middle['bytes_per_token']:.3f}" if middle["bytes_per_token"] else "-"
        to_raw, to_guide = (
            ("-", "-") if way in ONCE else (f"{ratio(runs, found['raw']):.2f}", f"{ratio(found['guide'], runs):.1f}")
        )
        print(
            f"| {way} | {middle['seconds']:.2f} | {middle['tokens'] / middle['seconds']:,.0f} | {to_raw} | "
            f"{to_guide} | {middle['peak_mb']:.0f} | {disk} | {middle['dropped']:,.0f} |"
        )


def ratio(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The median of the ratios of the times, round by round."""
    return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    if "--way" in sys.argv:
        print(json.dumps(run(sys.argv[-2], Path(sys.argv[-1]))))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
