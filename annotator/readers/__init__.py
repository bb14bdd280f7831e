"""Readers: items, samples and documents from plain tables and from evaluation logs, recognised by content."""

from annotator.readers.corpus import document_frame, read_documents, read_records
from annotator.readers.duplicates import SeenIds
from annotator.readers.items import read_items
from annotator.readers.records import BadRow, Batch, item_text
from annotator.readers.samples import read_samples
from annotator.readers.shards import Shard, find_shards

__all__ = [
    "BadRow",
    "Batch",
    "SeenIds",
    "Shard",
    "document_frame",
    "find_shards",
    "item_text",
    "read_documents",
    "read_items",
    "read_records",
    "read_samples",
]
