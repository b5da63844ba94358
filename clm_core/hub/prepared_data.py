"""Prepared data as a dataset on the Hub: its files and its card."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from clm_core.config import SAMPLE
from clm_core.data.manifest import MANIFEST, Manifest, to_text
from clm_core.data.prepared import FILES, PUBLICATION, Prepared
from clm_core.hub.upload import Files, refuse_link
from clm_core.paths import in_command
from clm_core.record import CARD

MASKED = "which of them count is in `*.mask`, a byte for each: 0 in prompts, on which the loss is not taken;"


def files(prepared: Prepared, repository: str, *, license: str | None = None) -> Files:
    """The files of prepared data in a repository, with a card."""
    paths = [prepared.folder / name for name in sorted(FILES - {MANIFEST, PUBLICATION})]
    found = {path.name: path for path in paths if path.is_file() or path.is_symlink()}
    card = _card(prepared, repository, license).encode()
    return {**found, MANIFEST: _manifest(prepared), CARD: card}


def check_no_links(prepared: Prepared) -> None:
    """Make sure that the data is in the folder itself: a link is not uploaded, and data that lacks a file is none.

    Raises:
        OutputError: the manifest, or a file that it lists, is a link.
    """
    for name in (MANIFEST, *prepared.manifest.files):
        refuse_link(prepared.folder / name)


def is_ours(path: str) -> bool:
    """Whether a file of a repository belongs to prepared data."""
    return path in FILES


def _manifest(prepared: Prepared) -> Path | bytes:
    """The manifest, without the path of the tokenizer on this machine."""
    shared = _shared(prepared.manifest)
    return prepared.folder / MANIFEST if shared == prepared.manifest else to_text(shared).encode()


def _shared(manifest: Manifest) -> Manifest:
    return replace(manifest, tokenizer_name=_shared_name(manifest.tokenizer_name))


def _shared_name(name: str) -> str:
    return Path(name).name if os.path.isabs(name) or name.startswith((".", "~")) else name  # noqa: PTH117


def _card(prepared: Prepared, repository: str, license: str | None) -> str:
    from huggingface_hub import DatasetCardData

    manifest = _shared(prepared.manifest)
    tags = ["clm", "tokenized"]
    metadata = DatasetCardData(license=license, task_categories=["text-generation"], tags=tags).to_yaml()
    rows = [
        f"| {split} | {entry.documents:,} | {entry.bytes:,} | {entry.tokens:,} | {entry.eos_added:,} |"
        for split, entry in manifest.splits.items()
    ]
    return "\n".join(
        [
            f"---\n{metadata}\n---\n\n# {repository.split('/')[-1]}\n",
            f"Text as tokens of the tokenizer `{manifest.tokenizer_name}` ({manifest.vocabulary:,} entries), prepared",
            "with clm, for training with every backend and any block size:\n",
            f"```sh\nclm train --prepared {repository} {_tokenizer(manifest.tokenizer_name)}\n```\n",
            "| split | documents | bytes of text | tokens | EOS between documents |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            f"\nToken ids are little-endian `{manifest.dtype}` in `*.bin`; where each document ends is in `*.ends`;",
            *([MASKED] if any(entry.mask for entry in manifest.splits.values()) else []),
            f"`{MANIFEST}` lists the options and the SHA-256 of every file.\n",
            f"Options: {_options(manifest.options)}.\n",
        ]
    )


def _tokenizer(name: str) -> str:
    return (
        f"--tokenizer-name {name} --model-type gpt2" if name == SAMPLE else f"--model-name-or-path {in_command(name)}"
    )


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"`{name}` {value}" for name, value in options.items() if value is not None)
