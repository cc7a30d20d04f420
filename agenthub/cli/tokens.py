"""`agenthub tokens`: make, list and revoke the tokens of a hub's file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="Named tokens of a hub: made here, hashed in the file, shown once.", no_args_is_help=True)
_File = Annotated[Path, typer.Option("--tokens", help="the file that `agenthub serve --tokens` reads")]


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="who it is for; the owner of the episodes that it opens")],
    tokens: _File,
    scope: Annotated[list[str] | None, typer.Option(help="play, metrics or admin; several may be given")] = None,
    live_episodes: Annotated[int | None, typer.Option(help="episodes that may be live at once")] = None,
    steps_per_s: Annotated[float | None, typer.Option(help="steps a second")] = None,
    sandbox_seconds_per_day: Annotated[float | None, typer.Option(help="seconds of boxes a day")] = None,
) -> None:
    """Make a token and print it; the file keeps its hash alone. A hub that runs takes it up within seconds."""
    from pydantic import ValidationError

    from agenthub.errors import ConfigError, UnknownName
    from agenthub.server.access import Scope
    from agenthub.server.quotas import Quotas
    from agenthub.server.tokens import add_token

    asked = scope or ["play"]
    known = [scope.value for scope in Scope]
    for given in asked:
        if given not in known:
            raise UnknownName("scope", given, known, "--scope")
    try:
        quotas = Quotas(
            live_episodes=live_episodes, steps_per_s=steps_per_s, sandbox_seconds_per_day=sandbox_seconds_per_day
        )
    except ValidationError as error:
        problem = error.errors()[0]
        option = str(problem["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{option}", f"is {problem['input']!r}: {problem['msg']}") from None
    made = add_token(tokens, name, tuple(dict.fromkeys(map(Scope, asked))), quotas)
    typer.echo(f"{name} ({', '.join(asked)}) is in {tokens}; its token is shown this once:", err=True)
    typer.echo(made)


@app.command("list")
def show(tokens: _File) -> None:
    """Names, scopes and quotas."""
    from agenthub.server.tokens import read_tokens

    for name, entry in sorted(read_tokens(tokens).tokens.items()):
        quotas = entry.quotas.model_dump(exclude_none=True)
        limits = ", ".join(f"{key} {value:g}" for key, value in quotas.items()) or "no quota"
        typer.echo(f"{name}\t{', '.join(entry.scopes)}\t{limits}")


@app.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="of the token")], tokens: _File) -> None:
    """Take a token out of the file; a hub that runs cuts its connections within seconds."""
    from agenthub.server.tokens import remove_token

    remove_token(tokens, name)
    typer.echo(f"{name} is revoked", err=True)
