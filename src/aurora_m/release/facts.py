"""What a run says about itself: its result files, read once, for the cards and the report alike.

`RunFacts` holds the files of the run folder that a reader asks about; a stage that has not run yet leaves None.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aurora_m.workspace import AuroraError, Manifest, load_manifest, parse_count, read_json

STAGES = ("curate", "tokenize", "train", "align", "evaluate", "release")
BASE_PHASE = "base"

Group = Literal["new language", "known", "other"]


@dataclass(frozen=True)
class RunFacts:
    """The result files of one run. `ledger` rows have the columns of `train/ledger.parquet`, in order of tokens.

    Where phases branch, `line` holds those that lead to the model in question, each with the tokens of the run up to
    which it does, and `ledger` only their rows; `branches` has the rows of the others that nothing begins after.
    `mixtures`: every mixture of the run, with the tokens from which it held and why.
    """

    run: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    curation: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    merge: dict[str, Any] | None = None
    ledger: list[dict[str, Any]] = field(default_factory=list)
    line: dict[str, float] = field(default_factory=dict)
    branches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    mixtures: list[dict[str, Any]] = field(default_factory=list)
    align: dict[str, Any] | None = None
    evaluation: dict[str, Any] | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)

    @property
    def domains(self) -> list[str]:
        """All domains, in the recipe's order; those that only a result file names come last."""
        names = dict.fromkeys(self.recipe.get("domains") or {})
        for result in (self.curation, self.tokens):
            names |= dict.fromkeys((result or {}).get("domains", {}))
        return list(names | dict.fromkeys(row["domain"] for row in self.ledger))


@dataclass(frozen=True)
class Change:
    """What a domain's held-out bits per byte were in the base model and are in the last measured one."""

    domain: str
    group: Group
    base_bpb: float
    bpb: float
    change: float  # bpb / base_bpb - 1: negative is better
    model: str  # "aligned" or "trained": the model that was measured


def read_facts(run: Path, phase: str | None = None) -> RunFacts:
    """Reads the result files of a run folder; of branches, those that lead to `phase` (default: to the final model).

    Raises:
        AuroraError: there is no such folder or phase, or a file in it is damaged.
    """
    if not run.is_dir():
        raise AuroraError(f"{run} is not a folder; give the folder of a run (what `aurora-m run` writes)")
    manifests = {stage: load_manifest(run, stage) for stage in STAGES}
    recipe, train = _read(run / "recipe.json") or {}, _read(run / "train" / "train.json")
    rows = _read_ledger(run / "train" / "ledger.parquet")
    line, branches = trace_phases(recipe, train, rows, phase)
    return RunFacts(
        run=run,
        recipe=recipe,
        curation=_read(run / "curated" / "curation.json"),
        tokens=_read(run / "tokens" / "tokens.json"),
        train=train,
        ledger=[row for row in rows if is_on(line, row["phase"], row["tokens"])],
        line=line,
        branches=branches,
        mixtures=_read(run / "train" / "mixtures.json") or [],
        # Of a merge that later training made void, only the file is left.
        merge=_read(run / "train" / "merge.json") if (train or {}).get("merge") else None,
        align=_read(run / "align" / "align.json"),
        evaluation=_read(run / "evaluation" / "evaluation.json"),
        manifests={stage: manifest for stage, manifest in manifests.items() if manifest},
    )


def trace_phases(
    recipe: dict[str, Any], train: dict[str, Any] | None, rows: list[dict[str, Any]], phase: str | None = None
) -> tuple[dict[str, float], dict[str, list[dict[str, Any]]]]:
    """The phases that lead to one, with the tokens up to which each does; and the ledger's rows of other ends.

    Raises:
        AuroraError: the run has no such phase, or nothing of it was measured yet.
    """
    planned = (recipe.get("train") or {}).get("phases", [])
    before = [None, *(one["name"] for one in planned)]
    parents = {
        one["name"]: (one.get("from") or "").partition("@")[0] or parent
        for one, parent in zip(planned, before, strict=False)
    }
    measured = [name for name in parents if any(row["phase"] == name for row in rows)]
    final = phase or (train or {}).get("final_phase") or (recipe.get("train") or {}).get("final_phase")
    if phase is not None and phase not in measured:
        raise AuroraError(f"phase {phase!r} has no measurements; those that have are {', '.join(measured) or 'none'}")
    if final not in measured:
        final = measured[-1] if measured else None
    if final is None:
        return {}, {}
    starts = {row["name"]: row["start_tokens"] for row in (train or {}).get("phases", []) if "start_tokens" in row}
    asked = {one["name"]: (one.get("from") or "").partition("@")[2] for one in planned}
    line, child = {final: math.inf}, final
    while parent := parents[child]:
        line[parent] = starts.get(child, parse_count(asked[child]) if asked[child] else math.inf)
        child = parent
    ends = [name for name in measured if name not in line and name not in parents.values()]
    return dict(reversed(line.items())), {name: [row for row in rows if row["phase"] == name] for name in ends}


