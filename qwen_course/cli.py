"""The command `qwen-course`: the course's tools in a terminal."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qwen_course import __version__

MODEL = "pocket model, Hub id or folder (default: the setting QWEN_COURSE_MODEL)"


def doctor(options: argparse.Namespace) -> int:
    """Print the state of this machine; 1 when something is wrong."""
    from qwen_course.doctor import doctor as examine

    report = examine()
    print(report)
    return 1 if any(check.status == "problem" for check in report.checks) else 0


def explain(options: argparse.Namespace) -> int:
    """Say what an error message means and what to type; 1 when no entry fits."""
    from qwen_course import troubleshooting

    if not options.text and sys.stdin.isatty():
        print("Paste the message, then press Ctrl-D (on Windows Ctrl-Z and Enter).")
    entry = troubleshooting.explain(" ".join(options.text) or sys.stdin.read())
    print(entry)
    return int(entry is troubleshooting.UNKNOWN)


def models(options: argparse.Namespace) -> int:
    """List the pocket models and the catalogue, or recommend for a task."""
    from qwen_course import catalog
    from qwen_course.loading import bundled_models

    if options.task:
        return _recommend(options)
    print("pocket models (in the course):", ", ".join(bundled_models()))
    print(catalog.models(series=options.series, thinking=options.thinking))
    return 0


def _recommend(options: argparse.Namespace) -> int:
    from qwen_course import catalog

    thinking = {"none": False, "only": True, "hybrid": True, None: None}
    found = catalog.recommend(
        options.task,
        memory_gb=options.memory,
        licence=options.licence,
        context=options.context,
        thinking=thinking[options.thinking],
    )
    print(found)
    if not found:
        print(found.ruled_out)
    return 0


def download(options: argparse.Namespace) -> int:
    """Fetch a checkpoint and check every byte; goes on where it stopped."""
    from qwen_course.platforms.hubs import download as fetch

    return fetch(options)


def chat(options: argparse.Namespace) -> int:
    """Answer one question, or hold a conversation when none is given."""
    from qwen_course.loading import load

    model, tokenizer = load(options.model, options.precision)
    from qwen_course.widgets import ChatSession

    session = ChatSession(model, tokenizer)
    for question in [options.question] if options.question else _typed_lines():
        reply = session.send(question, options.thinking, options.thinking_budget)
        print(reply)
    return 0


def _typed_lines():
    """Yield what is typed, until an empty line or the end of input."""
    prompt = "You: " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt)
        except EOFError:
            return
        if not line.strip():
            return
        yield line


def evaluate(options: argparse.Namespace) -> int:
    """Print a model's scores on unseen questions, with and without thinking."""
    from qwen_course.loading import load
    from qwen_course.scorecard import scorecard

    parts = [part.replace("_", " ") for part in options.parts.split(",") if part]
    model, tokenizer = load(options.model, options.precision)
    print(scorecard(model, tokenizer, options.n, parts or None))
    return 0


