"""Reward models that run on a server: reward servers, and language models as judges."""

from pathlib import Path
from typing import Any

from rewardsteer.api.inputs import as_template
from rewardsteer.api.reward_model import RewardModel
from rewardsteer.models.kinds.options import check_options
from rewardsteer.models.remote.judge import JudgeScorer
from rewardsteer.models.remote.scorer import RemoteScorer
from rewardsteer.quiet import quiet_calls


@quiet_calls
class RemoteRewardModel(RewardModel):
    """A reward model behind an address.

        rm = RemoteRewardModel("http://127.0.0.1:8000")                        # rewardsteer serve
        rm = RemoteRewardModel("http://gpu:8000", api="vllm")                  # /classify of vLLM
        rm = RemoteRewardModel("http://gpu:30000", tokenizer="NAME")           # SGLang
        rm = RemoteRewardModel("http://gpu:5000/get_reward", tokenizer="NAME") # OpenRLHF's form

    Args:
        url: the server's address; for OpenRLHF's form the address of the route.
        api: ``rewardsteer``, ``vllm``, ``vllm-pooling``, ``sglang`` or ``openrlhf``; ``auto``
            detects it by requests to the server.
        options: see `rewardsteer.models.remote.scorer.RemoteScorer`: ``model``, ``tokenizer``,
            ``template``, ``label``, ``activation``, ``fields``, ``key_env``, ``timeout``,
            ``concurrency``.

    Raises:
        ConfigError: the server cannot be reached or used.
        MismatchError: the server does not return one raw reward per text.
    """

    def __init__(self, url: str, *, api: str = "auto", **options: Any) -> None:
        options["template"] = as_template(options.get("template"))
        check_options(RemoteScorer, {"api": api, **options}, "a reward model behind an address")
        super().__init__(RemoteScorer(url, api=api, **options))

    def __repr__(self) -> str:
        scorer: Any = self.scorer
        return f"RemoteRewardModel({scorer.url!r}, api={scorer.api!r})"

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Any) -> "RemoteRewardModel":
        """Same as the constructor."""
        return cls(str(name_or_path), **options)


@quiet_calls
class JudgeRewardModel(RewardModel):
    """A language model behind an OpenAI-compatible address that gives each response a score.

        rm = JudgeRewardModel("http://127.0.0.1:8000/v1", "Qwen/Qwen3-8B")
        rm.score("What is 2+2?", "4")          # the expected score from 1 to 9

    Args:
        url: the server's address, ending in ``/v1``.
        model: the judge's name there.
        options: see `rewardsteer.models.remote.judge.JudgeScorer`: ``prompt``, ``scale``,
            ``without_score``, ``key_env``, ``timeout``, ``concurrency``, ``check``.

    Raises:
        ConfigError: the server does not respond, or an option is invalid.
    """

    def __init__(self, url: str, model: str, **options: Any) -> None:
        check_options(JudgeScorer, {"model": model, **options}, "a judge")
        super().__init__(JudgeScorer(url, model, **options))

    def __repr__(self) -> str:
        scorer: Any = self.scorer
        return f"JudgeRewardModel({scorer.url!r}, {scorer.model!r})"

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **options: Any) -> "JudgeRewardModel":
        """Same as the constructor; ``model=`` names the judge."""
        return cls(str(name_or_path), **options)
