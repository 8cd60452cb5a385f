"""Editors save by writing a new file and renaming it over the old one.

A reader that opens the file by name meanwhile must find it always, and find one
version of it, whole.
"""

import multiprocessing
import os

SAVES = 400


def content(version):
    # Small and large versions in turn.
    return (b"%06d\n" % version) * (20_000 if version % 20 == 0 else 50)


def read_until(stop):
    newest = 0
    while not stop.is_set():
        with open("document", "rb") as file:
            found = file.read()
        version = int(found[:6])
        assert found == content(version), f"version {version} is torn: {len(found)} bytes"
        assert version >= newest, f"version {version} after {newest}"
        newest = version


def save(version):
    with open("document.new", "wb") as file:
        file.write(content(version))
        file.flush()
        if version % 10 == 0:
            os.fsync(file.fileno())
    # Some editors keep the old version under another name first.
    if version % 3 == 0:
        if os.path.exists("document~"):
            os.unlink("document~")
        os.link("document", "document~")
    os.rename("document.new", "document")


def main():
    with open("document", "wb") as file:
        file.write(content(0))
    stop = multiprocessing.Event()
    readers = [multiprocessing.Process(target=read_until, args=(stop,)) for _ in range(2)]
    for reader in readers:
        reader.start()
    held = open("document", "rb")
    for version in range(1, SAVES + 1):
        save(version)
    stop.set()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0, "a reader saw something else"
    assert held.read() == content(0), "a file that was open changed under its reader"
    assert os.fstat(held.fileno()).st_nlink == 0
    assert sorted(os.listdir()) == ["document", "document~"]


main()
