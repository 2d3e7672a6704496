"""`anti-i2v`: one verb per file; this file finds the verb and turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from anti_i2v_lit import __version__
from anti_i2v_lit.slurm.environment import slurm_task
from anti_i2v_lit.slurm.requeue import leave
from anti_i2v_lit.slurm.signals import REQUEST

VERBS = {
    "cloak": "cloak photos into a folder",
    "demo": "cloak the bundled portrait and show what the embedded generator makes of it",
    "shard": "turn photo folders, CelebV-Text or UCF101 into tar shards",
    "plan": "dry run: what would be cloaked, what refused, how long, how much memory and disk",
    "submit": "cloak on a SLURM cluster: job arrays, several nodes, chains of jobs",
    "status": "how far a folder of cloaks is",
    "verify": "check a folder of cloaks against its manifest and the originals",
    "list": "what is registered: surrogates, spaces, objectives, purifications, metrics",
    "evaluate": "prove it: clips of photos and cloaks, judged, before and after purification",
    "layers": "choose taps for a surrogate by what its blocks see",
    "doctor": "check the environment: packages, devices, weights",
    "bench": "speed and memory beside a plain loop; full models with random weights",
    "table": "re-make the protection and ablation tables of the docs",
}


def build_parser(verb: str | None) -> argparse.ArgumentParser:
    """The parser, with the arguments of one verb only, so that the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="anti-i2v",
        description="Cloak photos against image-to-video deepfakes.",
        epilog="Exit codes: 0 all done, 1 usage or configuration, 2 some photos failed or were "
        "refused, 3 interrupted and resumable.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        child = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == verb:
            importlib.import_module(f"anti_i2v_lit.cli.{name}_verb").add_arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    task = slurm_task()
    if task is not None:
        REQUEST.install()  # SLURM's warning may come while torch is being imported
    words = list(sys.argv[1:] if argv is None else argv)
    verb = next((w for w in words if w in VERBS), None)
    try:
        arguments = _parse(build_parser(verb), words)
    except SystemExit as stop:
        return 0 if stop.code in (0, None) else 1
    module = importlib.import_module(f"anti_i2v_lit.cli.{arguments.verb}_verb")
    try:
        code: int = module.run(arguments)
    except BrokenPipeError:
        return 0
    except (ValueError, OSError) as error:
        print(f"anti-i2v {arguments.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"anti-i2v {arguments.verb}: interrupted", file=sys.stderr)
        code = 3
    if code == 3 and task is not None:
        leave(task, REQUEST.received)
    return code


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parse, and let photos and overrides stand after options too (argparse does not)."""
    arguments, rest = parser.parse_known_args(words)
    late = [word for word in rest if not word.startswith("-")]
    words_of = "overrides" if "overrides" in arguments else "photos"
    if len(late) < len(rest) or (rest and words_of not in arguments):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        setattr(arguments, words_of, [*getattr(arguments, words_of), *late])
    return arguments


if __name__ == "__main__":
    sys.exit(main())
