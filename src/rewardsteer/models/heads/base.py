"""Heads: the part of a reward model that turns hidden states into rewards.

A new head is one file: a class derived from `Head` or from another head, named in ``head.kind`` as
``package.module:Class``.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rewardsteer.errors import CheckpointError
from rewardsteer.kernels.vocabulary_soft import OutputLayer
from rewardsteer.models.checkpoint import VALUE_HEAD, CheckpointCard
from rewardsteer.models.heads.config import HeadConfig
from rewardsteer.models.loading import no_score
from rewardsteer.models.placement import put_beside
from rewardsteer.tensors import PairBatch, PolicyBackup, TokenStates


class Head:
    """Rewards of prefixes from hidden states.

    The parameters are a linear layer of the Hugging Face model (`layer`), so that plain libraries
    load a saved folder. A head of more layers has a module of its own (`build`), saved in a file of
    its own. A head object holds no copies of parameters and is made for each use.

    Args:
        projection: the head's own module, or its layer where it has none.

    Attributes:
        gives: the fields of `RewardOutput` that a model with this head can give.
        gives_next_token: whether one call gives the rewards of all one-token extensions.
        offset: the reward of the prefix that ends at column t is computed from the state at column
            t - offset.
        auto_class: transformers' class that loads a model with this head's layer.
        layer_class: of the layer.
        description: its name in messages.
        summary, pipeline_tag: its line and its tag in the model card.
    """

    gives: ClassVar[frozenset[str]] = frozenset({"states", "prefix_rewards"})
    gives_next_token: ClassVar[bool] = False
    offset: ClassVar[int] = 0
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    layer_class: ClassVar[type[nn.Linear]] = nn.Linear
    description: ClassVar[str] = "a head of its own kind"
    summary: ClassVar[str] = "one reward for a prompt and response"
    pipeline_tag: ClassVar[str] = "text-classification"

    def __init__(self, projection: Any) -> None:
        self.projection = projection

    # --- making, loading and saving --------------------------------------------------------------

    @classmethod
    def of(cls, model: Any, own: nn.Module | None) -> "Head":
        """The head of a Hugging Face model, or of the head's own module beside it."""
        return cls(cls.layer(model) if own is None else own)

    @classmethod
    def layer(cls, model: Any) -> Any:
        """The head's linear layer in a Hugging Face model.

        Raises:
            CheckpointError: it has none, as encoders do.
        """
        if not hasattr(model, "score"):
            raise no_score(model, model.config.name_or_path)
        return model.score

    @classmethod
    def build(cls, config: HeadConfig, size: int) -> nn.Module | None:
        """A new module of the head's own over states of ``size`` numbers; None: it has none."""
        return None

    @classmethod
    def restore(cls, model: Any, config: HeadConfig, folder: Path) -> nn.Module | None:
        """The head's own module as it was saved with a model; None: it has none.

        Raises:
            CheckpointError: missing, damaged or of another size.
        """
        own = cls.build(config, cls.layer(model).in_features)
        if own is None:
            return None
        return put_beside(cls.layer(model), saved_own(folder, lambda _: own))

    @classmethod
    def check_start(cls, config: HeadConfig, trained: HeadConfig, source: Any) -> None:
        """Refuse to start this head from a reward model whose head is ``trained`` and does not fit.

        Raises:
            CheckpointError: names both heads.
        """
        if trained.kind == config.kind and trained.layers != config.layers:
            raise CheckpointError(
                f"{source} is a reward model whose {config.kind} head has the layers "
                f"{trained.layers!r}, and head.layers={config.layers} is asked for; set "
                f"head.layers={trained.layers} to go on with it, or start from its base model."
            )

    @classmethod
    def is_trained(cls, missing: list[str], card: CheckpointCard | None, source: str) -> bool:
        """Whether the model that training starts from already has this head, trained, to keep.

        Args:
            missing: parameters that the loaded weights lack.
            card: of the model, where it is a reward model.
            source: of the model, for messages.
        """
        return not any(name.startswith("score") for name in missing)

    @classmethod
    def in_adapter(cls, adapter: Path) -> bool:
        """Whether an adapter's weights hold this head's layer, trained."""
        return False

    @classmethod
    def attach(
        cls, model: Any, config: HeadConfig, source: Any, card: CheckpointCard | None = None, *,
        trained: bool = False,
    ) -> nn.Module | None:
        """Put the head on a model to be trained, in place; returns the head's own module, if any.

        Args:
            model: the Hugging Face model, of `auto_class`.
            config: the head that is asked for.
            source: of the model, a folder or name.
            card: of the model, where it is a reward model.
            trained: the layer is trained and is left as it is.

        Raises:
            CheckpointError: the model has no layer that this head can be.
        """
        if card is not None and card.head.kind == config.kind:
            return cls.restore(model, config, Path(source))
        own = cls.build(config, cls.layer(model).in_features)
        return None if own is None else put_beside(cls.layer(model), own)

    @classmethod
    def open(cls, model: Any, card: CheckpointCard, folder: Path) -> None:
        """Prepare the layer of a loaded reward model, in place.

        Raises:
            CheckpointError: the model has no such layer.
        """

    @classmethod
    def resized(cls, model: Any, tokenizer: Any) -> None:
        """Prepare the layer again after the embeddings were resized, in place."""

    def check_saved(self, model: Any, folder: Path, name: str) -> None:
        """Refuse a saved folder from which plain transformers would compute other rewards.

        Raises:
            CheckpointError: it would; ``name`` is the folder's name in the message.
        """

    def note(self, card: CheckpointCard, tokenizer: Any) -> CheckpointCard:
        """The card with the fields that the head fills in."""
        return card

    @classmethod
    def label(cls, config: HeadConfig) -> str:
        """The head's row in the model card."""
        return config.kind

    @classmethod
    def loading(cls, config: HeadConfig) -> str:
        """The section on loading in the model card: ``classifier``, ``attributes``, ``language
        model``, or ``package`` where only this package reads the rewards."""
        return "package"

    # --- rewards ---------------------------------------------------------------------------------

    def rewards_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[...]`` (float32 or wider) of the prefixes that end in ``tokens [...]``, given
        the states ``[..., D]`` at `offset` columns before."""
        raise NotImplementedError

    def prefix_rewards(
        self, states: TokenStates, batch: PairBatch, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Rewards ``[...]`` of the prefixes that end at rows and columns ``[...]`` of a batch; 0
        where there is no real token `offset` columns before."""
        source = (columns - self.offset).clamp(min=0)
        values = self.rewards_of(states.at(rows, source), batch.input_ids[rows, columns])
        if not self.offset:
            return values
        # Under left padding, a padding position lies before a row's first real token.
        known = (columns >= self.offset) & batch.attention_mask[rows, source].bool()
        return values.where(known, 0.0)

    def token_rewards(self, hidden: Tensor, input_ids: Tensor) -> Tensor:
        """Rewards ``[R, T]`` of the prefix that ends at every token of rows padded on the right; 0
        in the first `offset` columns. hidden ``[R, T, D]``, input_ids ``[R, T]``."""
        width = input_ids.shape[1] - self.offset
        rewards = self.rewards_of(hidden[:, :width], input_ids[:, self.offset :])
        return torch.nn.functional.pad(rewards, (self.offset, 0))

    def sequence_rewards(self, hidden: Tensor, input_ids: Tensor, last: Tensor) -> Tensor:
        """Rewards ``[R]`` of whole rows; last ``[R]`` is each row's last real column. A row of
        `offset` tokens or fewer gets reward 0."""
        rows = torch.arange(len(last), device=hidden.device)
        source = (last - self.offset).clamp(min=0)
        rewards = self.rewards_of(hidden[rows, source], input_ids[rows, last])
        return rewards.where(last >= self.offset, 0.0) if self.offset else rewards

    def attributes(self, hidden: Tensor) -> Tensor:
        """Attributes ``[..., K]`` of the prefixes that end at hidden ``[..., D]``."""
        raise NotImplementedError

    def next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[..., V]`` of all one-token extensions of the prefixes ending at ``hidden``."""
        raise NotImplementedError

    def best_next_token(self, hidden: Tensor) -> Tensor:
        """Rewards ``[N]`` of the best one-token extensions; hidden ``[N, D]``."""
        raise NotImplementedError

    def soft_next_token(self, hidden: Tensor, temperature: float) -> Tensor:
        """Soft maxima ``[N]`` over the one-token extensions; hidden ``[N, D]``."""
        raise NotImplementedError

    def policy_backup(self, hidden: Tensor, backup: PolicyBackup, policy: OutputLayer) -> Tensor:
        """Values ``[N]`` of prefixes under a policy, given at the same N positions; hidden
        ``[N, D]``."""
        raise NotImplementedError

    def candidate_rewards(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Rewards ``[N, K]`` of several extensions of each prefix; hidden ``[N, D]``, tokens
        ``[N, K]``."""
        raise NotImplementedError

    def log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probabilities ``[...]`` of ``tokens [...]`` after the prefixes ending at hidden
        ``[..., D]``, with rewards as logits."""
        raise NotImplementedError

    def response_log_probabilities(self, states: TokenStates, batch: PairBatch) -> Tensor:
        """`RewardOutput.log_probabilities` of a batch ``[R, T]``."""
        tokens = torch.zeros_like(batch.response_mask)
        # A response token with none before it (empty prompt) has no state to be predicted from.
        tokens[:, 1:] = batch.response_mask[:, 1:] & batch.attention_mask[:, :-1].bool()
        rows, columns = tokens.nonzero(as_tuple=True)
        values = self.log_probabilities(
            states.at(rows, columns - 1), batch.input_ids[rows, columns]
        )
        return values.new_zeros(tokens.shape).masked_scatter(tokens, values)


def saved_own(folder: Path, made: Callable[[Mapping[str, Tensor]], nn.Module]) -> nn.Module:
    """The head's own module with the parameters that a reward model's folder holds.

    Raises:
        CheckpointError: missing, damaged or of another size.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / VALUE_HEAD).exists():
        raise CheckpointError(f"Expected the head's parameters {VALUE_HEAD} in {folder}.")
    try:
        state = load_file(folder / VALUE_HEAD)
        own = made(state)
        own.load_state_dict(state)
    except (SafetensorError, OSError, LookupError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"The head {folder / VALUE_HEAD} is damaged or of another size: {error}"
        ) from error
    return own


def save_own(own: nn.Module, folder: Path) -> None:
    """Write the parameters of a head's own module into a reward model's folder."""
    from safetensors.torch import save_file

    state = {name: value.contiguous().cpu() for name, value in own.state_dict().items()}
    save_file(state, folder / VALUE_HEAD)
