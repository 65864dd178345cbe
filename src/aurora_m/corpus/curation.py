"""Raw documents to clean ones: the passes and their order.

A first look at the beginning of every source learns its boilerplate. Then there are two readings. The first takes every
source batch by batch through all passes that look at one document by itself, and leaves documents, scores, hashes and
signatures in partitions, which are kept: an interrupted curation goes on with those it has, and one with other
thresholds judges them again without reading or scoring anything. When all that stay are in the index of duplicates, the
second reading leaves duplicates out, splits off the held-out part, and writes parquet. Only the index grows with the
corpus.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..workspace import (
    DataError,
    Progress,
    available_cores,
    fingerprint_file,
    format_count,
    installed_versions,
    write_json,
)
from .config import CurateConfig, DomainConfig, NearDuplicateConfig
from .decontaminate import EvaluationIndex, load_evaluation_index
from .dedup import DuplicateIndex, Duplicates
from .earlier import FOLDER, EarlierIndexes, write_index
from .engine import Engine, OrderedMap, affordable_threads, open_engine
from .evaluation_sets import fingerprint_evaluation_set
from .judging import Judged, Limits, judge
from .language_settings import load_language, with_word_lists
from .model_scores import models_of
from .partitions import Partition, PartitionWork, partition_work, remove_others, screen_partition
from .removals import Removals, RepeatIndex
from .screening import Screen
from .settling import Scored, settle
from .sources import Source, open_source
from .thresholds import effective_thresholds
from .urls import fingerprint_hosts

_SCRATCH = ".curating"
_SMALLEST_ALARM = 20
_SHOWN_CLUSTERS, _SHOWN_MEMBERS, _SHOWN_CHARACTERS = 10, 3, 160
# Settings that the partitions do not depend on, or that their key has in another form.
_NOT_IN_PARTITIONS = {
    "threads", "memory", "engine", "ray_address", "partition_bytes",
    "heldout", "decontaminate", "language_model", "urls", "keep_scored",
}  # fmt: skip
# Settings that decide by what the partitions hold.
_LAID_ON_SCORES: dict[str, Any] = {
    "classifiers": {"__all__": {"min", "max"}},
    "perplexity": {"__all__": {"min", "max"}},
    "near_duplicates": {
        "threshold", "largest_cluster", "largest_loss", "upsampling_weights", "keep_index", "against",
    },
    "repeated_text": {"min_words_left"},
}  # fmt: skip


def curate(
    config: CurateConfig,
    domains: dict[str, DomainConfig],
    out: Path,
    *,
    seed: int,
    progress: Progress,
    partitions: Path | None = None,
) -> dict[str, Any]:
    """Curates all domains into `out/<domain>/*.parquet` and returns what it also writes to `out/curation.json`.

    The files do not depend on threads and engine. Nothing is left in `out` where it fails; finished partitions are left
    in the folder `partitions`, where one is given: a second call goes on with those that its settings do not change.

    Raises:
        DataError: a source is missing or damaged, or nothing is left of a domain.
        RecipeError: an unknown language, threshold, or a template that does not compile; no Ray.
    """
    started, cpu_started = time.monotonic(), time.process_time()
    evaluation = load_evaluation_index(config.decontaminate)
    earlier = EarlierIndexes.open(config.near_duplicates, seed)
    jobs = [
        _prepare(rank, name, domain, config, seed, evaluation) for rank, (name, domain) in enumerate(domains.items())
    ]
    scratch = out / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    partitions = partitions or scratch / "partitions"
    try:
        with open_engine(config.engine, _threads(config, progress), config.ray_address) as engine:
            finished = _first_reading(jobs, engine, partitions, seed, progress)
            index = DuplicateIndex(config.near_duplicates, scratch)
            repeats = RepeatIndex(scratch, config.repeated_text)
            earlier.add_to(index)
            repeats.add(None, len(earlier))
            scored = [_indexed(job, parts, index, repeats) for job, parts in zip(jobs, finished, strict=True)]
            duplicates = _resolve(index, progress)
            removals = repeats.resolve(duplicates.keep)
            work = list(zip(jobs, scored, strict=True))
            largest = _largest_clusters(duplicates, work, earlier)
            records = _settle_domains(work, duplicates, removals, earlier, config, engine.in_order, scratch)
            if config.near_duplicates.keep_index:
                stays = (duplicates.keep & ~removals.emptied)[len(earlier) :]
                parts = ((job.name, part) for job, one in work for part in one.partitions)
                write_index(scratch / FOLDER, out.resolve().parent.name, config.near_duplicates, seed, parts, stays)
        for job in jobs:
            shutil.rmtree(out / job.name, ignore_errors=True)
            (scratch / job.name).rename(out / job.name)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        if config.near_duplicates.keep_index:
            (scratch / FOLDER).rename(out / FOLDER)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    clusters: dict[str, Any] = {**duplicates.describe(), "largest_clusters": largest}
    if earlier.indexes:
        of_earlier = int((duplicates.survivor[len(earlier) :] < len(earlier)).sum())
        clusters |= {"earlier_documents": len(earlier), "duplicates_of_earlier": of_earlier}
    result = {
        "domains": {job.name: record for job, record in zip(jobs, records, strict=True)},
        "duplicates": clusters,
        "seconds": round(time.monotonic() - started, 3),
        "cpu_seconds": round(time.process_time() - cpu_started, 3),
        "bytes_in": sum(_bytes_in(record) for record in records),
    }
    if evaluation is not None:
        overlaps = {job.name: one.funnel.overlaps for job, one in zip(jobs, scored, strict=True)}
        result["decontamination"] = evaluation.describe(overlaps)
    for name, record in result["domains"].items():
        progress.say(_describe(name, record))
    losses = _suspicious_losses(result["domains"], clusters, config.near_duplicates)
    result["warnings"] = losses + _failures(result["domains"])
    for warning in result["warnings"]:
        progress.say(f"warning: {warning}")
    write_json(out / "curation.json", result)
    if config.keep_scored:
        remove_others(partitions, (part.folder for one in scored for part in one.partitions))
    else:
        shutil.rmtree(partitions, ignore_errors=True)
    return result


def _threads(config: CurateConfig, progress: Progress) -> int:
    if config.threads:
        return config.threads
    threads, cores = affordable_threads(config.memory), available_cores()
    if threads < cores:
        progress.say(
            f"  {threads} of {cores} cores are used: curate.memory, {format_count(config.memory)} bytes, is enough for "
            "no more; raise it, or set curate.threads"
        )
    return threads


@dataclass(frozen=True)
class _Job:
    """One domain, everything about it checked."""

    name: str
    rank: int
    domain: DomainConfig
    sources: list[Source]
    screen: Screen
    limits: Limits

    @property
    def thresholds(self) -> dict[str, float | None]:
        """All that are laid on scores."""
        return {**self.limits.quality, **(self.limits.models or {})}


def _prepare(
    rank: int, name: str, domain: DomainConfig, config: CurateConfig, seed: int, evaluation: EvaluationIndex | None
) -> _Job:
    """Finds the files and checks the settings of a domain, before any work is done for any."""
    if not domain.sources:
        raise DataError(
            f"domain {name!r} has no sources; add one under domains.{name}.sources, or leave the domain out"
        )
    settings = load_language(domain.lang) if domain.lang else None
    if settings is not None and domain.word_lists:
        settings = with_word_lists(settings, domain.word_lists)
    thresholds: Mapping[str, float | None] = {}
    if domain.rules != "none":
        thresholds = effective_thresholds(domain.rules, settings, domain.thresholds)
    sources = [open_source(source, name, domain, config) for source in domain.sources]
    models = models_of(config, name, domain)
    screen = Screen(domain, config, settings, seed, evaluation, models)
    limits = Limits(thresholds, models.limits if models else None, screen.evaluation is not None)
    return _Job(name, rank, domain, sources, screen, limits)


def _first_reading(jobs: list[_Job], engine: Engine, folder: Path, seed: int, progress: Progress) -> list[list[Judged]]:
    """Every pass but the duplicates, which see the whole corpus; the judged partitions of every domain."""
    work, learning, shared = [], [], _shared_key(jobs[0].screen.config, seed) if jobs else []
    for job in jobs:
        started = time.perf_counter()
        job.screen.learn(job.sources, engine.in_order)
        learning.append(time.perf_counter() - started)
        work.append(partition_work(job.sources, job.screen, folder / job.name, [*shared, *_partition_key(job)]))
    remove_others(folder, (one.folder for of_domain in work for one in of_domain))
    together = [list(range(len(jobs)))] if engine.spreads else [[number] for number in range(len(jobs))]
    finished: list[list[Judged]] = []
    for numbers in together:
        name = f"curate {jobs[numbers[0]].name}" if len(numbers) == 1 else f"curate {len(numbers)} domains"
        _screen([one for number in numbers for one in work[number]], name, engine, progress)
        for number in numbers:
            judged = list(engine.in_order(partial(_judge, jobs[number]), work[number]))
            judged[0].funnel.passes["boilerplate"].seconds += learning[number]
            _refuse_nothing(jobs[number], judged)
            finished.append(judged)
    return finished


def _screen(work: list[PartitionWork], name: str, engine: Engine, progress: Progress) -> None:
    done = sum(one.folder.exists() for one in work)
    if done:
        progress.say(f"  {name}: {done} of {len(work)} partitions were scored before")
    if done == len(work):
        return
    scored = 0
    with progress.task(name, sum(one.size for one in work) or None, "bytes") as task:

        def tell(read_bytes: int, documents: int) -> None:
            nonlocal scored
            scored += documents
            task.advance(read_bytes, f"{format_count(scored)} documents scored")

        engine.for_each(screen_partition, work, tell)


def _shared_key(config: CurateConfig, seed: int) -> list[Any]:
    """All that the partitions of every domain depend on; each file is read once."""
    return [
        installed_versions(),
        seed,
        config.model_dump(mode="json", exclude={**dict.fromkeys(_NOT_IN_PARTITIONS, True), **_LAID_ON_SCORES}),
        [fingerprint_evaluation_set(one) for one in config.decontaminate.against],
        config.decontaminate.model_dump(exclude={"against"}),
        config.urls.model_dump(exclude={"host_files"}),
        fingerprint_hosts(config.urls),
        fingerprint_file(Path(config.language_model)) if config.language_model else None,
    ]


def _partition_key(job: _Job) -> list[Any]:
    """What the partitions of one domain depend on beside that, but for their files."""
    screen = job.screen
    return [
        job.domain.model_dump(mode="json", exclude={"heldout", "sources", "thresholds"}),
        [fingerprint_file(path) for path in screen.models.files],
        screen.settings and screen.settings.model_dump(mode="json", exclude={"thresholds"}),
        screen.boilerplate.keys if screen.boilerplate else None,
    ]


def _judge(job: _Job, work: PartitionWork) -> Judged:
    return judge(Partition(work.folder), job.limits, job.screen.config.dropped_sample)


def _indexed(job: _Job, judged: list[Judged], index: DuplicateIndex, repeats: RepeatIndex) -> Scored:
    """What the first reading left of a domain, put into the indexes."""
    scored = Scored(judged, len(index), job.screen.config.dropped_sample)
    for one in judged:
        one.partition.add_to(index, job.rank, one.keep)
        repeats.add(one.partition.repeatable(), one.partition.documents)
    return scored


def _refuse_nothing(job: _Job, judged: list[Judged]) -> None:
    """Says why a domain came out empty: which reason took most, where the documents were read, what may help."""
    if any(one.keep.any() for one in judged):
        return
    funnel = Scored(judged, 0, 0).funnel
    paths = ", ".join(source.config.path for source in job.sources)
    counts = funnel.passes["read"]
    if not counts.documents_in:
        raise DataError(
            f"domain {job.name!r} is empty: no documents in {paths}; add documents, or leave the domain out"
        )
    hints = list(dict.fromkeys(hint for one in judged for hint in one.partition.record.hints))[:3]
    hint = f" ({'; '.join(hints)})" if hints else ""
    raise DataError(
        f"domain {job.name!r}: every one of {counts.documents_in} documents of {paths} was dropped, most for "
        f"{funnel.leading_reason()}{hint}; check the domain's language, fields and thresholds"
    )


def _resolve(index: DuplicateIndex, progress: Progress) -> Duplicates:
    started = time.monotonic()
    duplicates = index.resolve()
    progress.say(f"  duplicates among {format_count(len(index))} documents: {time.monotonic() - started:.1f} s")
    return duplicates


def _suspicious_losses(domains: dict[str, Any], clusters: dict[str, Any], config: NearDuplicateConfig) -> list[str]:
    """What near-duplicates took that they should perhaps not have taken."""
    warnings = []
    documents, largest = clusters["documents"], clusters["largest_near"]
    if largest >= _SMALLEST_ALARM and largest > config.largest_cluster * documents:
        warnings.append(
            f"one cluster of near-duplicates holds {largest:,} of {documents:,} documents; look at duplicate_of in the "
            "dropped samples, and raise curate.near_duplicates.threshold if they are not alike"
        )
    for name, record in domains.items():
        for source, counts in record["sources"].items():
            lost, had = counts["documents_near_duplicates"], counts["documents_in"]
            if lost >= _SMALLEST_ALARM and lost > config.largest_loss * had:
                warnings.append(f"{name}: source {source} lost {lost:,} of {had:,} documents as near-duplicates")
    return warnings


def _failures(domains: dict[str, Any]) -> list[str]:
    """Documents that a pass broke at: a defect of ours that the user should hear of, and we from them."""
    return [
        f"{name}: {counts['documents']:,} documents were dropped, a pass broke at them ({reason}): please report it"
        for name, record in domains.items()
        for reason, counts in record["passes"][0]["dropped"].items()
        if reason.startswith("failed:")
    ]


def _find(number: int, work: list[tuple[_Job, Scored]]) -> tuple[_Job, Scored]:
    """The domain that a document is of, by its number in the index of duplicates."""
    return next((job, one) for job, one in work if number < one.first + one.documents)


def _largest_clusters(
    duplicates: Duplicates, work: list[tuple[_Job, Scored]], earlier: EarlierIndexes
) -> list[dict[str, Any]]:
    """The largest clusters of near-duplicates, to be looked at: the document that stays, and some that went for it."""

    def shown(number: int) -> dict[str, str]:
        if number < len(earlier):
            return {"domain": "", "id": earlier.name_of(number), "text": ""}
        job, scored = _find(number, work)
        text = scored.value_of(number, "text")[:_SHOWN_CHARACTERS]
        return {"domain": job.name, "id": scored.value_of(number, "id"), "text": text}

    return [
        {"near_duplicates": count, "kept": shown(stays), "some": [shown(member) for member in members]}
        for stays, count, members in duplicates.largest_near(_SHOWN_CLUSTERS, _SHOWN_MEMBERS)
    ]


def _settle_domains(
    work: list[tuple[_Job, Scored]],
    duplicates: Duplicates,
    removals: Removals,
    earlier: EarlierIndexes,
    config: CurateConfig,
    in_order: OrderedMap,
    scratch: Path,
) -> list[dict[str, Any]]:
    """The second reading: every domain's files, and its part of curation.json."""

    def id_of(number: int) -> str:
        if number < len(earlier):
            return earlier.name_of(number)
        return _find(number, work)[1].value_of(number, "id")

    def settle_domain(pair: tuple[_Job, Scored]) -> dict[str, Any]:
        job, scored = pair
        split = settle(
            scored,
            duplicates,
            removals,
            job.domain.heldout or config.heldout,
            config.near_duplicates.upsampling_weights,
            scratch / job.name,
            id_of,
            job.screen.redacted,
        )
        if not split["train"]["documents"]:
            paths = ", ".join(source.config.path for source in job.sources)
            raise DataError(
                f"domain {job.name!r}: nothing of {paths} is left to train on, most was dropped for "
                f"{scored.funnel.leading_reason()}; does an earlier domain hold the same documents?"
            )
        return {**scored.funnel.describe(), **split, "thresholds": job.thresholds}

    return list(in_order(settle_domain, work))


def _bytes_in(record: dict[str, Any]) -> int:
    return record["passes"][0]["bytes_in"]


def _describe(name: str, record: dict[str, Any]) -> str:
    """A domain in a line: `fi: 2,711 documents (23.7M bytes) in, ... out; language -12, quality -80, ...`."""
    passes = record["passes"]
    losses = [f"{p['name']} -{p['documents_in'] - p['documents_out']}" for p in passes if p["dropped"]]
    train, heldout = record["train"], record["heldout"]
    return (
        f"  {name}: {passes[0]['documents_in']:,} documents ({format_count(passes[0]['bytes_in'])} bytes) in, "
        f"{train['documents']:,} ({format_count(train['bytes'])}) to train on, {heldout['documents']:,} held out; "
        + (", ".join(losses) or "nothing dropped")
    )
