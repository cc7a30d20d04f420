"""Suites from YAML files.

    suites = load_suites()                # the suites that come with agenthub
    task = find_task(suites["arithmetic"], "eval-00000")

A file is read and its own keys are checked at once; tasks are built when the suite is first asked for, and kept. A
suite whose data or packages are not on this machine is left out of the mapping and named in `Suites.unavailable`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agenthub.config import Document, read_document, validate
from agenthub.errors import ConfigError, UnknownName
from agenthub.records import frozen
from agenthub.suites.build import DEFAULT_ISOLATION, build_task, merged
from agenthub.suites.schema import BuildIn, SuiteFile
from agenthub.suites.sources import missing, rows
from agenthub.suites.task import ImageBuild, Suite, Task

__all__ = ["Suites", "default_folder", "find_task", "load_suite", "load_suites", "open_task"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A suite's file before its tasks are built."""

    document: Document
    file: SuiteFile
    isolation: str
    """The hub's own."""

    @property
    def folder(self) -> Path:
        return Path(self.document.path).parent

    def source_place(self, index: int) -> str:
        return self.document.place(("sources", index))

    def missing(self) -> str | None:
        """What this machine lacks for the suite."""
        for index, source in enumerate(self.file.sources):
            lacking = missing(source, self.folder, self.source_place(index))
            if lacking is not None:
                return f"{self.source_place(index)}: {lacking}"
        return None


class Suites(Mapping[str, Suite]):
    """Suites by name; each is built when it is first asked for."""

    def __init__(self, plans: Mapping[str, _Plan]) -> None:
        self._plans = dict(plans)
        self._built: dict[str, Suite] = {}
        self.unavailable: Mapping[str, str] = frozen(
            {name: lacking for name, plan in self._plans.items() if (lacking := plan.missing()) is not None}
        )
        """Suites that cannot be played on this machine, and what each of them needs."""

    def __getitem__(self, name: str) -> Suite:
        """
        Raises:
            UnknownName: there is no such suite. It is a KeyError too, as a mapping's is.
            ConfigError: the suite is not available here, or one of its tasks is broken.
        """
        if name not in self._plans:
            raise _NoSuite("suite", name, self._plans)
        if name not in self._built:
            self._built[name] = _build(self._plans[name])
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in self._plans and name not in self.unavailable

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._plans if name not in self.unavailable)

    def __len__(self) -> int:
        return len(self._plans) - len(self.unavailable)


class _NoSuite(UnknownName, KeyError):
    """So that `Suites.get` and `in` behave as those of any mapping."""

    __str__ = Exception.__str__


def default_folder() -> Path:
    """The folder of the suites that come with agenthub."""
    return Path(__file__).resolve().parent.parent / "tasks"


def load_suites(paths: Sequence[PathLike] = (), *, isolation: str = DEFAULT_ISOLATION) -> Suites:
    """Suites of YAML files and of folders that hold such files; no paths are `default_folder()`.

    Args:
        isolation: the hub's own; what a task requires is asked of it where the task names none.

    Raises:
        ConfigError: a file is broken, two suites have one name, or a folder holds no suite; says which.
    """
    plans: dict[str, _Plan] = {}
    for path in _files(paths or _shipped()):
        plan = _read(path, isolation)
        name = plan.file.suite.name
        if name in plans:
            raise ConfigError(
                plan.document.place(("suite", "name")),
                f"a suite named {name!r} is in {plans[name].document.path} already",
            )
        plans[name] = plan
    return Suites(plans)


def load_suite(path: PathLike, *, isolation: str = DEFAULT_ISOLATION) -> Suite:
    """The suite of one file, with all its tasks; `isolation` as in `load_suites`.

    Raises:
        ConfigError: the file or a task is broken, or its data or packages are not on this machine.
    """
    return _build(_read(path, isolation))


def find_task(suite: Suite, id: str) -> Task:
    """A task by its id.

    Raises:
        UnknownName: there is none; the nearest one is named.
    """
    for task in suite.tasks:
        if task.id == id:
            return task
    raise UnknownName("task", id, (task.id for task in suite.tasks), suite.name)


