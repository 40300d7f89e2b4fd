"""docs/tutorial.md: every command as printed, and what it prints, at the size of a test."""

import os
import re
import subprocess
from pathlib import Path

from chain import BIN, PATIENCE_S, ROOT, TINY, Chain

PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(console|yaml)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"This is `([^`]+)`:\n\n$")


def steps() -> list[tuple[str, str]]:
    """Return (command, what it prints) in order; ("> FILE", content) for a file to write."""
    found = []
    for block in _BLOCK.finditer(PAGE):
        kind, text = block.groups()
        if kind == "yaml":
            name = _FILE.search(PAGE[: block.start()])
            assert name, f"no file is named for:\n{text}"
            found.append((f"> {name[1]}", text))
            continue
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def pattern(printed: str) -> str:
    """Return a regular expression for output in which ``...`` stands for anything."""
    return r"[\s\S]*?".join(map(re.escape, printed.strip().split("...")))


def test_every_command_does_what_the_page_says(tmp_path: Path, chain: Chain) -> None:
    """The first run of the page is the finished chain that other tests have, too."""
    home, mine = tmp_path, tmp_path / "mine"
    environment = {
        **os.environ,
        **{"HOME": str(home), "CHECKOUT": str(ROOT), "OMP_NUM_THREADS": "1"},
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    (init, printed), (cd, _), *others = steps()
    assert (init, cd) == ("particleforge init ~/mine", "cd ~/mine")
    check(init, printed, home, environment)
    chain.copy(tmp_path / "finished")
    for part in ("results", ".snakemake"):
        (tmp_path / "finished" / part).rename(mine / part)
    (mine / "config/presets/tiny.yaml").write_text(TINY)
    first = next(i for i, (_, printed) in enumerate(others) if "Report: results/clic" in printed)
    for command, expected in [*others[:first], *others[first + 1 :]]:
        if command.startswith("> "):
            (mine / command[2:]).write_text(expected)
        else:
            check(re.sub(r"\bsmoke\b", "tiny", command), expected, mine, environment)


def check(command: str, printed: str, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-c", command],
        **{"cwd": folder, "env": environment, "timeout": PATIENCE_S},
        **{"capture_output": True, "text": True, "check": False},
    )
    said = done.stderr + done.stdout if "snakemake" in command else done.stdout + done.stderr
    assert done.returncode == 0, f"{command}\n{said[-4000:]}"
    assert re.search(pattern(printed), said), f"{command}\n{said[-4000:]}\ninstead of\n{printed}"


def test_a_page_that_says_something_else_is_found() -> None:
    assert re.search(pattern("a ... c\n"), "x a b c")
    assert not re.search(pattern("a ... d\n"), "x a b c")
    assert len(steps()) > 20
