"""pocket-audio: its recipe in small, and the shipped model against its card."""

import csv
import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from qwen_course import audio, media
from qwen_course.audio import RATE
from qwen_course.tasks import spoken_digits, tones
from training import measure_audio, pocket_audio, recipes, speech
from training.data import IGNORE, Rows

RESULTS = recipes.HERE / "results" / "pocket-audio"
MIX = pocket_audio.Mix(course_bank=True, strings=0.0)
ROWS = (Rows(3, 96), Rows(2, 192))
SMALL = replace(
    pocket_audio.QUICK, steps=2, rows=ROWS, evaluate_every=2, log_every=1, mix=MIX
)


@pytest.fixture(scope="module")
def processor():
    return pocket_audio.make_processor()


@pytest.fixture(scope="module")
def model(processor):
    torch.manual_seed(0)
    return pocket_audio.build(processor)


def test_our_template_renders_what_the_processor_itself_renders(processor):
    own = processor.default_chat_template
    sound = {"type": "audio", "audio": np.zeros(16)}
    text = {"type": "text", "text": "What do you hear?"}
    talks = [
        [{"role": "user", "content": "Hello"}],
        [{"role": "user", "content": [sound, text]}],
        [{"role": "user", "content": [sound, sound, text]}],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "audio", "audio_url": "a.wav"}]},
            {"role": "assistant", "content": "4 7 1"},
            {"role": "user", "content": [text, sound]},
        ],
    ]
    for talk in talks:
        for ask in (False, True):
            options = {"tokenize": False, "add_generation_prompt": ask}
            ours = processor.apply_chat_template(talk, **options)
            theirs = processor.apply_chat_template(talk, chat_template=own, **options)
            assert ours == theirs


def test_digits_and_tones_are_one_token_each(processor):
    ids = processor.tokenizer.convert_tokens_to_ids(pocket_audio.SOUNDS)
    assert len(set(ids)) == len(pocket_audio.SOUNDS)
    assert None not in ids
    answer = processor.tokenizer("4 7 1")["input_ids"]
    assert [processor.tokenizer.decode(id) for id in answer] == [
        "4",
        " ",
        "7",
        " ",
        "1",
    ]


@pytest.mark.parametrize("samples", [800, 16_000, 16_001, 39_999, 64_000])
def test_a_clip_takes_a_token_for_each_40_milliseconds(samples, processor):
    inputs = processor(
        text="<|AUDIO|>", audio=np.zeros(samples, np.float32), sampling_rate=RATE
    )
    ids = np.ravel(inputs["input_ids"])
    assert len(ids) == pocket_audio.audio_tokens(samples)


