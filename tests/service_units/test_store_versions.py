"""Stores that older versions wrote."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

from cluster.service.records import JobDocument
from cluster.service.store import insert
from tests.records import job_record
from tests.service_units.test_store import _event, _opened


def test_a_store_of_an_older_version_takes_what_a_list_shows_from_its_documents(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    job = {"pipeline": {"stages": 4, "schedule": "zb-h1"}, "training": {"batch_size": 256}}
    documents = {"a": json.dumps(job), "b": "{}"}
    with _opened(path) as store:
        for name, document in documents.items():
            asyncio.run(store.write(insert(job_record(name), JobDocument(document=document, files={}), _event())))
    added = ("best_validation_loss", "samples_per_second", "stages", "schedule", "batch_size")
    later = ("validation_perplexity", "validation_bits_per_byte", "preempt", "resumed_from")
    with sqlite3.connect(path) as connection:
        for column in (*added, *later):
            connection.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 2")
    with _opened(path) as store:
        found = {record.id: record for record in store.select()}
    assert (found["a"].stages, found["a"].schedule, found["a"].batch_size) == (4, "zb-h1", 256)
    assert (found["b"].stages, found["b"].schedule, found["b"].batch_size) == (0, "", 0)
