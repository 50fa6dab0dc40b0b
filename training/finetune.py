"""Fine-tune with LoRA, on one processor or on many: `accelerate launch` starts it.

    python -m training.finetune --steps 20                   # here, one process
    accelerate launch --config_file training/accelerate/gpu_8.yaml
        training/finetune.py --model Qwen/Qwen3-8B --data rows.jsonl
        --row-length 2048 --learning-rate 1e-4               # in one line

The script is the same for every machine; what differs stands in the configuration file.
A run is a folder: started again with the same command it goes on where it was.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started by accelerate as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qwen_course import chat_data, fine_tuning, loading
from qwen_course.chat_data import Example
from qwen_course.fine_tuning import Settings
from qwen_course.tasks import roman_numerals

HERE = Path(__file__).parent
# Old problems among the new ones, of each skill as many as keep it.
REPLAYED = {"sums": 350, "products": 250, "word_problems": 1100,
            "course_questions": 600, "instructions": 500, "dialogues": 150,
            "new_questions": 250}  # fmt: skip


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a Qwen with LoRA on a JSONL file of chats."
    )
    parser.add_argument("--model", default="pocket-qwen3", help="as for qc.load")
    parser.add_argument("--data", type=Path, help="JSONL; default: Roman numerals")
    parser.add_argument("--run", type=Path, default=HERE / "runs" / "finetune")
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument(
        "--rows", type=int, default=Settings.rows, help="a step, each process"
    )
    parser.add_argument("--row-length", type=int, default=Settings.row_length)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=Settings.learning_rate)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--full", action="store_true", help="train every weight")
    parser.add_argument("--precision", default="auto", help="of the weights")
    parser.add_argument("--compute", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--checkpointing", action="store_true", help="less memory")
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--cpu", action="store_true", help="even if there is a GPU")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(given)


def place(options: argparse.Namespace) -> str:
    """Return the device that this process loads the weights to.

    FSDP and ZeRO-3 deal the weights out themselves, so they start on the CPU.
    """
    dealt = any(
        os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true"
        for name in ("FSDP", "DEEPSPEED")
    )
    device = loading.choose_device("cpu" if options.cpu or dealt else None)
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if device == "cuda" else device


def rows(options: argparse.Namespace) -> list[chat_data.Row]:
    """Return the rows of the file, or those of lesson 07: a new skill and old ones."""
    if options.data:
        return chat_data.read_jsonl(options.data)
    new = roman_numerals.problems(3200, options.seed, "train", kind="to Roman")
    replayed = fine_tuning.replay(REPLAYED, options.seed, thinking=0.8)
    return chat_data.from_problems(new) + replayed


def settings(options: argparse.Namespace) -> Settings:
    """Return the settings of the run."""
    return Settings(
        steps=options.steps,
        learning_rate=options.learning_rate,
        rows=options.rows,
        row_length=options.row_length,
        accumulate=options.accumulate,
        precision=options.compute,
        checkpointing=options.checkpointing,
        log_every=max(1, options.steps // 30),
        save_every=options.save_every,
        seed=options.seed,
    )


def main(given: list[str] | None = None) -> dict[str, Any]:
    """Train, save the adapter (or the model), and return what was logged."""
    options = arguments(given)
    model, tokenizer = loading.load(options.model, options.precision, place(options))
    if options.full:
        model.requires_grad_(True)
    else:
        model = fine_tuning.attach_lora(model, options.rank, seed=options.seed)
    examples: list[Example] = chat_data.encode(
        rows(options), tokenizer, options.row_length, drop_long=not options.data
    )
    options.run.mkdir(parents=True, exist_ok=True)
    plan = settings(options)
    trainer = fine_tuning.make_trainer(
        model, tokenizer, examples, plan, options.run,
        use_cpu=options.cpu or not _gpus(),
    )  # fmt: skip
    saved = fine_tuning.latest_checkpoint(options.run)
    trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    trainer.save_model(str(options.run / "adapter"))
    told = {
        "processes": trainer.args.world_size,
        "rows_a_step": plan.rows * plan.accumulate * trainer.args.world_size,
        "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
    }
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(options.run / "adapter")
        if not options.full:
            fine_tuning.name_the_base(options.run / "adapter")
        text = json.dumps(told, indent=1) + "\n"
        (options.run / "losses.json").write_text(text, encoding="utf-8")
        print(f"loss {told['losses'][0]:.3f} to {told['losses'][-1]:.3f}; the adapter "
              f"is in {options.run / 'adapter'}.")  # fmt: skip
    return told


def _gpus() -> bool:
    """Return whether there are GPUs, though the weights may be loaded on the CPU."""
    return loading.choose_device() != "cpu"


if __name__ == "__main__":
    main()
