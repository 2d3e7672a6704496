"""`anti-i2v submit array|nodes|evaluate|chain ... --out DIR [--site FILE] [--dry-run]`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from anti_i2v_lit.slurm.jobs import TEMPLATES, Job
from anti_i2v_lit.slurm.site import Site

KINDS = ("array", "nodes", "evaluate", "chain")
# Option -> its default, and the kinds of jobs that it says something about.
_ONLY_FOR: dict[str, tuple[object, tuple[str, ...]]] = {
    "parts": (1, ("array", "chain")),
    "max_running": (0, ("array", "chain")),
    "nodes": (1, ("nodes",)),
    "shards": (None, ("chain",)),
    "source_kind": ("photos", ("chain",)),
    "evaluate": ("", ("evaluate", "chain")),
    "config": (None, ("array", "nodes", "chain")),
    "out_format": (None, ("array", "nodes", "chain")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument(
        "kind",
        choices=KINDS,
        help="array: a job array over shards; nodes: one job over several nodes; evaluate: look at "
        "a folder that is complete; chain: shards, then an array, then an evaluation",
    )
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTOS",
        help="as for `cloak` (for a chain: as for `shard`), and section.field=value",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder of the cloaks")
    parser.add_argument("--site", type=Path, help="YAML file; slurm/site.yaml is an example")
    parser.add_argument("--dry-run", action="store_true", help="show the scripts, submit nothing")
    parser.add_argument(
        "--parts", type=int, default=_default("parts"), help="array, chain: tasks of the array"
    )
    parser.add_argument(
        "--max-running",
        type=int,
        default=_default("max_running"),
        help="array, chain: tasks at a time; 0: all",
    )
    parser.add_argument(
        "--nodes", type=int, default=_default("nodes"), help="nodes: number of nodes"
    )
    parser.add_argument("--shards", type=Path, help="chain: folder of the shards")
    parser.add_argument(
        "--source-kind", default=_default("source_kind"), help="chain: `shard --kind`"
    )
    parser.add_argument(
        "--evaluate",
        default=_default("evaluate"),
        metavar="COMMAND",
        help="evaluate, chain: words of anti-i2v; default: verify the folder",
    )
    parser.add_argument("--config", type=Path, help="as for `cloak`")
    parser.add_argument("--out-format", choices=("shards", "folder"), help="as for `cloak`")
    parser.add_argument("--templates", type=Path, default=TEMPLATES, help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Render and submit, or show; 1 (by ValueError) without a SLURM that answers."""
    from anti_i2v_lit.slurm.jobs import render
    from anti_i2v_lit.slurm.site import read_site
    from anti_i2v_lit.slurm.submit import submit

    site = read_site(arguments.site) if arguments.site is not None else Site()
    folder = arguments.out / ".anti_i2v" / "slurm"
    jobs = jobs_of(arguments, site)
    scripts = [
        (folder / f"{job.template}.sbatch", render(job, site, folder, arguments.templates))
        for job in jobs
    ]
    if arguments.dry_run:
        for path, text in scripts:
            print(f"# ---- {path}\n{text}")
        return 0
    done = submit(scripts)
    for job in done:
        print(f"job {job.job_id}: {job.script}")
    print(f"logs: {folder / 'logs'}")
    print(f"follow with: anti-i2v status {shlex.quote(str(arguments.out))}")
    print(f"stop with: scancel {' '.join(job.job_id for job in done)}")
    return 0


def jobs_of(arguments: argparse.Namespace, site: Site) -> list[Job]:
    """The jobs that a command line asks for.

    Raises:
        ValueError: something is missing, would be left out, or does not fit the site.
    """
    from anti_i2v_lit.slurm.jobs import array_job, chain_jobs, evaluate_job, nodes_job

    _check_options(arguments)
    words, out, options = arguments.photos, arguments.out, cloak_options(arguments)
    command = shlex.split(arguments.evaluate)
    if arguments.kind == "evaluate":
        if words:
            raise ValueError(
                f"evaluate: {shlex.join(words)} would be left out; name the whole command: "
                f'--evaluate "verify {shlex.quote(str(out))}"'
            )
        return [evaluate_job(command, out)]
    if not words:
        raise ValueError(f"{arguments.kind}: no photos given")
    if arguments.kind == "nodes":
        return [nodes_job(words, out, site, nodes=arguments.nodes, options=options)]
    if arguments.kind == "array":
        running = arguments.max_running
        return [
            array_job(words, out, site, parts=arguments.parts, max_running=running, options=options)
        ]
    if arguments.shards is None:
        raise ValueError("chain: --shards DIR is needed, the folder that the shards are written to")
    return chain_jobs(
        words,
        out,
        site,
        shards=arguments.shards,
        kind=arguments.source_kind,
        parts=arguments.parts,
        max_running=arguments.max_running,
        command=command,
        options=options,
    )


def _default(name: str) -> object:
    return _ONLY_FOR[name][0]


def _check_options(arguments: argparse.Namespace) -> None:
    for name, (default, kinds) in _ONLY_FOR.items():
        if arguments.kind not in kinds and getattr(arguments, name) != default:
            option = "--" + name.replace("_", "-")
            raise ValueError(
                f"{arguments.kind}: {option} says nothing about such a job, only about "
                f"{', '.join(kinds)}; leave it out"
            )


def cloak_options(arguments: argparse.Namespace) -> list[str]:
    """Options that are passed on to `cloak`."""
    given = {"--config": arguments.config, "--out-format": arguments.out_format}
    return [word for k, v in given.items() if v is not None for word in (k, str(v))]
