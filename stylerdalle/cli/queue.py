"""The command `queue`: photos through a workflow on one or several ComfyUI servers."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from ..queue.batch import NOT_TRIED, Batch, Policy, Told, find_servers, reach
from ..queue.journal import Journal, Row, find_pictures
from ..queue.workflow import Workflow, node_name, photo_node, read_workflow, set_inputs
from .console import bar, report
from .options import add_config_options, given_options


def queue(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server", action="append", required=True, metavar="URL", help="a ComfyUI, such as http://127.0.0.1:8188; several share"
    )
    parser.add_argument("--workflow", type=Path, required=True, metavar="FILE", help="in API format, as in workflows/api/")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the photos, folders below it included")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="new, or of the same batch, which then goes on where it was"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="an input of the workflow; NODE is an id, a title or a class_type, VALUE is JSON or a text",
    )
    parser.add_argument(
        "--photo-node", metavar="NODE", help="whose input `image` takes the photos (default: the only LoadImage node)"
    )
    add_config_options(parser, Policy)
    parser.add_argument("--json", action="store_true", help="one JSON object a line and photo, as they are done")
    parser.set_defaults(run=run_queue)


def run_queue(args: argparse.Namespace) -> int:
    started = time.monotonic()
    policy, urls = Policy(**given_options(args, Policy)), find_servers(args.server)
    workflow = set_inputs(read_workflow(args.workflow), args.set)
    number = photo_node(workflow, args.photo_node)
    pictures = find_pictures(args.images, args.output)
    journal = Journal(args.output, workflow, number)
    journal.read()  # before anything is written
    if journal.left(pictures)[0]:
        asyncio.run(reach(urls))
    with journal.open():
        left, rows = journal.left(pictures)
        with bar(f"{len(left)} photos") as progress:
            # the bar counts whole things: hundredths of a photo
            told = Told(lambda row: tell(row, args), say, lambda done: progress(round(100 * done), 100 * len(left)))
            batch = Batch(workflow, number, left, journal, policy, told)
            rows += asyncio.run(batch.run(urls))
        facts = {
            "workflow": str(args.workflow),
            "inputs": literals({key: node for key, node in workflow.items() if key != number}),
            "photos": len(pictures),
            "done": sum(row.error is None for row in rows),
            "done_before": len(pictures) - len(left),
            "tried_again": batch.again,
            "by_server": Counter(str(row.server) for row in rows if row.error is None),
            "seconds": round(time.monotonic() - started, 2),
        }
        path = journal.report(facts, sorted(rows, key=lambda row: row.picture))
    refused = batch.unfit.issuperset(urls)  # each has said why
    if (not_tried := sum(row.error == NOT_TRIED for row in rows)) and not refused:
        report("queue", f"{not_tried} photos were not tried, {NOT_TRIED}: give the same command again to go on")
    if not args.json:
        shared = ", ".join(f"{url} {count}" for url, count in facts["by_server"].items())  # type: ignore[attr-defined]
        print(f"{facts['done']} of {len(pictures)} photos are done ({shared or 'none'}) after {facts['seconds']} s: {path}")
    return 0 if facts["done"] == len(pictures) else 2 if refused else 1


def tell(row: Row, args: argparse.Namespace) -> None:
    """Say how a photo came out, above the progress bar."""
    with tqdm.external_write_mode(sys.stderr):
        if row.error not in (None, NOT_TRIED):
            report("queue", f"{row.picture}: {row.error}")
        if args.json:
            print(json.dumps(asdict(row)), flush=True)
        elif row.error is None:
            took = "" if row.seconds is None else f", {row.seconds:.1f} s"
            made = ", ".join(str(args.output / name) for name in row.outputs) or json.dumps(row.results)
            print(f"{made}: {row.server}{took}", flush=True)


def say(problem: str) -> None:
    with tqdm.external_write_mode(sys.stderr):
        report("queue", problem)


def literals(workflow: Workflow) -> dict[str, dict[str, object]]:
    """The values of a workflow, such as style and seed, by node; links between nodes are left out."""
    values = {n: {key: v for key, v in node["inputs"].items() if not isinstance(v, list)} for n, node in workflow.items()}
    return {node_name(workflow, number): found for number, found in values.items() if found}
