"""Counts what passes through PyTorch's dispatcher: bytes that live tensors hold, and bytes sent to other ranks.

It works alike on real tensors and on fake ones, which is how a plan is held against a run.
"""

import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .gradients import local_tensor


class Tally(TorchDispatchMode):
    """Live bytes, their peak, and what was sent, by the name of the process group, while it is entered.

    `live_bytes` counts every storage once, from the operation that made it (or `add`) to its end. `sent_bytes` are
    those this rank sends where collectives go around a ring (Patarasuk and Yuan 2009): (n - 1) / n of the whole tensor
    for all-gather and reduce-scatter over n ranks, twice that for all-reduce.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = 0
        self.sent_bytes: Counter[str] = Counter()
        self._storages: dict[int, tuple[Any, int]] = {}

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors that were there before."""
        for tensor in tensors:
            self._hold(local_tensor(tensor).untyped_storage())

    def __enter__(self) -> "Tally":
        # FSDP frees gathered weights by giving their storage no bytes, which no operation tells of.
        resize = torch.UntypedStorage.resize_

        def resized(storage: Any, size: int) -> Any:
            result = resize(storage, size)
            self._hold(storage)
            return result

        self._patch = mock.patch.object(torch.UntypedStorage, "resize_", resized)
        self._patch.start()
        return super().__enter__()  # type: ignore[return-value]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to its shards comes by
        self._send(func, args)
        result = self.call(func, args, kwargs or {})
        for tensor in result if isinstance(result, list | tuple) else (result,):
            for one in tensor if isinstance(tensor, list) else (tensor,):
                if isinstance(one, Tensor) and not one.is_meta:
                    self._hold(one.untyped_storage())
        return result

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operation."""
        return func(*args, **kwargs)

    def _hold(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        known = self._storages.get(key)
        if known is None:
            reference = weakref.ref(storage, lambda _: self._release(key))
            self._storages[key] = (reference, size)
            self.live_bytes += size
        elif known[1] != size:
            self._storages[key] = (known[0], size)
            self.live_bytes += size - known[1]
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _release(self, key: int) -> None:
        self.live_bytes -= self._storages.pop(key)[1]

    def _send(self, func: Any, args: Any) -> None:
        namespace, _, name = func.name().partition("::")
        if "c10d" not in namespace:
            return
        kind = name.partition(".")[0].strip("_")
        if kind in ("wait_tensor", "barrier", "recv", "recv_any_source"):
            return
        group = _group_of(args)
        ranks = group.size()
        share = (ranks - 1) / ranks
        first = _bytes_of(args[0])
        if kind.startswith(("allreduce", "all_reduce")):
            sent = 2 * share * first
        elif kind.startswith(("allgather_base", "allgather_into", "reduce_scatter_base")):
            # Both sides are handed over; the whole is the larger one.
            sent = share * max(first, _bytes_of(args[1]))
        elif kind.startswith("all_gather"):
            sent = (ranks - 1) * first
        else:
            sent = first if kind == "send" else share * first
        self.sent_bytes[group.group_name] += round(sent)


def _group_of(args: Any) -> Any:
    for arg in args:
        if isinstance(arg, torch.ScriptObject):
            try:
                return dist.ProcessGroup.unbox(arg)
            except RuntimeError:
                continue  # the kind of reduction
    names = [arg for arg in args if isinstance(arg, str)]
    return dist.distributed_c10d._resolve_process_group(names[-1])  # type: ignore[arg-type]


def _bytes_of(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tree_leaves(tensors) if isinstance(one, Tensor))
