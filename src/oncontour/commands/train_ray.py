"""Training on a Ray cluster (--engine ray): Ray Train starts the processes on its nodes, and each runs the command as it stands.

They are the same DDP processes that ``--training.devices`` and ``--training.nodes`` start without Ray: the same draws, weights and card.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from pathlib import Path

from oncontour.commands.ray_cluster import Place, Ray, entered
from oncontour.core.notes import counted
from oncontour.errors import ConfigError, OncontourError, TrainingError
from oncontour.files import check_writable
from oncontour.learn.train_settings import TrainSettings
from oncontour.libraries import is_out_of_memory, why

_FOLDER = ".ray"
"""Within OUT, while it lasts: where Ray Train sees that all nodes have the same files, and the first worker says how far it is."""
_POLL_S = 1.0


def train(function: Callable[..., object], settings: Mapping[str, object]) -> str:
    """What the ``function`` of a training command says, called with ``settings`` in TRAINING.devices x TRAINING.nodes workers.

    A worker has one processor, or as many as TRAINING.threads, and a GPU where TRAINING.accelerator asks for it, or is auto and there are
    enough. Raises ConfigError where there is no such cluster, or it has no room for all of them; what the command raises; TrainingError
    where a worker or its node died: started again it goes on from the last whole epoch.
    """
    training = settings["training"]
    assert isinstance(training, TrainSettings)
    workers = int(str(settings.get("devices") or training.devices)) * training.nodes
    out = Path(str(settings["out"])).absolute()
    check_writable(out)
    made = not out.exists()
    shutil.rmtree(out / _FOLDER, ignore_errors=True)  # of a driver that was killed
    train_of = _ray_train()
    ray, before = entered(), signal.getsignal(signal.SIGINT)
    try:
        resources = _resources(ray, training, workers)
        scaling = train_of.ScalingConfig(
            num_workers=workers,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            placement_strategy="SPREAD" if training.nodes > 1 else "PACK",
        )
        kept = train_of.RunConfig(name=_FOLDER, storage_path=str(out), logging_config=train_of.LoggingConfig(log_level="ERROR"))
        told = out / _FOLDER / "stderr"
        work = partial(_part, function, dict(settings), Place.here(), told)
        with _shown(told):
            said = train_of.torch.TorchTrainer(work, scaling_config=scaling, run_config=kept).fit().return_value
        if said is None:  # stopped half way, which Ray takes for an end as good as another
            raise KeyboardInterrupt
        return str(said)
    except SystemExit as stopped:  # what Ray makes of Ctrl-C
        raise KeyboardInterrupt from stopped
    except (train_of.TrainingFailedError, ray.exceptions.RayError) as error:
        raise _cause(error) from error
    finally:
        ray.shutdown()
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)  # Ray has put its own there
        shutil.rmtree(out / _FOLDER, ignore_errors=True)
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


def _part(function: Callable[..., object], settings: Mapping[str, object], place: Place, told: Path) -> str:
    """A worker's part: the command as it stands, in this process of several. What the first writes to stderr it writes to ``told``."""
    from ray.train import get_context

    from oncontour.learn.processes import enter_ray

    place.take()
    enter_ray()
    warnings.simplefilter("ignore")  # those of libraries are for developers
    if get_context().get_world_rank():
        return str(function(**settings))
    with told.open("a", buffering=1, encoding="utf-8") as stream, redirect_stderr(stream):
        return str(function(**settings))


@contextmanager
def _shown(path: Path) -> Iterator[None]:
    """While this lasts what is written to ``path`` comes on stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()

    def show() -> None:
        ended, at = False, 0
        while not ended:
            ended = stop.wait(_POLL_S)
            with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
                file.seek(at)
                sys.stderr.write(file.read())
                at = file.tell()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _ray_train() -> Ray:
    """Ray Train. Raises ConfigError where it, or what it needs, is not installed."""
    try:
        import ray.train.torch
    except ImportError as error:
        raise ConfigError("--engine ray trains with Ray Train, which is not installed", hint="pip install 'oncontour[ray]'") from error
    return ray.train


def _resources(ray: Ray, training: TrainSettings, workers: int) -> dict[str, int]:
    """What each worker has of its node. Raises ConfigError where the nodes cannot hold so many."""
    needed = {"CPU": training.threads or 1}
    if training.accelerator == "gpu" or (training.accelerator == "auto" and _room(ray, {**needed, "GPU": 1}) >= workers):
        needed["GPU"] = 1
    room = _room(ray, needed)
    if room < workers:
        each = " and ".join(f"{count} {kind}" for kind, count in needed.items())
        raise ConfigError(
            f"{counted(workers, 'worker')} of {each} are to train together, and the nodes of the Ray cluster hold {room}",
            where=os.environ["RAY_ADDRESS"],
            hint="lower training.devices, training.nodes or training.threads, or let more nodes join",
        )
    return needed


def _room(ray: Ray, needed: Mapping[str, int]) -> int:
    """How many workers that need so much of one node fit on the nodes that are alive."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(kind, 0) // count) for kind, count in needed.items()) for node in nodes)


def _cause(error: Exception) -> Exception:
    """Why a training ended: what the command said in one of the workers, else that a worker did."""
    failures = getattr(error, "worker_failures", {})
    causes = [getattr(failures[rank], "_base_exc", failures[rank]) for rank in sorted(failures)]
    for one in causes:
        if isinstance(one, OncontourError | MemoryError):
            return one
    if any(map(is_out_of_memory, causes)):
        return MemoryError("no memory left for the net")
    told = why(causes[0]) if causes else why(error)
    return TrainingError(
        f"a worker of the Ray cluster ended ({told})",
        where=os.environ["RAY_ADDRESS"],
        hint="start it again: it goes on from the last whole epoch; the logs of the cluster say more",
    )
