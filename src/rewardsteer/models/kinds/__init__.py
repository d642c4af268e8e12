"""Kinds of reward models by name, and `load_scorer`, which loads any of them.

A kind from elsewhere is named ``package.module:Class``; it is taken where it is asked for, and not
recognised by itself.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardsteer.devices import AUTO
from rewardsteer.errors import MismatchError
from rewardsteer.registry import Registry

if TYPE_CHECKING:
    import torch

    from rewardsteer.data.template import Template
    from rewardsteer.models.text_scorer import TextScorer

KINDS = Registry(
    "kind of reward model",
    {
        "adapter": "rewardsteer.models.kinds.rewardsteer:AdapterKind",
        "armorm": "rewardsteer.models.kinds.armorm:ArmoScorer",
        "attributes": "rewardsteer.models.kinds.attributes:AttributeScorer",
        "classifier": "rewardsteer.models.kinds.classifier:ClassifierKind",
        "custom_code": "rewardsteer.models.kinds.custom_code:CustomCodeScorer",
        "easy_to_hard": "rewardsteer.models.kinds.easy_to_hard:EasyToHard",
        "farma": "rewardsteer.models.kinds.farma:FarmaKind",
        "implicit": "rewardsteer.models.kinds.implicit:ImplicitKind",
        "judge": "rewardsteer.models.kinds.judge:JudgeKind",
        "math_shepherd": "rewardsteer.models.kinds.math_shepherd:MathShepherd",
        "nemotron": "rewardsteer.models.kinds.nemotron:NemotronKind",
        "pair_encoder": "rewardsteer.models.kinds.pair_encoder:PairEncoderScorer",
        "pairrm": "rewardsteer.models.kinds.pairrm:PairRm",
        "pure_prm": "rewardsteer.models.kinds.pure_prm:PurePrm",
        "qwen_prm": "rewardsteer.models.kinds.qwen_prm:QwenPrm",
        "reasoneval": "rewardsteer.models.kinds.reasoneval:ReasonEval",
        "remote": "rewardsteer.models.kinds.remote:RemoteKind",
        "rewardsteer": "rewardsteer.models.kinds.rewardsteer:RewardsteerKind",
        "steamshp": "rewardsteer.models.kinds.steamshp:SteamShp",
        "rlhflow_pair": "rewardsteer.models.kinds.rlhflow_pair:RlhflowPair",
        "rlhflow_prm": "rewardsteer.models.kinds.rlhflow_prm:RlhflowPrm",
        "skywork_prm": "rewardsteer.models.kinds.skywork_prm:SkyworkPrm",
        "token_classification_prm":
            "rewardsteer.models.kinds.token_classification_prm:TokenClassificationPrm",
        "urm": "rewardsteer.models.kinds.urm:UrmScorer",
        "value_head": "rewardsteer.models.kinds.value_head:ValueHeadKind",
    },
    classes=["rewardsteer.models.kinds.base:Kind"],
)


def load_scorer(
    name_or_path: str | Path, *, kind: str | None = None, device: "str | torch.device" = AUTO,
    dtype: "torch.dtype | None" = None, template: "Template | None" = None,
    revision: str | None = None, trust_remote_code: bool = False, pairs: bool = False,
    subfolder: str = "", **options: Any,
) -> "TextScorer":
    """Load a reward model of any kind.

    Args:
        name_or_path: a folder, a name on the Hugging Face hub, or what else a kind takes.
        kind: a name in `KINDS` or ``package.module:Class``; None: recognised by config.json and the
            names of the weights.
        device: ``auto`` (CUDA, else MPS, else CPU) or torch's name; not with a ``device_map``.
        dtype: of the weights; None: as saved.
        template: how prompts and responses are written; None: as the folder says, else the
            tokenizer's chat template where it has one.
        revision: branch, tag or commit on the hub.
        trust_remote_code: let Python code from the folder run.
        pairs: whether a model that compares two responses and gives no rewards will do.
        subfolder: of the folder or repository, where the model is there.
        options: of the kind (docs/reward_models.md), and of ``from_pretrained`` (``device_map``).

    Raises:
        CheckpointError: no such model, a damaged one, or one that no kind recognises.
        ConfigError: there is no such kind or device, or an option has a wrong value.
        MismatchError: it compares two responses, and ``pairs`` is not set.
    """
    from rewardsteer.models.kinds.options import check_types
    from rewardsteer.models.kinds.recognition import find_kind
    from rewardsteer.models.pair_scorer import no_reward

    given = {"trust_remote_code": trust_remote_code, "revision": revision, "subfolder": subfolder}
    check_types(load_scorer, given)
    chosen, folder = find_kind(
        name_or_path, kind=kind, revision=revision, trust_remote_code=trust_remote_code,
        subfolder=subfolder,
    )
    made = KINDS.get(chosen)
    if made.compares and not pairs:
        raise MismatchError(no_reward(str(name_or_path), chosen))
    # The constructors of kinds that are scorers take options, too.
    for declares in (made.load, *made.__mro__):
        check_types(declares, options)
    scorer: TextScorer = made.load(
        folder, device=device, dtype=dtype, template=template, **options
    )
    scorer.kind = chosen
    return scorer
