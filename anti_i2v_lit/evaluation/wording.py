"""What an outcome says in words: the definition of "protected", the headline, the versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence

from anti_i2v_lit import __version__
from anti_i2v_lit.evaluation.facts import UNKNOWN
from anti_i2v_lit.evaluation.outcome import ALL_TIERS, Outcome, Threshold, WorstCase
from anti_i2v_lit.evaluation.plan import Plan

PACKAGES = ("torch", "torchvision", "diffusers", "lightning", "lpips", "safetensors", "numpy")


def versions() -> dict[str, str]:
    """Package -> version of what figures depend on."""
    found = {"anti-i2v-lit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def definition(plan: Plan, thresholds: Sequence[Threshold]) -> tuple[str, ...]:
    """What "protected" and "weakened" mean with these settings, sentences."""
    share = plan.settings.noise.quantile
    networks = tuple(dict.fromkeys(t.figure.split("_")[0] for t in thresholds))
    decided = f"; for each of the face networks that decide: {', '.join(networks)}"
    cuts = [f"{t.value:.3f} for {t.figure}, {t.generator} ({t.method})" for t in thresholds]
    network = (
        "Thresholds (cosine): " + "; ".join(cuts) + "."
        if cuts
        else "No face network was at hand, so nothing can count as protected, only as weakened."
    )
    return (
        "Protected after a purification: the similarity of the generated face to the photo falls "
        f"by more than random noise of the same size makes it fall (at most {share:.0%} of clips "
        "under noise fall further), and not one clip, over all prompts and seeds, reaches the "
        f"threshold that tells the person from other people{decided if networks else ''}. "
        "Frames without a face count as similarity 0.",
        "Weakened: the first of the two only. A photo's verdict is that of its worst purification. "
        "A purification after which the clean photo's own clips do not reach the threshold says "
        "nothing and is left out. A photo with missing clips is not judged, unless the others "
        "already show that it is not protected.",
        network,
        "Nothing is claimed beyond the purifications, generators, prompts and seeds listed here.",
    )


def headline(outcome: Outcome) -> tuple[str, ...]:
    """The result in a few sentences, in the order of `KNOWLEDGE`; what may be no cloak is first."""
    found, pairs = [], {p.name: p.num_pairs for p in outcome.protections}
    for case in outcome.worst:
        if case.tier != ALL_TIERS:
            continue
        share, changed = case.share_protected, case.share_changed
        interval = "" if share.low != share.low else f" [{share.low:.0%}, {share.high:.0%}]"
        left = max(0, pairs.get(case.protection, share.count) - share.count)
        found.append(
            f"{case.protection}, {_who(case)}: "
            f"{share.mean:.0%}{interval} of {share.count} photos are protected "
            f"{_after(outcome, case.purifications)}, {changed.mean:.0%} change more than "
            "under noise of equal size "
            f"({case.counts.prompts} prompts, {case.counts.seeds} seeds; photos with missing clips "
            f"count as not protected; {left} photos could not be judged and are left out)."
            if share.count
            else f"{case.protection}, {_who(case)}: nothing could be judged."
        )
    swapped = [p for p in outcome.problems if p.kind == "swapped"]
    if swapped:
        found.insert(
            0,
            f"{len(swapped)} file(s) are not cloaks of their photos: "
            + "; ".join(f"{p.photo} ({p.reason})" for p in swapped[:5]),
        )
    faint = [p for p in outcome.problems if p.kind == "faint"]
    if faint:
        found.insert(
            0,
            f"{len(faint)} file(s) look like the originals, resized or saved again, and were "
            "judged as cloaks: "
            + ", ".join(p.photo for p in faint[:5])
            + ("." if len(faint) < 6 else "…"),
        )
    return tuple(found)


def _after(outcome: Outcome, purifications: Sequence[str]) -> str:
    """Where a claim holds: the untouched file is no purification."""
    real = [p.label for p in outcome.purifications if p.name and p.label in purifications]
    if not real:
        return "as long as the file is left as it is"
    untouched = "untouched and " if len(real) < len(purifications) else ""
    return (
        f"{untouched}after every one of {len(real)} purifications{outcome.distinct(real)} that "
        "leaves the person in the clean photo's clips"
    )


def _who(case: WorstCase) -> str:
    """The generator, and what is known of its part in computing the cloak."""
    if case.knowledge == UNKNOWN:
        return (
            f"generator {case.generator} (nobody says which models computed the cloaks, so a "
            "white-box result cannot be excluded)"
        )
    return f"{case.knowledge} generator {case.generator}"