def export(options: argparse.Namespace) -> int:
    """Write a model in the form of another platform: gguf, onnx or openvino."""
    from qwen_course import deployment
    from qwen_course.settings import model_name

    name = options.model or model_name()
    print(deployment.export(name, options.to, options.precision, options.out))
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serve a model over HTTP in the OpenAI form, with limits, health and metrics."""
    import functools
    import secrets

    from qwen_course import workers
    from qwen_course.loading import locate
    from qwen_course.settings import model_name

    if options.log and not options.keys:
        raise ValueError("--log notes who asked, which only --keys can tell. Add it.")
    options.secret = secrets.token_bytes(32)  # the seals of one worker hold for all
    if options.workers > 1:
        if options.keys and options.store.startswith("memory"):
            raise ValueError(
                "in memory each worker would count for itself. With --keys and several "
                "--workers give a store for all of them: --store redis://HOST"
            )
        locate(options.model or model_name())  # a wrong name is one sentence, not many
        build = functools.partial(_service, options)
        workers.serve(build, options.workers, options.host, options.port)
        return 0
    from qwen_course.monitoring import QwenMonitor
    from qwen_course.server import create_app
    from qwen_course.server import serve as run

    service, guard = _service(options)
    run(create_app(service, guard, QwenMonitor()), service, options.host, options.port)
    return 0


def _service(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the service, and the guard where there are keys."""
    import torch

    from qwen_course.loading import load
    from qwen_course.service import QwenService

    model, tokenizer = load(options.model, options.precision)
    service = QwenService(
        model, tokenizer,
        max_batch=options.max_batch, max_waiting=options.max_waiting,
        timeout=options.timeout, cache_bytes=int(options.cache_gb * 2**30),
    )  # fmt: skip
    cores = os.cpu_count() or 1
    torch.set_num_threads(options.threads or max(1, cores // options.workers))
    if not options.keys:
        return service, None
    from qwen_course.security import ApiKeys, Guard

    keys, store = ApiKeys.read(options.keys), options.store
    guard = Guard(tokenizer, keys, store=store, secret=options.secret)
    if options.log:
        guard.log.to_file(options.log)
    return service, guard


def _add_serve(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for a whole room")
    sub.add_argument("--port", type=int, default=8000, help="0 takes a free one (8000)")
    sub.add_argument("--keys", type=Path, help="API keys, a file of ApiKeys.save")
    sub.add_argument("--store", default="memory://", help="of rates; or redis://HOST")
    sub.add_argument("--log", type=Path, help="a line for each request; with --keys")
    sub.add_argument("--workers", type=int, default=1, help="processes (1)")
    sub.add_argument("--threads", type=int, help="of each (the cores, shared out)")
    sub.add_argument("--max-batch", type=int, default=16, help="at once (16)")
    sub.add_argument("--max-waiting", type=int, default=64, help="in the queue (64)")
    sub.add_argument("--timeout", type=float, default=60, help="seconds a request (60)")
    sub.add_argument("--cache-gb", type=float, default=1, help="of the KV cache (1)")
    _add_model(sub)


def grade(options: argparse.Namespace) -> int:
    """Grade the submitted exercise notebooks in a folder: a table and a report."""
    from qwen_course.exercises import grade as grader
    from qwen_course.exercises.sandbox import Limits

    limits = Limits(options.seconds, options.memory_gb)
    grades = grader.grade(
        options.folder, options.out, options.jobs, limits, options.seed
    )
    for sentence in grades.warnings():
        print(f"qwen-course: {sentence}", file=sys.stderr)
    print(f"{grades} See {options.out / 'index.html'}")
    return 0


def _add_grade(sub: argparse.ArgumentParser) -> None:
    """Add the options of `grade`, and a help that looks at this system when asked."""
    from qwen_course.exercises.sandbox import Limits

    def number(name: str, kind: type, default: Any, text: str) -> None:
        said = f"{text} ({default or 'all cores'})"
        sub.add_argument(f"--{name}", type=kind, default=default, help=said)

    sub.add_argument("folder", type=Path, help="what was handed in, see below")
    sub.add_argument("--out", type=Path, default="grades", help="a folder (grades)")
    number("jobs", int, None, "notebooks that run at once")
    number("seconds", float, Limits.seconds, "for one notebook, by the clock")
    number("memory-gb", float, Limits.memory_gb, "for one notebook, in GiB")
    sub.add_argument("--seed", type=int, help="of the cases (drawn anew)")
    options = sub.format_help

    def format_help() -> str:
        from qwen_course.exercises.grade import notes

        return f"{options()}\n{notes()}"

    sub.format_help = format_help  # type: ignore[method-assign]


def class_(options: argparse.Namespace) -> int:
    """Report on a class: who is stuck where, and what to take up again in the room."""
    from qwen_course.exercises import classroom

    lessons = [one for one in options.lessons.split(",") if one.strip()]
    found = classroom.read(options.folder, lessons)
    for sentence in found.notes:
        print(f"qwen-course: {sentence}", file=sys.stderr)
    shown = found.anonymous() if options.anonymous else found
    classroom.write(shown, options.out)
    print(f"{shown}\n\nSee {options.out}")
    return 0


def _add_class(sub: argparse.ArgumentParser) -> None:
    text = "exported progress, results.csv of grade, or notebooks"
    sub.add_argument("folder", type=Path, help=text)
    out = Path("class.html")
    sub.add_argument("--out", type=Path, default=out, help="the page (class.html)")
    sub.add_argument("--lessons", default="", help="such as 01,02 (those begun)")
    sub.add_argument("--anonymous", action="store_true", help="numbers for names")


def room(options: argparse.Namespace) -> int:
    """Show live where everybody is, from what learners choose to send; local only."""
    from qwen_course import room as rooms

    made = rooms.Room(options.code, options.learners, options.anywhere)
    rooms.run(made, options.host, options.port, options.save)
    return 0


def _add_room(sub: argparse.ArgumentParser) -> None:
    text = "127.0.0.1 (this machine); 0.0.0.0 opens it to the room"
    sub.add_argument("--host", default="127.0.0.1", help=text)
    sub.add_argument("--port", type=int, default=8700, help="0 takes a free one (8700)")
    sub.add_argument("--code", default="", help="that learners type (made anew)")
    sub.add_argument("--learners", type=int, default=60, help="at most (60)")
    sub.add_argument("--save", type=Path, help="folder for everybody's progress (none)")
    text = "let requests from other networks in"
    sub.add_argument("--anywhere", action="store_true", help=text)


def slides(options: argparse.Namespace) -> int:
    """Make slides of lessons: one HTML file each, which needs no network."""
    from qwen_course import slides as deck

    for file in deck.write(options.lessons, options.out):
        print(file)
    return 0


def _add_slides(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("lessons", nargs="*", metavar="LESSON", help="such as 03 (all)")
    sub.add_argument("--out", type=Path, default="slides", help="a folder (slides)")


def bundle(options: argparse.Namespace) -> int:
    """Put the course and all it needs into a folder for computers without a network."""
    from qwen_course import bundle as bundles

    return bundles.run(options)


def _add_bundle(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--out", type=Path, metavar="DIR", help="the folder to make")
    sub.add_argument("--platform", help="linux,macos,windows (this one)")
    sub.add_argument("--python", help="3.11,3.12,3.13 (this one)")
    sub.add_argument("--only", metavar="EXTRAS", help="such as lab,test (all)")
    text = "such as Qwen/Qwen3-0.6B or Qwen/Qwen3-0.6B@COMMIT; may be given again"
    sub.add_argument("--checkpoint", action="append", metavar="ID", help=text)
    sub.add_argument("--mirror", help="address of another server of checkpoints")
    text = "one more place with wheels, as for pip; may be given again"
    sub.add_argument("--find-links", action="append", metavar="WHERE", help=text)
    sub.add_argument("--sizes", action="store_true", help="print what an extra takes")
    sub.add_argument("--check", type=Path, metavar="DIR", help="read a bundle again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qwen-course", description="The tools of the Qwen course."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(run: Callable[[Any], int]) -> argparse.ArgumentParser:
        text = (run.__doc__ or "").strip()
        name = run.__name__.rstrip("_")  # `class` is a word of Python's own
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    command(doctor)
    sub = command(explain)
    sub.add_argument("text", nargs="*", help="the message; else standard input is read")
    sub = command(models)
    sub.add_argument("--series", help="only this series, for example Qwen3")
    sub.add_argument(
        "--thinking", choices=["none", "hybrid", "only"], help="its thinking mode"
    )
    sub.add_argument("--task", help="recommend for chat, math, code, vision, ...")
    sub.add_argument("--memory", type=float, help="with --task: GiB to fit into")
    sub.add_argument("--licence", help="with --task: such as Apache-2.0")
    sub.add_argument("--context", type=int, help="with --task: tokens needed")
    sub = command(download)
    sub.add_argument("id", help="for example Qwen/Qwen3-0.6B")
    sub.add_argument("--revision", help="a commit, to get the same files for ever")
    sub.add_argument("--hub", default="huggingface", help="modelscope, or both: a,b")
    sub.add_argument("--mirror", help="address of another server of the same form")
    sub.add_argument("--folder", type=Path, help="for the files (the hub's own cache)")
    sub = command(chat)
    sub.add_argument("question", nargs="?", help="leave it out for a conversation")
    sub.add_argument("--no-thinking", dest="thinking", action="store_false")
    sub.add_argument("--thinking-budget", type=int, help="tokens")
    _add_model(sub)
    sub = command(evaluate)
    sub.add_argument("model", nargs="?", help=MODEL)
    sub.add_argument("--parts", default="", help="such as sums,word_problems (all)")
    sub.add_argument("-n", type=int, default=100, help="questions a part (100)")
    _add_precision(sub)
    sub = command(export)
    sub.add_argument("model", nargs="?", help=MODEL)
    sub.add_argument("--to", required=True, help="gguf, onnx or openvino")
    sub.add_argument("--precision", help="fp32, q8_0, int4, ... (the form's usual one)")
    sub.add_argument("--out", type=Path, help="a folder (the course's cache folder)")
    _add_serve(command(serve))
    _add_grade(command(grade))
    _add_bundle(command(bundle))
    _add_slides(command(slides))
    _add_class(command(class_))
    _add_room(command(room))
    return parser


def _add_model(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", help=MODEL)
    _add_precision(sub)


def _add_precision(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--precision", default="auto", help="auto, fp32, bf16, ...")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; a user error is one sentence."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"qwen-course: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nqwen-course: stopped.", file=sys.stderr)
        return 130
