"""Read the package's data files."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml


def read_yaml(name: str) -> Any:
    """Parse `data/NAME.yaml` of the package, with libyaml where it is installed."""
    text = files("qwen_course").joinpath(f"data/{name}.yaml").read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def data_file(name: str) -> Path:
    """Return the path of a file in the package's data, such as "charts/sales.png".

    Raises ValueError, with the names that are there, when there is no such file.
    """
    path = Path(str(files("qwen_course").joinpath("data"))) / name
    if not path.is_file():
        there = sorted(item.name for item in path.parent.glob("*") if item.is_file())
        raise ValueError(f'there is no data file "{name}"; there are {there}.')
    return path
