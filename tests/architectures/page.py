"""Writes docs/architectures.md from the results of the sweeps: `python tests/architectures/page.py`."""

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "architectures.md"

NOTES = {
    "cpmant": "its class lets all tokens of a text see each other (`context` in modeling_cpmant.py)",
    "emu3": "its class takes the configuration of the text model alone, which transformers maps to no model, so a "
    "saved one could not be opened",
    "gemma3n": "needs the package timm, for images; its text model, gemma3n_text, works",
    "gemma4_assistant": "takes the hidden states of another model, not text",
    "gemma4_unified_assistant": "takes the hidden states of another model, not text",
    "mllama": "its class takes the configuration of the text model alone, which transformers maps to no model, so a "
    "saved one could not be opened",
    "musicgen": "predicts codes of sound, not text",
    "musicgen_melody": "predicts codes of sound, not text",
    "qdqbert": "needs the package pytorch-quantization",
    "speech_to_text_2": "cannot be built: Speech2Text2SinusoidalPositionalEmbedding has `weights` instead of `weight`",
    "transfo-xl": "modeling_transfo_xl.py calls `type_as(dtype=...)`, which torch does not have; the TensorFlow class "
    "compares a label with the logits at the label's own position",
    "youtu": "its `_init_weights` sets the padding token's row to 0 after the weights were read (modeling_youtu.py)",
    "zamba2": "its shared weights are counted wrongly (`adapter_id` in modeling_zamba2.py), so save_pretrained rejects "
    "them; transformers 5 is right",
}
"""Why an architecture does not work, from reading transformers, if the error does not say it plainly."""

FRAMEWORKS = {"pt": "torch", "tf": "tensorflow", "keras": "keras"}
"""The backends, and the distributions whose versions say what they ran with."""

LEFT_OUT = {
    "bloom": "`slow_but_exact` with `pretraining_tp` above 1",
    "falcon": "a new architecture without parallel attention, or with a part of each head rotated",
    "gpt_oss": "all: its attention has sinks, and each layer has the matrices of all experts in one tensor",
    "mixtral": "`router_jitter_noise`, which is drawn at random",
    "mpt": "what its class ignores, such as `qk_ln` and `prefix_lm`",
    "opt": "`layerdrop`, which leaves out layers at random",
    "stablelm": "`qk_layernorm`, a norm for each head",
}
"""What the decoder of backend keras does not compute of what it might; it rejects it by name."""

HEAD = """\
# Architectures

clm trains a tiny, random model of each causal LM architecture in transformers for {steps} steps, and resumes it from a
checkpoint; saves it, reads it back, scores it and generates with it. It does so with TensorFlow too where there is a
class of transformers (`tf`) or the decoder of backend `keras` has the architecture, and what one backend writes another
opens. `nox -s architectures` writes this page; a new architecture in a new transformers appears in it without further
work.

A **yes** means all of this: every loss and gradient is a number; the resumed training has the losses and the final
weights of the uninterrupted one, bit for bit; the model that was read back scores the same as the one that was trained;
no logit depends on a later token; greedy generation gives the most likely tokens by the logits of the whole text; and
the logits of two backends, in float32, differ by at most 1e-5.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(read()), encoding="utf-8")


def read() -> dict[str, dict[str, Any]]:
    """The results of the sweeps, by the series of transformers."""
    files = sorted(DOCS.glob("architectures-*.json"))
    return {file.stem.removeprefix("architectures-"): json.loads(file.read_text(encoding="utf-8")) for file in files}


def render(series: dict[str, dict[str, Any]]) -> str:
    """The page, as Markdown."""
    parts = (_summary(series), _crossings(series), _failures(series), _left_out(), _all(series))
    return "\n".join([HEAD.format(steps=3), *(line for part in parts for line in part)])


def _summary(series: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| transformers | backend | architectures | yes |", "| --- | --- | --- | --- |"]
    for swept in series.values():
        for backend in FRAMEWORKS:
            findings = [found[backend] for found in swept["found"].values() if backend in found]
            if findings:
                version = swept["versions"][FRAMEWORKS[backend]]
                versions = f"{swept['versions']['transformers']} | `{backend}`, {version}"
                lines.append(f"| {versions} | {len(findings)} | {sum(map(_is_good, findings))} |")
    return [*lines, ""]


def _crossings(series: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        "## PyTorch and the others\n",
        "The largest difference between the logits of one checkpoint on two backends, for a checkpoint written by `pt` "
        "and for one written by the other. What `pt` writes is read by `tf` if it has the architecture, else by "
        "`keras`.\n",
        "| architecture | transformers | other | | `pt` writes | the other writes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for swept in series.values():
        version = swept["versions"]["transformers"]
        for name, found in swept["found"].items():
            for other in sorted(found.keys() - {"pt"}, reverse=True):
                reads = other == "tf" or "tf" not in found
                apart = _number(found["pt"]["difference"]) if reads and "pt" in found else ""
                row = (name, version, f"`{other}`", _cell(found[other]), apart, _number(found[other]["difference"]))
                lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def _failures(series: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["## What does not work, and why\n", "| architecture | transformers | why |", "| --- | --- | --- |"]
    for swept in series.values():
        for name, found in swept["found"].items():
            bad = [finding for finding in found.values() if not _is_good(finding)]
            if bad:
                why = NOTES.get(name) or bad[0]["reason"]
                lines.append(f"| {name} | {swept['versions']['transformers']} | {why.replace('|', ' ')} |")
    return [*lines, ""]


def _left_out() -> list[str]:
    lines = ["## What `keras` leaves out\n", "It rejects these by name.\n", "| architecture | what |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {what} |" for name, what in LEFT_OUT.items()), ""]


def _all(series: dict[str, dict[str, Any]]) -> list[str]:
    columns = [(name, backend) for name in series for backend in FRAMEWORKS if _has(series[name], backend)]
    lines = [
        "## All\n",
        f"| architecture | {' | '.join(f'`{backend}`, {name}' for name, backend in columns)} |",
        "| --- |" + " --- |" * len(columns),
    ]
    for name in _names(series):
        cells = (_cell(series[swept]["found"].get(name, {}).get(backend)) for swept, backend in columns)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _names(series: dict[str, dict[str, Any]]) -> list[str]:
    return sorted({name for swept in series.values() for name in swept["found"]})


def _has(swept: dict[str, Any], backend: str) -> bool:
    return any(backend in found for found in swept["found"].values())


def _is_good(finding: dict[str, Any]) -> bool:
    return not finding["failed"]


def _cell(finding: dict[str, Any] | None) -> str:
    if finding is None:
        return ""
    return "yes" if _is_good(finding) else f"no: {finding['failed']}"


def _number(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.1e}"


if __name__ == "__main__":
    main()
