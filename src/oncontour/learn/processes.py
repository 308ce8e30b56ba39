"""The processes that train together (DDP): Lightning starts them and they find each other, or Ray Train does both."""

from __future__ import annotations

from dataclasses import dataclass

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.strategies import Strategy

from oncontour.learn.train_settings import TrainSettings

_STATE = {"of_ray": False}


def enter_ray() -> None:
    """From now on trainings in this process, a worker of Ray Train, are its part of one that Ray Train spread."""
    _STATE["of_ray"] = True


@dataclass(frozen=True)
class Processes:
    """What this process computes with and how it finds those that train with it, in the words of ``lightning.Trainer``."""

    accelerator: str
    devices: int | str
    nodes: int
    strategy: str | Strategy
    plugins: ClusterEnvironment | None = None

    @classmethod
    def of(cls, settings: TrainSettings) -> Processes:
        """As the settings say, or as Ray Train started them, which knows how many they are and what each was given."""
        several = settings.devices * settings.nodes > 1
        if not _STATE["of_ray"]:
            return cls(settings.accelerator, settings.devices, settings.nodes, "ddp" if several else "auto")
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment
        from ray.train.torch import get_device

        given = "cpu" if get_device().type == "cpu" else "gpu"
        if not several:
            return cls(given, 1, 1, "auto")
        strategy, environment = RayDDPStrategy(), RayLightningEnvironment()  # type: ignore[no-untyped-call]
        return cls(given, "auto", 1, strategy, environment)
