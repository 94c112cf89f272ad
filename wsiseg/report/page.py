"""Templates into pages."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsiseg.version import __version__


def page(template: str, **values: object) -> str:
    """A page, from a template of this package; whatever is no SVG of ours is escaped."""
    loader = PackageLoader("wsiseg.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["svg"] = Markup
    return environment.get_template(template).render(version=__version__, **values)
