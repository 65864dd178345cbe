"""What a run says about itself: its result files, read once, for the cards and the report alike.

`RunFacts` holds the files of the run folder that a reader asks about; a stage that has not run yet leaves None.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aurora_m.workspace import AuroraError, Manifest, load_manifest, read_json

STAGES = ("curate", "tokenize", "train", "align", "evaluate", "release")
BASE_PHASE = "base"

Group = Literal["new language", "known", "other"]


@dataclass(frozen=True)
class RunFacts:
    """The result files of one run. `ledger` rows have the columns of `train/ledger.parquet`, in order of tokens."""

    run: Path
    recipe: dict[str, Any] = field(default_factory=dict)
    curation: dict[str, Any] | None = None
    tokens: dict[str, Any] | None = None
    train: dict[str, Any] | None = None
    merge: dict[str, Any] | None = None
    ledger: list[dict[str, Any]] = field(default_factory=list)
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


def read_facts(run: Path) -> RunFacts:
    """Reads the result files of a run folder.

    Raises:
        AuroraError: there is no such folder, or a file in it is damaged.
    """
    if not run.is_dir():
        raise AuroraError(f"{run} is not a folder; give the folder of a run (what `aurora-m run` writes)")
    manifests = {stage: load_manifest(run, stage) for stage in STAGES}
    train = _read(run / "train" / "train.json")
    return RunFacts(
        run=run,
        recipe=_read(run / "recipe.json") or {},
        curation=_read(run / "curated" / "curation.json"),
        tokens=_read(run / "tokens" / "tokens.json"),
        train=train,
        # Of a merge that later training made void, only the file is left.
        merge=_read(run / "train" / "merge.json") if (train or {}).get("merge") else None,
        ledger=_read_ledger(run / "train" / "ledger.parquet"),
        align=_read(run / "align" / "align.json"),
        evaluation=_read(run / "evaluation" / "evaluation.json"),
        manifests={stage: manifest for stage, manifest in manifests.items() if manifest},
    )


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
