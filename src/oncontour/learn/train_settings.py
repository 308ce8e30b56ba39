"""How a task is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from oncontour.errors import ConfigError

EARLIER_PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
"""What settings and runs of earlier versions called a precision."""


@dataclass(frozen=True)
class TrainSettings:
    """How a task is trained. ``paper()`` is the recipe of Xue et al. 2020."""

    epochs: int = 100
    """how often the task's plan of draws is gone through"""
    batch: int = 2
    """draws an optimiser step"""
    learning_rate: float = 2e-3
    """of Adam (plateau) or AdamW (cosine)"""
    schedule: Literal["cosine", "plateau", "linear"] = "cosine"
    """cosine to nothing after a short warm-up; x0.8 after 5 epochs without gain (Xue et al. 2020); or whole for the first half of the
    training, then straight to nothing (Zhu et al. 2017)"""
    weight_decay: float = 1e-4
    """of AdamW"""
    gradient_limit: float = 5.0
    """norm that gradients are cut to; 0 leaves them"""
    validation: float = 0.1
    """fraction of the training patients held back to watch the loss (never the validation cohort)"""
    keep: Literal["last", "best"] = "last"
    """which weights become the model: those of the last epoch, or of the one whose watched loss was lowest"""
    seed: int = 0
    """everything random follows from it"""
    devices: int = 1
    """processes on each machine; above 1 by DDP"""
    nodes: int = 1
    """machines that train together by DDP, each started with the same words and one OUT on a shared file system: MASTER_ADDR and
    MASTER_PORT name the first of them, NODE_RANK (from 0) says which each is; SLURM and torchrun set them themselves"""
    accelerator: str = "auto"
    """cpu, gpu, or auto"""
    precision: Literal["float32", "bfloat16", "float16", "32-true", "bf16-mixed", "16-mixed"] = "float32"
    """of the net's arithmetic; weights and losses are float32 whatever it is. bfloat16 is faster where the processor has it (a CPU with
    AVX-512 BF16 or AMX, a GPU); float16 is for GPUs. The last three are how earlier versions called these"""
    threads: int | None = None
    """CPU threads; torch's choice by default"""
    workers: int = 0
    """processes that prepare windows beside the training"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", EARLIER_PRECISIONS.get(self.precision, self.precision))
        least = {
            "epochs": 1,
            "batch": 1,
            "devices": 1,
            "nodes": 1,
            "threads": 1,
            "workers": 0,
            "seed": 0,
            "weight_decay": 0,
            "gradient_limit": 0,
        }
        values = asdict(self)
        wrong = [
            f"{name} {values[name]} (at least {low})" for name, low in least.items() if values[name] is not None and not values[name] >= low
        ]
        wrong += [] if self.learning_rate > 0 else [f"learning_rate {self.learning_rate} (above 0)"]
        wrong += [] if self.keep == "last" or self.validation > 0 else [f"keep {self.keep} (without patients held back to tell by)"]
        wrong += [] if 0 <= self.validation < 1 else [f"validation {self.validation} (from 0, below 1)"]
        if wrong:
            raise ConfigError(f"training settings out of range: {', '.join(wrong)}")

    @classmethod
    def paper(cls, **changes: Any) -> TrainSettings:
        """Adam at 0.005, factor 0.8 after 5 epochs without gain, 200 epochs, batch 8 (Xue et al. 2020, section 2.3)."""
        recipe = cls(epochs=200, batch=8, learning_rate=5e-3, schedule="plateau", weight_decay=0.0, gradient_limit=0.0)
        return replace(recipe, **changes)
