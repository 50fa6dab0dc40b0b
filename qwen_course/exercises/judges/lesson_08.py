"""What is right in the exercises of lesson 08."""

import html
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from qwen_course.exercises import mistakes
from qwen_course.exercises.probes import lesson_08 as probe
from qwen_course.exercises.question import Mistake, Question, section
from qwen_course.exercises.ways import Outcomes, Way, compared, no_numbers, short


def _lists(
    seen: Outcomes, shown: Sequence[str], sizes: Sequence[int], of: str
) -> Mistake | None:
    """Return the mistake of a value that is no list of the right length."""
    for outcome, text, size in zip(seen, shown, sizes, strict=False):
        value = outcome["value"]
        if not isinstance(value, list) or len(value) != size:
            said = f"{text} gave {short(value)}. Return a list of {size}: {of}."
            return Mistake("no-list", said)
    return None


# Question 1


def tail(waits: list[float], share: float) -> float:
    """Return the smallest wait that at least a share of all do not exceed."""
    return sorted(waits)[math.ceil(share * len(waits)) - 1]


def _between(waits: list[float], share: float) -> float:
    """Return the value between two ranks, as numpy gives it."""
    place = share * (len(waits) - 1)
    low = int(place)
    ordered = sorted(waits)
    high = ordered[min(low + 1, len(waits) - 1)]
    return ordered[low] + (place - low) * (high - ordered[low])


TAILS = (
    Way("mean", lambda waits, share: statistics.mean(waits),
        "That is the mean. One user who waits a minute disappears in it."),
    Way("longest", lambda waits, share: max(waits),
        "That is the longest wait, a matter of luck: one user decides it."),
    Way("median", lambda waits, share: statistics.median(waits),
        "That is the median: what half of the users feel. The share is an argument."),
    Way("not-sorted", lambda waits, share: waits[math.ceil(share * len(waits)) - 1],
        "The waits come in the order of the users. Sort them first."),
    Way("other-end", lambda waits, share:
        sorted(waits, reverse=True)[math.ceil(share * len(waits)) - 1],
        "You counted from the longest. Count from the shortest."),
    Way("one-rank-too-high", lambda waits, share:
        sorted(waits)[min(int(share * len(waits)), len(waits) - 1)],
        "One rank too high. Of 20 waits, 19 are 95%: that is index 18."),
    Way("one-rank-too-low", lambda waits, share:
        sorted(waits)[max(int(share * len(waits)) - 1, 0)],
        "Too few users are below it: where the share is no whole number of users, "
        "round up."),
    Way("between-two", _between,
        "That lies between two waits, as numpy does it. Here return a wait that a "
        "user had."),
    Way("the-rank", lambda waits, share: math.ceil(share * len(waits)),
        "That is how many users are below it. Return the wait of the last of them."),
)  # fmt: skip


def q1(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the tail of each list."""
    cases = probe.measured(seed)
    shown = [f"tail({short(waits)}, {share})" for waits, share in cases]
    right = [tail(*case) for case in cases]
    advice = "Sort, and find the rank from which on the share is reached."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: no_numbers(seen, shown),
        lambda: compared(cases, seen, shown, right, TAILS, mistakes.close, advice),
    )


# Question 2


def waits(
    arrivals: list[float], seconds: list[float], idle: bool = True
) -> list[tuple[float, float]]:
    """Return when each request begins and ends; without `idle`, work never pauses."""
    free, spans = arrivals[0], []
    for arrival, work in zip(arrivals, seconds, strict=True):
        begin = max(free, arrival) if idle else free
        free = begin + work
        spans.append((begin, free))
    return spans


def felt(arrivals: list[float], seconds: list[float]) -> list[float]:
    """Return how long each user waits, from the arrival to the end."""
    ends = [end for _, end in waits(arrivals, seconds)]
    return [end - arrival for end, arrival in zip(ends, arrivals, strict=True)]


def _gaps(arrivals: list[float], seconds: list[float]) -> list[float]:
    ends = [arrivals[0], *(end for _, end in waits(arrivals, seconds))]
    return [b - a for a, b in zip(ends, ends[1:], strict=False)]


WAITS = (
    Way("from-the-start-of-work", lambda arrivals, seconds: seconds,
        "You measured from the moment the model began. The user came before that, and "
        "waited: this is how a closed loop hides a queue."),
    Way("queue-only", lambda arrivals, seconds: [
            begin - arrival for (begin, _), arrival
            in zip(waits(arrivals, seconds), arrivals, strict=True)],
        "That is the wait until the model begins. The answer takes its time as well."),
    Way("clock-time", lambda arrivals, seconds: [
            end for _, end in waits(arrivals, seconds)],
        "Those are times of the clock. How long ago did the user come?"),
    Way("never-idle", lambda arrivals, seconds: [
            end - arrival for (_, end), arrival
            in zip(waits(arrivals, seconds, idle=False), arrivals, strict=True)],
        "Here the model begins with a user who is not there yet. It is idle until the "
        "next one comes."),
    Way("from-the-one-before", _gaps,
        "You measured from the end of the answer before. Measure from the arrival."),
    Way("all-the-work", lambda arrivals, seconds: [
            sum(seconds[: n + 1]) for n in range(len(seconds))],
        "You added up all work so far. What was done before the user came, he did not "
        "wait for."),
)  # fmt: skip


def _near(value: Any, expected: list[float]) -> bool:
    return all(
        mistakes.is_number(a) and abs(a - b) < 1e-6
        for a, b in zip(value, expected, strict=True)
    )


def q2(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the waits under each load."""
    cases = probe.loads(seed)
    shown = [f"waits({short(a)}, {short(s)})" for a, s in cases]
    right = [felt(*case) for case in cases]
    sizes = [len(arrivals) for arrivals, _ in cases]
    advice = "Each begins when it is there and the one before has ended."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _lists(seen, shown, sizes, "a wait for each request"),
        lambda: compared(cases, seen, shown, right, WAITS, _near, advice),
    )


