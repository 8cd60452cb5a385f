"""Files that are removed or replaced while they are open stay what they are."""

import os
import shutil
import subprocess

SIZES = [10, 5_000, 200_000, 3 << 20]


def check(size):
    name = f"file-{size}"
    content = os.urandom(size)
    with open(name, "wb") as file:
        file.write(content)
    file = os.open(name, os.O_RDWR)
    inode = os.fstat(file).st_ino
    os.unlink(name)
    assert not os.path.exists(name)
    assert os.fstat(file).st_nlink == 0
    assert os.pread(file, size, 0) == content, "the content went with the name"
    os.pwrite(file, b"more", size)
    assert os.fstat(file).st_size == size + 4
    os.fsync(file)
    os.ftruncate(file, 5)
    assert os.pread(file, 100, 0) == content[:5]
    os.fchmod(file, 0o600)
    # Another file under the name is another file.
    with open(name, "wb") as new:
        new.write(b"new")
        assert os.fstat(new.fileno()).st_ino != inode
    assert os.pread(file, 100, 0) == content[:5]
    with open(f"/proc/self/fd/{file}", "rb") as again:
        assert again.read() == content[:5], "an open file cannot be opened again"
    os.close(file)
    with open(name, "rb") as new:
        assert new.read() == b"new"


def check_directory():
    os.mkdir("folder")
    folder = os.open("folder", os.O_RDONLY)
    os.rmdir("folder")
    assert os.listdir(folder) == []
    try:
        os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder)
        raise AssertionError("a file was made in a removed directory")
    except FileNotFoundError:
        pass
    os.close(folder)


def check_running():
    """A program that is removed while it runs goes on."""
    shutil.copy(shutil.which("sleep"), "program")
    running = subprocess.Popen(["./program", "1"])
    os.unlink("program")
    assert running.wait(30) == 0


for size in SIZES:
    check(size)
check_directory()
check_running()
