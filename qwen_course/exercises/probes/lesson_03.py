"""What the checks of lesson 03 look at."""

import functools
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from qwen_course import catalog, tasks, thinking, vocabulary
from qwen_course.exercises.limits import call
from qwen_course.exercises.probes import pocket
from qwen_course.exercises.question import Probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qwen_course.checkpoint import Checkpoint
    from qwen_course.tasks.problem import Problem


@functools.cache
def small_tokenizer(template: str = "qwen3") -> "PreTrainedTokenizerBase":
    """Return a tokenizer of 256 bytes and Qwen's added tokens, which begin at 256."""
    names = vocabulary.byte_characters().values()
    return vocabulary.byte_level_tokenizer(
        {name: id for id, name in enumerate(names)}, [], template=template
    )


# Question 1


class Wish(NamedTuple):
    """A prompt that is asked for, and the template to make it with."""

    checkpoint: "Checkpoint"
    text: str
    thinking: bool
    template: str


def wishes(seed: int) -> list[Wish]:
    """Return what q1 asks for: two hybrids in both modes, and two that have one."""
    rng = random.Random(seed)
    size = rng.choice(("0.6B", "1.7B", "4B", "14B", "32B"))
    text = f"What is {rng.randint(10, 99)} + {rng.randint(10, 99)}?"
    hybrid, later, never, always = map(
        catalog.get,
        (f"Qwen3-{size}", "Qwen3.5-4B", "Qwen3-4B-Instruct-2507",
         "Qwen3-4B-Thinking-2507"),
    )  # fmt: skip
    return [
        Wish(hybrid, text, False, "qwen3"),
        Wish(hybrid, text, True, "qwen3"),
        Wish(later, text, False, "qwen3_5"),
        Wish(later, text, True, "qwen3_5"),
        Wish(never, text, False, "qwen3_instruct_2507"),
        Wish(never, text, True, "qwen3_instruct_2507"),
        # The course has no template of this one; its prompt would open the block too.
        Wish(always, text, False, "qwen3_5"),
    ]