# Question 3


def answers(crowd: probe.Crowd) -> list[str | None]:
    """Return the answers in the order of the questions, None for the late one."""
    return [
        None if question == crowd.late else f"answer to {question}"
        for question in crowd.questions
    ]


def q3(seen: Outcomes, seed: int) -> Mistake | None:
    """Look at the answers, then at how many questions were open at once."""
    crowds = probe.crowds(seed)
    shown = [
        f"With {len(crowd.questions)} questions, {crowd.at_once} at once, ask_all"
        for crowd in crowds
    ]
    tests = [
        lambda crowd=crowd, outcome=outcome, text=text: _asked(crowd, outcome, text)
        for crowd, outcome, text in zip(crowds, seen, shown, strict=False)
    ]
    return mistakes.first(*tests)


def _asked(crowd: probe.Crowd, outcome: dict[str, Any], shown: str) -> Mistake | None:
    error = outcome["error"]
    if "a coroutine was expected" in error or "coroutine" in error[:40]:
        return Mistake(
            "no-coroutine",
            f"{shown} is no coroutine function: write `async def`, and return answers.",
        )
    if error.startswith("TimeoutError"):
        return Mistake(
            "one-error-loses-all",
            f"{shown} raised the TimeoutError of one question, and all other answers "
            "were lost. Catch it where that question is asked.",
        )
    if error.startswith("it returned") and "coroutine" not in error:
        return Mistake(
            "no-answers",
            f"{shown}: {error}. Return texts, and None in the place of an error.",
        )
    return mistakes.first(
        lambda: mistakes.of_call(outcome, shown),
        lambda: _answers(crowd, outcome["value"], shown),
        lambda: _at_once(crowd, outcome, shown),
    )


def _answers(crowd: probe.Crowd, value: Any, shown: str) -> Mistake | None:
    expected = answers(crowd)
    if value == expected:
        return None
    if not isinstance(value, list):
        return Mistake("no-list", f"{shown} gave {short(value)}. Return a list.")
    if len(value) < len(expected):
        return Mistake(
            "leaves-out",
            f"{shown} gave {len(value)} answers to {len(expected)} questions. Put None "
            "where there is none: whoever reads the list counts on its places.",
        )
    if sorted(map(str, value)) == sorted(map(str, expected)):
        return Mistake(
            "order-of-answers",
            f"{shown} gave the answers in the order in which they came. Return them in "
            "the order of the questions; asyncio.gather does.",
        )
    return Mistake("other", f"{shown} gave {short(value)}, it is {short(expected)}.")


