"""`agenthub images`: what suites need installed before they are served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agenthub.sandboxes.languages.language import Language
    from agenthub.suites.task import Suite

__all__ = ["app"]

app = typer.Typer(help="What suites need installed: build, list.", no_args_is_help=True)
Folders = Annotated[list[Path] | None, typer.Option("--tasks", help="files or folders of suites")]
SuiteArgument = Annotated[str, typer.Argument(help="name of a suite, or a YAML file")]


@app.command("build")
def build(
    suite: SuiteArgument,
    engine: Annotated[bool, typer.Option(help="give them to the container engine too, for docker and gvisor")] = False,
    tasks: Folders = None,
) -> None:
    """Install a suite's languages and build the images of its Dockerfiles; what is there already stays as it is."""
    from agenthub.sandboxes.languages import store

    found = _suite(suite, tasks)
    languages = [language for language in _languages(found) if language.install]
    engine = engine or any(tool.spec.isolation not in ("", "jail") for task in found.tasks for tool in task.tools)
    for language in languages:
        typer.echo(f"{language.id}: {', '.join(language.install)}")
        root = store.build(language.install)
        typer.echo(f"{language.id}: {root}")
        if engine:
            typer.echo(f"{language.id}: {store.import_image(language.install)}")
    _build_images(found)
    if not languages and not found.images:
        typer.echo(f"suite {found.name!r} declares no languages to install and no images to build")


def _build_images(suite: Suite) -> None:
    if not suite.images:
        return
    from agenthub.sandboxes.isolation import container_build

    for build in suite.images:
        if container_build.exists(build.image):
            typer.echo(f"{build.image}: is built")
            continue
        typer.echo(f"{build.image}: from {build.dockerfile}")
        container_build.build(
            build.image,
            build.context,
            build.dockerfile,
            timeout_s=build.timeout_s,
            say=lambda line: typer.echo(f"  {line}"),
        )
        typer.echo(f"{build.image}: built")


@app.command("list")
def list_images(suite: SuiteArgument, tasks: Folders = None) -> None:
    """Show a suite's languages and where each is installed, and its images and whether they are built."""
    from agenthub.sandboxes.languages import store

    found = _suite(suite, tasks)
    if found.images:
        from agenthub.sandboxes.isolation import container_build

        for build in found.images:
            typer.echo(f"{build.image}: {'built' if container_build.exists(build.image) else 'not built'}")
    for language in _languages(found):
        root = store.root_of(language.install) if language.install else None
        where = language.image or (str(root) if root else "not installed")
        typer.echo(f"{language.id}: {where}")


def _suite(name: str, folders: list[Path] | None) -> Suite:
    from agenthub.suites.load import load_suite, load_suites

    return load_suite(name) if name.endswith((".yaml", ".yml")) else load_suites(folders or [])[name]


def _languages(suite: Suite) -> list[Language]:
    from agenthub.sandboxes.languages.language import Language

    return [Language.of({"language": given}) for given in suite.languages.values()]
