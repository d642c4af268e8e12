"""The checks of ``rewardsteer doctor``, in the order in which they run.

A check is a class derived from `Check` in a file of its own and a row here.
"""

from rewardsteer.registry import Registry

_PLACE = "rewardsteer.doctor.checks"
_ENTRIES = {
    "head": f"{_PLACE}.head:Head",
    "labels": f"{_PLACE}.labels:Labels",
    "padding token": f"{_PLACE}.padding:Padding",
    "template": f"{_PLACE}.template:TemplateOfTexts",
    "beginning-of-text": f"{_PLACE}.beginning:Beginning",
    "length": f"{_PLACE}.length:Length",
    "precision": f"{_PLACE}.precision:Precision",
    "preference": f"{_PLACE}.preference:Preference",
    "batches": f"{_PLACE}.batches:Batches",
    "transformers": f"{_PLACE}.plain:PlainTransformers",
    "vllm": f"{_PLACE}.vllm:Vllm",
    "server": f"{_PLACE}.server:OwnServer",
    "address": f"{_PLACE}.address:GivenAddress",
}
CHECKS = Registry("check of doctor", _ENTRIES)
# The order of the checks; a registry sorts its names.
ORDER = tuple(_ENTRIES)
