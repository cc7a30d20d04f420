"""`agenthub search`: corpora as indexes: index, list, query, check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agenthub.sandboxes.search.builder import Built

__all__ = ["app"]

app = typer.Typer(help="Corpora for the search tools: index, list, query, check.", no_args_is_help=True)
CorpusArgument = Annotated[str, typer.Argument(help="name or path of an index")]


@app.command("index")
def index(
    corpus: Annotated[Path, typer.Argument(help="a JSONL file (.gz too), or a folder of HTML, Markdown and text")],
    name: Annotated[str | None, typer.Option(help="name of the index; the corpus's own where left out")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the index, in place of the one for its name")] = None,
    keep: Annotated[bool, typer.Option(help="keep documents that the corpus does not have any more")] = False,
    strict: Annotated[bool, typer.Option(help="exit status 1 where a document cannot be used")] = False,
) -> None:
    """Bring the index of a corpus up to date; what is in it already is not written again."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from agenthub.sandboxes.search.builder import build
    from agenthub.sandboxes.search.documents import read_corpus
    from agenthub.sandboxes.search.places import corpora_folder

    name = name or corpus.resolve().name.split(".")[0]
    folder = out or corpora_folder() / name
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(name, total=None)
        show = _progress(lambda text: progress.update(bar, description=text), name)
        built = build(read_corpus(corpus), folder, name=name, prune=not keep, progress=show)
    for skipped in built.skipped:
        console.print(f"{skipped.place}: {skipped.why}", style="yellow", markup=False)
    if built.skipped_count > len(built.skipped):
        console.print(f"... and {built.skipped_count - len(built.skipped)} more", style="yellow")
    console.print(f"{_said(built)}: {folder}", markup=False)
    if strict and built.skipped_count:
        raise typer.Exit(1)


@app.command("list")
def list_corpora() -> None:
    """List the indexes that are known by name."""
    from agenthub.registry import registry
    from agenthub.sandboxes.search.corpus import Corpus
    from agenthub.sandboxes.search.places import corpora_folder, known

    generated = registry("corpus").names()
    for name in known():
        if name in generated:
            typer.echo(f"{name}: made when it is first asked for")
        else:
            facts = Corpus(corpora_folder() / name).facts
            typer.echo(f"{name}: {facts['documents']} documents, {facts['passages']} passages")


@app.command("query")
def query(
    corpus: CorpusArgument,
    words: Annotated[str, typer.Argument(help="what to look for")],
    k: Annotated[int, typer.Option(help="number of passages", min=1, max=100)] = 5,
) -> None:
    """Show the best passages for a query."""
    from agenthub.sandboxes.search.outside import clean

    for number, hit in enumerate(_corpus(corpus).search(words, k), 1):
        text = clean(f"{number}. {hit.title} ({hit.id}) {hit.score:g}\n{hit.text[:300]}").text
        typer.echo(text + "\n")


@app.command("check")
def check(corpus: CorpusArgument) -> None:
    """Read every byte of an index against the hashes of its last commit. Exit status 1 where it is damaged."""
    from agenthub.sandboxes.search.corpus import check as check_index
    from agenthub.sandboxes.search.places import find_corpus

    wrong = check_index(find_corpus(corpus, {}))
    for line in wrong:
        typer.echo(line, err=True)
    if wrong:
        raise typer.Exit(1)
    typer.echo(f"{corpus}: sound")


def _corpus(name: str) -> Any:
    from agenthub.sandboxes.search.corpus import Corpus
    from agenthub.sandboxes.search.places import find_corpus

    return Corpus(find_corpus(name, {}))


def _progress(show: Callable[[str], None], name: str) -> Callable[[Built], None]:
    return lambda built: show(f"{name}: {_said(built)}")


def _said(built: Built) -> str:
    counts = {
        "written": built.added,
        "unchanged": built.unchanged,
        "removed": built.removed,
        "passages written": built.passages,
        "left out": built.skipped_count,
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items())
