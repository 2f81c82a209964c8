"""The command `queue`: photos through a workflow on one or several ComfyUI servers.

asyncio and aiohttp are imported when the command runs, not for its --help.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from ..queue.auth import VARIABLE, read_secrets, without_secrets
from ..queue.journal import NOT_TRIED, Journal, Row, find_photos
from ..queue.policy import Policy
from ..queue.workflow import Workflow, node_name, photo_node, read_workflow, set_inputs
from .console import bar, beside_bar, report, say
from .options import add_config_options, given_options


def queue_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        action="append",
        required=True,
        metavar="URL",
        help="address of a ComfyUI, such as http://127.0.0.1:8188; repeat it to use several",
    )
    parser.add_argument(
        "--workflow", type=Path, required=True, metavar="FILE", help="workflow in API format, such as those in workflows/api/"
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photos; subfolders are included")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="a new folder, or that of a batch to be continued"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="set an input of the workflow; NODE is a node's id, title or class_type, VALUE is JSON or a text; may be repeated",
    )
    parser.add_argument(
        "--photo-node", metavar="NODE", help="node whose input `image` takes the photo (default: the only LoadImage node)"
    )
    parser.add_argument(
        "--auth",
        type=Path,
        metavar="FILE",
        help="file with a line `Bearer TOKEN` or `Basic USER:PASSWORD`, for one server with its URL before it "
        f"(default: the environment variable {VARIABLE})",
    )
    add_config_options(parser, Policy)
    parser.add_argument("--json", action="store_true", help="print one JSON object per photo as it is done")
    parser.set_defaults(run=run_queue)


def run_queue(args: argparse.Namespace) -> int:
    import asyncio

    from ..queue.batch import Batch, Listener
    from ..queue.server import check_servers, find_servers

    started = time.monotonic()
    secrets = read_secrets(args.auth)
    policy, urls = Policy(**given_options(args, Policy)), find_servers(args.server, secrets)
    workflow = set_inputs(read_workflow(args.workflow), args.set)
    node_id = photo_node(workflow, args.photo_node)
    photos = find_photos(args.images, args.output)
    shown = without_secrets(workflow, secrets)
    journal = Journal(args.output, shown, node_id)
    journal.read()  # refuses a wrong folder before anything is written
    if journal.remaining(photos)[0]:
        asyncio.run(check_servers(urls, secrets))
    with journal.open():
        remaining, rows = journal.remaining(photos)
        with bar(f"{len(remaining)} photos") as progress:
            listener = Listener(
                row=lambda row: show_row(row, args),
                problem=show_problem,
                progress=lambda done: progress(round(100 * done), 100 * len(remaining)),  # the bar counts in hundredths
            )
            batch = Batch(workflow, node_id, remaining, journal, policy, listener, secrets)
            rows += asyncio.run(batch.run(urls))
        done = sum(row.error is None for row in rows)
        by_server = Counter(str(row.server) for row in rows if row.error is None)
        took = round(time.monotonic() - started, 2)
        facts = {
            "workflow": str(args.workflow),
            "inputs": literals({key: node for key, node in shown.items() if key != node_id}),
            "photos": len(photos),
            "done": done,
            "done_before": len(photos) - len(remaining),
            "tried_again": batch.retries,
            "by_server": by_server,
            "seconds": took,
        }
        path = journal.report(facts, sorted(rows, key=lambda row: row.picture))
    refused = batch.unfit.issuperset(urls)  # each server's reason has been shown
    if (not_tried := sum(row.error == NOT_TRIED for row in rows)) and not refused:
        report("queue", f"{not_tried} photos were not tried, {NOT_TRIED}: run the same command again to continue")
    if not args.json:
        shared = ", ".join(f"{url} {count}" for url, count in by_server.items()) or "none"
        say(f"{done} of {len(photos)} photos are done ({shared}) after {took} s: {path}")
    return 0 if done == len(photos) else 2 if refused else 1


def show_row(row: Row, args: argparse.Namespace) -> None:
    """Print the result of a photo, above the progress bar. Photos that were not tried are reported together at the end."""
    with beside_bar():
        if row.error not in (None, NOT_TRIED):
            report("queue", f"{row.picture}: {row.error}")
        if args.json:
            print(json.dumps(asdict(row)), flush=True)
        elif row.error is None:
            took = "" if row.seconds is None else f", {row.seconds:.1f} s"
            made = ", ".join(str(args.output / name) for name in row.outputs) or json.dumps(row.results)
            say(f"{made}: {row.server}{took}")


def show_problem(problem: str) -> None:
    with beside_bar():
        report("queue", problem)


def literals(workflow: Workflow) -> dict[str, dict[str, object]]:
    """The values of a workflow, such as style and seed, by node; links between nodes are left out."""
    values = {n: {key: v for key, v in node["inputs"].items() if not isinstance(v, list)} for n, node in workflow.items()}
    return {node_name(workflow, node_id): found for node_id, found in values.items() if found}