def _at_once(crowd: probe.Crowd, outcome: dict[str, Any], shown: str) -> Mistake | None:
    most, allowed = outcome["most"], min(crowd.at_once, len(crowd.questions))
    if most > allowed:
        return Mistake(
            "too-many-at-once",
            f"{shown} had {most} questions open. A semaphore lets only so many in: "
            "`async with gate:` around each question.",
        )
    if most == 1 < allowed:
        return Mistake(
            "one-after-the-other",
            f"{shown} never had two questions open. `await` in a loop waits for each; "
            "make all coroutines first, then gather them.",
        )
    if outcome["kept_waiting"]:
        return Mistake(
            "waits-for-the-batch",
            f"{shown} began no further question while one slow one was open. That is a "
            "plain batch: let the next one begin as soon as any has ended.",
        )
    return None


# Question 4

QUOTES = str.maketrans({"<": "\u2039", ">": "\u203a"})


def neutral(text: str, control: list[str]) -> str:
    """Return a text with the brackets of its control tokens turned."""
    for token in control:
        text = text.replace(token, token.translate(QUOTES))
    return text


def _removed(text: str, control: list[str]) -> str:
    for token in control:
        text = text.replace(token, "")
    return text


def _with(
    change: Callable[[str], str], count: int = -1
) -> Callable[[str, list[str]], str]:
    def way(text: str, control: list[str]) -> str:
        for token in control:
            text = text.replace(token, change(token), count)
        return text

    return way


REMOVED = (
    "Removing is no protection: the letters left and right close up, and may form "
    "another token. Nested ones do."
)
NEUTRAL = (
    Way("removes", _removed, REMOVED),
    Way("removes", lambda text, control: _removed(_removed(text, control), control),
        REMOVED + " Twice does not help either: they can be nested deeper."),
    Way("nothing", lambda text, control: text, "The token is still in it."),
    Way("escapes-everything", lambda text, control: html.escape(text),
        "That is for a browser. A model reads &lt; as other letters than <, and honest "
        "text and code would reach it damaged."),
    Way("turns-every-bracket", lambda text, control: text.translate(QUOTES),
        "Every bracket is turned, those of honest text and code too."),
    Way("first-only", _with(lambda token: token.translate(QUOTES), 1),
        "Only the first one of each token is turned."),
    Way("one-side", _with(lambda token: token.replace("<", "\u2039")),
        "Turn > as well."),
    Way("one-side", _with(lambda token: token.replace(">", "\u203a")),
        "Turn < as well."),
    Way("special-only", lambda text, control: neutral(
            text, [token for token in control if "|" in token]),
        "Tokens without a | are left, such as </think>. They are control tokens, too."),
    Way("own-list", lambda text, control: neutral(text, probe.TOKENS),
        "`control` says which tokens this model has. Use it in place of a list of your "
        "own."),
    Way("escapes-tokens", _with(html.escape),
        "Turn the brackets into \u2039 and \u203a. An escape is undone by whoever "
        "unescapes."),
    Way("whole-token", _with(lambda token: "\u2039\u203a"),
        "The token's name is gone. Turn its brackets only, so that people can read "
        "what was written."),
)  # fmt: skip


