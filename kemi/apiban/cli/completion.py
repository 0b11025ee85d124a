"""``apiban completion``: what makes a shell complete the verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, /, *, shell: str) -> None:
    """Print the completion script of a shell, for its folder of completions.

    \b
    bash: apiban completion bash > /etc/bash_completion.d/apiban
    zsh:  apiban completion zsh > /usr/local/share/zsh/site-functions/_apiban
    fish: apiban completion fish > /etc/fish/completions/apiban.fish
    """  # noqa: D301 - click's mark of lines to keep as they are
    kind = get_completion_class(shell)
    if kind is None:  # a click without this shell
        raise click.UsageError(f"no completion for {shell} is known here")
    click.echo(kind(context.find_root().command, {}, "apiban", "_APIBAN_COMPLETE").source())
