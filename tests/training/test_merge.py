"""Merging after training: measured like any model, resumable, bitwise repeatable, and refused where it has no sense."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tests.conftest import PYTHONPATH
from tests.training.opposed import opposed_base, opposed_config, write_opposed
from tests.training.test_stage import Heard

from aurora_m.model import BaseConfig, Decoder, add_adapters, interpolate, load_model, merge_adapter, save_model
from aurora_m.training import (
    MergeConfig,
    TrainConfig,
    heldout_domains,
    merge_trained,
    parse_budgets,
    score_heldout,
    train,
)
from aurora_m.training import merge_scores as merge_scores_module
from aurora_m.training.ancestry import ancestors
from aurora_m.training.checkpoint import list_checkpoints, load_checkpoint
from aurora_m.training.merge_budget import merge_aim
from aurora_m.workspace import DataError, Progress, RecipeError, read_json, write_json

BUDGET = 0.04
MERGE = {"budget": BUDGET, "base_shares": [0.1, 0.3], "refinements": 1}
QUIET = Progress(quiet=True)


def go(tokens: Path, out: Path, settings: Any = MERGE, progress: Progress = QUIET, **changes: Any) -> dict:
    config = opposed_config(**({"merge": settings} if settings else {}), **changes)
    return train(config, opposed_base(), tokens, out, seed=1, base_folder=None, progress=progress)


def again(tokens: Path, out: Path, settings: Any = MERGE, **options: Any) -> dict:
    """The merge alone, of a run that is finished."""
    return merge_trained(opposed_config(merge=settings), opposed_base(), tokens, out, progress=QUIET, **options)


def outcome(out: Path) -> tuple:
    """All that a merge leaves, without the time it took."""
    made = {key: value for key, value in read_json(out / "merge.json").items() if key != "seconds"}
    weights = (out / "merged" / "model" / "model.safetensors").read_bytes()
    facts = {key: value for key, value in read_json(out / "train.json").items() if key in ("final_model", "merge")}
    return made, weights, facts, pq.read_table(out / "ledger.parquet").to_pylist()


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    return write_opposed(tmp_path_factory.mktemp("opposed") / "tokens")


@pytest.fixture(scope="module")
def merged(tokens, tmp_path_factory) -> Path:
    """A run that forgot more than its budget, and was merged."""
    out = tmp_path_factory.mktemp("merged")
    go(tokens, out)
    return out


@pytest.fixture
def out(merged, tmp_path) -> Path:
    """Its copy, to change."""
    shutil.copytree(merged, tmp_path / "out")
    return tmp_path / "out"


# ---- what it does


def test_the_merge_that_learned_most_inside_the_budget_is_what_the_run_goes_on_with(merged):
    facts, made = read_json(merged / "train.json"), read_json(merged / "merge.json")
    assert facts["final_model"] == made["model"] == "merged/model"
    assert facts["merge"]["of"] == made["final"] == "CAP/model" and made["base"] == "base/model"
    rows = {row["name"]: row for row in made["candidates"]}
    assert list(rows)[:2] == ["unmerged", "mean of the last 3 checkpoints"]
    assert {row["base_share"] for row in rows.values()} >= {0.0, 0.1, 0.3, 0.2}  # 0.2 lies between the two
    unmerged, chosen = rows["unmerged"], rows[made["chosen"]]
    known = chosen["domains"]["known"]
    assert not unmerged["inside"] and unmerged["domains"]["known"]["change"] > BUDGET
    assert chosen["inside"] and known["change"] + known["stderr"] <= BUDGET
    assert chosen["learning"] == min(row["learning"] for row in rows.values() if row["inside"]) < -0.05
    assert made["reason"].startswith("of ") and "outside, with known" in made["reason"]


def test_the_published_model_is_the_interpolation_and_scores_what_was_said(merged, tokens):
    facts = read_json(merged / "train.json")
    expected = interpolate(merged / "base/model", merged / "CAP/model", facts["merge"]["base_share"])
    model = load_model(merged / "merged/model")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    scores = score_heldout(model, tokens, heldout_domains(tokens), facts["heldout_sequence_length"])
    made = read_json(merged / "merge.json")
    row = next(row for row in made["candidates"] if row["name"] == made["chosen"])
    ledger = pq.read_table(merged / "ledger.parquet").to_pylist()
    last = {row["domain"]: row for row in ledger if row["phase"] == "merged"}
    for domain, score in scores.items():
        assert row["domains"][domain]["bpb"] == pytest.approx(score.bpb, rel=1e-6)
        assert last[domain]["bpb"] == pytest.approx(score.bpb, rel=1e-6)
        assert last[domain]["change_stderr"] == pytest.approx(row["domains"][domain]["stderr"], rel=1e-4)
        assert last[domain]["step"] == 48


def test_a_budget_that_holds_already_leaves_the_weights_alone(out, tokens):
    facts = again(tokens, out, MERGE | {"budget": 0.5})
    assert facts["final_model"] == "CAP/model" and facts["merge"]["chosen"] == "unmerged"
    assert not (out / "merged").exists()
    assert "merged" not in {row["phase"] for row in pq.read_table(out / "ledger.parquet").to_pylist()}


def test_a_budget_out_of_reach_leaves_the_weights_alone_and_says_what_is_nearest(out, tokens):
    facts = again(tokens, out, MERGE | {"budget": {"known": 0.0}})
    assert facts["final_model"] == "CAP/model"
    assert "no candidate is inside the budget; nearest is base share 0.3" in read_json(out / "merge.json")["reason"]


def test_without_a_merge_in_the_recipe_a_run_goes_on_unmerged_and_says_so(out, tokens):
    heard = Heard()
    assert go(tokens, out, None, heard)["final_model"] == "CAP/model"
    assert any("not used: the recipe has no train.merge" in line for line in heard.lines)


# ---- again, and after a kill


def test_a_second_call_scores_nothing_and_changes_nothing(out, tokens, monkeypatch):
    before, written = outcome(out), (out / "merged/model/model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(merge_scores_module, "score_heldout", None)
    again(tokens, out)
    go(tokens, out)  # training, which is finished, and then the merge
    assert outcome(out) == before
    assert (out / "merged/model/model.safetensors").stat().st_mtime_ns == written


def test_changed_shares_score_only_the_new_candidates(out, tokens, monkeypatch):
    scored = []
    score = merge_scores_module.score_heldout
    monkeypatch.setattr(merge_scores_module, "score_heldout", lambda *a, **b: scored.append(1) or score(*a, **b))
    again(tokens, out, MERGE | {"base_shares": [0.1, 0.22, 0.3], "refinements": 0})
    assert len(scored) == 1


KILLER = """
import sys
from pathlib import Path
import aurora_m.training.stage
from aurora_m.training import merge_trained
from tests.training.killed import finished
from tests.training.test_merge import MERGE, QUIET
from tests.training.opposed import opposed_base, opposed_config

