"""Pages of the documentation that are made of what is there: the commands, the recipes, what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from wsiseg import export
from wsiseg.cli.app import app

ROOT = Path(__file__).parents[1]
MARKUP = re.compile(r"\[/?(?:bold|italic|dim)\]")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that nobody writes by hand."""
    pages = {
        "commands.md": commands(),
        "accuracy.md": accuracy(),
        "speed.md": speed(),
        "recipes.md": recipes(),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Put the table of formats where the page says WRITTEN."""
    return markdown.replace("WRITTEN", formats()) if page.file.src_path == "formats.md" else markdown


def formats() -> str:
    """The formats that can be written, as `wsiseg formats` lists them."""
    lines = ["| suffix | what it is | opened by | needs |", "|---|---|---|---|"]
    for suffixes, about in export.formats():
        names, extra = (
            ", ".join(f"`{s}`" for s in suffixes),
            f"`wsiseg[{about.extra}]`" if about.extra else "",
        )
        lines.append(f"| {names} | {cell(about.what)} | {cell(about.opened_by)} | {extra} |")
    return "\n".join(lines)


def commands() -> str:
    """Every command, from its own help."""
    top = typer.main.get_command(app)
    lines = ["# Commands", "", "What `wsiseg --help` and `wsiseg COMMAND --help` say.", ""]
    return "\n".join([*lines, *told(top, "wsiseg")]) + "\n"


def told(command: Any, name: str) -> Iterator[str]:
    """A command and those below it, as Markdown."""
    inner = getattr(command, "commands", {})
    for each in inner.values():
        yield from told(each, f"{name} {each.name}")
    if inner:
        return
    given = [p for p in command.params if not p.hidden and p.name != "help"]
    arguments = [p for p in given if p.param_type_name == "argument"]
    usage = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    yield from (
        f"## {name}",
        "",
        f"    {' '.join([name, *usage, '[OPTIONS]'])}",
        "",
        paragraphs(command.help),
        "",
    )
    yield from ("| | | default |", "|---|---|---|")
    for option in given:
        names = (
            " ".join((*option.opts, *option.secondary_opts))
            if option not in arguments
            else option.name.upper()
        )
        yield f"| `{names}` | {cell(MARKUP.sub('', option.help or ''))} | {default_of(option)} |"
    yield ""


def cell(text: str) -> str:
    """Text as it is, where Markdown would make a table or a link of it."""
    return re.sub(r"([\[\]|<>*_])", r"\\\1", text)


def default_of(option: Any) -> str:
    """What holds where an option is left out, in words."""
    if isinstance(option.show_default, str):
        return option.show_default
    if option.default in (None, "", False, ()) or callable(option.default):
        return "" if not option.required else "must be given"
    values = option.default if isinstance(option.default, (list, tuple)) else [option.default]
    return " ".join(f"`{getattr(v, 'value', v)}`" for v in values)


def paragraphs(text: str) -> str:
    """A help text as Markdown: lines that are commands become code."""
    plain = MARKUP.sub("", text.replace("\b", "")).strip()
    return "\n\n".join(
        f"    {part.strip()}" if part.strip().startswith("wsiseg ") else cell(" ".join(part.split()))
        for part in re.split(r"\n\s*\n", plain)
    )


def accuracy() -> str:
    """What was measured of models and recipes."""
    folder = ROOT / "benchmarks" / "accuracy"
    text = (folder / "README.md").read_text(encoding="utf-8").replace("../../docs/images/", "images/")
    tables = [folder / f"{name}.md" for name in ("ablation", "recipes", "ihc", "corrections")]
    parts = [
        f"## {path.stem.capitalize()}\n\n{path.read_text(encoding='utf-8')}"
        for path in tables
        if path.exists()
    ]
    return "\n\n".join([text, *parts])


def speed() -> str:
    """What was measured of runs."""
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    return text.replace(
        "Accuracy has a folder of its own, `accuracy/`.", "Accuracy has [a page of its own](accuracy.md)."
    )


def recipes() -> str:
    """The systems that can be trained, as `wsiseg recipes` lists them, and the configurations that ship."""
    from wsiseg.recipes._known import known

    lines = [
        "# Recipes",
        "",
        "A recipe says what networks are taught and how pixels become nuclei. A configuration names one:",
        "",
        "    wsiseg train configs/spn-ien-small.toml --data FOLDER -o runs/mine",
        "    wsiseg segment slide.svs -o slide.geojson --model runs/mine/model",
        "",
        "| recipe | learns from | gives | source | AJI on MultiOrgan |",
        "|---|---|---|---|---|",
        *(f"| {r.name} | {r.labels_needed} | {r.gives} | {r.source} | {r.measured} |" for r in known()),
        "",
        'Of another distribution, an entry point in the group `wsiseg.recipes` adds one: `name = "its.module"`.',
        "",
        "## Configurations that ship",
        "",
        "| file | |",
        "|---|---|",
    ]
    for path in sorted((ROOT / "configs").glob("*.toml")):
        said = []
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                break
            said.append(line.lstrip("# "))
        lines.append(f"| `{path.name}` | {' '.join(said).replace('|', '')} |")
    return "\n".join(lines) + "\n"
