"""Completion for shells: a script for bash, which zsh reads too, with every command and its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SCRIPT = """\
# Completion of oncontour for bash and zsh. Keep it in a file that your shell reads:
#   bash: oncontour --completion > ~/.local/share/bash-completion/completions/oncontour
#   zsh:  oncontour --completion > ~/.oncontour-completion; echo 'source ~/.oncontour-completion' >> ~/.zshrc
if [ -n "$ZSH_VERSION" ]; then
    autoload -U compinit bashcompinit && compinit && bashcompinit
fi
_oncontour() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{first}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _oncontour oncontour
"""


def script(options: Mapping[str, Sequence[str]]) -> str:
    """The script for ``options``, command -> what it takes. Where nothing fits the shell offers files, as for a folder or a value."""
    firsts = list(dict.fromkeys(name.split()[0] for name in options))
    cases = "\n".join(f"            {first}) {_words_of(first, options)} ;;" for first in firsts)
    return _SCRIPT.format(first=" ".join(firsts), cases=cases)


def _words_of(first: str, options: Mapping[str, Sequence[str]]) -> str:
    """The shell's words for what follows ``first``: options, or the second word of a command and its options after it."""
    if first in options:
        return f'words="{" ".join(options[first])}"'
    seconds = {name.split()[1]: taken for name, taken in options.items() if name.startswith(first + " ")}
    inner = " ".join(f'{second}) words="{" ".join(taken)}" ;;' for second, taken in seconds.items())
    return f'if [ "$COMP_CWORD" -eq 2 ]; then words="{" ".join(seconds)}"; else case "${{COMP_WORDS[2]}}" in {inner} esac; fi'