def q4(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare each text."""
    cases = probe.texts(seed)
    shown = [f"neutral({text!r}, ...)" for text, _ in cases]
    right = [neutral(*case) for case in cases]
    advice = "Turn the < and > of each control token, and nothing else."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_text(seen, shown),
        lambda: compared(
            cases, seen, shown, right, NEUTRAL, lambda a, b: a == b, advice
        ),
    )


def _no_text(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        if not isinstance(outcome["value"], str):
            value = short(outcome["value"])
            return Mistake("no-text", f"{text} gave {value}. Return a text.")
    return None


# Question 5


def admitted(
    requests: list[probe.Request],
    most: int,
    seconds: float,
    cost: Callable[[probe.Request], int] = lambda request: request[2] + request[3],
    whose: Callable[[probe.Request], Any] = lambda request: request[1],
    counts: Callable[[float, float, float], bool] = lambda then, now, window: (
        then > now - window
    ),
    charge_refused: bool = False,
    fits: Callable[[int, int], bool] = lambda used, most: used <= most,
) -> list[bool]:
    """Return which requests are let through; changes make mistakes."""
    charged: list[tuple[float, Any, int]] = []
    let: list[bool] = []
    for request in requests:
        now, key, price = request[0], whose(request), cost(request)
        used = sum(
            tokens
            for then, owner, tokens in charged
            if owner == key and counts(then, now, seconds)
        )
        let.append(fits(used + price, most))
        if let[-1] or charge_refused:
            charged.append((now, key, price))
    return let


def _way(**changes: Any) -> Callable[..., list[bool]]:
    return lambda requests, most, seconds: admitted(requests, most, seconds, **changes)


RATES = (
    Way("prompt-only", _way(cost=lambda request: request[2]),
        "You charge the prompt only. A short question may write a long answer, and "
        "that is what costs."),
    Way("answer-only", _way(cost=lambda request: request[3]),
        "You charge the answer only. The prompt is read, too."),
    Way("all-keys-together", _way(whose=lambda request: None),
        "One user's requests are charged to another. Count each key apart."),
    Way("charges-refused", _way(charge_refused=True),
        "A refused request was charged. Whoever asks for too much once would be locked "
        "out."),
    Way("fixed-window", _way(counts=lambda then, now, window:
                             then // window == now // window),
        "Your window begins anew at each full minute: around that moment twice the "
        "rate gets through. Look back from the request."),
    Way("never-forgets", _way(counts=lambda then, now, window: True),
        "Nothing is ever forgotten. What lies `seconds` or more back does not count."),
    Way("counts-nothing", _way(counts=lambda then, now, window: False),
        "Each request is looked at alone. Add up what its key used before."),
    Way("just-fits", _way(fits=lambda used, most: used < most),
        "The last tokens of the rate may be used up: exactly `most` is allowed."),
    Way("looks-before-only", _way(fits=lambda used, most: True),
        "Everything gets through."),
    Way("upside-down", lambda *given: [not one for one in admitted(*given)],
        "It is the other way round: True is let through."),
)  # fmt: skip


def q5(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare which requests of each list are let through."""
    cases = probe.minutes(seed)
    shown = [
        f"admitted({short(requests)}, {most}, {seconds})"
        for requests, most, seconds in cases
    ]
    right = [admitted(*case) for case in cases]
    sizes = [len(requests) for requests, _, _ in cases]
    advice = "Add up what this key was charged in the window, and this request."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _lists(seen, shown, sizes, "True or False for each request"),
        lambda: compared(cases, seen, shown, right, RATES, lambda a, b: a == b, advice),
    )


# Question 6


def genuine(
    secret: bytes,
    conversation: probe.Conversation,
    said: Callable[[probe.Conversation, int], probe.Conversation] = lambda talk, n: (
        talk[: n + 1]
    ),
    roles: tuple[str, ...] = ("user", "assistant"),
    must: bool = True,
    looked_at: Callable[[list[int]], list[int]] = lambda numbers: numbers,
) -> bool:
    """Return whether every answer is sealed; changes make mistakes."""
    if any(message["role"] not in roles for message in conversation):
        return False
    numbers = [
        number
        for number, message in enumerate(conversation)
        if message["role"] == "assistant"
    ]
    for number in looked_at(numbers):
        found = conversation[number].get("seal")
        if not found and not must:
            continue
        if found != probe.seal(secret, said(conversation, number)):
            return False
    return True


def _history(**changes: Any) -> Callable[..., bool]:
    return lambda secret, conversation: genuine(secret, conversation, **changes)


SEALS = (
    Way("accepts-all", lambda secret, conversation: True, "Everything gets through."),
    Way("refuses-all", lambda secret, conversation: False,
        "That one is genuine: a user's messages need no seal."),
    Way("seal-may-be-missing", _history(must=False),
        "There an answer has no seal, or an empty one. Whoever forges one leaves it "
        "out."),
    Way("any-role", _history(roles=("user", "assistant", "system", "tool")),
        "Only user and assistant may occur: nothing seals another role."),
    Way("last-only", _history(looked_at=lambda numbers: numbers[-1:]),
        "You looked at the last answer only. Each one can be forged."),
    Way("first-only", _history(looked_at=lambda numbers: numbers[:1]),
        "You looked at the first answer only. Each one can be forged."),
    Way("answer-alone", _history(said=lambda talk, n: talk[n : n + 1]),
        "A seal covers the conversation up to its answer, not the answer alone: or it "
        "could be moved behind another question."),
    Way("whole-conversation", _history(said=lambda talk, n: talk),
        "You sealed the whole conversation. When that answer was sealed, what follows "
        "was not there yet."),
    Way("without-the-answer", _history(said=lambda talk, n: talk[:n]),
        "The answer itself is not covered: slices end before their end, so take "
        "number + 1."),
)  # fmt: skip


