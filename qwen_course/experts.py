"""Which experts of a mixture work on what: counted, as a table and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qwen_course.tasks.problem import Problem

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ExpertLoad:
    """How the tokens of each skill were spread over the experts.

    `counts` has the shape (skills, layers, experts): tokens that an expert served.
    """

    skills: tuple[str, ...]
    counts: "torch.Tensor"

    @property
    def fair_shares(self) -> "torch.Tensor":
        """Each expert's load over all skills, (layers, experts); 1 is an even load."""
        total = self.counts.sum(dim=0).float()
        return total / total.mean(dim=-1, keepdim=True)

    def shares(self, skill: str) -> "torch.Tensor":
        """The same for one skill; an expert above 1 serves it more than others do."""
        counts = self.counts[self.skills.index(skill)].float()
        return counts / counts.mean(dim=-1, keepdim=True)

    def specialists(self, layer: int) -> dict[str, int]:
        """For each skill, the expert of a layer that serves it most."""
        return {skill: int(self.shares(skill)[layer].argmax()) for skill in self.skills}

    def plot(self, layer: int) -> "Figure":
        """Draw one layer: a row a skill, a column an expert, dark where it works."""
        import torch
        from matplotlib.figure import Figure

        rows = torch.stack([self.shares(skill)[layer] for skill in self.skills])
        figure = Figure(figsize=(8, 0.7 + 0.4 * len(self.skills)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(rows.numpy(), cmap="cividis_r", aspect="auto", vmin=0)
        axes.set_yticks(range(len(self.skills)), self.skills)
        axes.set_xticks(range(rows.shape[1]))
        axes.set(xlabel=f"expert of layer {layer}",
                 title="Some experts serve one skill more than the others")  # fmt: skip
        figure.colorbar(image, label="load (1 = even)")
        return figure


def is_mixture(model: "PreTrainedModel") -> bool:
    """Return whether a model has experts."""
    return bool(getattr(model.config.get_text_config(), "num_experts", 0))


def worked_text(problem: Problem, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a problem with its worked answer, as the template writes it."""
    reply = {
        "role": "assistant",
        "content": problem.answer,
        "reasoning_content": problem.thinking,
    }
    tools: list[Any] | None = list(problem.tools) or None
    talk = [*problem.prompt, reply]
    return str(tokenizer.apply_chat_template(talk, tools=tools, tokenize=False))


def expert_counts(model: "PreTrainedModel", ids: Sequence[int]) -> "torch.Tensor":
    """Return how many of the tokens each expert served, (layers, experts).

    Raises ValueError for a dense model, which has no experts.
    """
    import torch

    if not is_mixture(model):
        raise ValueError(
            "this model is dense: it has no experts to count. Load a mixture, such as "
            'qc.load("pocket-qwen3-moe").'
        )
    config = model.config.get_text_config()
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            output_router_logits=True,
        )
    chosen = [
        logits.topk(config.num_experts_per_tok, dim=-1).indices.flatten()
        for logits in output.router_logits
    ]
    counts = [torch.bincount(c, minlength=config.num_experts) for c in chosen]
    return torch.stack(counts).cpu()


def expert_load(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    skills: Mapping[str, Sequence[Problem]],
) -> ExpertLoad:
    """Count which experts serve the worked answers of each skill.

    Raises ValueError for a dense model.

    Example:
        load = expert_load(model, tokenizer, {"sums": tasks.sums.problems(20)})
        load.fair_shares.min()  ->  the load of the least used expert
    """
    import torch

    counts = []
    for problems in skills.values():
        texts = [worked_text(problem, tokenizer) for problem in problems]
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        counts.append(torch.stack([expert_counts(model, row) for row in ids]).sum(0))
    return ExpertLoad(tuple(skills), torch.stack(counts))
