"Hand setuptools what `settings.ini` says; everything else stands in `pyproject.toml`"

from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

settings = ConfigParser(delimiters=["="])
settings.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
facts = settings["DEFAULT"]
statuses = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}


def lines(key: str) -> list[str]:
    return [line.strip() for line in facts[key].splitlines() if line.strip()]


setup(
    author=facts["author"],
    keywords=facts["keywords"].split(", "),
    classifiers=[
        f"Development Status :: {statuses[facts['status']]}",
        f"Intended Audience :: {facts['audience']}",
        "Environment :: Console",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    install_requires=lines("requirements"),
    extras_require={
        key.removesuffix("_requirements"): lines(key)
        for key in facts
        if key.endswith("_requirements")
    },
)