@pytest.mark.parametrize("hearing", [False, True])
def test_a_step_has_the_same_batch_however_often_it_is_drawn(hearing, processor):
    recipe = replace(SMALL, mix=replace(MIX, hearing=hearing))
    first, again, other = (
        pocket_audio.batch(step, recipe, processor) for step in (5, 5, 6)
    )
    for one, two in zip(first, again, strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(
        not torch.equal(one["input_ids"], two["input_ids"])
        for one, two in zip(first, other, strict=True)
    )


def test_no_string_of_the_test_is_learnt():
    rng = random.Random(0)
    contents = set()
    for _ in range(400):
        problems, _, _ = pocket_audio.draw_clip(rng, replace(MIX, nothing=0.0))
        contents |= {problem.content for problem in problems}
    test = {p.content for p in spoken_digits.problems(300, 2)}
    test |= {p.content for p in tones.problems(150, 2)}
    assert len(contents) > 200
    assert not contents & test


def test_no_unseen_voice_is_among_those_of_the_training():
    names = {voice.name for voice in speech.training_voices()}
    for voice in speech.UNSEEN:
        accent, _, variant = voice.name.partition("+")
        assert voice.name not in names
        assert not any(name.startswith(f"{accent}+") for name in names)
        assert not variant or not any(name.endswith(f"+{variant}") for name in names)
    assert {voice.name for voice in speech.SEEN} <= {
        f"{accent}+{variant}"
        for accent in speech.ACCENTS
        for variant in speech.VARIANTS
    } | set(speech.FLITE)


def test_the_recordings_of_the_course_are_not_those_of_the_training():
    """A "seen" voice is one the model knows, speaking as fast as it never heard it."""
    known = set(speech.training_voices())
    assert not known & set(speech.SEEN)
    assert [voice.name for voice in speech.SEEN] == spoken_digits.voices("seen")
    assert [voice.name for voice in speech.UNSEEN] == spoken_digits.voices("unseen")


def test_what_is_learnt_is_the_answer_and_what_is_rendered_is_what_is_asked(processor):
    problem = spoken_digits.problems(1, split="train", kind="sum", count=3)[0]
    parts = pocket_audio.parts_of([problem], problem.samples, processor)
    asked = "".join(text for text, learnt in parts if not learnt)
    assert [text for text, learnt in parts if learnt] == [f"{problem.answer}<|im_end|>"]
    text = processor.apply_chat_template(
        problem.prompt, add_generation_prompt=True, tokenize=False
    )
    inputs = processor(text=text, audio=problem.samples, sampling_rate=RATE)
    assert (
        processor.tokenizer(asked)["input_ids"]
        == np.ravel(inputs["input_ids"]).tolist()
    )


def test_a_second_question_continues_the_conversation(processor):
    first, second = spoken_digits.problems(2, split="train", kind="count")
    parts = pocket_audio.parts_of([first, second], first.samples, processor)
    assert [learnt for _, learnt in parts] == [False, True, False, True]
    talk = [
        *first.prompt,
        {"role": "assistant", "content": first.answer},
        {"role": "user", "content": second.question},
    ]
    text = processor.apply_chat_template(
        talk, add_generation_prompt=True, tokenize=False
    )
    whole = "".join(text for text, _ in parts[:3])
    once = whole.replace("<|AUDIO|>" * pocket_audio.audio_tokens(len(first.samples)),
                         "<|AUDIO|>")  # fmt: skip
    assert once == text


def test_the_short_way_of_the_training_computes_what_the_model_computes(
    processor, model
):
    """Frames after the longest clip are left out: nothing that counts may change."""
    for packed in pocket_audio.batch(3, SMALL, processor):
        audio = packed["input_ids"] == model.config.audio_token_id
        mels = packed["input_features"]
        missing = pocket_audio.FRAMES - mels.shape[-1]
        whole = torch.nn.functional.pad(mels, (0, missing), value=float(mels.min()))
        with torch.no_grad():
            heard, lengths = pocket_audio.hear(model, packed)
            ours = pocket_audio.read(model, heard, lengths, packed, audio)
            theirs = model.model(
                input_ids=packed["input_ids"],
                attention_mask=packed["real"].long(),
                input_features=whole,
                feature_attention_mask=packed["feature_attention_mask"],
            ).last_hidden_state
        real = packed["real"]
        assert torch.allclose(ours[real], theirs[real], atol=1e-4)


def test_the_loss_of_the_text_is_that_of_the_model(processor, model):
    packed = pocket_audio.batch(4, SMALL, processor)[0]
    loss, hearing = pocket_audio.losses(model, None, packed)
    learnt = (packed["labels"] != IGNORE).sum()
    assert loss.item() / learnt == pytest.approx(np.log(448), rel=0.3)  # knows nothing
    assert hearing.item() > 0


def test_the_hearing_stage_learns_from_sounds_alone(processor, model):
    recipe = replace(SMALL, mix=replace(MIX, hearing=True))
    packed = pocket_audio.batch(0, recipe, processor)[0]
    loss, other = pocket_audio.losses(model, None, packed)
    assert loss.item() > 0
    assert other.item() == 0
    counts = (packed["labels"][:, 1:] != IGNORE).sum(1)
    assert torch.equal(counts, packed["sound_counts"])


def test_noise_alone_is_to_be_reported():
    mix = replace(MIX, nothing=1.0, transcribe=0, count=0, sum=0, tones=0)
    problems, samples, sounds = pocket_audio.draw_clip(random.Random(0), mix)
    assert problems[0].answer == pocket_audio.NOTHING
    assert sounds == []
    assert 0.3 * RATE < len(samples) <= 4 * RATE


def test_a_missing_synthesizer_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(speech.shutil, "which", lambda program: None)
    with pytest.raises(RuntimeError, match="apt-get install espeak-ng flite"):
        speech.speak(speech.Voice("en-us+m1"), "seven")


def test_the_cut_keeps_the_sound_and_drops_the_silence():
    sound = np.zeros(RATE, np.float32)
    sound[4000:9600] = 0.2 * np.sin(np.arange(5600) / 5)
    cut = speech.trim(sound)
    assert 5600 <= len(cut) <= 5600 + 0.05 * RATE
    assert np.sqrt(np.mean(cut**2)) == pytest.approx(0.1, rel=0.01)


def no_measure(model):
    return dict.fromkeys(pocket_audio.CURVES, 0.0)


def test_the_recipe_writes_a_model_that_loads_and_answers(tmp_path):
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    from qwen_course.models import checksums

    run, out = tmp_path / "run", tmp_path / "model"
    hearing = replace(SMALL, mix=replace(MIX, hearing=True))
    plan = replace(
        pocket_audio.PLAN,
        held_out=lambda processor: no_measure,
        stages={"one": hearing, "two": SMALL},
    )
    recipes.main(plan, ["--run", str(run), "--out", str(out), "--device", "cpu"])
    assert checksums.verify(out) == []
    for stage in ("one", "two"):
        assert (run / stage / "log.png").stat().st_size > 5000
        assert json.loads((run / stage / "config.json").read_text())["steps"] == 2
    processor = AutoProcessor.from_pretrained(out)
    model = Qwen2AudioForConditionalGeneration.from_pretrained(out)
    problems = spoken_digits.problems(2)
    assert len(measure_audio.answers(model, processor, problems)) == 2


@pytest.mark.timeout(900)
def test_the_quick_mode_learns_the_form_of_the_answers(tmp_path):
    """Without a synthesizer: the course's own recordings serve."""
    out = tmp_path / "model"
    arguments = ["--quick", "--run", str(tmp_path / "run"), "--out", str(out)]
    recipes.main(pocket_audio.PLAN, arguments)
    with (tmp_path / "run" / "quick" / "log.csv").open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses[-1] < losses[0] / 2
    assert (out / "model.safetensors").exists()


@pytest.fixture(scope="module")
def shipped():
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    folder = recipes.MODELS / "pocket-audio"
    return (
        Qwen2AudioForConditionalGeneration.from_pretrained(folder, dtype=torch.float32),
        AutoProcessor.from_pretrained(folder),
    )


@pytest.mark.parametrize(("voices", "most"), [("seen", 0.08), ("unseen", 0.25)])
def test_the_shipped_model_hears_about_as_well_as_its_card_says(voices, most, shipped):
    problems = spoken_digits.problems(48, seed=4, kind="transcribe", voices=voices)
    answers = measure_audio.answers(*shipped, problems)
    assert spoken_digits.digit_error_rate(problems, answers) < most


@pytest.mark.parametrize("task", [spoken_digits, tones])
def test_the_shipped_model_answers_the_other_questions(task, shipped):
    problems = task.problems(48, seed=4)
    right, total = measure_audio.right(
        problems, measure_audio.answers(*shipped, problems)
    )
    assert right / total > 0.7


def test_the_shipped_model_writes_down_most_clips_of_the_lesson(shipped):
    paths = sorted((speech.DATA / "clips").glob("digits_*.wav"))
    question = "What digits do you hear?"
    asked = [
        measure_audio.About(
            [media.question("audio", audio.read_clip(path)[0], question)]
        )
        for path in paths
    ]
    written = measure_audio.answers(*shipped, asked)
    said = [path.name.split("_")[1] for path in paths]
    pairs = zip(said, map(spoken_digits.digits_in, written), strict=True)
    errors = sum(spoken_digits.edit_distance(one, other) for one, other in pairs)
    assert errors / sum(map(len, said)) < 0.25


def test_the_shipped_model_says_when_there_is_nothing_to_hear(shipped):
    samples, _ = audio.read_clip(speech.DATA / "clips" / "noise.wav")
    asked = measure_audio.About([media.question("audio", samples, "What do you hear?")])
    assert measure_audio.answers(*shipped, [asked]) == [pocket_audio.NOTHING]


def test_the_card_says_what_was_measured():
    figures = json.loads((RESULTS / "evaluation.json").read_text("utf-8"))
    card = (recipes.MODELS / "pocket-audio" / "README.md").read_text("utf-8")
    filled = measure_audio.values(figures)
    for name in ("seen", "unseen", "noise_table", "voice_table", "kind_table"):
        assert filled[name] in card


def test_the_model_stays_small(model):
    assert model.num_parameters() < 6e6