def open_task(suite: str, id: str, paths: Sequence[PathLike] = (), *, isolation: str = DEFAULT_ISOLATION) -> Task:
    """A task by the names of its suite and its own, or by a suite's file; `isolation` as in `load_suites`.

    Raises:
        UnknownName: no such suite or task.
        ConfigError: as `load_suites` and `load_suite` raise it.
    """
    if suite.endswith((".yaml", ".yml")):
        return find_task(load_suite(suite, isolation=isolation), id)
    return find_task(load_suites(paths, isolation=isolation)[suite], id)


def _shipped() -> list[Path]:
    """The folder of suites that come with agenthub, and the folders in it that hold suites."""
    folder = default_folder()
    return [folder, *sorted({file.parent for file in folder.glob("*/*.yaml")})]


def _files(paths: Sequence[PathLike]) -> Iterator[Path]:
    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml"))
        if not found:
            raise ConfigError(str(path), "holds no suite (*.yaml)")
        yield from found


def _read(path: PathLike, isolation: str) -> _Plan:
    document = read_document(path)
    file = validate(document, SuiteFile)
    if not file.tasks and not file.sources:
        raise ConfigError(document.place(()), f"suite {file.suite.name!r} has no tasks and no sources")
    return _Plan(document=document, file=file, isolation=isolation)


def _build(plan: _Plan) -> Suite:
    lacking = plan.missing()
    header = plan.file.suite
    if lacking is not None:
        place, _, message = lacking.partition(": ")
        raise ConfigError(place, f"suite {header.name!r} {message}")
    tasks: dict[str, Task] = {}
    images: dict[BuildIn, ImageBuild] = {}
    for task in _tasks(plan, images):
        if task.id in tasks:
            raise ConfigError(task.place, f"task id {task.id!r} is taken already by {tasks[task.id].place}")
        if header.splits and task.split not in header.splits:
            raise ConfigError(task.place, str(UnknownName("split", task.split, header.splits)))
        tasks[task.id] = task
    if not tasks:
        raise ConfigError(plan.document.place(()), f"suite {header.name!r} has no tasks")
    return Suite(
        name=header.name,
        version=header.version,
        description=header.description,
        license=header.license,
        path=plan.document.path,
        tasks=tuple(tasks.values()),
        languages=_languages(plan),
        images=tuple({image.image: image for image in images.values()}.values()),
        splits=tuple(header.splits) or tuple(dict.fromkeys(task.split for task in tasks.values())),
        x=frozen(plan.file.x),
        origin=frozen(plan.file.origin),
    )


def _languages(plan: _Plan) -> Mapping[str, Mapping[str, Any]]:
    return frozen({language.id: frozen(language.plain()) for language in plan.file.languages})


def _tasks(plan: _Plan, images: dict[BuildIn, ImageBuild]) -> Iterator[Task]:
    document, name = plan.document, plan.file.suite.name
    split = next(iter(plan.file.suite.splits), "train")
    defaults = document.data.get("defaults") or {}
    languages = _languages(plan)
    default_lines = _lines_below(document, ("defaults",))
    for index, given in enumerate(document.data.get("tasks") or ()):
        lines = {**default_lines, **_lines_below(document, ("tasks", index))}
        yield build_task(
            Document(path=document.path, data=merged(defaults, given), lines=lines),
            suite=name,
            split=split,
            languages=languages,
            isolation=plan.isolation,
            images=images,
        )
    for index, source in enumerate(plan.file.sources):
        lines = {**default_lines, **_lines_below(document, ("sources", index, "fields"))}
        lines[()] = document.lines[("sources", index)]
        for where, row in rows(source, plan.folder, plan.source_place(index)):
            data = merged(defaults, row)
            yield build_task(
                Document(path=document.path, data=data, lines=lines),
                suite=name,
                split=split,
                source=where,
                languages=languages,
                isolation=plan.isolation,
                images=images,
            )


def _lines_below(document: Document, prefix: tuple[str | int, ...]) -> dict[tuple[str | int, ...], int]:
    size = len(prefix)
    return {loc[size:]: line for loc, line in document.lines.items() if loc[:size] == prefix}
