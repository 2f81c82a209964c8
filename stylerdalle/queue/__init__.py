"""Batches over ComfyUI's HTTP API, for the command `stylerdalle queue`.

workflow.py reads API-format workflows and sets their inputs. server.py is one ComfyUI server, results.py reads what its runs
made. journal.py records on disk what is done. policy.py holds the settings of a batch, batch.py shares the photos among the
servers.
"""
