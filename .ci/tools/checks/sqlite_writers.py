"""Two processes write to one SQLite database, which then must be whole.

usage: sqlite_writers.py WAL|DELETE (in an empty directory)
"""

import multiprocessing
import sqlite3
import sys

MODE = sys.argv[1]
WRITERS = 2
TRANSACTIONS = 150


def connect():
    db = sqlite3.connect("data.db", timeout=60, isolation_level=None)
    db.execute("PRAGMA synchronous = NORMAL")
    return db


def write(writer):
    db = connect()
    for n in range(TRANSACTIONS):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO stone VALUES (?, ?, ?)", (writer, n, "x" * (n * 37 % 5000)))
        db.execute("UPDATE total SET stones = stones + 1")
        # Now and then a transaction that comes to nothing.
        db.execute("ROLLBACK" if n % 10 == 9 else "COMMIT")
    db.close()


def main():
    db = connect()
    mode = db.execute(f"PRAGMA journal_mode = {MODE}").fetchone()[0]
    assert mode.upper() == MODE, f"SQLite chose the journal mode {mode}"
    db.execute("CREATE TABLE stone (writer, n, text, PRIMARY KEY (writer, n))")
    db.execute("CREATE TABLE total (stones)")
    db.execute("INSERT INTO total VALUES (0)")
    db.close()
    writers = [multiprocessing.Process(target=write, args=(w,)) for w in range(WRITERS)]
    for writer in writers:
        writer.start()
    reader = connect()
    while any(writer.is_alive() for writer in writers):
        stones, total = reader.execute(
            "SELECT (SELECT count(*) FROM stone), (SELECT stones FROM total)"
        ).fetchone()
        assert stones == total, f"a reader saw {stones} rows and a count of {total}"
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0, "a writer failed"
    expected = WRITERS * TRANSACTIONS * 9 // 10
    found = reader.execute("SELECT count(*) FROM stone").fetchone()[0]
    assert found == expected, f"{found} rows instead of {expected}"
    reader.execute("VACUUM")
    verdict = reader.execute("PRAGMA integrity_check").fetchone()[0]
    assert verdict == "ok", verdict


main()
