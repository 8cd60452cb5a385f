"""Memory shared between processes by mapping one file."""

import mmap
import multiprocessing
import os

PAGES = 300
SIZE = PAGES * mmap.PAGESIZE


def open_map():
    file = open("shared", "r+b")
    return file, mmap.mmap(file.fileno(), SIZE)


def partner(turn, answer):
    """Adds one to the first byte of each page when told to."""
    file, shared = open_map()
    for _ in range(20):
        turn.acquire()
        for page in range(PAGES):
            shared[page * mmap.PAGESIZE] = (shared[page * mmap.PAGESIZE] + 1) % 256
        answer.release()
    shared.close()
    file.close()


def main():
    with open("shared", "wb") as file:
        file.truncate(SIZE)
    file, shared = open_map()
    turn, answer = multiprocessing.Semaphore(0), multiprocessing.Semaphore(0)
    other = multiprocessing.Process(target=partner, args=(turn, answer))
    other.start()
    for round in range(20):
        for page in range(PAGES):
            shared[page * mmap.PAGESIZE] = round
        turn.release()
        assert answer.acquire(timeout=60), "the other process does not answer"
        for page in range(PAGES):
            found = shared[page * mmap.PAGESIZE]
            assert found == round + 1, f"page {page} has {found} in round {round}"
    other.join()
    assert other.exitcode == 0

    # read() sees what was written through the map, and the map what write() wrote.
    shared[100:105] = b"by ma"
    with open("shared", "rb") as again:
        again.seek(100)
        assert again.read(5) == b"by ma", "read() does not see the map"
    os.pwrite(file.fileno(), b"by write", 10 * mmap.PAGESIZE)
    assert shared[10 * mmap.PAGESIZE :][:8] == b"by write", "the map does not see write()"
    shared.flush()
    shared.close()
    file.close()

    # A map keeps its file when the name goes; a longer file has more to map.
    file, shared = open_map()
    os.unlink("shared")
    shared[0:4] = b"gone"
    assert os.pread(file.fileno(), 4, 0) == b"gone"
    os.ftruncate(file.fileno(), SIZE + mmap.PAGESIZE)
    shared.resize(SIZE + mmap.PAGESIZE)
    assert shared[SIZE] == 0
    shared[SIZE] = 7
    shared.flush()
    assert os.pread(file.fileno(), 1, SIZE) == b"\x07"

    private = mmap.mmap(file.fileno(), SIZE, mmap.MAP_PRIVATE)
    private[0:4] = b"mine"
    assert os.pread(file.fileno(), 4, 0) == b"gone", "a private map changed the file"


main()
