"""Bring docs/api.md up to date: what ``import oncontour`` offers, from the docstrings.

python docs/write_api.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import oncontour
from oncontour import api

PAGE = Path(__file__).resolve().parent / "api.md"
HEAD = """# Python

What `import oncontour` offers, made from the docstrings by `python docs/write_api.py`. A notebook that uses it:
[first_steps.ipynb](first_steps.ipynb).

```python
{first}
```

Importing loads nothing; a name is loaded when it is first used. Whatever goes wrong is an `oncontour.errors.OncontourError` whose
`what`, `where` and `hint` say what, where, and the way out. Every module is documented in its own docstrings ([map.md](map.md) names
them all); what is not on this page may change between versions.
"""


def page() -> str:
    """The page as it is to be."""
    lines = (oncontour.__doc__ or "").splitlines()
    first = "\n".join(line[4:] for line in lines if line.startswith("    ") or not line).strip()
    parts = [HEAD.format(first=re.sub(r" {2,}#", "  #", first))]
    functions = ("read", "contour", "assess", "dvh", "write", "run")
    parts += [_function(name) for name in functions]
    parts += [_class(getattr(oncontour, name)) for name in ("Case", "Volume", "Geometry")]
    assert {*functions, "Case", "Volume", "Geometry"} == set(oncontour.__all__)
    return "\n".join(parts)


def _function(name: str) -> str:
    function = getattr(api, name)
    return f"## {name}\n\n{_code(f'oncontour.{name}{_signature(function)}')}\n{_words(function)}\n"


def _class(one: type) -> str:
    parts = [f"## {one.__name__}\n\n{_words(one)}\n"]
    for name, member in vars(one).items():
        shown = inspect.unwrap(
            member.fget if isinstance(member, property) else getattr(member, "func", getattr(member, "__func__", member))
        )
        if name.startswith("_") or not callable(shown) or not inspect.getdoc(shown):
            continue
        is_method = not isinstance(member, property) and not hasattr(member, "func")
        call = f"{one.__name__}.{name}{_signature(shown) if is_method else ''}"
        parts.append(f"`{call}`: {' '.join(_words(shown).split())}\n")
    return "\n".join(parts)


def _signature(function: object) -> str:
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(function)))  # type: ignore[arg-type]
    return text.replace("(self, ", "(").replace("(self)", "()").replace("(cls, ", "(")


def _words(one: object) -> str:
    """A docstring as Markdown: code marks single, lines that begin with a name are a list."""
    return re.sub(r"^(`\w+`)\s{2,}", r"- \1 ", (inspect.getdoc(one) or "").replace("``", "`"), flags=re.MULTILINE)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
