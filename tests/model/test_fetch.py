"""A base is a folder or a Hugging Face id; whatever goes wrong is one message."""

import pytest

from aurora_m.model import fetch_base
from aurora_m.workspace import DataError


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the download: returns what it was given to return, or raises it."""
    calls = []

    def answer_with(result):
        def download(path, **settings):
            calls.append((path, settings))
            if isinstance(result, Exception):
                raise result
            return str(result)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return calls

    return answer_with


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert fetch_base(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match="is a folder, which has no revision"):
        fetch_base(str(tmp_path), revision="main")


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "a/b/c", "../x", "C:\\models"])
def test_a_path_that_is_not_there_is_not_sought_on_the_hub(path):
    with pytest.raises(DataError, match="no such folder"):
        fetch_base(path)


def test_an_id_is_downloaded_without_pickles_and_code(hub, tmp_path):
    (tmp_path / "model.safetensors").touch()
    calls = hub(tmp_path)
    assert fetch_base("bigcode/starcoderplus", revision="abc") == tmp_path
    ((path, settings),) = calls
    assert path == "bigcode/starcoderplus" and settings["revision"] == "abc"
    assert not any(pattern.endswith((".bin", ".py", "*", ".pt")) for pattern in settings["allow_patterns"])


def test_a_repository_without_safetensors_is_refused(hub, tmp_path):
    hub(tmp_path)
    with pytest.raises(DataError, match="publishes no safetensors"):
        fetch_base("someone/old-model")


def test_no_network_is_one_message(hub):
    hub(ConnectionError("Name or service not known\nand a long story"))
    with pytest.raises(DataError, match="could not be fetched.*check the network") as refused:
        fetch_base("bigcode/starcoderplus")
    assert "long story" not in str(refused.value)
