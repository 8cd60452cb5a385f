#!/usr/bin/env python3
"""Records what bash makes of the scripts in cases/*.txt.

Each case runs in a directory of its own, with the C locale, UTC and umask 022;
its standard output and its status replace what was recorded. Needs bash 5.2 and
GNU's tools. Run it after adding a case, and look at the difference.
"""

import pathlib
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent / "cases"
ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "HOME": "/tmp"}


def parse(text):
    for part in text.split("### ")[1:]:
        name, _, rest = part.partition("\n")
        script = []
        for line in rest.splitlines():
            if line.startswith("=> "):
                break
            script.append(line)
        while script and not script[-1]:
            script.pop()
        yield name, "\n".join(script)


def run(script):
    with tempfile.TemporaryDirectory() as place:
        ran = subprocess.run(
            ["bash", "-c", script],
            cwd=place,
            env=ENV,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=20,
            umask=0o022,
        )
    return ran.returncode, ran.stdout.decode()


def main():
    for path in sorted(HERE.glob("*.txt")):
        text = path.read_text()
        out = [text.split("### ")[0]]
        for name, script in parse(text):
            status, stdout = run(script)
            out.append(f"### {name}\n{script}\n=> {status}\n")
            lines = stdout.split("\n")
            last = lines.pop()
            out.extend(f"|{line}\n" for line in lines)
            if last:
                out.append(f"\\{last}\n")
            out.append("\n")
        path.write_text("".join(out).rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
