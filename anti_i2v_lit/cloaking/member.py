"""One surrogate at work: its draws of each photo, its references, and its losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anti_i2v_lit.cloaking.anchor import anchor_image
from anti_i2v_lit.cloaking.attack import AttackConfig
from anti_i2v_lit.cloaking.convoy import Convoy, Free
from anti_i2v_lit.cloaking.draws import PoolEntry, join, join_draws, observe, split
from anti_i2v_lit.cloaking.ensemble import WeightedSurrogate
from anti_i2v_lit.cloaking.job import PhotoJob
from anti_i2v_lit.cloaking.packing import packed, unpacked
from anti_i2v_lit.cloaking.references import ReferenceClips
from anti_i2v_lit.data.framing import Framing, View
from anti_i2v_lit.seeds import generator_for
from anti_i2v_lit.types import Draw, Observation, TapRequest

VERIFICATION = 1_000_000  # pool indices from here on are never drawn by the attack


class Member:
    """A surrogate with its terms, as one voice about photos in flight.

    Views are cut from the photo's one canvas at this surrogate's own size.

    Args:
        model: the surrogate, its name, weight and terms.
        purpose: ends the purpose of its random draws: its name, or nothing when it is alone.
        seed: seed of all randomness.
        config: the attack.
        framing: canvas to views.

    Raises:
        ValueError: no terms, a term that this surrogate cannot serve (names the surrogate), or
            reference videos that cannot be used.
    """

    def __init__(
        self,
        model: WeightedSurrogate,
        *,
        purpose: str,
        seed: int,
        config: AttackConfig,
        framing: Framing,
    ) -> None:
        self.name, self.surrogate = model.name, model.surrogate
        self.objectives = dict(model.objectives)
        self.seed, self.config, self.framing = seed, config, framing
        self._purpose = purpose
        self.request = self._asked()
        self._references: ReferenceClips | None = None
        if config.references:
            self._references = ReferenceClips(
                config.references, self.surrogate.num_frames, self.surrogate.view_size
            )
        self._anchor_seen: Observation | None = None
        self.convoy: Convoy = Free()

    def _asked(self) -> TapRequest:
        request = TapRequest()
        try:
            for objective in self.objectives.values():
                request = request | objective.taps(self.surrogate)
        except ValueError as error:
            raise ValueError(f"surrogate {self.name}: {error}") from error
        return request

    def drawn(self, job: PhotoJob) -> PoolEntry:
        """The draw of a photo's current step, out of its pool."""
        purpose = f"draw{job.attempt}{self._purpose}"
        generator = generator_for(self.seed, job.key, job.step, purpose)
        return self.entry(job, int(torch.randint(self.config.num_draws, (), generator=generator)))

    def losses(
        self, jobs: Sequence[PhotoJob], canvases: Sequence[Tensor], entries: Sequence[PoolEntry]
    ) -> dict[str, Tensor]:
        """Term -> loss per photo [B], and their weighted "total".

        Args:
            jobs: the photos.
            canvases: what to look at, [1, 3, h, w] in [0, 1] per photo.
            entries: a draw per photo.
        """
        views = self._render(canvases, [e.view for e in entries])
        draw = join_draws([e.draw for e in entries])
        cloak = observe(
            self.surrogate,
            views,
            draw,
            self.request,
            encoder_first=self.config.encoder_first,
        )
        references = {
            name: join([unpacked(e.references[name]) for e in entries])
            for name in sorted(self.request.references)
        }
        keys, step = [job.key for job in jobs], max(job.step for job in jobs)
        found: dict[str, Tensor] = {}
        for name, objective in self.objectives.items():
            found[name] = objective.loss(self.surrogate, cloak, references, keys, step)
        weights = [o.weight for o in self.objectives.values()]
        total = torch.stack([w * v for w, v in zip(weights, found.values(), strict=True)]).sum(
            dim=0
        )
        return {**found, "total": total}

    def entry(self, job: PhotoJob, number: int) -> PoolEntry:
        """The pool's entry of this number, made on first use with its references."""
        pool = job.pools[self.name].entries
        if number not in pool:
            pool[number] = self.convoy.run(
                f"entry {self.name}", lambda: self.made(job, number), lambda entry: entry
            )
        return pool[number]

    def work_ahead(self, jobs: Sequence[PhotoJob]) -> bool:
        """Make an entry that some photo has not drawn yet; False if all have all of them."""
        for job in jobs:
            pool = job.pools[self.name].entries
            for number in range(self.config.num_draws):
                if number not in pool:
                    pool[number] = self.made(job, number)
                    return True
        return False

    @torch.no_grad()
    def made(self, job: PhotoJob, number: int) -> PoolEntry:
        """A pool's entry with its references, made now."""
        size = self.surrogate.view_size
        generator = generator_for(self.seed, job.key, number, f"pool0{self._purpose}")
        if number >= VERIFICATION:
            view = self.framing.main_view(job.photo_size, size, job.faces)
        else:
            view = self.framing.draw_view(job.photo_size, size, job.faces, generator)
        clean = self._render([job.canvas], [view])
        draw = self.surrogate.draw(
            self.surrogate.encode_clip(self._clip(job, number, clean)),
            [generator],
            [self._prompt(job, number)],
            (self.config.timestep_low, self.config.timestep_high),
        )
        entry = PoolEntry(view=view, draw=draw)
        if "clean" in self.request.references:
            seen = observe(self.surrogate, clean, draw, self.request)
            entry.references["clean"] = packed(split(seen, 0))
        if "anchor" in self.request.references:
            entry.references["anchor"] = packed(self._anchor(draw))
        return entry

    def _prompt(self, job: PhotoJob, number: int) -> str:
        """The text of a draw: drawn with it, and in turn where photos are judged."""
        texts = self.config.texts_for(job.caption)
        return texts[self._chosen(len(texts), job, number, "prompt")]

    def _clip(self, job: PhotoJob, number: int, clean: Tensor) -> Tensor:
        """The reference clip [1, F, 3, H, W] of a draw: a video's, or the clean view still."""
        videos = self._references
        if videos is None:
            return clean[:, None].expand(-1, self.surrogate.num_frames, -1, -1, -1)
        return videos.clip(self._chosen(len(videos), job, number, "reference")).to(clean)

    def _chosen(self, count: int, job: PhotoJob, number: int, what: str) -> int:
        """One of `count` for a draw; in turn where photos are judged."""
        if number >= VERIFICATION:
            return (number - VERIFICATION) % count
        generator = generator_for(self.seed, job.key, number, f"{what}{self._purpose}")
        return int(torch.randint(count, (), generator=generator))

    def prepare_prompts(self, jobs: Sequence[PhotoJob]) -> None:
        """Embed the texts of photos together, before the first of them is needed."""
        texts = [text for job in jobs for text in self.config.texts_for(job.caption)]
        self.surrogate.prepare_prompts(texts)

    def _render(self, canvases: Sequence[Tensor], views: Sequence[View]) -> Tensor:
        size = self.surrogate.view_size
        return torch.cat(
            [
                self.framing.render(canvas, view, size)
                for canvas, view in zip(canvases, views, strict=True)
            ]
        )

    @torch.no_grad()
    def look_at_anchor(self) -> None:
        """Encode the anchor image, if a term needs it and it was not done yet."""
        if self._anchor_seen is not None or "anchor" not in self.request.references:
            return
        surrogate = self.surrogate
        views = anchor_image(self.config.anchor, *surrogate.view_size).to(surrogate.device)
        if surrogate.noises_photos:
            self._anchor_seen = Observation(views=views)  # its condition belongs to a draw
            return
        condition = surrogate.condition(
            views, self.request.encoder, embedding=self.request.needs_denoiser
        )
        self._anchor_seen = split(Observation(views=views, condition=condition), 0)

    def _anchor(self, draw: Draw) -> Observation:
        """The anchor image at a draw; its condition is computed once if no draw changes it."""
        request, surrogate = self.request, self.surrogate
        self.look_at_anchor()
        known = self._anchor_seen
        assert known is not None
        if known.condition is None:
            return split(observe(surrogate, known.views, draw, request), 0)
        if not request.needs_denoiser:
            return known
        denoised = surrogate.denoise(known.condition, draw, request.denoiser, request.prediction)
        whole = Observation(views=known.views, condition=known.condition, denoised=denoised)
        return split(whole, 0)
