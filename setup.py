"""Put what a workflow folder needs into the wheel; the rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_HOME = ("Snakefile", "workflow", "config", "profiles", "LICENSE")


class BuildWithHome(build_py):
    """Copies the files of ``_HOME`` into the package as its folder ``home`` (config/home.py)."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:  # a checkout has them beside the package
            return
        target = Path(self.build_lib) / "particleforge" / "home"
        shutil.rmtree(target, ignore_errors=True)
        for name in _HOME:
            source = Path(name)
            if source.is_dir():
                shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / name)


setup(cmdclass={"build_py": BuildWithHome})
