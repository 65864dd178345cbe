"""SHA256SUMS finds every change, and reads nothing outside the folder."""

import shutil
import subprocess

import pytest

from aurora_m.release import ReleaseError, verify_release
from aurora_m.release.checksums import write_checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("README.md", "model.safetensors", "sub/x y.json"):
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    return tmp_path


def test_an_untouched_release_is_whole(folder):
    assert verify_release(folder) == 3


def test_the_usual_tool_reads_the_list(folder):
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum here")
    subprocess.run([tool, "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_changed_missing_and_added_files_are_all_named(folder):
    (folder / "README.md").write_text("other")
    (folder / "model.safetensors").unlink()
    (folder / "added.py").write_text("")
    with pytest.raises(ReleaseError) as error:
        verify_release(folder)
    for part in ("changed: README.md", "missing: model.safetensors", "not listed: added.py"):
        assert part in str(error.value)


def test_names_that_lead_out_of_the_folder_are_not_followed(folder, tmp_path_factory):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text("x")
    with (folder / "SHA256SUMS").open("a") as file:
        file.write("0" * 64 + f"  ../{secret.parent.name}/secret\n")
    with pytest.raises(ReleaseError, match="missing: ../outside"):
        verify_release(folder)


@pytest.mark.parametrize("content", ["", "no checksum\n", "00  short\n"])
def test_a_damaged_list_is_a_clear_message(content, folder):
    (folder / "SHA256SUMS").write_text(content)
    with pytest.raises(ReleaseError):
        verify_release(folder)


def test_a_folder_without_a_list_is_no_release(tmp_path):
    with pytest.raises(ReleaseError, match="is .* a release folder"):
        verify_release(tmp_path)
