"""Which models computed a folder's cloaks: what its manifest says, what the user says, or nobody.

A generator whose model took part is white-box, any other held-out. Where nobody says which models
took part, as for the folder of another tool, it is "unknown": a white-box result cannot be
excluded.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED, model_digest
from anti_i2v_lit.checks import did_you_mean
from anti_i2v_lit.evaluation.facts import knowledge_of
from anti_i2v_lit.evaluation.matching import BY_USER, Matched
from anti_i2v_lit.generators import GENERATORS

OTHER = "other"  # a model that is none of those registered here

Nodes = Mapping[str, Mapping[str, Any]]


def with_statements(
    matched: Sequence[Matched], stated: Mapping[str, Sequence[str]], generators: Nodes
) -> tuple[Matched, ...]:
    """Protections with the models that the user says they were computed against.

    Args:
        matched: as their folders say.
        stated: name of a protection -> words: a generator's label, the name of a packaged model,
            `name` or `name:path` of a registered one, or "other" for a model of another class.
        generators: label -> {name, <fields>}.

    Raises:
        ValueError: an unknown protection or model, with the nearest known one.
    """
    names = [m.name for m in matched]
    for name in stated:
        if name not in names:
            raise ValueError(
                f"surrogates: no --cloaked is called {name!r}.{did_you_mean(name, names)} "
                f"Known: {', '.join(names)}"
            )
    return tuple(_told(m, stated.get(m.name, ()), generators) for m in matched)


def _told(matched: Matched, words: Sequence[str], generators: Nodes) -> Matched:
    if not words:
        return matched
    models = tuple(dict.fromkeys(_model(word, generators) for word in words))
    if matched.told_by:
        warnings.warn(
            f"surrogates.{matched.name} is ignored: its manifest says "
            f"{', '.join(matched.surrogates)}",
            stacklevel=4,
        )
        return matched
    both = tuple(dict.fromkeys((*matched.surrogates, *models)))
    return replace(matched, surrogates=both, told_by=BY_USER)


def _model(word: str, generators: Nodes) -> str:
    """A word of the user as `name:path`."""
    if word in generators:
        node = generators[word]
        return f"{node['name']}:{node.get('path', '')}"
    if word == OTHER:
        return OTHER
    packaged = {home: name for name, home in PACKAGED.items()}
    if word in packaged:
        return f"{packaged[word]}:{EMBEDDED}"
    registered = list(GENERATORS.targets())
    name, _, path = word.partition(":")
    if name in registered:
        return f"{name}:{path}"
    known = [*generators, *packaged, *registered, OTHER]
    raise ValueError(
        f"surrogates: unknown model {word!r}.{did_you_mean(name, known)} Expected a generator's "
        f"label ({', '.join(generators)}), a packaged model ({', '.join(packaged)}), NAME or "
        f"NAME:PATH of {', '.join(registered)}, or {OTHER!r} for a model that is none of these"
    )


def white_box_of(matched: Matched, generators: Nodes) -> tuple[str, ...]:
    """Generators that computed a folder's cloaks, or may have.

    A surrogate of the generator's class counts if their paths or files agree, and also if the
    surrogate's files are not there to be compared: in doubt nothing is called held-out.
    """
    found = []
    for label, node in generators.items():
        path = str(node.get("path", ""))
        digest = model_digest(str(node["name"]), path)
        for surrogate in matched.surrogates:
            name, _, other = surrogate.partition(":")
            theirs = model_digest(name, other)
            if name == node["name"] and (other == path or theirs in ("", digest)):
                found.append(label)
                break
    return tuple(found)


def known_pairs(matched: Sequence[Matched], generators: Nodes) -> dict[tuple[str, str], str]:
    """(generator, protection) -> what is known of the one's part in computing the other."""
    return {
        (label, m.name): knowledge_of(label, white_box_of(m, generators), m.told_by)
        for m in matched
        for label in generators
    }
