"""Job scripts: the templates of `slurm/` with a site's settings and a job's arguments filled in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anti_i2v_lit.slurm.parts import list_shards
from anti_i2v_lit.slurm.site import Site

TEMPLATES = Path(__file__).parents[2] / "slurm"
_SITE_MARK, _SETUP_MARK = "#@SITE@\n", "#@SETUP@\n"
_DECIDED_BY_SLURM = ("trainer.devices=", "trainer.num_nodes=")
# First parts of the overrides of `cloak`; all other overrides belong to `shard`. They are written
# out because the settings themselves need torch, which login nodes may lack.
CLOAK_FIELDS = frozenset(
    ("seed", "surrogates", "space", "objectives", "attack", "ensemble", "framing", "faces")
    + ("gate", "reading", "output", "strategy", "trainer")
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job script to be.

    Attributes:
        template: name of the template without its suffix.
        arguments: words of the script's command.
        options: options of sbatch beyond the site's.
        setup: shell lines beyond the site's.
    """

    template: str
    arguments: Sequence[str]
    options: Sequence[str] = ()
    setup: Sequence[str] = field(default=())

    @property
    def log_name(self) -> str:
        """File name of its output, in sbatch's notation."""
        return (
            f"{self.template}-%A_%a.out" if self.template == "array" else f"{self.template}-%j.out"
        )


def array_job(
    words: Sequence[str],
    out: Path,
    site: Site,
    *,
    parts: int,
    max_running: int = 0,
    options: Sequence[str] = (),
    shards_exist: bool = True,
) -> Job:
    """A job array over ranges of shards.

    Args:
        words: shards and overrides.
        out: folder of the cloaks.
        site: the cluster.
        parts: tasks of the array.
        max_running: tasks at a time; 0: all.
        options: further words of `cloak`.
        shards_exist: whether the shards are there already, so that they can be counted.

    Raises:
        ValueError: more tasks than shards, no shards, or devices that SLURM decides.
    """
    _check_words(words)
    if parts < 1:
        raise ValueError(f"--parts must be at least 1, got {parts}")
    if shards_exist:
        count = len(list_shards([word for word in words if not _is_override(word)]))
        if parts > count:
            raise ValueError(
                f"--parts {parts} is more than the {count} shards: the other tasks would have "
                f"nothing to do; take --parts {count} or fewer"
            )
    running = f"%{max_running}" if max_running else ""
    return Job(
        template="array",
        arguments=[*words, "--out", str(out), *options],
        options=[f"--array=0-{parts - 1}{running}", *_layout(1, site)],
        setup=[f"export ANTI_I2V_PARTS={parts}"],
    )


def nodes_job(
    words: Sequence[str], out: Path, site: Site, *, nodes: int, options: Sequence[str] = ()
) -> Job:
    """One job over several nodes.

    Raises:
        ValueError: no nodes, or devices that SLURM decides.
    """
    _check_words(words)
    if nodes < 1:
        raise ValueError(f"--nodes must be at least 1, got {nodes}")
    arguments = [*words, "--out", str(out), *options]
    return Job(template="nodes", arguments=arguments, options=_layout(nodes, site))


def evaluate_job(command: Sequence[str], out: Path) -> Job:
    """An evaluation of a folder that is complete.

    Args:
        command: words of `anti-i2v`; none: verify the folder.
        out: folder of the cloaks.
    """
    words = list(command) or ["verify", str(out)]
    return Job(template="evaluate", arguments=[str(out), *words], options=["--nodes=1"])


def shard_job(words: Sequence[str], shards: Path, kind: str) -> Job:
    """A job that makes shards.

    Args:
        words: sources and overrides of `anti-i2v shard`.
        shards: folder of the shards.
        kind: what the sources are.
    """
    arguments = [*words, "--kind", kind, "--out", str(shards)]
    return Job(template="shard", arguments=arguments, options=["--nodes=1"])


