"""What a run says about itself, for cards and report alike."""

import subprocess
import sys

import pytest
from tests.report.run_folder import DOMAINS, make_run

from aurora_m.release import RunFacts, domain_groups, final_changes, read_facts
from aurora_m.release.licenses import obligations
from aurora_m.workspace import AuroraError


def test_the_base_phase_says_what_was_known(tmp_path):
    groups = domain_groups(read_facts(make_run(tmp_path / "run")))
    assert [d for d, group in groups.items() if group == "known"] == ["en", "code"]
    assert [d for d, group in groups.items() if group == "new language"] == ["fi", "hi", "ja", "vi"]


def test_before_training_the_recipe_says_it(tmp_path):
    groups = domain_groups(read_facts(make_run(tmp_path / "run", ())))
    assert groups["en"] == "known" and groups["fi"] == "new language"


def test_of_an_imported_base_nobody_knows_what_it_knew(tmp_path):
    recipe = {"base": {"path": "x/y"}, "domains": {"fi": {"lang": "fi"}, "code": {"lang": None}}}
    assert set(domain_groups(RunFacts(tmp_path, recipe=recipe)).values()) == {"other"}
    recipe["base"]["knows"] = ["code"]
    assert domain_groups(RunFacts(tmp_path, recipe=recipe)) == {"fi": "new language", "code": "known"}


def test_changes_are_of_the_last_model_measured(tmp_path):
    evaluated = final_changes(read_facts(make_run(tmp_path / "a")))
    trained = final_changes(read_facts(make_run(tmp_path / "b", ("curate", "tokenize", "train"))))
    assert [(change.domain, change.model) for change in evaluated] == [(domain, "aligned") for domain in DOMAINS]
    assert {change.model for change in trained} == {"trained"}
    assert trained[2].change == pytest.approx(1.78 / 2.71 - 1, abs=1e-3)


def test_a_damaged_manifest_is_a_clear_message(tmp_path):
    run = make_run(tmp_path / "run", ("curate",))
    (run / "manifests" / "curate.json").write_text("{")
    with pytest.raises(AuroraError, match=r"curate\.json"):
        read_facts(run)


@pytest.mark.parametrize(
    ("license", "asked"),
    [
        ("CC-BY-NC-SA-4.0", ["non-commercial", "share-alike"]),
        ("cc_by_nc_nd", ["non-commercial", "no derivatives"]),
        ("GPL-1.0 (COPYING of the corpus repository)", ["share-alike"]),
        ("AGPL-3.0-only", ["share-alike"]),
        ("CC-BY-4.0", []),
        ("Apache-2.0", []),
        ("public-domain / CC0-1.0", []),
        (None, ["not stated"]),
        ("Unknown", ["not stated"]),
    ],
)
def test_what_licences_ask(license, asked):
    assert obligations(license) == asked


def test_rooms_are_light_to_enter():
    code = (
        "import sys, aurora_m.release, aurora_m.report; "
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'pyarrow', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
