"""What ships with servsim is found by name, from a checkout and from an installed package."""

from pathlib import Path

import pytest

from servsim.errors import ScenarioError
from servsim.scenario import catalogue


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two models and a scenario of a paper."""
    (tmp_path / "servsim" / "catalogue" / "models").mkdir(parents=True)
    (tmp_path / "servsim" / "catalogue" / "models" / "packed.yaml").touch()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "llama-3.1-8b.yaml").touch()
    (tmp_path / "models" / "other.json").touch()
    (tmp_path / "scenarios" / "papers").mkdir(parents=True)
    (tmp_path / "scenarios" / "papers" / "claim.yaml").touch()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(catalogue, "_PACKAGE", tmp_path / "servsim")
    return tmp_path


def test_a_checkout_reads_its_own_folders(checkout: Path) -> None:
    assert catalogue.folder("models") == checkout / "models"
    assert catalogue.names("models") == ["llama-3.1-8b", "other"]
    assert catalogue.find("models", "llama-3.1-8b") == checkout / "models" / "llama-3.1-8b.yaml"
    assert catalogue.names("scenarios") == ["papers/claim"]


def test_an_installed_servsim_reads_what_is_packed_with_it(checkout: Path) -> None:
    (checkout / "pyproject.toml").unlink()
    assert catalogue.names("models") == ["packed"]
    assert catalogue.names("hardware") == []


@pytest.mark.usefixtures("checkout")
def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"unknown model 'llama-3-8b'\n  did you mean 'llama-3.1-8b'"):
        catalogue.find("models", "llama-3-8b")
    with pytest.raises(ScenarioError, match=r"unknown model 'zzz'\n  known are: llama-3.1-8b, other"):
        catalogue.locate("models", "zzz")
    with pytest.raises(ValueError, match="no catalogue"):
        catalogue.folder("gadgets")


def test_hardware_is_known_by_what_it_is(checkout: Path) -> None:
    (checkout / "hardware").mkdir()
    for name, kind in {"h100": "gpu", "xeon": "cpu", "pm9a3": "ssd", "pcie": "link"}.items():
        (checkout / "hardware" / f"{name}.yaml").write_text(f"# A {kind}.\nname: {name}\nkind: {kind}\n")
    assert catalogue.names("hardware") == ["h100", "pcie", "pm9a3", "xeon"]
    assert catalogue.names("devices") == ["h100", "xeon"]
    assert catalogue.names("drives") == ["pm9a3"]
    with pytest.raises(ScenarioError, match=r"unknown link 'wire'\n  known are: pcie$"):
        catalogue.find("links", "wire")
    # Found all the same: the reader of links says better what is wrong with a drive.
    assert catalogue.find("links", "pm9a3") == checkout / "hardware" / "pm9a3.yaml"


@pytest.mark.usefixtures("checkout")
def test_a_path_wins_over_a_name_and_a_folder_stands_for_its_config(tmp_path: Path) -> None:
    hub = tmp_path / "Llama-3.1-8B"
    hub.mkdir()
    with pytest.raises(ScenarioError, match="is a folder, not a file"):
        catalogue.locate("models", str(hub))
    (hub / "config.json").touch()
    assert catalogue.locate("models", str(hub)) == hub / "config.json"
    with pytest.raises(ScenarioError, match=r"no such file .*\n.*did you mean 'llama-3.1-8b'"):
        catalogue.locate("models", "meta-llama/Llama-3.1-8B")


def test_slashes_and_suffixes_tell_paths_from_names() -> None:
    assert all(map(catalogue.is_path, ("./x", "a/b", "x.yaml", "config.JSON", "~x", "t.csv")))
    assert not any(map(catalogue.is_path, ("llama-3.1-8b", "h100-sxm", "azure-conv-2023")))
