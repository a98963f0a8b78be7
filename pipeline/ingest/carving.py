"""Carved splits in which no class is missing: a class that the hash leaves out of a split gives it a row."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmworks.pipeline.ingest.splits import SPLITS
from lmworks.pipeline.label_conflicts import LabelCounts

_PRIORITY = ("train", "test", "validation")
"""The order in which splits get a row of a class that has too few for all: a single one is trained on."""


def moves_of(ids: np.ndarray, classes: np.ndarray, splits: np.ndarray, carved: Collection[str]) -> dict[int, str]:
    """Decides which texts leave the split that their hash names.

    For each class and each split without a text of it, in the order train, test, validation: the text of the class with
    the lowest id moves there from a split that has another one, or, where none has, from a later one in that order. Texts
    with more than one label stay, and count for no class, except that a class without any other text has the one with the
    lowest id in train: what validation and test hold is known there. So the result depends on nothing but the texts of a
    class, not on the rows' order or on other classes, and a class that has a text in every split moves none.

    Args:
        ids: uint64 [rows] of `ingest.train`.
        classes: int [rows], at least 0.
        splits: int [rows], by hash, as indices into `SPLITS`.
        carved: splits that are carved from train.

    Returns:
        New splits by id.
    """
    names = [name for name in _PRIORITY if name == "train" or name in carved]
    counts = LabelCounts(ids, classes)
    where = np.array([names.index(name) if name in names else -1 for name in SPLITS])[splits[counts.first]]
    own = ~counts.conflicting()[counts.text]
    texts, owner, place = counts.texts[counts.text[own]], counts.label[own], where[counts.text[own]]
    count = np.bincount(owner * len(names) + place, minlength=len(names) * (int(owner.max(initial=-1)) + 1))
    some = count.reshape(-1, len(names))
    by_class = np.argsort(owner, kind="stable")  # ids ascend within a class
    ends = np.cumsum(some.sum(axis=1))
    shared_labels, lowest = np.unique(counts.label[~own], return_index=True)  # ids ascend, so the first is the lowest
    shared = counts.text[~own][lowest[~np.isin(shared_labels, owner)]]
    moves: dict[int, str] = {int(counts.texts[text]): "train" for text in shared if names[where[text]] != "train"}
    for index in np.flatnonzero((some == 0).any(axis=1) & (some.sum(axis=1) > 0)):
        mine = by_class[ends[index] - some[index].sum() : ends[index]]
        new = _filled(place[mine], len(names))
        moves |= {int(texts[row]): names[split] for row, split in zip(mine, new, strict=True) if place[row] != split}
    return moves


def _filled(place: np.ndarray, count: int) -> np.ndarray:
    """Places of one class's texts, in ascending order of their ids, after each of `count` places has one if it can."""
    place = place.copy()
    for wanting in range(count):
        texts = np.bincount(place, minlength=count)
        if texts[wanting]:
            continue
        spare = np.flatnonzero(texts[place] > 1)
        donors = spare if len(spare) else np.flatnonzero(place > wanting)
        if len(donors):
            place[donors[0]] = wanting
    return place


def move_rows(folder: Path, moves: dict[int, str]) -> None:
    """Moves rows between the finished Parquet shards of splits; all rows of a text together, in their order.

    Args:
        folder: that holds `Split-<split>/data-*.parquet`.
        moves: new splits by id.
    """
    moved: dict[str, list[pa.Table]] = {}
    wanted = pa.array([f"{identity:016x}" for identity in moves], pa.string())
    goals = np.array(list(moves.values()))
    for split in _PRIORITY:
        for path in sorted((folder / f"Split-{split}").glob("data-*.parquet")):
            place = pc.index_in(pq.read_table(path, columns=["id"])["id"], wanted).to_numpy()
            goal = np.where(np.isnan(place), split, goals[np.nan_to_num(place).astype(np.int64)])
            if np.all(goal == split):
                continue
            table = _take_out(path, goal == split)
            for name in np.unique(goal[goal != split]):
                moved.setdefault(str(name), []).append(table.filter(pa.array(goal[goal != split] == name)))
    for split, tables in moved.items():
        _append(folder / f"Split-{split}", pa.concat_tables(tables))


def _take_out(path: Path, stays: np.ndarray) -> pa.Table:
    """Rewrites a shard with the rows that stay, a row group at a time; the others."""
    draft, start, others = path.with_name("draft"), 0, []
    with pq.ParquetFile(path) as file, pq.ParquetWriter(draft, file.schema_arrow) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            here = stays[start : start + len(table)]
            start += len(table)
            writer.write_table(table.filter(pa.array(here)))
            others.append(table.filter(pa.array(~here)))
    draft.replace(path)
    return pa.concat_tables(others)


def _append(folder: Path, table: pa.Table) -> None:
    """Adds a shard to a split, which may have none yet; all splits share their columns."""
    folder.mkdir(exist_ok=True)
    shards = sorted(folder.glob("data-*.parquet"))
    for index, path in enumerate(shards):
        path.rename(folder / f"data-{index:05d}-of-{len(shards) + 1:05d}.parquet")
    pq.write_table(table, folder / f"data-{len(shards):05d}-of-{len(shards) + 1:05d}.parquet")
