"""One look at what a lesson runs on."""

import platform
from importlib.metadata import version

from qwen_course import __version__
from qwen_course.loading import bundled_models, choose_device
from qwen_course.settings import MODEL_VARIABLE, model_name


def about() -> None:
    """Print the versions, the device and the model that the lessons use.

    Needs no network.
    """
    name = model_name()
    kind = "a pocket model" if name in bundled_models() else "a real checkpoint"
    print(
        f"qwen-course {__version__}, Python {platform.python_version()}, "
        f"torch {version('torch').partition('+')[0]}, "
        f"transformers {version('transformers')}"
    )
    print(f"device: {choose_device()}   model: {name} ({kind}; set {MODEL_VARIABLE})")