def q6(seen: Outcomes, seed: int) -> Mistake | None:
    """Compare the judgement on each conversation."""
    cases = probe.histories(seed)
    shown = [f"For {short(talk, 120, 60)} genuine" for _, talk in cases]
    right = [genuine(*case) for case in cases]
    advice = "Every answer must carry the seal of the conversation up to it."
    return mistakes.first(
        lambda: mistakes.of_calls(seen, shown),
        lambda: _no_bool(seen, shown),
        lambda: compared(cases, seen, shown, right, SEALS, lambda a, b: a == b, advice),
    )


def _no_bool(seen: Outcomes, shown: Sequence[str]) -> Mistake | None:
    for outcome, text in zip(seen, shown, strict=True):
        if not isinstance(outcome["value"], bool):
            value = short(outcome["value"])
            return Mistake("no-bool", f"{text} gave {value}. Return True or False.")
    return None


def _place(heading: str) -> tuple[str, str]:
    return section("08_production", heading)


QUESTIONS = (
    Question(
        id="08.q1",
        title="What the slowest feel",
        outcome=4,
        difficulty="warm-up",
        minutes=8,
        judge=q1,
        hints=(
            "Line the users up from the shortest wait to the longest. Where do you "
            "have to stop to have the share of them behind you?",
            "sorted(waits), and the rank is share times their number, rounded up with "
            "math.ceil. Ranks begin at 1, indices at 0.",
        ),
        look=_place("2. A load, and what users feel"),
        why="A mean hides the users who wait longest, the maximum is luck: p95 says "
        "what one user in twenty has to bear.",
    ),
    Question(
        id="08.q2",
        title="Waiting in an open loop",
        outcome=4,
        difficulty="core",
        minutes=12,
        judge=q2,
        hints=(
            "Two things must be true before a request begins: it is there, and the one "
            "before has ended.",
            "Keep `free`, when the model is free. Each request: begin at max(free, "
            "arrival), end after its seconds, which is the new `free`; the user waited "
            "end - arrival.",
        ),
        look=_place("2. A load, and what users feel"),
        why="Users come when they come. Measured from their arrival, one slow answer "
        "shows in the wait of everybody behind it.",
    ),
    Question(
        id="08.q3",
        title="So many at once",
        outcome=3,
        difficulty="core",
        minutes=15,
        judge=q3,
        hints=(
            "One coroutine for each question, all gathered. What does each do before "
            "it asks, and what if there is no answer in time?",
            "gate = asyncio.Semaphore(at_once); an inner `async def one(question)` "
            "with `async with gate:` and try/except TimeoutError around await ask; "
            "return list(await asyncio.gather(*map(one, questions))).",
        ),
        look=_place("6. Limits"),
        why="Nobody waits for the slowest of a group, one late answer costs no other, "
        "and the server behind is never asked for more than it can do.",
    ),
    Question(
        id="08.q4",
        title="Text that stays text",
        outcome=3,
        difficulty="core",
        minutes=10,
        judge=q4,
        hints=(
            "What may change: the brackets of a control token. What may not: anything "
            "else, and nothing may be taken out.",
            "For each token of `control`: text.replace(token, turned), where turned is "
            "the token with its < and > replaced.",
        ),
        look=_place("Repairs that open the door"),
        why="What is turned cannot close up to another token, honest text passes as it "
        "is, and whoever reads the log sees what was tried.",
    ),
    Question(
        id="08.q5",
        title="Charged before it is written",
        outcome=5,
        difficulty="core",
        minutes=15,
        judge=q5,
        hints=(
            "What does a request cost at most? Whose requests count, and from when on?",
            "Keep a list of (time, key, tokens) of what was let through. For each "
            "request add up those of its key with time > now - seconds; let it through "
            "if that and prompt + max_new_tokens are at most `most`.",
        ),
        look=_place("How much: tokens, not characters"),
        why="What a request may write is known before it runs, what it will write is "
        "not: charging the first keeps the promise to all others.",
    ),
    Question(
        id="08.q6",
        title="A history that was not rewritten",
        outcome=3,
        difficulty="stretch",
        minutes=20,
        judge=q6,
        hints=(
            "Go through the messages one by one. When an answer was sealed, which "
            "messages were there?",
            "For number, message in enumerate(conversation): a role other than user "
            'and assistant is False; for an answer compare message.get("seal", "") '
            "with seal(secret, conversation[: number + 1]); at the end True.",
        ),
        look=_place("Who said that: sealed histories"),
        why="The client keeps the history, and can neither change an answer, nor move "
        "it, nor make one, without the secret.",
    ),
)
