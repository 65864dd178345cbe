"""Fertility: counts are those of counting by hand, in a run and of files, and what is missing is named."""

import json

import pytest
from typer.testing import CliRunner

from aurora_m.cli import app
from aurora_m.tokens import TokenizerConfig, describe_fertility, measure_fertility, tokenize
from aurora_m.workspace import AuroraError, Progress, RecipeError

from .toy import texts, write_curated

QUIET = Progress(quiet=True)
TEXTS = {"finnish": texts("finnish", 30), "japanese": texts("japanese", 30)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run as far as fertility looks into it: curated documents and an extended tokenizer."""
    folder = tmp_path_factory.mktemp("run")
    for domain, documents in TEXTS.items():
        write_curated(folder / "curated", domain, documents)
        write_curated(folder / "curated", domain, documents[:9], "heldout")
    first = {"train": {"vocab_size": 300, "domains": ["finnish"]}}
    tokenize(TokenizerConfig.model_validate(first), folder / "curated", folder / "first", progress=QUIET)
    extend = {"path": str(folder / "first" / "tokenizer"), "extend": {"domains": ["japanese"], "new_tokens": 20}}
    tokenize(TokenizerConfig.model_validate(extend), folder / "curated", folder / "tokens", progress=QUIET)
    return folder


def test_a_run_is_measured_on_held_out_text_beside_its_base(run):
    measured = measure_fertility(str(run), progress=QUIET)
    assert measured["tokenizers"] == {run.name: 320, "base": 300}
    facts = json.loads((run / "tokens" / "tokens.json").read_text())["domains"]
    for domain, documents in TEXTS.items():
        row, held = measured["texts"][domain], facts[domain]["heldout"]
        assert (row["documents"], row["bytes"]) == (9, held["bytes"])
        assert row["characters"] == sum(map(len, documents[:9]))
        assert row["tokens"][run.name] == held["tokens"] - 9
        assert row["tokens"]["base"] / row["bytes"] == pytest.approx(held["base_tokens_per_byte"], rel=0.05)
    japanese = measured["texts"]["japanese"]["tokens"]
    assert japanese[run.name] < japanese["base"]


def test_words_are_counted_as_curation_counts_them(tmp_path, run):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "two words, 森は 3"}) + "\n" + json.dumps({"text": "one"}) + "\n")
    tokenizer = str(run / "first" / "tokenizer")
    row = measure_fertility(tokenizer, texts=[str(path)], progress=QUIET)["texts"][str(path)]
    assert (row["documents"], row["words"]) == (2, 6)
    assert measure_fertility(tokenizer, texts=[str(path)], limit=1, progress=QUIET)["texts"][str(path)]["words"] == 5


def test_the_command_prints_a_table_or_json(run):
    arguments = ["fertility", str(run), "--against", str(run / "first" / "tokenizer")]
    told = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert len(told["tokenizers"]) == 3
    assert describe_fertility(told).row_count == 2
    assert "finnish" in CliRunner().invoke(app, arguments).stdout


def test_what_is_missing_is_named(run):
    with pytest.raises(RecipeError, match="no run with documents"):
        measure_fertility(str(run / "first" / "tokenizer"), progress=QUIET)
    with pytest.raises(AuroraError, match="does not exist"):
        measure_fertility(str(run / "nothing" / "here"), texts=[str(run / "x.jsonl")], progress=QUIET)
