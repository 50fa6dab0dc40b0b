"""On PYTHONPATH, this gives every Python that starts the probes of lesson 90."""

import sys
from importlib.util import spec_from_file_location
from pathlib import Path

NAME = "qwen_course.exercises.probes.lesson_90"


class Lesson90:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == NAME:
            return spec_from_file_location(
                name, Path(__file__).with_name("lesson_90.py")
            )
        return None


sys.meta_path.insert(0, Lesson90)
