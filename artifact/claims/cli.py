"""`verify` and `manifest`: the claims table, and the list of tables that it rests on."""

from __future__ import annotations

import argparse
from pathlib import Path

from artifact.claims import results_page, text
from artifact.claims.model import CLAIMS, load_claims
from artifact.claims.verify import verify
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.results.manifest import made_elsewhere, write_manifest
from artifact.results.tables import write_text

FAILED, RESULTS_BROKEN = 1, 2


def add_commands(verb: Verb) -> None:
    """Add both to the command line."""
    check = verb("verify", check_claims)
    check.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default results)")
    check.add_argument("--claims", type=Path, default=CLAIMS, help="file or folder of claims (default artifact/claims)")
    check.add_argument("--json", type=Path, help="file for everything, as JSON")
    check.add_argument("--markdown", type=Path, help="file for the table, as Markdown")
    check.add_argument("--results-page", type=Path, help="file for docs/RESULTS.md: claims by finding")
    check.add_argument(
        "--report-only", action="store_true", help="exit with 0 also when a claim fails; broken results still count"
    )
    seal = verb("manifest", list_tables)
    seal.add_argument("tables", type=Path, nargs="*", help="files under the results folder")
    seal.add_argument("--results", type=Path, required=True, help="folder of results")
    seal.add_argument("--out", type=Path, required=True, help="tables/manifest*.json in that folder")


def check_claims(options: argparse.Namespace) -> int:
    """Print the table and write it; 1 when a claim fails that is not expected to, 2 when results are broken."""
    verdicts, broken = verify(options.results, load_claims(options.claims))
    if options.json is not None:
        write_text(options.json, text.json_text(verdicts, broken))
    if options.markdown is not None:
        write_text(options.markdown, text.markdown_text(verdicts, broken))
    if options.results_page is not None:
        write_text(options.results_page, results_page.page(verdicts, options.results))
    print("\n".join(text.lines(verdicts, broken, made_elsewhere(options.results))))
    if broken or any(v.status == "BROKEN" for v in verdicts):
        return RESULTS_BROKEN
    return FAILED if any(v.counts_against for v in verdicts) and not options.report_only else 0


def list_tables(options: argparse.Namespace) -> None:
    """Write a manifest."""
    if not options.results.is_dir():
        raise ConfigError(f"--results {options.results}: is no folder; name the folder of results")
    write_manifest(options.results, options.out, options.tables)
