"""The commands, a file each."""

from rlvr_lite.commands._arguments import for_tyro, prepared
from rlvr_lite.commands._chat import chat
from rlvr_lite.commands._claims import claims
from rlvr_lite.commands._compare import compare
from rlvr_lite.commands._demo import demo
from rlvr_lite.commands._doctor import doctor
from rlvr_lite.commands._eval import evaluate
from rlvr_lite.commands._export import export, verify_export
from rlvr_lite.commands._lists import bases, benchmarks, methods, tasks
from rlvr_lite.commands._plan import plan
from rlvr_lite.commands._recipes import recipes
from rlvr_lite.commands._show import show
from rlvr_lite.commands._spectrum import spectrum
from rlvr_lite.commands._train import train
from rlvr_lite.commands._verify import verify

__all__ = [
    "bases",
    "benchmarks",
    "chat",
    "claims",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "for_tyro",
    "methods",
    "plan",
    "prepared",
    "recipes",
    "show",
    "spectrum",
    "tasks",
    "train",
    "verify",
    "verify_export",
]