def work(out, kill_at):
    config = opposed_config(merge=MERGE)
    return finished(lambda: merge_trained(config, opposed_base(), Path(sys.argv[1]), out, progress=QUIET), kill_at)

for out in map(Path, sys.argv[2:]):
    kills = 0
    while not work(out, int(out.name) if kills < 3 else 0):
        kills += 1
        assert kills < 5, "it fails for another reason"
    print(out.name, kills)
"""


def test_a_merge_killed_at_any_touch_of_the_disk_ends_as_if_it_never_was(merged, tokens, tmp_path):
    moments = [tmp_path / str(moment) for moment in (2, 24, 29, 36)]
    for folder in moments:
        shutil.copytree(merged, folder)
        for name in ("merged", "merging", "merge.json"):
            shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
        facts = {key: value for key, value in read_json(folder / "train.json").items() if key != "merge"}
        write_json(folder / "train.json", facts | {"final_model": "CAP/model"})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH}
    command = [sys.executable, "-c", KILLER, str(tokens), *map(str, moments)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr
    assert all(int(line.split()[1]) >= 1 for line in result.stdout.splitlines()), result.stdout
    for folder in moments:
        assert outcome(folder) == outcome(merged), folder.name
        assert not [path for path in folder.rglob(".*") if path.name != ".metadata"]
        assert not list((folder / "merging").glob("average-*"))


# ---- means of checkpoints


def model_tensors(checkpoint: Path, model: Decoder) -> dict[str, torch.Tensor]:
    tensors = {f"model.{name}": torch.empty_like(p) for name, p in model.named_parameters() if p.requires_grad}
    load_checkpoint(checkpoint, tensors)
    return {name.removeprefix("model."): tensor.double() for name, tensor in tensors.items()}


def keep_average(monkeypatch) -> None:
    """Has the mean chosen, whatever its score."""
    chosen = lambda points, aim: (points[1], "the test says so")  # noqa: E731
    monkeypatch.setattr(sys.modules["aurora_m.training.merge"], "choose", chosen)


def test_the_mean_of_checkpoints_is_that_of_their_weights(out, tokens, monkeypatch):
    keep_average(monkeypatch)
    assert again(tokens, out)["merge"]["chosen"] == "mean of the last 3 checkpoints"
    model = load_model(out / "merged/model")
    checkpoints = list_checkpoints(out / "CAP")[-3:]
    assert len(checkpoints) == 3
    parts = [model_tensors(folder, model) for folder in checkpoints]
    for name, parameter in model.named_parameters():
        expected = sum(part[name] for part in parts) / 3
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=0, atol=1e-6)


def test_a_damaged_checkpoint_is_left_out_of_the_mean_aloud(out, tokens, monkeypatch):
    keep_average(monkeypatch)
    shutil.rmtree(out / "merging")
    damaged, *whole = list_checkpoints(out / "CAP")[-3:]
    (damaged / "__0_0.distcp").write_bytes(b"")
    heard = Heard()
    merge_trained(opposed_config(merge=MERGE), opposed_base(), tokens, out, progress=heard)
    assert any("damaged" in line and "left out of the mean" in line for line in heard.lines)
    model = load_model(out / "merged/model")
    parts = [model_tensors(folder, model) for folder in whole]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), sum(p[name] for p in parts) / 2, rtol=0, atol=1e-6)


def test_with_adapters_it_is_the_merged_matrices_that_are_averaged(merged, tokens, tmp_path, monkeypatch):
    keep_average(monkeypatch)
    cap = opposed_config().phases[1].model_dump(exclude_unset=True)
    lora = {"rank": 2, "alpha": 4, "targets": ["q", "up"]}
    config = opposed_config(phases=[cap], lora=lora, merge=MERGE | {"budget": {"known": 0.01}})
    base_folder = merged / "base" / "model"
    base = BaseConfig(path=str(base_folder), knows=["known"])
    out = tmp_path / "adapted"
    facts = train(config, base, tokens, out, seed=1, base_folder=base_folder, progress=QUIET)
    assert facts["merge"]["of"] == "CAP/model" and facts["merge"]["base"] == "initial/model"
    frozen = load_file(base_folder / "model.safetensors")
    adapted = load_model(base_folder)
    assert config.lora is not None
    add_adapters(adapted, config.lora, 0)
    parts = [model_tensors(folder, adapted) for folder in list_checkpoints(out / "CAP")[-3:]]
    name = "layers.0.mlp.up"
    expected = sum(
        merge_adapter(frozen["transformer.h.0.mlp.c_fc.weight"], p[f"{name}.lora_a"], p[f"{name}.lora_b"], 2.0)
        for p in parts
    )
    found = dict(load_model(out / "merged/model").named_parameters())
    torch.testing.assert_close(found[f"{name}.weight"].detach(), expected / 3, rtol=0, atol=1e-6)
    assert torch.equal(found["layers.0.mlp.down.weight"], frozen["transformer.h.0.mlp.c_proj.weight"])


# ---- what is refused


def test_a_recipe_without_a_budget_is_refused_before_anything_is_trained():
    with pytest.raises(ValidationError, match="merge needs a budget"):
        opposed_config(merge="auto")


@pytest.mark.parametrize(
    ("merge_settings", "message"),
    [
        ({"budget": {"fi": 0.01}}, "names fi, of which there is no held-out text; it can be held for known, learned"),
        ({"budget": {"known": 0.01, "learned": 0.01}}, "every domain is guarded"),
    ],
)
def test_a_budget_that_cannot_be_held_is_refused_before_training(tokens, tmp_path, merge_settings, message):
    with pytest.raises(RecipeError, match=message):
        go(tokens, tmp_path / "out", merge_settings)
    assert not (tmp_path / "out").exists()


def test_a_base_phase_alone_has_nothing_to_merge_with(tokens, tmp_path):
    base = opposed_config().phases[0].model_dump(exclude_unset=True)
    with pytest.raises(RecipeError, match="nothing to merge it with"):
        go(tokens, tmp_path / "out", phases=[base])


def test_one_budget_for_an_imported_base_needs_to_know_what_that_knew(tokens, out):
    base = BaseConfig(path=str(out / "base" / "model"))
    with pytest.raises(RecipeError, match="base.knows"):
        merge_trained(opposed_config(merge=MERGE), base, tokens, out, progress=QUIET)


def test_an_exchanged_model_is_found_out_by_the_ledger(out, tokens):
    shutil.rmtree(out / "CAP" / "model")
    shutil.copytree(out / "base" / "model", out / "CAP" / "model")
    with pytest.raises(DataError, match="CAP/model is not the model this run measured: known scores"):
        again(tokens, out)


def test_only_an_ancestor_is_a_base(out, tokens, tmp_path):
    shutil.copytree(out / "base" / "model", tmp_path / "elsewhere")  # the same weights in another place will do
    assert again(tokens, out, base_folder=tmp_path / "elsewhere")["final_model"] == "merged/model"
    stranger = load_model(out / "base" / "model")
    with torch.no_grad():
        stranger.final_norm.weight.add_(0.1)
    save_model(stranger, tmp_path / "stranger", tokens / "tokenizer")
    with pytest.raises(DataError, match="stranger is not an ancestor .*known ancestors are .*base/model"):
        again(tokens, out, base_folder=tmp_path / "stranger")
    with pytest.raises(DataError, match="is missing"):
        again(tokens, out, base_folder=tmp_path / "nowhere")


def test_ancestors_are_followed_through_runs(tmp_path):
    for run, base, phases in (("first", None, ["base", "CAP"]), ("second", "first/train/CAP/model", ["CAT", "SFT"])):
        train_folder = tmp_path / run / "train"
        reference = "initial/model" if base else "base/model"
        for name in [*phases, *(["initial"] if base else [])]:
            (train_folder / name / "model").mkdir(parents=True)
        write_json(train_folder / "train.json", {"base_model": reference, "phases": [{"name": n} for n in phases]})
        write_json(tmp_path / run / "recipe.json", {"base": {"path": base and str(tmp_path / base)}})
    found = ancestors(tmp_path / "second" / "train" / "SFT" / "model")
    names = [folder.relative_to(tmp_path).as_posix().removesuffix("/model") for folder in found]
    assert names == ["second/train/CAT", "second/train/initial", "first/train/CAP", "first/train/base"]


# ---- settings


def test_auto_off_and_shares_are_read_and_nonsense_is_refused():
    budget = {"merge": {"budget": "1%"}}
    assert opposed_config(**budget).merge == MergeConfig(budget=0.01)
    assert opposed_config(merge=False).merge is None and opposed_config(merge="off").merge is None
    assert opposed_config(merge={"budget": {"known": "2%"}}).merge == MergeConfig(budget={"known": 0.02})
    for wrong in ("always", True, {"budget": "-1%"}, {"budget": "1%", "base_shares": [1.2]}, {"budgets": 1}):
        with pytest.raises(ValidationError):
            opposed_config(merge=wrong)
    dumped = opposed_config(**budget).model_dump(mode="json")
    assert TrainConfig.model_validate(dumped).merge == MergeConfig(budget=0.01)


def test_budgets_of_the_command_line():
    assert parse_budgets(None) is None and parse_budgets(["1%"]) == 0.01
    assert parse_budgets(["en=1%", "code=0.02"]) == {"en": 0.01, "code": 0.02}
    for wrong in (["1%", "en=2%"], ["much"], ["en="], ["en=-1%"]):
        with pytest.raises(RecipeError, match="--budget"):
            parse_budgets(wrong)


def test_the_guardrails_budget_is_the_merge_s_where_it_has_none_of_its_own():
    guarded = opposed_config(merge="auto", guardrails={"known": "3%"})
    phases = [{"name": name, "mixture": {domain: 1.0}} for name, domain in (("base", "known"), ("CAP", "learned"))]
    assert merge_aim(guarded, opposed_base(), phases, ["known", "learned"]) == ({"known": 0.03}, ["learned"])
    own = opposed_config(merge={"budget": "2%"}, guardrails={"known": "3%"})
    assert merge_aim(own, opposed_base(), phases, ["known", "learned"])[0] == {"known": 0.02}
