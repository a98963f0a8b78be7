"""Carved splits in which no class is missing: a class that the hash leaves out of a split gives it a row."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmworks.pipeline.ingest.splits import SPLITS

_PRIORITY = ("train", "test", "validation")
"""The order in which splits get a row of a class that has too few for all: a single one is trained on."""


def moves_of(ids: np.ndarray, classes: np.ndarray, splits: np.ndarray, carved: Collection[str]) -> dict[int, str]:
    """Decides which texts leave the split that their hash names.

    For each class and each split without a text of it, in the order train, test, validation: the text of the class with
    the lowest id moves there from a split that has another one, or, where none has, from a later one in that order. Texts
    with more than one label stay, and count for no class. So the result depends on nothing but the texts of a class, not on
    the rows' order or on other classes, and a class that has a text in every split moves none.

    Args:
        ids: uint64 [rows] of `ingest.train`.
        classes: int [rows], at least 0.
        splits: int [rows], by hash, as indices into `SPLITS`.
        carved: splits that are carved from train.

    Returns:
        New splits by id.
    """
    names = [name for name in _PRIORITY if name == "train" or name in carved]
    pairs, first = np.unique(np.stack([ids, np.asarray(classes, np.uint64)]), axis=1, return_index=True)
    _, inverse, labels = np.unique(pairs[0], return_inverse=True, return_counts=True)
    own = labels[inverse] == 1
    texts, owner = pairs[0][own], pairs[1][own].astype(np.int64)
    place = np.array([names.index(name) if name in names else -1 for name in SPLITS])[splits[first[own]]]
    count = np.bincount(owner * len(names) + place, minlength=len(names) * (int(owner.max(initial=-1)) + 1))
    some = count.reshape(-1, len(names))
    by_class = np.argsort(owner, kind="stable")  # ids ascend within a class
    ends = np.cumsum(some.sum(axis=1))
    moves: dict[int, str] = {}
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