def q1(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Ask for each prompt, with a tokenizer that has the template."""
    return [
        call(answer, small_tokenizer(wish.template), *wish[:3]) for wish in wishes(seed)
    ]


# Question 2


class Shape(NamedTuple):
    """A reply; `name` says what is special about it."""

    name: str
    reply: str


def shapes(seed: int) -> list[Shape]:
    """Return replies of every shape; "</ think>" stands for typed characters."""
    rng = random.Random(seed)
    a, b = rng.randint(10, 49), rng.randint(10, 49)
    step, total = f"{a} + {b} = {a + b}", str(a + b)
    block, again = f"<think>\n{step}\n</think>\n\n", f"{b} + {a} = {total}"
    return [
        Shape("closed", f"{block}{total}<|im_end|>"),
        Shape("no block", f"{total}<|im_end|>"),
        Shape("empty block", f"<think>\n\n</think>\n\n{total}<|im_end|>"),
        Shape("cut off", f"<think>\n{step}\n{total}"),
        Shape("opened", block.removeprefix("<think>\n") + f"{total}<|im_end|>"),
        Shape("two blocks", f"{block}It is {total}.\n<think>\n{again}\n</think>\n\n"
              "I am sure.<|im_end|>"),
        Shape("typed", f"{block}The tag </ think> ends it.<|im_end|>"),
    ]  # fmt: skip


def encoded(reply: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids of a reply, a typed "</ think>" as the characters </think>."""
    pieces = reply.replace("</ think>", "</\0think>").split("\0")
    return [id for piece in pieces for id in tokenizer(piece)["input_ids"]]


def parsed(seed: int) -> list[tuple[Shape, "PreTrainedTokenizerBase"]]:
    """Return each shape with the tokenizer that it is read with."""
    own, other = pocket()[1], small_tokenizer()
    first, *rest = shapes(seed)
    return [(first, own), (first, other), *((shape, own) for shape in rest)]


def q2(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Take replies apart that were encoded by two vocabularies."""
    return [
        call(answer, encoded(shape.reply, tokenizer), tokenizer)
        for shape, tokenizer in parsed(seed)
    ]


# Question 3


class Run(NamedTuple):
    """What a batch has written, step by step, in a made-up vocabulary.

    `prompts` and `written` hold one list of ids a row, all of one length each.
    """

    name: str
    budget: int
    start: int
    end: int
    stop: list[int]
    prompts: list[list[int]]
    written: list[list[int]]


WORDS = 16  # of the made-up vocabulary


def runs(seed: int) -> list[Run]:
    """Return a row that thinks past its budget: alone, in a batch, with a history."""
    rng = random.Random(seed)
    start, end, line, gap, *words = rng.sample(range(WORDS), WORDS)
    budget, stop = rng.randint(3, 4), [line, end, gap]

    def some(n: int) -> list[int]:
        return [rng.choice(words) for _ in range(n)]

    def late(budget: int, stop: list[int]) -> list[int]:
        return [start, *some(budget), *stop, *some(4)]

    length = len(late(budget, stop))
    early = [start, *some(budget - 1), end, gap, *some(length - budget - 2)]
    history = [*some(2), start, *some(2), end, *some(3)]
    return [
        Run("alone", budget, start, end, stop, [some(2)], [late(budget, stop)]),
        Run("batch", budget, start, end, stop, [some(8) for _ in range(3)],
            [early, late(budget, stop), some(length)]),
        Run("history", budget, start, end, stop, [history], [late(budget, stop)]),
        Run("short stop", 5, start, end, [end], [some(9)], [late(5, [end])]),
    ]  # fmt: skip


def scores_at(run: Run, step: int) -> list[list[float]]:
    """Return made-up scores for the next token of each row."""
    return [
        [(7 * row + 3 * step + 5 * id) % 11 / 2 - 2.0 for id in range(WORDS)]
        for row in range(len(run.prompts))
    ]


def stepped(answer: Any, run: Run) -> Any:
    """Return the scores that the learner's processor makes at every step of a run."""
    import torch

    processor = answer(run.budget, len(run.prompts[0]), run.start, run.end, run.stop)
    made = []
    for step in range(len(run.written[0])):
        rows = zip(run.prompts, run.written, strict=True)
        ids = torch.tensor([prompt + row[:step] for prompt, row in rows])
        scores = processor(ids, torch.tensor(scores_at(run, step)))
        if scores is None or scores is Ellipsis:
            return scores
        made.append(scores)
    return made


SMALL_BUDGET = 6  # tokens, far less than five numbers need


def generated(answer: Any) -> Any:
    """Return what the pocket model writes under the learner's processor."""
    model, tokenizer = pocket()
    start, end = (thinking.token_id(tokenizer, f"<{tag}think>") for tag in ("", "/"))
    stop = tokenizer(thinking.EARLY_STOP)["input_ids"]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 38 + 47 + 59 + 86 + 24?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    used = prompt["input_ids"].shape[1]
    output = model.generate(
        **prompt,
        max_new_tokens=SMALL_BUDGET + 10,
        logits_processor=[answer(SMALL_BUDGET, used, start, end, stop)],
        do_sample=False, temperature=None, top_p=None, top_k=None,
    )  # fmt: skip
    return output[0, used:].tolist()


def q3(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Step through made-up scores, then generate a few tokens if those went well."""
    pocket()  # so that loading it is not on the learner's time
    seen = [call(functools.partial(stepped, answer, run)) for run in runs(seed)]
    if all(one["value"] is not None for one in seen):
        seen.append(call(functools.partial(generated, answer)))
    return seen


# Question 4

BUDGETS = (32, 40, 48, 56, 64)
TARGET = 0.9


def fives() -> list["Problem"]:
    """Return the sums of five numbers that q4 measures."""
    return tasks.sums.problems(24, seed=3, count=5)


def q4(answer: Any, seed: int) -> Any:
    """Return the budget as it was given."""
    return answer


# Question 5


def talks(seed: int) -> list[list[dict[str, Any]]]:
    """Return conversations: all thinking old, a turn without any, a tool at work."""
    rng = random.Random(seed)

    def turn(count: int, thought: bool = True) -> list[dict[str, Any]]:
        problem = tasks.sums.make(rng, count)
        said: dict[str, Any] = {"role": "assistant", "content": problem.answer}
        if thought:
            said["reasoning_content"] = problem.thinking
        return [{"role": "user", "content": problem.question}, said]

    question: dict[str, Any] = {"role": "user", "content": "Add 25 to that."}
    product = f"{rng.randint(12, 99)} * {rng.randint(12, 99)}"
    tool: list[dict[str, Any]] = [
        {"role": "user", "content": f"What is {product}?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": f"{product} is a product: the calculator.",
            "tool_calls": [{"type": "function", "function": {
                "name": "calculator", "arguments": {"expression": product}}}],
        },
        {"role": "tool", "content": str(rng.randint(144, 9801))},
    ]  # fmt: skip
    return [
        [*turn(5), *turn(3), *turn(4), question],
        [*turn(4), *turn(2, thought=False), question],
        [*turn(6), *tool],
    ]


def q5(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Count both ways in conversations with and without a tool at work."""
    return [call(answer, pocket()[1], talk) for talk in talks(seed)]


# Question 6


def votes(seed: int) -> list[list[dict[str, Any]]]:
    """Return measured problems: a plain vote, cut-off samples, ties, nothing right."""
    rng = random.Random(seed)

    def one(right: bool, pattern: str) -> dict[str, Any]:
        """Make a problem: "a", "b", "c" are answers, "-" is a sample cut off."""
        values = dict(zip("abc", map(str, rng.sample(range(100, 300), 3)), strict=True))
        return {
            "expected": values["a"] if right else "99",
            "samples": [values.get(letter) for letter in pattern],
            "tokens": [rng.randint(30, 900) for _ in pattern],
        }

    return [
        [one(True, "abaca"), one(False, "aabac"), one(True, "bbabc"),
         one(True, "baaca")],
        [one(True, "a"), one(False, "a"), one(True, "a")],
        [one(True, "-a--a"), one(True, "--b-"), one(True, "-aab")],
        [one(True, tie) for tie in ("abba", "aabb", "abab", "acca", "acac", "aacc",
                                    "abcabc", "aabbcc")],
        [one(True, "aba"), one(True, "----")],
        [one(False, "aba"), one(True, "bba")],
    ]  # fmt: skip


def q6(answer: Any, seed: int) -> list[dict[str, Any]]:
    """Price made-up measurements."""
    return [call(answer, problems) for problems in votes(seed)]


PROBES: dict[str, Probe] = {
    "03.q1": q1,
    "03.q2": q2,
    "03.q3": q3,
    "03.q4": q4,
    "03.q5": q5,
    "03.q6": q6,
}
