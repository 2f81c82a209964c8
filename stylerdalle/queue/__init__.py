"""Batches over ComfyUI's HTTP API: `stylerdalle queue`.

workflow.py reads and sets API-format workflows, host.py is one ComfyUI server, journal.py what is done on disk,
batch.py shares the photos among the servers, commands.py the command.
"""

from __future__ import annotations
