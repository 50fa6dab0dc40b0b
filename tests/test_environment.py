"""pyproject.toml, constraints.txt and environment.yml agree with each other."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from qwen_course import environment

ROOT = Path(__file__).resolve().parent.parent
COLAB = ROOT / "constraints-colab.txt"
FILES = ("pyproject.toml", "constraints.txt", "environment.yml")


@pytest.fixture(scope="module")
def pins():
    return environment.read_pins((ROOT / "constraints.txt").read_text("utf-8"))


@pytest.fixture(scope="module")
def ranges():
    return list(environment.requirements())


def version_of(pin):
    return str(pin.specifier).removeprefix("==")


def test_every_range_is_pinned_to_a_version_it_admits(pins, ranges):
    for requirement in ranges:
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version_of(pin), prereleases=True), (
            f"{requirement} does not admit {pin}"
        )


def test_pins_are_exactly_what_the_installed_packages_ask_for(pins):
    assert set(pins) == set(environment.where()), (
        "constraints.txt is out of date: python -m qwen_course.environment pin"
    )


def test_each_pin_applies_where_it_is_needed(pins):
    for name, places in environment.where().items():
        marker = pins[name].marker
        assert str(marker or "") == environment.marker(places), name


def test_a_torch_for_cuda_asks_for_the_same_packages(monkeypatch):
    usual = environment.needed("linux", "3.13")
    installed = environment.asked_by
    more = ("nvidia-cudnn-cu13==9.20.0.48", "cuda-toolkit[cublas]==13.0.3", "triton")

    def asked_by(name):
        words = more if name == "torch" else ()
        return [*installed(name), *map(Requirement, words)]

    monkeypatch.setattr(environment, "asked_by", asked_by)
    assert environment.needed("linux", "3.13") == usual


def test_torch_is_pinned_without_a_build(pins):
    assert str(pins["torch"]) == "torch==2.13.0"
    assert not any("+" in version_of(pin) for pin in pins.values())


def test_environment_yml_is_what_its_generator_writes():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert text == environment.environment_yml()


def test_conda_gets_python_and_pip_gets_the_course():
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = content["dependencies"]
    assert conda == ["python=3.12", "pip"]
    assert pip["pip"][0] == "--constraint constraints.txt"


@pytest.mark.parametrize("name", FILES)
def test_no_host_and_no_path_of_a_machine_is_written_down(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(
        r"https?://|file:|(?<![\w*.])/(?:home|root|opt|tmp|usr)/", text
    )
    assert "index-url" not in text
    assert "find-links" not in text


def test_installing_the_base_in_colab_replaces_nothing():
    colab = environment.read_pins(COLAB.read_text(encoding="utf-8"))
    base = map(Requirement, environment.read_pyproject()["dependencies"])
    bounds = {canonicalize_name(one.name): one.specifier for one in base}
    for name in {"torch", "transformers", "ipywidgets", "ipython", "peft", "numpy"}:
        assert bounds[name].contains(version_of(colab[name])), name
    for name, pin in colab.items():
        assert name not in bounds or bounds[name].contains(version_of(pin)), name


def test_colab_needs_no_jupyterlab():
    base = " ".join(environment.read_pyproject()["dependencies"])
    assert "jupyterlab" not in base
    assert "ipykernel" not in base


def test_a_line_that_pins_nothing_is_an_error():
    with pytest.raises(ValueError, match="pins no version"):
        environment.read_pins("torch>=2.6")
    with pytest.raises(ValueError, match="is no pin"):
        environment.read_pins("--index-url somewhere")


def test_differences_name_what_is_missing_and_what_has_another_version(monkeypatch):
    wanted = environment.read_pins("no-such-package==1\npytest==1.0\ntorch==2.13.0")
    monkeypatch.setattr(environment, "wanted", lambda: list(wanted.values()))
    missing, other = environment.differences()
    assert missing == "no-such-package is missing"
    assert re.fullmatch(r"pytest [\d.]+ \(the course needs ==1\.0\)", other)


def test_outside_a_clone_the_ranges_are_compared(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    names = ["torch>=2.6", 'ruff>=99; extra == "test"']
    monkeypatch.setattr(environment.importlib.metadata, "requires", lambda _: names)
    assert [str(one) for one in environment.wanted()] == ["torch>=2.6"]
    assert environment.differences() == []


@pytest.mark.parametrize(
    ("places", "marker"),
    [
        ([(s, p) for s in environment.SYSTEMS for p in environment.PYTHONS], ""),
        ([("win32", p) for p in environment.PYTHONS], 'sys_platform == "win32"'),
        ([(s, "3.11") for s in environment.SYSTEMS], 'python_version < "3.12"'),
    ],
)
def test_a_marker_says_where_a_package_is_needed(places, marker):
    assert environment.marker(set(places)) == marker


def test_a_package_of_another_system_needs_a_version_by_hand():
    with pytest.raises(ValueError, match="write no-such-package==VERSION"):
        environment.version("no-such-package", {})


def test_check_fails_when_environment_yml_was_edited(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.main(["write"]) == 0
    assert environment.main(["check"]) == 0
    file = tmp_path / "environment.yml"
    file.write_text(file.read_text() + "  - numpy\n")
    assert environment.main(["check"]) == 1
    assert "qwen_course.environment write" in capsys.readouterr().out
