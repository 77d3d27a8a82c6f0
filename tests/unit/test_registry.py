from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from unhot import data, methods, models
from unhot.errors import InputError, UnhotError, UnknownNameError
from unhot.evaluation import attacks, metrics
from unhot.registry import Entry, Registry

CATALOGUES = [methods.catalogue, metrics.catalogue, attacks.catalogue, models.catalogue, data.catalogue]


@pytest.fixture
def numbers() -> Registry[object]:
    return Registry("number", {"pi": Entry("math:pi", "3.14"), "tau": Entry("math:tau", "6.28")})


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install a fake distribution that registers entry points."""

    def install(*lines: str) -> None:
        folder = tmp_path / "fake_plugin-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-plugin\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text("[unhot.numbers]\n" + "\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_listing_and_getting(numbers: Registry[object]) -> None:
    assert list(numbers) == ["pi", "tau"]
    assert numbers.known("pi").summary == "3.14"
    assert numbers.get("tau") == pytest.approx(6.2831853)
    assert "pi" in numbers
    assert "phi" not in numbers


@pytest.mark.parametrize("ask", ["get", "known"])
def test_a_wrong_name_is_answered_with_the_right_one(numbers: Registry[object], ask: str) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown.*'pii'.*'pi'"):
        getattr(numbers, ask)("pii")


def test_registering_and_duplicates(numbers: Registry[object]) -> None:
    @numbers.register("e")
    class E:
        """Euler's number.

        More.
        """

    assert numbers.get("e") is E
    assert numbers.known("e").summary == "Euler's number."
    assert numbers.known("e").where is E
    with pytest.raises(InputError, match=r"'e'.*registered.*already"):
        numbers.register("e")(E)
    with pytest.raises(InputError, match=r"'pi' is registered already"):
        numbers.register("pi", "other")(E)
    assert numbers.get("e") is E


def test_an_installed_package_adds_entries(numbers: Registry[object], plugin) -> None:
    plugin("inf = math:inf")
    assert list(numbers) == ["inf", "pi", "tau"]
    assert numbers.get("inf") == float("inf")
    assert numbers.known("inf").summary == "from fake-plugin"


def test_an_installed_package_may_describe_what_it_adds(tmp_path: Path, monkeypatch, plugin) -> None:
    (tmp_path / "fake_numbers.py").write_text(
        "from unhot.registry import Entry\nINF = Entry('math:inf', 'without end', origin='Wallis 1655')\n"
    )
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    numbers = Registry("number", {"pi": Entry("math:pi", "3.14")})
    plugin("inf = fake_numbers:INF")
    assert numbers.known("inf").summary == "from fake-plugin"
    assert numbers.entry("inf") == Entry("math:inf", "without end", origin="Wallis 1655")
    assert list(numbers.entries()) == ["pi", "inf"]
    assert numbers.get("inf") == float("inf")


def test_an_entry_of_another_kind_is_refused(plugin) -> None:
    class Described(Entry):
        pass

    numbers: Registry = Registry("number", {"pi": Described("math:pi", "3.14")}, Described)
    plugin("inf = math:inf")
    with pytest.raises(InputError, match=r"'inf'.*fake-plugin.*Described"):
        numbers.get("inf")
    assert numbers.get("pi") == pytest.approx(3.14159265)


def test_an_installed_package_cannot_replace_an_entry(numbers: Registry[object], plugin) -> None:
    plugin("pi = math:e")
    with pytest.warns(UserWarning, match=r"fake-plugin.*'pi'.*already"):
        assert "pi" in numbers
    assert numbers.get("pi") == pytest.approx(3.14159265)


def test_a_broken_package_does_not_keep_others_from_being_listed(numbers: Registry[object], plugin) -> None:
    plugin("broken = no_such_module_of_anybody:x")
    assert "broken" in list(numbers)
    assert numbers.get("pi")


@pytest.mark.parametrize("target", ["no_such_module_of_anybody:x", "math:no_such_attribute"])
def test_a_broken_package_is_named(numbers: Registry[object], plugin, target: str) -> None:
    plugin(f"broken = {target}")
    with pytest.raises(UnhotError, match=r"fake-plugin"):
        numbers.get("broken")


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda c: c.kind)
def test_every_entry_can_be_imported_and_is_described(catalogue: Registry[object]) -> None:
    assert len(list(catalogue)) >= 2
    for name in catalogue:
        assert catalogue.get(name) is not None
        assert catalogue.known(name).summary


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda c: c.kind)
def test_listing_imports_nothing(catalogue: Registry[object]) -> None:
    fresh = Registry(catalogue.kind, {n: catalogue._entries[n] for n in catalogue})
    before = set(sys.modules)
    assert [fresh.known(n).summary for n in fresh]
    assert set(sys.modules) == before
    assert not fresh._loaded


@pytest.mark.parametrize("code", ["raise RuntimeError('broken')", "x = (", "1 / 0", "raise KeyError"])
def test_an_entry_whose_code_fails_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    (tmp_path / "broken_entry.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    with pytest.raises(InputError, match=r"method.*'x'.*broken_entry"):
        Registry("method", {"x": Entry("broken_entry:X", "a method")}).get("x")
