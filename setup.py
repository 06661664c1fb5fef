"""The package tfcorr and its console script; what it needs stands in requirements.txt alone."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

version = re.search(r'__version__ = "(.+)"', Path("tfcorr/__init__.py").read_text())[1]
needed, _ = Path("requirements.txt").read_text().split("# For `make test` alone")

setup(
    name="tfcorr",
    version=version,
    description="Retriever and ranker trained together, on TensorFlow (CoRR, WWW'23)",
    packages=find_namespace_packages(include=["tfcorr", "tfcorr.*"]),
    package_data={"tfcorr": ["py.typed"], "tfcorr.serving.server": ["page.html"]},
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    install_requires=[line for line in needed.splitlines() if line and not line.startswith("#")],
    extras_require={"beam": ["apache-beam==2.77.0"]},
    entry_points={"console_scripts": ["tfcorr = tfcorr.cli:main"]},
)
