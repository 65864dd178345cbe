"""How often a model refuses: red-team prompts, as it should, and harmless look-alikes, as it should not.

Prompts are those of the test split that no person has rejected, answered greedily in the format of tuning. Every
answer is written down with its verdict, so that each figure can be checked by reading.
"""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..evaluation import EvaluateConfig
from ..model import generate, load_model
from ..tokens import load_tokenizer
from ..training import pick_device
from ..workspace import Progress, atomic_path
from .prompts import Kind, Prompt, load_prompts, select_reviewed, shipped_prompt_files
from .refusals import judge_answer
from .taxonomy import load_taxonomy
from .tuning import format_instruction

_MEASURES: dict[str, Kind] = {"refusal": "redteam", "over_refusal": "lookalike"}
_Z = 1.959964  # of the normal distribution: 95% lie within


def measure_safety(
    models: dict[str, Path],
    languages: list[str],
    config: EvaluateConfig,
    answers: Path,
    progress: Progress,
    *,
    data: Sequence[str] = (),
) -> dict[str, Any]:
    """Refusal and over-refusal rates of each model.

    Args:
        models: name (`before`, `after`) to a folder in the Hugging Face layout, with its tokenizer. One that stands
            under two names answers once.
        languages: those measured; none for all that have prompts. A language without prompts gets an empty group.
        answers: JSON lines, written whole: `model, id, kind, concern, lang, instruction, answer, verdict` ("refused",
            "answered", "empty"), `refused`, and `phrase`, what the verdict rests on.
        data: more files of prompts, as in `align.data`.

    Returns:
        `{name: {"refusal": G, "over_refusal": G}}`, G = `{"all": R, "by_concern": {id: R}, "by_language": {code: R}}`,
        R as `rate_of` returns it.

    Raises:
        DataError: a file of prompts, or a model, is missing or damaged.
    """
    loaded = load_prompts([*shipped_prompt_files(), *data], split="test", languages=languages or None)
    prompts = limit_prompts(select_reviewed(loaded, "any"), config.prompts_per_group)
    languages = languages or sorted({prompt.lang for prompt in prompts})
    measured: dict[str, Any] = {}
    done: dict[Path, list[dict[str, Any]]] = {}
    with atomic_path(answers) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, folder in models.items():
            place = folder.resolve()
            if place not in done:
                done[place] = answer_prompts(place, prompts, config, progress)
            for row in done[place]:
                file.write(json.dumps({"model": name, **row}, ensure_ascii=False) + "\n")
            measured[name] = summarize(done[place], languages)
    return measured


def limit_prompts(prompts: list[Prompt], per_group: int | None) -> list[Prompt]:
    """At most `per_group` prompts of each kind and language, the concerns taking turns."""
    if per_group is None:
        return prompts
    groups: dict[tuple[str, str], dict[str, list[Prompt]]] = {}
    for prompt in prompts:
        groups.setdefault((prompt.kind, prompt.lang), {}).setdefault(prompt.concern, []).append(prompt)
    chosen = []
    for by_concern in groups.values():
        turns = [prompt for turn in zip_longest(*by_concern.values()) for prompt in turn if prompt]
        chosen += turns[:per_group]
    return chosen


def answer_prompts(
    folder: Path, prompts: list[Prompt], config: EvaluateConfig, progress: Progress
) -> list[dict[str, Any]]:
    """One model's answers with their verdicts, in the order of the prompts."""
    if not prompts:
        return []
    tokenizer = load_tokenizer(folder)
    model = load_model(folder, device=pick_device()).eval()
    instructions = tokenizer.encode_batch([format_instruction(prompt.instruction) for prompt in prompts])
    ids = [[tokenizer.eod_id, *instruction] for instruction in instructions]
    by_length = sorted(range(len(ids)), key=lambda index: len(ids[index]))  # little padding in a batch
    answers: dict[int, str] = {}
    with progress.task(f"safety prompts, {folder.parent.name}", total=len(ids), unit="answers") as task:
        for start in range(0, len(ids), config.batch_size):
            indices = by_length[start : start + config.batch_size]
            batch = [ids[index] for index in indices]
            generated = generate(model, batch, config.max_new_tokens, tokenizer.eod_id, batch_size=len(batch))
            answers |= zip(indices, map(tokenizer.decode, generated), strict=True)
            task.advance(len(batch))
    return [_answer_row(prompt, answers[index]) for index, prompt in enumerate(prompts)]


def _answer_row(prompt: Prompt, answer: str) -> dict[str, Any]:
    judged = judge_answer(answer, prompt.lang)
    return {
        **prompt.model_dump(include={"id", "kind", "concern", "lang", "instruction"}),
        "answer": answer,
        "verdict": judged.verdict,
        "refused": judged.verdict == "refused",
        "phrase": judged.phrase,
    }


def summarize(rows: list[dict[str, Any]], languages: Iterable[str]) -> dict[str, Any]:
    """The rates of one model by measure; concerns and languages without prompts have empty groups."""

    def rate(**wanted: str) -> dict[str, Any]:
        return rate_of([row["verdict"] for row in rows if all(row[key] == value for key, value in wanted.items())])

    return {
        measure: {
            "all": rate(kind=kind),
            "by_concern": {concern: rate(kind=kind, concern=concern) for concern in load_taxonomy()},
            "by_language": {lang: rate(kind=kind, lang=lang) for lang in languages},
        }
        for measure, kind in _MEASURES.items()
    }


def rate_of(verdicts: Sequence[str]) -> dict[str, Any]:
    """Refusals among verdicts: `refused`, `empty`, `total`, and `rate` with its 95% interval from `low` to `high`.

    Empty answers count in `total` and are no refusals: who says nothing neither helped nor explained. With no verdicts
    at all `rate` is None, and the interval all there is.
    """
    refused, total = verdicts.count("refused"), len(verdicts)
    low, high = wilson_interval(refused, total)
    rate = refused / total if total else None
    return {
        "refused": refused,
        "empty": verdicts.count("empty"),
        "total": total,
        "rate": rate,
        "low": low,
        "high": high,
    }


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """95% score interval of a share (Wilson 1927); it holds for few trials too, and for none it is 0 to 1."""
    if not total:
        return 0.0, 1.0
    share, spread = hits / total, _Z**2 / total
    middle = share + spread / 2
    half = _Z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (middle - half) / (1 + spread)), min(1.0, (middle + half) / (1 + spread))
