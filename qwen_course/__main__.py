"""`python -m qwen_course` is the command `qwen-course`."""

from qwen_course.cli import main

raise SystemExit(main())
