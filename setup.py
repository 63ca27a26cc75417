"""Build step beyond pyproject.toml: the five YAML folders ship inside the wheel, as servsim/catalogue/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

KINDS = ("engines", "hardware", "models", "scenarios", "workloads")


class BuildWithCatalogue(build_py):
    """Copies the catalogue's folders beside the package's modules; an editable install reads the checkout's."""

    def run(self) -> None:
        """Build the package, then its catalogue."""
        super().run()
        if getattr(self, "editable_mode", False):
            return
        root = Path(__file__).resolve().parent
        for kind in KINDS:
            target = Path(self.build_lib) / "servsim" / "catalogue" / kind
            shutil.rmtree(target, ignore_errors=True)  # what an earlier build left
            shutil.copytree(root / kind, target)


setup(cmdclass={"build_py": BuildWithCatalogue})
