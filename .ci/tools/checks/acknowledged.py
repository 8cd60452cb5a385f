"""What was synced before a crash must be there after it.

usage: acknowledged.py write DIRECTORY LEDGER
       acknowledged.py verify DIRECTORY LEDGER

The writer goes on until the filesystem goes away under it. The ledger is on
another filesystem; a line is added to it only after fsync has returned.
"""

import os
import random
import sys

SIZES = [0, 100, 600, 5_000, 70_000, 300_000, 2_500_000]


def content(number):
    return random.Random(number).randbytes(SIZES[number % len(SIZES)])


def sync(path):
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def put(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write(directory, ledger):
    number = sum(1 for _ in open(ledger)) if os.path.exists(ledger) else 0
    with open(ledger, "a", buffering=1) as ledger:
        while True:
            number += 1
            folder = f"{directory}/{number % 7}"
            os.makedirs(folder, exist_ok=True)
            put(f"{folder}/{number}", content(number))
            sync(folder)
            sync(directory)
            # A file that is always replaced whole, as databases replace their root.
            put(f"{directory}/newest.new", b"%d" % number)
            os.rename(f"{directory}/newest.new", f"{directory}/newest")
            sync(directory)
            ledger.write(f"{number}\n")
            # And what nobody promised anything about.
            with open(f"{folder}/unsynced", "ab") as file:
                file.write(content(number + 3))


def verify(directory, ledger):
    acknowledged = [int(line) for line in open(ledger)]
    for number in acknowledged:
        path = f"{directory}/{number % 7}/{number}"
        with open(path, "rb") as file:
            found = file.read()
        assert found == content(number), f"{path} has {len(found)} other bytes"
    with open(f"{directory}/newest") as file:
        newest = int(file.read())
    assert newest >= acknowledged[-1], f"the newest is {newest}, and {acknowledged[-1]} was synced"
    print(f"{len(acknowledged)} acknowledged files are there")


if sys.argv[1] == "write":
    try:
        write(sys.argv[2], sys.argv[3])
    except OSError:
        pass
else:
    verify(sys.argv[2], sys.argv[3])
