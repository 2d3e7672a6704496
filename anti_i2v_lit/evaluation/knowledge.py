"""Which models computed a folder's cloaks: what its manifest says, what the user says, or nobody.

Both are believed: what one of them says adds to the other, and removes nothing. A generator whose
model took part is white-box, any other held-out. Where nobody says which models took part, as for
the folder of another tool, it is "unknown": a white-box result cannot be excluded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED, folder_objections
from anti_i2v_lit.checks import did_you_mean
from anti_i2v_lit.evaluation.facts import knowledge_of
from anti_i2v_lit.evaluation.matching import BY_BOTH, BY_USER, Matched
from anti_i2v_lit.evaluation.model_files import are_comparable, share_weights, weight_files
from anti_i2v_lit.generators import GENERATORS

OTHER = "other"  # a model that is none of those registered here
ROUND_TRIP = "vae"  # a cloak may be computed through the autoencoder of any model

Nodes = Mapping[str, Mapping[str, Any]]


def with_statements(
    matched: Sequence[Matched], stated: Mapping[str, Sequence[str]], generators: Nodes
) -> tuple[Matched, ...]:
    """Protections with the models of their manifests and those that the user names.

    Args:
        matched: as their folders say.
        stated: name of a protection -> words: a generator's label, the name of a packaged model,
            `name` or `name:path` of a registered one, or "other" for a model of another class.
        generators: label -> {name, <fields>}.

    Raises:
        ValueError: an unknown protection or model, with the nearest known one, or a folder that
            is no checkpoint of the class of models that the user says.
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
    models = [_model(word, generators) for word in words]
    both = tuple(dict.fromkeys((*matched.surrogates, *models)))
    if not words or (matched.told_by and both == matched.surrogates):
        return matched
    told_by = BY_BOTH if matched.told_by else BY_USER
    return replace(matched, surrogates=both, told_by=told_by)


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
        _check_folder(name, path)
        return f"{name}:{path}"
    known = [*generators, *packaged, *registered, OTHER]
    raise ValueError(
        f"surrogates: unknown model {word!r}.{did_you_mean(name, known)} Expected a generator's "
        f"label ({', '.join(generators)}), a packaged model ({', '.join(packaged)}), NAME or "
        f"NAME:PATH of {', '.join(registered)}, or {OTHER!r} for a model that is none of these"
    )


def _check_folder(name: str, path: str) -> None:
    """Refuse a path that is no folder, and a folder that is no checkpoint of a class.

    Raises:
        ValueError: with what speaks against it.
    """
    if not path or (path == EMBEDDED and name in PACKAGED):
        return
    folder = Path(path).expanduser()
    objections = folder_objections(name, folder) if folder.is_dir() else ["no such folder"]
    if objections:
        raise ValueError(
            f"surrogates: {folder} is no checkpoint of {name}: {'; '.join(objections)}. Expected "
            f"the model's folder; write {name} alone where the model is not on this machine"
        )


def white_box_of(matched: Matched, generators: Nodes) -> tuple[str, ...]:
    """Generators that computed a folder's cloaks, or may have.

    A surrogate counts if one of its weight files is the generator's. One of the generator's class
    also counts if no files are there to be compared: in doubt nothing is called held-out.
    """
    return tuple(label for label, node in generators.items() if took_part(matched.surrogates, node))


def took_part(surrogates: Collection[str], node: Mapping[str, Any]) -> bool:
    """Whether one of some models, `name:path`, is a generator's or may be.

    Args:
        surrogates: as rows name them; "vae:FOLDER" is an autoencoder that the loop ran.
        node: {name, <fields>} of the generator.
    """
    return any(_may_be(s, str(node["name"]), str(node.get("path", ""))) for s in surrogates)


def _may_be(surrogate: str, name: str, path: str) -> bool:
    """Whether a surrogate, `name:path`, can be the generator of a name and path.

    One weight file that both have is enough, whatever the other files say. Where none can be
    compared, models of one class may be the same, and an autoencoder may be anybody's.
    """
    theirs, _, their_path = surrogate.partition(":")
    given, own = weight_files(theirs, their_path), weight_files(name, path)
    if share_weights(given, own):
        return True
    if theirs == ROUND_TRIP:
        return not (given and own)
    return theirs == name and not are_comparable(given, own)


def known_pairs(matched: Sequence[Matched], generators: Nodes) -> dict[tuple[str, str], str]:
    """(generator, protection) -> what is known of the one's part in computing the other."""
    return {
        (label, m.name): knowledge_of(label, white_box_of(m, generators), m.told_by)
        for m in matched
        for label in generators
    }
