"""The cluster that computes a list of runs: how it is reached, and what may be asked of it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refine.core.errors import UserError
from refine.core.outside import first_line


@dataclass(frozen=True)
class Cluster:
    """Attributes:
    home: folder on each node for clones, checkpoints and DVC's cache; None takes the project's own.
    apart: the nodes share no file system, so that each has a folder of its own there.
    cpus: of a run, which is how many threads it takes.
    gpus: of a run.
    """

    home: Path | None = None
    apart: bool = False
    cpus: int = 1
    gpus: float = 0.0


def started() -> Any:
    """Ray, connected.

    Raises:
        UserError: it is not installed; this process has no token for a cluster, or that does not answer.
    """
    try:
        import ray
    except ImportError:
        raise UserError('Ray is not installed; type `pip install -c constraints.txt -e ".[cluster]"`') from None
    address = os.environ.get("RAY_ADDRESS") or "local"
    if address != "local" and os.environ.get("RAY_AUTH_MODE") != "token":
        raise UserError(
            "a cluster that asks for no token runs the code of anybody who reaches it; set RAY_AUTH_MODE=token here "
            "and on all nodes, see docs/cluster.md"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address, include_dashboard=False if address == "local" else None, logging_level=logging.WARNING
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"the cluster at RAY_ADDRESS={address} does not answer ({first_line(error)})") from None
    return ray


def refuse_too_much(ray: Any, cluster: Cluster) -> None:
    """Refuses what no node can give, which Ray would wait for.

    Raises:
        UserError: a run wants more processors or GPUs than a node has, or nodes do not know where to work.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for option, name, wanted in (("--cpus", "CPU", cluster.cpus), ("--gpus", "GPU", cluster.gpus)):
        most = max((node.get(name, 0) for node in nodes), default=0)
        if wanted > most:
            raise UserError(f"{option} {wanted:g} is more than any node has, which is {most:g} at most; lower it")
    if cluster.gpus > 1 and cluster.gpus != int(cluster.gpus):
        raise UserError(f"--gpus {cluster.gpus:g} is neither a share of one GPU nor a whole number; give one of them")
    if cluster.home is not None and not cluster.home.is_absolute():
        raise UserError(f"--home {cluster.home} is another folder on each node; give a path that begins with /")
