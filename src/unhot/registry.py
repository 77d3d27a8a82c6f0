"""Named things (methods, metrics, attacks, models, data sets), listed without importing them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from unhot.errors import InputError, UnknownNameError

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """What a catalogue knows of something without importing it; metrics and attacks have subclasses.

    Attributes:
        where: Its location as "module:attribute", or the object itself.
        summary: One line that describes it.
        origin: Where it was published.
        reads: Data that a method reads.
    """

    where: object
    summary: str
    origin: str = ""
    reads: str = ""

    def load(self) -> object:
        """Return the object, importing it if necessary; its code may raise anything."""
        if not isinstance(self.where, str):
            return self.where
        module, _, attribute = self.where.partition(":")
        return getattr(importlib.import_module(module), attribute)


E = TypeVar("E", bound=Entry)


class Registry(Generic[T, E]):
    """A catalogue of one kind of thing.

    Built-in entries are imported when they are asked for, so that listing a catalogue does not import torch. Running
    code adds entries through :meth:`add` and :meth:`register`, installed packages through the entry point group
    ``unhot.<kind>s``: each names an entry or, of a kind that is known by name and place alone, the thing itself. A name
    is never replaced silently.

    Args:
        kind: The kind of thing, in the singular ("method").
        builtin: The entries of unhot itself.
        entry: The class that entries of this kind have.
    """

    def __init__(self, kind: str, builtin: Mapping[str, E], entry: type[Entry] = Entry) -> None:
        self.kind = kind
        self.builtin = dict(builtin)
        self._class = entry
        self._entries: dict[str, Entry] = dict(builtin)
        self._unopened: set[str] = set()  # entry points that were not imported yet
        self._loaded: dict[str, T] = {}
        self._searched = False

    def add(self, name: str, entry: E) -> None:
        """Add an entry.

        Raises:
            InputError: The name is taken.
        """
        if name in self:
            raise InputError(f"A {self.kind} named {name!r} is registered already. Choose another name.")
        self._entries[name] = entry

    def register(self: Registry[T, Entry], name: str, summary: str = "") -> Callable[[T], T]:
        """Register what is decorated under ``name``; without a summary the first line of its docstring is shown.

        Raises:
            InputError: The name is taken.
        """

        def decorate(item: T) -> T:
            self.add(name, Entry(item, summary or (item.__doc__ or "").strip().partition("\n")[0]))
            return item

        return decorate

    def get(self, name: str) -> T:
        """Return the object of that name, importing it if necessary.

        Raises:
            UnknownNameError: There is no such entry; the nearest name is offered.
            InputError: It cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = cast(T, self._load(name, self.entry(name)))
        return self._loaded[name]

    def known(self, name: str) -> Entry:
        """Return an entry without importing anything.

        Raises:
            UnknownNameError: There is no such entry; the nearest name is offered.
        """
        if name not in self:
            raise UnknownNameError(self.kind, name, self)
        return self._entries[name]

    def entry(self, name: str) -> E:
        """Return an entry; that of an installed package is imported.

        Raises:
            UnknownNameError: There is no such entry; the nearest name is offered.
            InputError: It cannot be imported, or is no entry of this kind.
        """
        known = self.known(name)
        if name in self._unopened:
            found = self._load(name, known)
            opened = found if isinstance(found, Entry) else replace(known, where=found)
            if not isinstance(opened, self._class):
                raise InputError(
                    f"The {self.kind} {name!r} ({known.summary}) is a {type(found).__name__}. "
                    f"Its entry point must name a {self._class.__name__}."
                )
            self._entries[name] = opened
            self._unopened.discard(name)
        return cast(E, self._entries[name])

    def entries(self) -> dict[str, E]:
        """Return all entries by name: unhot's own as they are declared, then the others."""
        self._search()
        return {name: self.entry(name) for name in self._entries}

    def __iter__(self) -> Iterator[str]:
        self._search()
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        self._search()
        return name in self._entries

    def _load(self, name: str, entry: Entry) -> object:
        try:
            return entry.load()
        except Exception as error:  # importing runs a package's code, which may raise anything
            where = f"{str(entry.where).partition(':')[0]} ({entry.summary})"
            raise InputError(
                f"The {self.kind} {name!r} cannot be loaded from {where}: {error or type(error).__name__}."
            ) from error

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for found in entry_points(group=f"unhot.{self.kind}s"):
            owner = found.dist.name if found.dist else "an installed package"
            if found.name in self._entries:
                warnings.warn(f"{owner}: the {self.kind} {found.name!r} exists already; skipped.", stacklevel=4)
            else:
                self._entries[found.name] = Entry(found.value, f"from {owner}")
                self._unopened.add(found.name)
