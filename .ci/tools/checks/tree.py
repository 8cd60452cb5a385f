"""A tree with every kind of file, and a listing of all that must survive a copy.

usage: tree.py make|list DIRECTORY
"""

import hashlib
import os
import random
import stat
import sys

# Around the sizes at which a filesystem changes its way of storing a file.
SIZES = [0, 1, 511, 512, 513, 4095, 4096, 4097, 65535, 65536, 65537, 524289, 1048576, 1048577, 5242881]
NAMES = [b"space and\ttab", b"new\nline", "grün ☃".encode(), b"\xff\xfe not UTF-8", b"-rf", b"*", b"n" * 255]


def write(path, content, mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def make(root):
    source = random.Random(1)
    os.chdir(root)
    os.mkdir("sizes")
    for size in SIZES:
        write(f"sizes/{size}", source.randbytes(size))
    os.mkdir("names")
    for number, name in enumerate(NAMES):
        write(os.path.join(b"names", name), b"%d" % number)
    os.mkdir("modes")
    for mode in (0o000, 0o400, 0o755, 0o4755, 0o2755, 0o666):
        write(f"modes/{mode:o}", b"mode", mode)
    os.mkdir("modes/sticky")
    os.chmod("modes/sticky", 0o1777)
    os.mkdir("links")
    write("links/one", b"three names")
    os.link("links/one", "links/two")
    os.link("links/one", "names/three")
    os.symlink("one", "links/relative")
    os.symlink("/nowhere/" + "x" * 1000, "links/broken")
    os.mkfifo("links/pipe")
    with open("sparse", "wb") as file:
        file.write(b"start")
        file.seek(8 << 20)
        file.write(source.randbytes(100_000))
        file.truncate(32 << 20)
    write("attributes", b"attributes")
    os.setxattr("attributes", "user.text", b"value")
    os.setxattr("attributes", "user.bytes", bytes(range(256)))
    os.setxattr("sizes", "user.directory", b"too")
    deep = "deep"
    for level in range(40):
        os.mkdir(deep)
        deep = f"{deep}/{level}"
    write(deep, b"bottom")
    if os.geteuid() == 0:
        os.chown("sizes/513", 1234, 5678)
        os.chown("links/relative", 1234, 5678, follow_symlinks=False)
    for when, (folder, folders, files) in enumerate(os.walk(b".", topdown=False)):
        for name in files:
            os.utime(os.path.join(folder, name), ns=(10**18, 10**18 + when * 10**9 + 123_456_789), follow_symlinks=False)
        os.utime(folder, ns=(10**18, 987_654_321 + when))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(root):
    """One line for each name; hard links show as the first name of their file."""
    os.chdir(root)
    first = {}
    paths = [b"."]
    for folder, folders, files in os.walk(b"."):
        paths += [os.path.join(folder, name) for name in folders + files]
    for path in sorted(paths):
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        line = [repr(path), oct(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns]
        if kind == stat.S_IFREG:
            line += [info.st_size, digest(path)]
        if kind == stat.S_IFLNK:
            line.append(os.readlink(path))
        if kind != stat.S_IFDIR:
            line += [info.st_nlink, repr(first.setdefault(info.st_ino, path))]
        if kind in (stat.S_IFREG, stat.S_IFDIR):
            line += [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path)) if name.startswith("user.")]
        print(*line)


{"make": make, "list": listing}[sys.argv[1]](sys.argv[2])