def is_on(line: dict[str, float], phase: str, tokens: float) -> bool:
    """Whether a moment of a phase leads to the model that `line` is of; all do where no line is known."""
    return not line or tokens <= line.get(phase, -1)


def domain_groups(facts: RunFacts) -> dict[str, Group]:
    """Which domains the base model knew, and which languages are new to it.

    A domain is known when the phase that made the base trained on it. Where the base was imported, the recipe may name
    what it knows (`base.knows`); where nobody says, every domain is "other" and no group is singled out.
    """
    knows = set((facts.recipe.get("base") or {}).get("knows") or [])
    for phase in phases(facts):
        if phase["name"] == BASE_PHASE:
            knows |= {domain for domain, share in phase.get("mixture", {}).items() if share > 0}
    if not knows:
        return dict.fromkeys(facts.domains, "other")
    configs = facts.recipe.get("domains") or {}
    return {
        domain: "known" if domain in knows else "new language" if (configs.get(domain) or {}).get("lang") else "other"
        for domain in facts.domains
    }


def phases(facts: RunFacts) -> list[dict[str, Any]]:
    """The phases as they were trained, or, while training has not finished, as the recipe plans them."""
    if facts.train:
        return facts.train.get("phases", [])
    return (facts.recipe.get("train") or {}).get("phases", [])


def phases_of_model(facts: RunFacts) -> list[dict[str, Any]]:
    """The phases that led to the model; of one that it branched from, the mixtures and tokens up to there."""
    found = []
    for phase in phases(facts):
        if not facts.line or phase["name"] in facts.line:
            stop = facts.line.get(phase["name"], math.inf)
            start = phase.get("start_tokens", 0)
            kept = {"mixtures": [one for one in phase.get("mixtures", []) if one["tokens"] < stop]}
            if phase.get("tokens") is not None and start + phase["tokens"] > stop:
                kept["tokens"] = stop - start
            found.append(phase | kept)
    return found


def final_changes(facts: RunFacts) -> list[Change]:
    """Each domain's change against the base: of the last model evaluated, else where the ledger stands."""
    groups = domain_groups(facts)
    changes = []
    for domain, row in ((facts.evaluation or {}).get("forgetting") or {}).items():
        model = "aligned" if row.get("aligned_change") is not None else "trained"
        if row.get(f"{model}_change") is not None:
            group = groups.get(domain, "other")
            values = (row["base_bpb"], row[f"{model}_bpb"], row[f"{model}_change"])
            changes.append(Change(domain, group, *values, model))
    if changes:
        return changes
    last = {row["domain"]: row for row in facts.ledger if row.get("change") is not None}
    return [
        Change(domain, groups[domain], row["base_bpb"], row["bpb"], row["change"], "trained")
        for domain, row in last.items()
    ]


def energy(facts: RunFacts) -> str:
    """What training took, in words; `not measured` where no counter could be read."""
    measured = (facts.train or {}).get("energy")
    if not isinstance(measured, dict):
        return "not measured"
    names = {"gpu": "GPUs", "cpu": "processors and memory"}
    parts = ", ".join(f"{names.get(kind, kind)} {kwh:.3g}" for kind, kwh in measured["kwh_by_kind"].items())
    per_billion = measured["kwh_per_billion_tokens"]
    rate = "" if per_billion is None else f", {per_billion:.3g} kWh per billion tokens"
    return f"{measured['kwh']:.3g} kWh ({parts}){rate}"


def _read(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _read_ledger(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        rows = pq.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise AuroraError(f"{path} is not a readable parquet file ({error}); run the train stage again") from None
    return sorted(rows, key=lambda row: row["tokens"])
