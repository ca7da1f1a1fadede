"""Weak supervision (arXiv 2404.01740): captions of mixtures in place of sources nobody has.

One pass over a mixture of mixtures asks for each recording by its caption and for each sound by its phrase. What is
known is the recordings: a caption's estimate is compared with its recording (URL), the sum of a recording's phrases'
estimates with the same recording (CRL), and each phrase's estimate is heard by a frozen embedder (CNT).

Why URL and CRL alone go a long way: a prompt does not say which sound it shared its recording with. If ``Y(a) + Y(b)``
must be ``a + b`` whatever ``b`` is, and the network cannot tell which of the other sounds was a's companion, only
``Y(a) = a`` fits them all. It can once it knows the recordings by heart, which ``url_known`` and
``url_held`` in the log tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.contrastive import accuracy, bimodal_contrastive, released_contrastive
from training.ear import Heard
from training.energies import MaskEnergies
from training.losses import negative_sdr, silence, weighted_l1
from training.outcome import Outcome
from training.parallel import ALONE, Ranks
from training.parts import Parts
from training.weak_mixing import WeakBatch

RECONSTRUCTIONS = ("sdr", "l1")
CONTRASTS = ("bimodal", "released")
SCOPES = ("batch", "mixture")


@dataclass(frozen=True)
class WeakConfig:
    """How a mixture of mixtures is learned from; the losses' weights are the run's ``weak_losses``.

    ``reconstruction`` is ``sdr`` (ours) or ``l1`` (the release's) for URL and CRL; ``contrastive`` is ``bimodal``
    (ours) or ``released``. CNT, CRL and ``whole`` are off for the first ``warmup`` of the run and grow over the next
    ``ramp``.
    ``scope`` says among which prompts a prediction is named: all of the batch and ``bank`` more, or those of its own
    mixture of mixtures; ``gain`` counts similarity over the mixture's own; prompts whose cosine is over ``same`` are
    positives of each other, over ``alike`` neither positive nor negative. ``scale`` replaces the embedder's own, 0
    keeps it. ``shuffled`` names every prediction by another one's prompt: the control that must not help.
    """

    reconstruction: str = "sdr"
    contrastive: str = "bimodal"
    warmup: float = 0.2
    ramp: float = 0.2
    scope: str = "batch"
    bank: int = 64
    gain: bool = False
    same: float = 0.9
    alike: float = 0.7
    scale: float = 0.0
    colour_db: float = 0.0
    shuffled: bool = False

    def __post_init__(self) -> None:
        for name, known in (("reconstruction", RECONSTRUCTIONS), ("contrastive", CONTRASTS), ("scope", SCOPES)):
            if getattr(self, name) not in known:
                raise ValueError(f"weak.{name} must be one of {known}, got {getattr(self, name)!r}")


@dataclass(frozen=True)
class Questions:
    """A batch's prompts, row by row: N captions, then the phrases, then the absent ones, then padding.

    ``owner [B, N, Q]`` is one where a query is a phrase of a recording;
    ``absent [B, Q]`` where its sound is in none.
    """

    prompts: list[list[str]]
    owner: Tensor
    absent: Tensor

    @classmethod
    def of(cls, batch: WeakBatch, ranks: Ranks = ALONE) -> Questions:
        """Lay out the prompts; rows with fewer are padded with their first caption, which no loss looks at.

        All processes lay out alike: padding too counts in batch statistics.
        """
        n_phrases = max(ranks.gather_list([max(sum(len(part) for part in row) for row in batch.phrases)]))
        n_parts = len(batch.captions[0])
        n_absent = max(ranks.gather_list([max(len(row) for row in batch.absent)]))
        owner = torch.zeros(len(batch.captions), n_parts, n_parts + n_phrases + n_absent)
        is_absent = torch.zeros(owner.shape[0], owner.shape[2], dtype=torch.bool)
        prompts = []
        for row, (captions, parts, absent) in enumerate(zip(batch.captions, batch.phrases, batch.absent, strict=True)):
            asked = list(captions)
            for number, part in enumerate(parts):
                owner[row, number, len(asked) : len(asked) + len(part)] = 1.0
                asked += part
            is_absent[row, len(asked) : len(asked) + len(absent)] = True
            asked += absent
            prompts.append(asked + [captions[0]] * (owner.shape[2] - len(asked)))
        return cls(prompts, owner, is_absent)

    def to(self, device: torch.device) -> Questions:
        """The same questions with their tensors on a device."""
        return Questions(self.prompts, self.owner.to(device), self.absent.to(device))

    def gather(self, ranks: Ranks) -> Questions:
        """The questions of all processes."""
        return Questions(ranks.gather_list(self.prompts), ranks.gather(self.owner), ranks.gather(self.absent))


class Weak:
    """The mode of weak supervision; with the weights of URL alone it is mix-and-separate.

    ``bank`` are phrases of other recordings, from which CNT draws ``config.bank`` negatives a step.
    """

    LOSSES = ("url", "crl", "cnt", "whole", "silence")

    def __init__(self, config: WeakConfig, weights: dict[str, float], bank: Sequence[str] = ()) -> None:
        unknown = sorted(set(weights) - set(self.LOSSES))
        if unknown:
            raise ValueError(f"losses of a weak mode must be among {self.LOSSES}, got {unknown}")
        self.config, self.weights, self.bank = config, weights, bank

    def __call__(self, parts: Parts, batch: WeakBatch, progress: float) -> Outcome:
        """Learn from a batch, ``progress`` of the run done (0 to 1)."""
        ramp = min(1.0, max(0.0, (progress - self.config.warmup) / max(self.config.ramp, 1e-6)))
        asks = {
            name: weight * (ramp if name in ("crl", "cnt", "whole") else 1.0) for name, weight in self.weights.items()
        }
        wanted = {name for name, weight in asks.items() if weight > 0}
        asked = batch if wanted - {"url", "silence"} else _captions_only(batch)
        questions = Questions.of(asked, parts.ranks).to(parts.device)
        everyone = questions.gather(parts.ranks)
        mixture = torch.from_numpy(batch.mixture).to(parts.device)
        with torch.no_grad():
            spectrum, bands = parts.analysis(mixture)
            targets = parts.analysis.transform(torch.from_numpy(batch.parts).to(parts.device))
            energies = MaskEnergies(parts.analysis, spectrum, targets, parts.ranks)
        mask = parts.mask(bands, questions.prompts)
        n_parts = questions.owner.shape[1]
        terms: dict[str, Tensor] = {}
        figures: dict[str, Tensor] = {}
        if "url" in wanted:
            terms["url"] = self._reconstruction(mask[:, :n_parts], energies, bands, targets, parts, own=False)
        if wanted & {"crl", "whole"}:
            sums = torch.einsum("bnq,bqkt->bnkt", questions.owner, mask)
            if "crl" in wanted:
                complete = torch.tensor(batch.complete, dtype=torch.float32, device=parts.device)
                weight = parts.ranks.gather(complete)
                terms["crl"] = self._reconstruction(sums, energies, bands, targets, parts, own=True, weight=weight)
            if "whole" in wanted:
                rest = energies.estimate(1.0 - sums.sum(dim=1, keepdim=True))
                total = energies.mixture[:, None]
                terms["whole"] = negative_sdr(error=rest, target=total, mixture=energies.mixture)
        if "cnt" in wanted:
            heard = Heard(spectrum, bands, mixture.shape[-1])
            terms["cnt"], figures["cnt_accuracy"] = self._contrast(parts, heard, mask, everyone)
        if "silence" in wanted and everyone.absent.any():
            estimate = energies.estimate(mask)
            terms["silence"] = silence(estimate=estimate, absent=everyone.absent, mixture=energies.mixture)
        return Outcome.of(terms, asks, mask, figures)

    def _reconstruction(
        self, mask: Tensor, energies: MaskEnergies, bands: Tensor, targets: Tensor, parts: Parts, *, own: bool,
        weight: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """URL and CRL: masks ``[B, N, K, N']`` against the recordings, ``own`` weighing by the target's loudness."""
        if self.config.reconstruction == "sdr":
            return negative_sdr(
                error=energies.error(mask), target=energies.target, mixture=energies.mixture, weight=weight
            )
        with torch.no_grad():
            n_bins = parts.analysis.signal.n_bins
            power = targets.real.square() + targets.imag.square()
            amplitude = torch.sqrt(torch.matmul(parts.analysis.filters, power[:, :, :n_bins]) + 1e-12)
        value = weighted_l1(
            estimate=mask * bands[:, None], target=amplitude, loudness=amplitude if own else bands[:, None]
        )
        return parts.ranks.gather(value[None]).mean()  # a mean over rows, of which all processes have as many

    def _contrast(self, parts: Parts, heard: Heard, mask: Tensor, questions: Questions) -> tuple[Tensor, Tensor]:
        """CNT over the phrases' predictions, and the share of them that the embedder names rightly.

        ``heard`` and ``mask`` are of this process's rows, ``questions`` of all processes' rows: each listens to its own
        predictions, and all compare the vectors of all.
        """
        if parts.ear is None:
            raise ValueError("the contrastive loss needs an embedder with an audio tower, got none")
        owner, gather = questions.owner, parts.ranks.gather
        asked = owner.sum(dim=1) > 0  # [R, Q], R the rows of all processes
        rows, queries = asked.nonzero(as_tuple=True)
        prompts = [questions.prompts[row][query] for row, query in zip(rows.tolist(), queries.tolist(), strict=True)]
        first, last = int(queries.min()), int(queries.max()) + 1
        vectors = gather(parts.ear.listen(heard, mask[:, first:last]))[rows, queries - first]
        scale = self.config.scale or parts.ear.logit_scale
        if self.config.shuffled:
            prompts = [prompts[place] for place in torch.randperm(len(prompts)).tolist()]
        if self.config.contrastive == "released":
            return self._released(parts, vectors, prompts, owner, rows, queries, scale)
        texts = list(dict.fromkeys(prompts))
        if self.config.scope == "batch":
            drawn = torch.randperm(len(self.bank))[: self.config.bank].tolist()
            texts = list(dict.fromkeys([*texts, *(self.bank[place] for place in drawn)]))
        cosine = parts.prompts.similarity(prompts, texts).to(parts.device)
        positive = cosine > self.config.same
        ignored = ~positive & (cosine > self.config.alike)
        if self.config.scope == "mixture":
            here = [{p for p, r in zip(prompts, rows.tolist(), strict=True) if r == row} for row in rows.tolist()]
            ignored |= torch.tensor([[t not in names for t in texts] for names in here], device=parts.device)
            positive &= ~ignored
        text = parts.prompts.pooled_of(texts).to(parts.device)
        whole = None
        if self.config.gain:
            with torch.no_grad():
                whole = gather(parts.ear.listen(heard, torch.ones_like(mask[:, :1])))[rows, 0]
        loss = bimodal_contrastive(vectors, text, positive=positive, ignored=ignored, scale=scale, heard=whole)
        with torch.no_grad():
            named = accuracy(vectors, text, positive=positive, ignored=ignored)
        return loss, named

    def _released(
        self, parts: Parts, vectors: Tensor, prompts: list[str], owner: Tensor, rows: Tensor, queries: Tensor,
        scale: Tensor | float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The release's form: the n-th recordings of a batch have a matrix of their own."""
        text = parts.prompts.pooled_of(prompts).to(parts.device)
        places = owner[rows, :, queries].argmax(dim=1)
        loss = vectors.new_zeros(())
        for place in range(owner.shape[1]):
            mine = places == place
            loss = loss + released_contrastive(vectors[mine][None], text[mine][None], scale=scale)
        own = (vectors @ text.t()).argmax(dim=1) == torch.arange(len(prompts), device=text.device)
        return loss, own.float().mean()


def _captions_only(batch: WeakBatch) -> WeakBatch:
    """The batch without its phrases: what mix-and-separate asks, at a third of the work."""
    nothing: list[list[list[str]]] = [[[] for _ in row] for row in batch.phrases]
    return WeakBatch(batch.mixture, batch.parts, batch.captions, nothing, batch.complete, batch.absent)
