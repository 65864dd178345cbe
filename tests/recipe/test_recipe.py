"""A recipe is read strictly, and its errors say where, what and how to mend it."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from aurora_m import Recipe
from aurora_m.recipe import explain_recipe
from aurora_m.recipe.recipe import resolve_paths
from aurora_m.workspace import RecipeError

REPOSITORY = Path(__file__).resolve().parents[2]


def broken(recipe_file: Path, old: str, new: str) -> str:
    """The error message of the recipe with one text replaced."""
    text = recipe_file.read_text()
    assert old in text
    recipe_file.write_text(text.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(recipe_file)
    return str(caught.value)


def test_quantities_and_shares_are_read(recipe_file):
    recipe = Recipe.load(recipe_file)
    assert recipe.train.phases[1].tokens == 4000
    assert recipe.train.phases[1].mixture == {"code": 0.25, "notes": 0.75}


def test_relative_paths_are_relative_to_the_recipe_not_to_the_shell(recipe_file, monkeypatch, tmp_path):
    monkeypatch.chdir("/")
    recipe = Recipe.load(recipe_file)
    assert recipe.domains["code"].sources[0].path == str(tmp_path / "recipes" / "tree")
    assert recipe.domains["notes"].sources[0].path == str(tmp_path / "data" / "notes.jsonl.zst")


def test_a_language_model_may_be_named_from_the_recipes_folder_or_a_shorthand(recipe_file, tmp_path):
    assert Recipe.load(recipe_file).curate.language_model is None
    for name, path in (
        ("lid.bin", tmp_path / "recipes" / "lid.bin"),
        ("{data}/lid.bin", tmp_path / "data" / "lid.bin"),
    ):
        recipe = Recipe.load(recipe_file, [f"curate={{language_model: '{name}'}}"])
        assert recipe.curate.language_model == str(path)


def test_paths_of_evaluation_sets_are_resolved_like_those_of_sources(tmp_path):
    against = [{"name": "a", "path": "sets/a.jsonl"}, {"name": "b", "path": "{eval}/b.json"}, {"name": "c"}]
    data = {"paths": {"eval": "/somewhere"}, "curate": {"decontaminate": {"against": against}}}
    resolved = resolve_paths(data, tmp_path)["curate"]["decontaminate"]["against"]
    assert [one.get("path") for one in resolved] == [str(tmp_path / "sets/a.jsonl"), "/somewhere/b.json", None]


def test_all_paths_of_curation_are_made_absolute_together(tmp_path):
    curate = {
        "decontaminate": {"against": [{"path": "a.jsonl"}]},
        "language_model": "{models}/lid.bin",
        "near_duplicates": {"against": ["../old", "{runs}/older", 3]},
        "threads": 2,
    }
    data = {"paths": {"models": "/m", "runs": "r"}, "curate": curate}
    assert resolve_paths(data, tmp_path)["curate"] == {
        "decontaminate": {"against": [{"path": str(tmp_path / "a.jsonl")}]},
        "language_model": "/m/lid.bin",
        "near_duplicates": {"against": [str(tmp_path.parent / "old"), str(tmp_path / "r/older"), 3]},
        "threads": 2,
    }


def test_an_unknown_key_is_refused_with_line_and_nearest_key(recipe_file):
    message = broken(recipe_file, "vocab_size: 300", "vocabsize: 300")
    assert "line 16: tokenizer.train.vocabsize: unknown key; did you mean 'vocab_size'?" in message


def test_an_unknown_key_deep_in_a_list_is_found(recipe_file):
    message = broken(
        recipe_file,
        "      tokens_per_step: 128\n      lr: {peak: 1e-3}\n    - name",
        "      tokens_per_steps: 128\n      lr: {peak: 1e-3}\n    - name",
    )
    assert "line 25: train.phases.0.tokens_per_steps: unknown key; did you mean 'tokens_per_step'?" in message


def test_domains_of_base_and_replay_must_be_in_the_recipe(recipe_file):
    message = broken(recipe_file, "seed: 3", "seed: 3\nalign: {replay: {share: 0.3, mixture: {note: 1.0}}}")
    assert "align.replay.mixture: domain 'note' is not among the domains; did you mean 'notes'?" in message


def test_what_the_base_knows_must_be_a_domain(recipe_file):
    message = broken(recipe_file, "max_positions: 128}", "max_positions: 128}\n  knows: [codes]")
    assert "base.knows: domain 'codes' is not among the domains; did you mean 'code'?" in message


def test_a_sample_takes_the_first_documents_of_every_source(recipe_file):
    recipe = Recipe.load(recipe_file, ["domains.code.sources.0.limit_documents=5"])
    sample = recipe.sampled(100)
    assert sample.name == "small-sample"
    assert [domain.sources[0].limit_documents for domain in sample.domains.values()] == [5, 100]
    assert recipe.domains["notes"].sources[0].limit_documents is None


def test_all_errors_are_told_at_once(recipe_file):
    recipe_file.write_text(recipe_file.read_text().replace("seed: 3", "seed: three").replace("layers: 2", "layer: 2"))
    with pytest.raises(RecipeError) as caught:
        Recipe.load(recipe_file)
    assert "line 2: seed" in str(caught.value)
    assert "did you mean 'layers'?" in str(caught.value)


def test_shares_that_do_not_sum_to_one_name_phase_sum_and_suspect(recipe_file):
    message = broken(recipe_file, "notes: 0.75", "notes: 0.70")
    assert "phase CAP: shares sum to 0.95, expected 1.0" in message


def test_a_share_for_a_domain_that_does_not_exist_names_the_nearest(recipe_file):
    assert "note" in broken(recipe_file, "notes: 0.75", "note: 0.75")


@pytest.mark.parametrize("value", ["four", "-1K", "1.5", "[]"])
def test_a_quantity_that_is_none_is_refused_with_its_line(recipe_file, value):
    assert "line 28: train.phases.1.tokens" in broken(recipe_file, "tokens: 4K", f"tokens: {value}")


def test_a_key_given_twice_is_refused(recipe_file):
    assert "line 3: key 'seed' was already given in line 2" in broken(recipe_file, "seed: 3", "seed: 3\nseed: 4")


def test_broken_yaml_names_the_line(recipe_file):
    assert "line" in broken(recipe_file, "seed: 3", "seed: [3")


def test_yaml_tags_that_build_objects_are_refused(recipe_file):
    assert "not valid YAML" in broken(recipe_file, "seed: 3", "seed: !!python/object/apply:os.getcwd []")


def test_an_unknown_language_names_the_known_ones(recipe_file):
    message = broken(recipe_file, "  notes:\n", "  notes:\n    lang: tlh\n")
    assert "'tlh' is not a known language" in message


def test_an_unknown_threshold_names_its_line_and_the_nearest(recipe_file):
    message = broken(recipe_file, "    rules: code\n", "    rules: code\n    thresholds: {longest_lines_max: 10}\n")
    assert "line 7: domains.code" in message
    assert "threshold 'longest_lines_max' is unknown" in message and "did you mean 'longest_line_max'?" in message


def test_a_missing_recipe_is_one_message(tmp_path):
    with pytest.raises(RecipeError, match=r"recipe .*nowhere\.yaml does not exist"):
        Recipe.load(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_recipe_is_one_message(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError, match="holds no sections"):
        Recipe.load(tmp_path / "r.yaml")


def test_changes_are_laid_over_by_key_path(recipe_file):
    changes = ["train.phases.CAP.tokens=8K", "align.enabled=false", "train.phases.0.mixture={code: 1}"]
    recipe = Recipe.load(recipe_file, changes)
    assert recipe.train.phases[1].tokens == 8000
    assert not recipe.align.enabled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.phases.CAT.tokens=1", "no item 'CAT' in train.phases; did you mean 'CAP'"),
        ("train.phase.0.tokens=1", "unknown key 'phase'; did you mean 'phases'"),
        ("nothing", "expected key.path=value"),
        ("seed.deep=1", "seed is the value 3"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_a_change_of_something_that_is_not_there_names_the_nearest(recipe_file, change, message):
    with pytest.raises(RecipeError, match=message.replace("[", r"\[")):
        Recipe.load(recipe_file, [change])


def test_a_recipe_written_out_reads_back_the_same(recipe_file, tmp_path):
    recipe = Recipe.load(recipe_file)
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "copy.yaml") == recipe


@pytest.mark.parametrize("name", ["quickstart", "docs-corpus", "aurora-m-15b", "aurora-m-15b-guarded"])
def test_the_recipes_we_ship_are_valid_and_explained(name, tmp_path):
    recipe = Recipe.load(REPOSITORY / "recipes" / f"{name}.yaml")
    console = Console(file=io.StringIO(), width=160)
    console.print(explain_recipe(recipe, tmp_path))
    text = console.file.getvalue()
    for phase in recipe.train.phases:
        assert phase.name in text


def test_a_model_from_scratch_is_explained_by_its_features(tmp_path):
    recipe = Recipe.load(
        REPOSITORY / "recipes" / "quickstart.yaml",
        [
            "base.architecture.family=qwen3",
            "base.architecture.kv_heads=2",
            "base.architecture.sliding_window=256",
        ],
    )
    console = Console(file=io.StringIO(), width=400)
    console.print(explain_recipe(recipe, tmp_path))
    assert (
        "trains a qwen3 model from scratch first (4 layers, hidden size 192, 4 heads of 48 with 2 for keys and values, "
        "rotary positions, RMSNorm, QK norm, gated MLP of 512, sliding window of 256, own head)"
    ) in console.file.getvalue()


def test_adapters_are_explained_and_need_a_base_to_adapt(tmp_path):
    lora = "train.lora={rank: 16, alpha: 32, targets: [q, v]}"
    recipe = Recipe.load(REPOSITORY / "recipes" / "aurora-m-15b.yaml", [lora, "align.lora={rank: 8, alpha: 8}"])
    console = Console(file=io.StringIO(), width=400)
    console.print(explain_recipe(recipe, tmp_path))
    assert "LoRA in training: rank 16, alpha 32, on q, v; merged on export." in console.file.getvalue()
    assert "LoRA in safety tuning: rank 8, alpha 8, on all matrices of the layers" in console.file.getvalue()
    with pytest.raises(RecipeError, match=r"train\.lora: adapts an existing model; give base\.path"):
        Recipe.load(REPOSITORY / "recipes" / "quickstart.yaml", [lora])


def test_the_papers_recipe_has_the_papers_figures():
    recipe = Recipe.load(REPOSITORY / "recipes" / "aurora-m-15b.yaml")
    cap, cat = recipe.train.phases
    assert (cap.steps, cat.steps) == (90_000, 13_900)
    assert cap.tokens_per_step == 2048 * 2048
    assert recipe.train.phases[0].lr.over == 120_000 * cap.tokens_per_step
    assert recipe.base.path == "bigcode/starcoderplus"


def test_the_recipe_file_of_a_run_is_plain_yaml(recipe_file):
    assert yaml.safe_load(Recipe.load(recipe_file).to_yaml())["name"] == "small"


def test_paths_of_models_are_those_beside_the_recipe(recipe_file):
    text = recipe_file.read_text() + (
        "curate:\n  language_model: '{data}/lid.bin'\n  classifiers: [{name: good, model: ../good.bin, domains: [notes]}]\n"
        "  decontaminate: {against: [{name: set, path: set.jsonl, fields: [text]}]}\n"
    )
    recipe_file.write_text(text)
    curate, folder = Recipe.load(recipe_file).curate, recipe_file.parent
    assert curate.language_model == str(folder.parent / "data" / "lid.bin")
    assert curate.classifiers[0].model == str(folder.parent / "good.bin")
    assert curate.decontaminate.against[0].path == str(folder / "set.jsonl")
    recipe_file.write_text(text.replace("domains: [notes]", "domains: [note]"))
    with pytest.raises(RecipeError, match="curate.classifiers: good: domain 'note' is not among the domains"):
        Recipe.load(recipe_file)


def test_the_guarded_15b_is_the_papers_but_for_its_guardrails():
    published, guarded = (
        Recipe.load(REPOSITORY / "recipes" / f"{name}.yaml").model_dump()
        for name in ("aurora-m-15b", "aurora-m-15b-guarded")
    )
    assert published["train"].pop("guardrails") is None
    assert guarded["train"].pop("guardrails")["budget"] == {"en": 0.01, "code": 0.01}
    for recipe in (published, guarded):
        del recipe["name"], recipe["description"], recipe["release"]
    assert published == guarded


def explained(recipe_file, run, *changes) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(explain_recipe(Recipe.load(recipe_file, list(changes)), run))
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("lr", "lines"),
    [
        ("{peak: 1e-4, warmup: 4 steps, to: 1e-5}", ["warm-up from 0 to 0.0001 over 512 tokens (4 steps)", "at 4K"]),
        ("{peak: 1e-4, warmup: 400, start: last}", ["warm-up from the last rate to 0.0001 over 400 tokens"]),
        ("{peak: last, decay: 1-sqrt}", ["from the last rate", "1-sqrt to 0 at 4K tokens"]),
        ("{peak: 1, decay: infinite, to: .5, over: 1K}", ["cosine to 0.5 at 1K tokens", "constant from there to 4K"]),
        ("{peak: 1, decay: linear, over: 9K}", ["linear to 0 at 9K tokens; the phase ends on the slope, at 4K"]),
        ("{peak: 1, decay: constant}", ["from 1", "constant from there"]),
        ("{continues: true}", ["goes on along the previous phase's curve"]),
    ],
)
def test_learning_rates_are_explained_part_by_part(recipe_file, tmp_path, lr, lines):
    text = explained(recipe_file, tmp_path, f"train.phases.CAP.lr={lr}")
    assert all(line in text for line in lines), text


def test_a_growing_batch_is_explained(recipe_file, tmp_path):
    text = explained(recipe_file, tmp_path, "train.phases.CAP.tokens_per_step={from: 128, to: 512, over: 2K}")
    assert "14 of 128 to 512 tokens" in text and "growing by 128 over 2K" in text


def test_a_mixture_by_rule_is_explained_once_there_are_tokens(recipe_file, tmp_path):
    rule = "train.phases.CAP.mixture={temperature: 2, domains: [notes], shares: {code: 25%}}"
    assert "?" in explained(recipe_file, tmp_path, rule)
    counts = {"code": {"train": {"tokens": 500}}, "notes": {"train": {"tokens": 1500}}}
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "tokens.json").write_text(json.dumps({"domains": counts}))
    text = explained(recipe_file, tmp_path, rule)
    assert "3K (75.0%)" in text and "1K (25.0%)" in text and " 2.00" in text
    recipe = Recipe.load(recipe_file, [rule])
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "copy.yaml") == recipe
    with pytest.raises(RecipeError, match=r"phase CAP: the mixture names an unknown domain 'noten'"):
        Recipe.load(recipe_file, [rule.replace("notes", "noten")])
    with pytest.raises(RecipeError, match="phase CAP: loss.weights: domain 'noten' is not among the domains"):
        Recipe.load(recipe_file, ["train.phases.CAP.loss.weights={noten: 0}"])


def test_explain_says_what_is_guarded(tmp_path):
    console = Console(width=400, record=True)
    console.print(explain_recipe(Recipe.load(REPOSITORY / "recipes" / "aurora-m-15b-guarded.yaml"), tmp_path))
    assert "en 1, code 1; replay moves from 0.5% each to 50%" in console.export_text()


def test_an_unknown_guarded_domain_is_refused_when_the_recipe_is_read():
    with pytest.raises(RecipeError, match="train.guardrails: domain 'kode' is not among the domains; did you mean"):
        Recipe.load(REPOSITORY / "recipes" / "quickstart.yaml", ["train.guardrails={en: 1%, kode: 1%}"])
