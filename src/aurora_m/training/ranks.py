"""The processes of a torchrun job: who this one is, and what they tell each other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from aurora_m.workspace import AuroraError

from .config import ParallelConfig
from .job import is_main_process, world_size

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")

# The main rank may write a model of hundreds of gigabytes while the others wait.
_TIMEOUT = timedelta(hours=1)


class LostRankError(AuroraError):
    """Another process of the job is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; without a mesh it is alone, and every call is free."""

    mesh: "DeviceMesh | None" = None
    group: Any = None
    """The process group they talk in; None: the job's own."""

    @property
    def alone(self) -> bool:
        return self.mesh is None

    @property
    def rank(self) -> int:
        return 0 if self.mesh is None else dist.get_rank()

    @property
    def count(self) -> int:
        """How many processes there are."""
        return 1 if self.mesh is None else dist.get_world_size()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def degree(self, dimension: str) -> int:
        return 1 if self.mesh is None else self.mesh[dimension].size()

    def place(self, dimension: str) -> int:
        """This rank's place along a dimension of the mesh."""
        return 0 if self.mesh is None else self.mesh[dimension].get_local_rank()

    def own_sequences(self, sequences: int) -> slice:
        """Which of a step's sequences are this rank's: equal parts, in the order of the data ranks."""
        part = sequences // self.degree("data")
        return slice(part * self.place("data"), part * (self.place("data") + 1))

    def sum(self, tensor: Tensor, *dimensions: str) -> Tensor:
        """Sums a tensor over dimensions of the mesh, in place."""
        for dimension in dimensions if self.mesh is not None else ():
            if self.degree(dimension) > 1:
                dist.all_reduce(tensor, group=self.mesh[dimension].get_group())  # type: ignore[index]
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes. It waits for the other processes, not for the device."""
        if self.mesh is None:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.group)
        return bool(flags)

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value, group=self.group)
        return values

    def from_main(self, value: T) -> T:
        """The main rank's value, on every rank."""
        if self.mesh is None:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def apart(self) -> "Ranks":
        """The same processes with a group of their own, for a thread that talks beside the loop; all call it together.

        Two threads in one group would mix up their messages.
        """
        return self if self.mesh is None else replace(self, group=dist.new_group(backend="gloo", timeout=_TIMEOUT))

    def leave(self) -> None:
        """Closes what `apart` opened."""
        if self.group is not None:
            dist.destroy_process_group(self.group)

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """An AuroraError on one rank is raised on all of them, so that none waits for one that gave up."""
        error: AuroraError | None = None
        try:
            yield
        except AuroraError as caught:
            error = caught
        for other in self.gather(error):
            if other is not None:
                raise other


SINGLE = Ranks()


@contextmanager
def open_ranks(config: ParallelConfig, device: torch.device) -> Iterator[Ranks]:
    """Joins the job's processes over the block: gloo for the CPU, NCCL beside it where there is CUDA.

    Raises:
        RecipeError: the degrees do not make the number of processes.
        LostRankError: another process ended, or cannot be reached.
    """
    size = dist.get_world_size() if dist.is_initialized() else world_size()
    config.degrees(size)
    if size == 1:
        yield SINGLE
        return
    from .parallel import build_mesh

    opened = not dist.is_initialized()
    try:
        join_ranks(device)
        yield Ranks(build_mesh(config, device.type, size))
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise LostRankError(
            f"rank {dist.get_rank()} lost the others ({_first_line(error)}); one of them has ended, see its own "
            "message; start the same job again to go on from the last checkpoint"
        ) from None
    finally:
        if opened and dist.is_initialized():
            dist.destroy_process_group()


def join_ranks(device: torch.device) -> None:
    """Opens the process group, by the variables torchrun sets, unless it is open."""
    if dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)


def _is_lost_connection(error: RuntimeError) -> bool:
    # gloo has no error class of its own; its messages begin with its source file.
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _first_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[0].rsplit("cc:", maxsplit=1)[-1].split("] ", 1)[-1].split(". ")[0]


class Crew:
    """The processes of a job over a whole recipe: the others wait while the main one does what needs only one."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def call(self, stage: str) -> None:
        """The main process asks the others to join in a stage."""
        if self._group is not None:
            dist.broadcast_object_list([stage], src=0, group=self._group)

    def follow(self, work: Callable[[str], Any]) -> None:
        """The others do what they are called to, until the main process has ended its work.

        Raises:
            AuroraError: a stage failed, as on the main process, or that is gone.
        """
        failed: AuroraError | None = None
        while stage := self._listen():
            try:
                work(stage)
            except AuroraError as error:
                failed = error  # the main process raised it too, and speaks first
        if failed is not None:
            raise failed

    def _listen(self) -> str:
        box = [""]
        try:
            dist.broadcast_object_list(box, src=0, group=self._group)
        except RuntimeError as error:
            raise LostRankError(f"rank {dist.get_rank()} lost the main process ({_first_line(error)})") from None
        return box[0]


@contextmanager
def open_crew() -> Iterator[Crew]:
    """Joins the processes torchrun started, if it did, and lets the others go at the end."""
    if world_size() == 1:
        yield Crew(None)
        return
    from .device import pick_device

    join_ranks(pick_device())
    # Curating may take days, in which the others hear nothing.
    crew = Crew(dist.new_group(backend="gloo", timeout=timedelta(days=60)))
    try:
        yield crew
    finally:
        if is_main_process():
            with suppress(RuntimeError):  # of processes that are gone
                crew.call("")
        dist.destroy_process_group()
