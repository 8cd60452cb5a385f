"""A large directory is listed while other processes change it.

What is there all the time must be in each listing exactly once; what comes and
goes may be in it, at most once under each name.
"""

import multiprocessing
import os
import random

STABLE = 50_000
LISTINGS = 6


def change(number, stop):
    """Makes, renames and removes files beside the stable ones."""
    mine, made = random.Random(number), []
    while not stop.is_set():
        if len(made) < 500:
            name = f"many/moving-{number}-{mine.getrandbits(60)}"
            with open(name, "x"):
                made.append(name)
        else:
            at = mine.randrange(len(made))
            if mine.random() < 0.5:
                name = f"many/renamed-{number}-{mine.getrandbits(60)}"
                os.rename(made[at], name)
                made[at] = name
            else:
                os.unlink(made.pop(at))
    for name in made:
        os.unlink(name)


def check(names):
    seen = set(names)
    assert len(seen) == len(names), f"{len(names) - len(seen)} names were listed twice"
    stable = sum(name.startswith("stable-") for name in names)
    assert stable == STABLE, f"{stable} of {STABLE} names were listed"


def main():
    os.mkdir("many")
    for number in range(STABLE):
        os.close(os.open(f"many/stable-{number:05}", os.O_CREAT | os.O_WRONLY, 0o644))
    stop = multiprocessing.Event()
    changers = [multiprocessing.Process(target=change, args=(n, stop)) for n in range(2)]
    for changer in changers:
        changer.start()
    for _ in range(LISTINGS):
        check(os.listdir("many"))
        with os.scandir("many") as entries:
            check([entry.name for entry in entries if entry.is_file()])
    stop.set()
    for changer in changers:
        changer.join()
        assert changer.exitcode == 0
    assert sorted(os.listdir("many")) == [f"stable-{number:05}" for number in range(STABLE)]
    for entry in os.scandir("many"):
        assert entry.stat().st_size == 0
        os.unlink(entry.path)
    os.rmdir("many")


main()
