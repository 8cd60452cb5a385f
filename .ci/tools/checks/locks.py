"""flock and fcntl locks between two processes."""

import errno
import fcntl
import multiprocessing
import os
import struct


def try_flock(path, how):
    with open(path, "r+b") as file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False


def try_record(path, how, length, start):
    with open(path, "r+b") as file:
        try:
            fcntl.lockf(file, how | fcntl.LOCK_NB, length, start)
            return True
        except OSError as error:
            assert error.errno in (errno.EAGAIN, errno.EACCES), error
            return False


def holder(path, start, length):
    """Which process holds a range, as fcntl(F_GETLK) says."""
    with open(path, "r+b") as file:
        ask = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        kind, _, _, _, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, ask))
        return None if kind == fcntl.F_UNLCK else pid


def elsewhere(function, *args):
    """Runs a function in another process and returns what it returned."""
    with multiprocessing.Pool(1) as pool:
        return pool.apply(function, args)


def hold_and_die(path, locked):
    file = open(path, "r+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    fcntl.lockf(file, fcntl.LOCK_EX)
    locked.set()
    multiprocessing.Event().wait()


def count_up(path, times):
    for _ in range(times):
        with open(path, "r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            number = int(file.read())
            file.seek(0)
            file.write(b"%d" % (number + 1))
            file.flush()


def check_flock():
    with open("flock", "w+b") as mine:
        fcntl.flock(mine, fcntl.LOCK_EX)
        assert not elsewhere(try_flock, "flock", fcntl.LOCK_EX), "two exclusive locks"
        assert not elsewhere(try_flock, "flock", fcntl.LOCK_SH), "shared beside exclusive"
        fcntl.flock(mine, fcntl.LOCK_SH)
        assert elsewhere(try_flock, "flock", fcntl.LOCK_SH), "no two shared locks"
        assert not elsewhere(try_flock, "flock", fcntl.LOCK_EX), "exclusive beside shared"
        assert not try_flock("flock", fcntl.LOCK_EX), "flock is not by open file"
    assert elsewhere(try_flock, "flock", fcntl.LOCK_EX), "locked after close"


def check_records():
    with open("records", "w+b") as mine:
        mine.truncate(100)
        fcntl.lockf(mine, fcntl.LOCK_EX, 10, 20)
        assert not elsewhere(try_record, "records", fcntl.LOCK_EX, 5, 25), "ranges overlap"
        assert elsewhere(try_record, "records", fcntl.LOCK_EX, 5, 30), "ranges do not overlap"
        assert elsewhere(try_record, "records", fcntl.LOCK_EX, 20, 0), "ranges do not overlap"
        assert elsewhere(holder, "records", 0, 100) == os.getpid(), "F_GETLK names another"
        fcntl.lockf(mine, fcntl.LOCK_UN, 10, 20)
        assert elsewhere(holder, "records", 0, 100) is None, "locked after unlock"


def check_death():
    with open("death", "wb"):
        pass
    locked = multiprocessing.Event()
    process = multiprocessing.Process(target=hold_and_die, args=("death", locked))
    process.start()
    assert locked.wait(30)
    assert not try_flock("death", fcntl.LOCK_EX)
    process.kill()
    process.join()
    assert try_flock("death", fcntl.LOCK_EX), "a dead process holds its flock"
    assert try_record("death", fcntl.LOCK_EX, 0, 0), "a dead process holds its record lock"


def check_waiting():
    with open("counter", "wb") as file:
        file.write(b"0")
    processes = [multiprocessing.Process(target=count_up, args=("counter", 200)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with open("counter", "rb") as file:
        assert int(file.read()) == 600, "locked updates were lost"


check_flock()
check_records()
check_death()
check_waiting()
