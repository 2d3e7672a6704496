"""`anti-i2v evaluate --clean DIR --cloaked [NAME=]DIR --out DIR [section.field=value ...]`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

_NAMED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9 _.+-]*)=(.+)$")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.epilog = (
        "Exit codes: 0 all fine, 1 usage, 2 some pairs failed or are no cloaks, 3 not complete: "
        "interrupted, or another run on the same --out is still working. The same command "
        "continues; where other runs work, the last one to finish writes the whole outcome."
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.field=value",
        help="settings, such as gauntlet=audit, seeds=[0,1] or trainer.devices=2",
    )
    parser.add_argument(
        "--clean",
        required=True,
        type=Path,
        metavar="DIR",
        help="the clean photos: a folder, shards, or a manifest that knows where they are",
    )
    parser.add_argument(
        "--cloaked",
        required=True,
        action="append",
        metavar="[NAME=]DIR",
        help="protected photos, ours or anybody's; may be repeated to compare protections",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of results")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument(
        "--pairs",
        action="append",
        default=[],
        metavar="[NAME=]FILE.csv",
        help="two columns, photo and protected file, where names do not tell; NAME is that of "
        "--cloaked and may be left out where only one folder has no manifest",
    )
    parser.add_argument(
        "--surrogates",
        action="append",
        default=[],
        metavar="[NAME=]MODEL,...",
        help="models that a folder was computed against, besides those of its manifest: labels of "
        "generators, packaged models such as mmdit_128, NAME or NAME:PATH as `anti-i2v list "
        "generators` has them, or other; where nobody says, a white-box result cannot be excluded",
    )


def folders(words: Sequence[str]) -> dict[str, Path]:
    """Name -> folder of `--cloaked` words; an unnamed folder is called as it is.

    Raises:
        ValueError: two with one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        named = None if Path(word).exists() else _NAMED.match(word)
        path = Path(named[2]) if named else Path(word)
        name = named[1] if named else path.absolute().name
        if name in found:
            raise ValueError(
                f"--cloaked: both {found[name]} and {path} are called {name!r}; "
                "give names of your own: --cloaked NAME=DIR"
            )
        found[name] = path
    return found


def pair_files(words: Sequence[str]) -> dict[str, Path]:
    """Name of a protection -> CSV of `--pairs` words; "" for the one without a name.

    Raises:
        ValueError: two for one name.
    """
    found: dict[str, Path] = {}
    for word in words:
        named = None if Path(word).exists() else _NAMED.match(word)
        name, path = (named[1], Path(named[2])) if named else ("", Path(word))
        if name in found:
            raise ValueError(
                f"--pairs: both {found[name]} and {path} are for {name or 'an unnamed folder'}; "
                "expected one per protection: --pairs NAME=FILE.csv"
            )
        found[name] = path
    return found


def stated_models(words: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Name of a protection -> models of `--surrogates` words.

    Args:
        words: of the command line; one without a name is that of the only protection.
        names: of all protections.

    Raises:
        ValueError: no name where several could be meant, two words for one, or no model.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        named = _NAMED.match(word)
        if named is None and len(names) != 1:
            raise ValueError(
                f"--surrogates {word}: it could belong to {' or '.join(names)}; say which with "
                f"--surrogates NAME={word}"
            )
        name, listed = (named[1], named[2]) if named else (names[0], word)
        models = [model.strip() for model in listed.split(",") if model.strip()]
        if not models or name in found:
            raise ValueError(
                f"--surrogates {word}: expected one list of models per protection, NAME=MODEL,MODEL"
            )
        found[name] = models
    return found


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print the headline and where everything is; returns the exit code."""
    from anti_i2v_lit.evaluation.settings import load_evaluation_settings
    from anti_i2v_lit.lit.evaluating import evaluate

    cloaked = folders(arguments.cloaked)
    stated = stated_models(arguments.surrogates, list(cloaked))
    settings = load_evaluation_settings(
        arguments.config, arguments.overrides, {"surrogates": stated} if stated else {}
    )
    code, outcome = evaluate(
        settings,
        clean=arguments.clean,
        cloaked=cloaked,
        out=arguments.out,
        pairs=pair_files(arguments.pairs),
    )
    if outcome is None:
        return code
    for sentence in outcome.headline:  # which may name files, whose names need not be UTF-8
        print(sentence.encode(errors="backslashreplace").decode())
    for problem in outcome.problems:
        where = " ".join(part for part in (problem.protection, problem.photo) if part)
        print(f"{problem.kind}: {where}: {problem.reason}", file=sys.stderr)
    for metric in outcome.absent:
        print(f"absent: {metric.name}: {metric.reason}", file=sys.stderr)
    print(f"results: {arguments.out}: outcome.json, {', '.join(outcome.files)}")
    if code == 3:
        print(_what_is_missing(outcome.elsewhere), file=sys.stderr)
    return code


def _what_is_missing(elsewhere: int) -> str:
    if not elsewhere:
        return "interrupted: run the same command again to continue"
    return (
        f"not complete yet: another run is still working on {elsewhere} of the photos (counted per "
        "generator); the last one to finish writes the whole outcome"
    )
