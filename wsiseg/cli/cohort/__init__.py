"""`wsiseg cohort`: many slides, on one machine or a cluster."""

from __future__ import annotations

import typer

from wsiseg.cli.cohort.certs import certs
from wsiseg.cli.cohort.merge import merge
from wsiseg.cli.cohort.plan import plan
from wsiseg.cli.cohort.run import run
from wsiseg.cli.cohort.status import retry, status
from wsiseg.cli.cohort.submit import submit

cohort = typer.Typer(
    no_args_is_help=True,
    help="Segment many slides: plan, run on as many machines as there are, look, merge.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)

for command in (plan, run, submit, status, retry, merge, certs):
    cohort.command()(command)