def chain_jobs(
    words: Sequence[str],
    out: Path,
    site: Site,
    *,
    shards: Path,
    kind: str,
    parts: int,
    max_running: int = 0,
    command: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[Job]:
    """Shards, cloaks and an evaluation, one after the other.

    Args:
        words: sources, and overrides of `shard` and `cloak`.
        out: folder of the cloaks.
        site: the cluster.
        shards: folder of the shards.
        kind: what the sources are.
        parts: tasks of the array of cloaks.
        max_running: as for `array_job`.
        command: words of the evaluation.
        options: further words of `cloak`.
    """
    for_cloak = [w for w in words if _is_override(w) and _belongs_to_cloak(w)]
    for_shard = [word for word in words if word not in for_cloak]
    pattern = str(shards / "*.tar")
    cloak = array_job(
        [pattern, *for_cloak],
        out,
        site,
        parts=parts,
        max_running=max_running,
        options=options,
        shards_exist=False,
    )
    index = shlex.quote(str(shards / "index.json"))
    # A dependency on a job that SLURM has forgotten counts as fulfilled: look at the result.
    check = (
        f"test -s {index} || {{ echo {index} is missing: the shards are not whole >&2; exit 1; }}"
    )
    cloak = Job(
        template=cloak.template,
        arguments=cloak.arguments,
        options=cloak.options,
        setup=[*cloak.setup, check],
    )
    return [shard_job(for_shard, shards, kind), cloak, evaluate_job(command, out)]


def render(job: Job, site: Site, folder: Path, templates: Path = TEMPLATES) -> str:
    """The script of a job.

    Args:
        job: the job.
        site: the cluster.
        folder: folder of scripts; output goes to `logs` below it.
        templates: folder of the templates.

    Raises:
        ValueError: the template is missing or lacks a mark.
    """
    path = templates / f"{job.template}.sbatch"
    if not path.is_file():
        raise ValueError(
            f"{path} is missing: submit from a checkout of the project, or give --templates DIR "
            "with its slurm/ folder"
        )
    text = path.read_text(encoding="utf-8")
    if text.count(_SITE_MARK) != 1 or text.count(_SETUP_MARK) != 1:
        raise ValueError(
            f"{path} must hold the lines {_SITE_MARK.strip()} and {_SETUP_MARK.strip()}"
        )
    options = [*site.sbatch_options(), *job.options, _output(folder, job)]
    directives = "".join(f"#SBATCH {option}\n" for option in options)
    lines = [*site.setup_lines(), *job.setup, f"set -- {shlex.join(job.arguments)}"]
    text = text.replace(_SITE_MARK, directives)
    return text.replace(_SETUP_MARK, "".join(f"{line}\n" for line in lines))


def _output(folder: Path, job: Job) -> str:
    """The option that names the job's output.

    Raises:
        ValueError: sbatch has no way to write this folder's name.
    """
    logs = str(folder.absolute() / "logs")
    if "\\" in logs or "\n" in logs:
        raise ValueError(
            f"{logs!r}: SLURM cannot write output to a folder with a backslash or a line break in "
            "its name; give another --out"
        )
    path = f"{logs.replace('%', '%%')}/{job.log_name}"
    if all(letter.isalnum() or letter in "/._-%" for letter in path):
        return f"--output={path}"
    quoted = path.replace('"', '\\"')
    return f'--output="{quoted}"'


def _layout(nodes: int, site: Site) -> list[str]:
    return [f"--nodes={nodes}", f"--ntasks-per-node={site.processes_per_node}"]


def _is_override(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and "/" not in name and not Path(word).exists()


def _belongs_to_cloak(word: str) -> bool:
    return word.partition("=")[0].partition(".")[0] in CLOAK_FIELDS


def _check_words(words: Sequence[str]) -> None:
    for word in words:
        if word.startswith(_DECIDED_BY_SLURM):
            raise ValueError(
                f"{word}: SLURM decides this; set tasks_per_node and gpus_per_node in the site "
                "file, and --nodes"
            )
