"""Read the package's data files."""

from importlib.resources import files
from typing import Any

import yaml


def read_yaml(name: str) -> Any:
    """Parse `data/NAME.yaml` of the package, with libyaml where it is installed."""
    text = files("qwen_course").joinpath(f"data/{name}.yaml").read_text("utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
