"""Stages in order: what is done is skipped, what changed is redone together with what follows."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.heard import Heard
from tests.small_run import leftovers, make_project, write_documents

from aurora_m import AuroraError, Recipe, pipeline, run
from aurora_m.pipeline import FOLDERS, STAGES, plan_stages
from aurora_m.training import StoppedByUser, TrainingState
from aurora_m.workspace import Progress, RecipeError, lock_run

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    project = tmp_path_factory.mktemp("pipeline")
    make_project(project)
    run(Recipe.load(project / "small.yaml"), runs=project / "runs", progress=QUIET)
    return project


@pytest.fixture
def project(finished, tmp_path) -> Path:
    """A finished run of its own to change, in another place: sources are compared by content, not by folder."""
    shutil.copytree(finished, tmp_path / "project")
    return tmp_path / "project"


def actions(project: Path, *changes: str, **options) -> dict[str, str]:
    recipe = Recipe.load(project / "small.yaml", list(changes))
    return {plan.stage: plan.action for plan in plan_stages(recipe, project / "runs/small", **options)}


def test_a_run_leaves_every_stage_with_a_manifest_and_a_report(finished):
    folder = finished / "runs/small"
    for stage in STAGES:
        manifest = json.loads((folder / "manifests" / f"{stage}.json").read_text())
        assert manifest["stage"] == stage
        assert manifest["seconds"] > 0
        assert manifest["peak_memory_bytes"] > 0
        assert (folder / FOLDERS[stage]).is_dir()
    assert "<html" in (folder / "report/index.html").read_text()
    assert leftovers(finished) == []


def test_an_unchanged_run_skips_every_stage(finished):
    assert set(actions(finished).values()) == {"skip"}
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs/small/release").iterdir()}
    run(Recipe.load(finished / "small.yaml"), runs=finished / "runs", progress=QUIET)
    assert {path: path.stat().st_mtime_ns for path in (finished / "runs/small/release").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "first_redone"),
    [
        ("curate.dropped_sample=3", "curate"),
        ("tokenizer.train.vocab_size=330", "tokenize"),
        ("tokenizer.shuffle=true", "tokenize"),
        ("train.phases.CAP.tokens=7K", "train"),
        ("align.epochs=2", "align"),
        ("evaluate.max_new_tokens=5", "evaluate"),
        ("release.author=Somebody", "release"),
    ],
)
def test_a_changed_section_redoes_its_stage_and_what_follows(finished, change, first_redone):
    plan = actions(finished, change)
    position = STAGES.index(first_redone)
    assert all(plan[stage] == "skip" for stage in STAGES[:position])
    assert plan[first_redone] == "redo"
    assert all(plan[stage] == "run" for stage in STAGES[position + 1 :])


@pytest.mark.parametrize("change", ["curate.threads=1", "tokenizer.threads=1", "train.threads=2", "description=words"])
def test_what_changes_no_result_redoes_nothing_expensive(finished, change):
    plan = actions(finished, change)
    assert all(plan[stage] == "skip" for stage in STAGES[:-1])


def test_changed_data_redoes_everything(project):
    write_documents(project / "letters.jsonl", seed=9)
    assert actions(project)["curate"] == "redo"


def test_a_stage_that_fails_leaves_its_old_result_in_place(project):
    good = (project / "letters.jsonl").read_text()
    (project / "letters.jsonl").write_text("")
    with pytest.raises(AuroraError, match="letters"):
        run(Recipe.load(project / "small.yaml"), runs=project / "runs", progress=QUIET)
    assert (project / "runs/small/curated/curation.json").exists()
    (project / "letters.jsonl").write_text(good)
    assert actions(project)["curate"] == "skip" or actions(project)["tokenize"] == "run"


def test_from_a_stage_redoes_it_and_all_that_follow(finished):
    plan = actions(finished, from_stage="align")
    assert [plan[stage] for stage in STAGES] == ["skip", "skip", "skip", "redo", "run", "run"]


def test_a_stage_alone_refuses_to_build_on_what_is_out_of_date(project):
    write_documents(project / "letters.jsonl", seed=9)
    with pytest.raises(
        AuroraError, match=r"train builds on curate, which is not up to date \(changed: input letters 1: letters"
    ):
        run(Recipe.load(project / "small.yaml"), runs=project / "runs", only="train", progress=QUIET)


def test_a_dry_run_changes_nothing(tmp_path):
    make_project(tmp_path)
    run(Recipe.load(tmp_path / "small.yaml"), runs=tmp_path / "runs", dry_run=True, progress=QUIET)
    assert not (tmp_path / "runs").exists()


def test_an_unknown_stage_is_refused_with_the_known_ones(tmp_path):
    make_project(tmp_path)
    with pytest.raises(RecipeError, match="expected one of curate, tokenize"):
        run(Recipe.load(tmp_path / "small.yaml"), runs=tmp_path / "runs", only="training", progress=QUIET)


def test_two_runs_at_once_on_one_folder_are_refused(project):
    with lock_run(project / "runs/small"), pytest.raises(AuroraError, match="in use by process"):
        run(Recipe.load(project / "small.yaml"), runs=project / "runs", progress=QUIET)


def test_an_edit_of_the_last_phase_keeps_the_phases_before_it(project):
    before = (project / "runs/small/train/base/model/model.safetensors").stat().st_mtime_ns
    run(Recipe.load(project / "small.yaml", ["train.phases.CAP.tokens=7K"]), runs=project / "runs", progress=QUIET)
    assert (project / "runs/small/train/base/model/model.safetensors").stat().st_mtime_ns == before
    assert list((project / "runs/small/train/superseded").glob("CAP-*"))


def test_a_source_added_to_a_run_under_way_joins_without_any_phase_anew(project, monkeypatch):
    """Curation and tokens are made anew, with the tokenizer that training began with; training goes on."""
    count = TrainingState.count

    def count_and_stop(self, *arguments):
        count(self, *arguments)
        if self.phase == "CAP" and self.phase_step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    runs = project / "runs"
    with monkeypatch.context() as patch, pytest.raises(StoppedByUser):
        patch.setattr(TrainingState, "count", count_and_stop)
        recipe = Recipe.load(project / "small.yaml", ["train.phases.CAP.tokens=7K"])
        run(recipe, runs=runs, progress=QUIET)
    write_documents(project / "more.jsonl", count=40, seed=11)
    source = "{kind: jsonl, path: more.jsonl, license: CC0-1.0}"
    text = (
        (project / "small.yaml")
        .read_text()
        .replace("path: letters.jsonl, license: CC0-1.0}", f"path: letters.jsonl, license: CC0-1.0}}, {source}")
    )
    (project / "small.yaml").write_text(text.replace("notes: 0.5, letters: 0.5", "notes: 0.25, letters: 0.75"))
    recipe = Recipe.load(project / "small.yaml", ["train.phases.CAP.tokens=7K"])
    plans = {plan.stage: plan for plan in plan_stages(recipe, runs / "small")}
    words = "phase CAP goes on at 8.19K tokens with a new mixture: notes 0.5 -> 0.25, letters 0.5 -> 0.75"
    assert plans["curate"].action == "redo" and words in plans["train"].reason
    heard = Heard()
    tokenizer = (runs / "small/tokens/tokenizer/tokenizer.json").read_bytes()
    run(recipe, runs=runs, progress=heard)
    assert words in heard.lines and any("domain letters: " in line and "joined" in line for line in heard.lines)
    assert tokenizer == (runs / "small/tokens/tokenizer/tokenizer.json").read_bytes()
    assert len(list((runs / "small/train/superseded").glob("*"))) == 1  # of the edit before the stop
    assert "changed under way" in (runs / "small/release/README.md").read_text()
    assert "Changes under way" in (runs / "small/report/index.html").read_text()


def test_evaluation_sets_to_keep_out_are_inputs_of_curate_by_content(tmp_path):
    make_project(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "set.jsonl").write_text('{"q": "question"}')

    def stage(folder: str) -> tuple[dict, dict]:
        one = f"{{name: s, path: {folder}/set.jsonl, fields: [q]}}"
        recipe = Recipe.load(tmp_path / "small.yaml", [f"curate.decontaminate={{against: [{one}]}}"])
        curate = pipeline._stages(recipe, tmp_path / "runs/small")[0]
        return curate.config, curate.inputs()

    assert stage("a") == stage("b")
    (tmp_path / "b" / "set.jsonl").write_text('{"q": "another"}')
    assert stage("a") != stage("b") and "evaluation set s" in stage("a")[1]
    (tmp_path / "b" / "set.jsonl").unlink()
    with pytest.raises(AuroraError, match=r"evaluation set 's': .*set\.jsonl does not exist"):
        stage("b")


def test_earlier_indexes_are_inputs_of_curate_by_content(tmp_path):
    make_project(tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "index.json").write_text('{"content": "one"}')

    def stage(folder: str) -> tuple[dict, dict]:
        recipe = Recipe.load(tmp_path / "small.yaml", [f"curate.near_duplicates={{against: [{folder}]}}"])
        curate = pipeline._stages(recipe, tmp_path / "runs/small")[0]
        return curate.config, curate.inputs()

    assert stage("a") == stage("b")
    (tmp_path / "b" / "index.json").write_text('{"content": "another"}')
    assert stage("a") != stage("b") and "earlier index 1" in stage("a")[1]
    with pytest.raises(AuroraError, match=r"no index\.json"):
        stage("c")


def test_a_merge_by_hand_is_taken_up_by_the_stages_after_training(project, monkeypatch):
    folder = project / "runs/small"
    kept = lambda points, aim: (next(point for point in points if point.base_share == 0.2), "the test says so")  # noqa: E731
    monkeypatch.setattr("aurora_m.training.merge.choose", kept)
    with pytest.raises(RecipeError, match="merging needs a budget"):
        pipeline.merge_run(folder, progress=QUIET)
    assert set(actions(project).values()) == {"skip"}
    pipeline.merge_run(folder, budget={"notes": 0.5}, progress=QUIET)
    facts = json.loads((folder / "train/train.json").read_text())
    assert facts["final_model"] == "merged/model" and facts["merge"]["chosen"] == "base share 0.2"
    plan = actions(project)
    assert [plan[stage] for stage in STAGES] == ["skip", "skip", "skip", "redo", "run", "run"]
    assert "Merging with the base" in (folder / "report/index.html").read_text()
    run(Recipe.load(project / "small.yaml"), runs=project / "runs", progress=QUIET)
    assert json.loads((folder / "align/align.json").read_text())["base_model"].endswith("train/merged/model")
    card = (folder / "release/README.md").read_text()
    assert "merged with its base (base share 0.2): the test says so" in card
    assert set(actions(project).values()) == {"skip"}


def test_a_run_that_has_not_been_trained_is_not_merged(project, tmp_path):
    with pytest.raises(AuroraError, match="no run folder"):
        pipeline.merge_run(tmp_path, progress=QUIET)
    (project / "runs/small/manifests/train.json").unlink()
    with pytest.raises(AuroraError, match="the stage train has not finished"):
        pipeline.merge_run(project / "runs/small", budget=0.1, progress=QUIET)
