"""While a run goes on: a cheap probe of where its update lies, and an alarm for a policy that collapses."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlvr_lite.analysis._spectrum_base import cached_decompose
from rlvr_lite.analysis._spectrum_update import Update
from rlvr_lite.errors import UserError

__all__ = ["CollapseAlarm", "ProbeBase", "SpectrumProbe", "probe_base"]

_EXACT_BELOW = 512
_OVERSAMPLE = 16
#: Metrics that are finite numbers wherever they are logged, as long as the policy's weights are.
_ALWAYS_NUMBERS = ("entropy", "completions/mean_length", "completions/clipped_ratio", "spectrum/relative_norm")


@dataclass(frozen=True)
class ProbeBase:
    """The outer tenths of one base weight's singular vectors, k of min(out, in), fp32; of a vector only its norm.

    Attributes:
        norm: Frobenius norm of W.
        right_top: leading right singular vectors ``[in, k]``.
        left_top: leading left singular vectors ``[out, k]``.
        right_bottom: trailing ones, ``None`` for a large weight, whose trailing vectors are not computed.
        left_bottom: likewise.
    """

    norm: float
    right_top: Tensor | None = None
    left_top: Tensor | None = None
    right_bottom: Tensor | None = None
    left_bottom: Tensor | None = None


def probe_base(weight: Tensor, cache: Path | None = None) -> ProbeBase:
    """Prepare one base weight ``[out, in]`` or ``[n]`` for :class:`SpectrumProbe`, on the CPU.

    Exact where the shorter side is at most 512; else the leading tenth by the randomised method. fp32 vectors make the
    energies exact to about 1e-6.
    """
    if weight.ndim == 1:
        return ProbeBase(float(weight.detach().double().norm().item()))
    size = min(weight.shape)
    k, last = max(1, round(size / 10)), min(size - 1, round(9 * size / 10))  # the first and last of ten bins
    base = cached_decompose(weight, cache, rank=None if size <= _EXACT_BELOW else k + _OVERSAMPLE)
    exact = weight.detach().cpu().to(torch.float64)
    usable = torch.where(base.usable(), base.values, torch.inf).cpu()

    def both(columns: slice) -> tuple[Tensor, Tensor]:
        short = base.basis[:, columns].cpu()
        long = (exact @ short if base.short == "right" else exact.T @ short) / usable[columns]
        right, left = (short, long) if base.short == "right" else (long, short)
        return right.float().contiguous(), left.float().contiguous()

    top = both(slice(0, k))
    bottom = both(slice(last, size)) if base.exact else (None, None)
    return ProbeBase(base.norm, top[0], top[1], bottom[0], bottom[1])


class SpectrumProbe:
    """Energy of an update in the outer tenths of the base's spectrum, cheap enough to follow during training.

    For dW = scale * B A and leading right vectors V: |dW V|_F^2 = scale^2 <B'B, (A V)(A V)'>, so nothing larger than
    an r x r matrix is made beside A V and B'U. No decomposition is computed here.

    Args:
        bases: by module name, from :func:`probe_base`.
        every: steps between two measurements.
    """

    def __init__(self, bases: Mapping[str, ProbeBase], every: int = 10):
        if every < 1:
            raise UserError(f"the spectral probe measures every n >= 1 steps, got {every}")
        self.bases = dict(bases)
        self.every = every

    def due(self, step: int) -> bool:
        """Whether this step is one of those measured."""
        return step % self.every == 0

    def measure(self, updates: Iterable[Update]) -> dict[str, float]:
        """Averages over the matrices that have a base here; JSON-able, for one line of metrics.

        Args:
            updates: what training added to each matrix so far.

        Raises:
            UserError: no matrix has a base here.

        Returns:
            ``spectrum/top_right``, ``top_left``, ``bottom_right``, ``bottom_left``: energy over that of a random update
            (1 is random), absent while the update is zero, the bottom also where a base does not hold it;
            ``spectrum/relative_norm``: mean of |dW|_F / |W|_F; ``spectrum/seconds``: what this call took.
        """
        start = time.perf_counter()
        found: list[tuple[Tensor, float, Energies]] = []
        for update in updates:
            base = self.bases.get(update.name)
            if base is not None:
                total, energies = _low_rank(update, base) if update.factors is not None else _dense(update, base)
                found.append((total, base.norm, energies))
        if not found:
            raise UserError("the spectral probe knows none of the trained modules: build its bases from the same model")
        totals = torch.stack([total for total, _, _ in found]).clamp(min=0)
        norms = torch.tensor([norm for _, norm, _ in found], dtype=torch.float64)
        result = {"spectrum/relative_norm": float((totals.sqrt() / norms).mean().item())}
        moved = totals > 0
        for name in found[0][2]:
            if bool(moved.any()) and all(name in energies for _, _, energies in found):
                energy = torch.stack([energies[name][0] for _, _, energies in found])[moved] / totals[moved]
                expected = torch.tensor([energies[name][1] for _, _, energies in found], dtype=torch.float64)[moved]
                result[f"spectrum/{name}"] = float((energy.sum() / expected.sum()).item())
        result["spectrum/seconds"] = time.perf_counter() - start
        return result


Energies = dict[str, tuple[Tensor, float]]


def _pieces(base: ProbeBase) -> Iterable[tuple[str, Tensor]]:
    for name in ("right_top", "left_top", "right_bottom", "left_bottom"):
        vectors: Tensor | None = getattr(base, name)
        if vectors is not None:
            side, end = name.split("_")
            yield f"{end}_{side}", vectors


def _low_rank(update: Update, base: ProbeBase) -> tuple[Tensor, Energies]:
    assert update.factors is not None
    b, a, scale = update.factors
    b, a = b.detach().to("cpu", torch.float32), a.detach().to("cpu", torch.float32)
    b_gram, a_gram = (b.T @ b).double() * scale**2, (a @ a.T).double() * scale**2
    energies: Energies = {}
    for name, vectors in _pieces(base):
        inside = a @ vectors if name.endswith("right") else b.T @ vectors
        other = b_gram if name.endswith("right") else a_gram
        energies[name] = ((other * (inside @ inside.T).double()).sum(), vectors.shape[1] / vectors.shape[0])
    return (b_gram * a_gram).sum() / scale**2, energies


def _dense(update: Update, base: ProbeBase) -> tuple[Tensor, Energies]:
    assert update.dense is not None
    change = (update.dense() if callable(update.dense) else update.dense).detach().to("cpu", torch.float32)
    energies: Energies = {}
    for name, vectors in _pieces(base):
        inside = change @ vectors if name.endswith("right") else change.T @ vectors
        energies[name] = ((inside.double() ** 2).sum(), vectors.shape[1] / vectors.shape[0])
    return (change.double() ** 2).sum(), energies


class CollapseAlarm:
    """Says when a run has collapsed, and what it saw; a pure function of the metrics it was shown, in order.

    The reward counts as fallen when the mean over the last ``window`` steps lies below the best such mean so far by
    more than eight standard errors. The alarm rises when a fallen reward lost more than half of its best, or more
    than a fifth while something else went wrong too: entropy or length above twice their start, more completions
    cut off, energy moving to the base's leading directions, or an update larger than the weights. A collapse within
    the first window is one where no reward of a whole window reaches half of the first step's and something else went
    wrong since that step. A reward that never rose raises it only if the entropy explodes (five times its start).
    After a resume, show it the earlier rows again.

    Args:
        window: steps averaged.

    >>> alarm = CollapseAlarm(window=5)
    >>> said = [alarm.see({"step": i, "reward": 0.6 if i < 20 else 0.1}) for i in range(30)]
    >>> next(sentence for sentence in said if sentence)
    'reward fell from 0.60 (its best, up to step 4) to 0.10 (last 5 steps, up to step 24)'
    """

    def __init__(self, window: int = 10):
        if window < 3:
            raise UserError(f"the collapse alarm needs a window of at least 3 steps, got {window}")
        self.window = window
        self._recent: dict[str, deque[float]] = {}
        self._first: dict[str, float] = {}
        self._start: dict[str, float] = {}
        self._best: tuple[float, float, int] | None = None  # mean, squared standard error, step
        self._energy: dict[str, tuple[float, float]] = {}  # first and latest
        self._steps = 0

    def see(self, metrics: Mapping[str, Any]) -> str | None:
        """Take the metrics of one step; return a sentence if the policy has collapsed, else ``None``.

        Reads ``reward``, ``entropy``, ``completions/mean_length``, ``completions/clipped_ratio``, ``spectrum/top_right``,
        ``spectrum/top_left``, ``spectrum/relative_norm`` and ``step``, as far as they are there. What is there but
        ``None`` (as JSON has it) or NaN was not a number; a row without a reward (evaluation, or no reward was valid)
        only updates the energies.
        """
        for key in ("spectrum/top_right", "spectrum/top_left", "spectrum/relative_norm"):
            if _is_number(metrics.get(key)):
                first = self._energy.get(key, (metrics[key],))[0]
                self._energy[key] = (first, metrics[key])
        step = int(metrics.get("step", self._steps))
        broken = next((key for key in _ALWAYS_NUMBERS if key in metrics and not _is_number(metrics[key])), None)
        if broken is not None:
            return f"{broken} is not a finite number at step {step}"
        if not _is_number(metrics.get("reward")):
            return None
        self._steps += 1
        for key in ("reward", "entropy", "completions/mean_length", "completions/clipped_ratio"):
            if key in metrics:
                recent = self._recent.setdefault(key, deque(maxlen=self.window))
                recent.append(float(metrics[key]))
                self._first.setdefault(key, recent[0])
                if len(recent) == self.window:
                    self._start.setdefault(key, _mean(recent))
        return self._judge(step)

    def _judge(self, step: int) -> str | None:
        recent = self._recent["reward"]
        if len(recent) < self.window:
            return None
        now, error = _mean(recent), _squared_error(recent)
        if self._best is None or now > self._best[0]:
            self._best = (now, error, step)
        best, best_error, best_step = self._best
        signs, when = self._signs(self._start), f"(last {self.window} steps, up to step {step})"
        fallen = best - now > 8 * math.sqrt(error + best_error)
        if fallen and (best - now > abs(best) / 2 or (best - now > abs(best) / 5 and signs)):
            seen = f"reward fell from {best:.2f} (its best, up to step {best_step}) to {now:.2f} {when}"
            return ", ".join([seen, *signs])
        first = self._first["reward"]
        early = self._signs(self._first)
        if early and first - max(recent) > abs(first) / 2:
            return ", ".join([f"reward fell from {first:.2f} (first step) to {now:.2f} {when}", *early])
        entropy = self._grown("entropy", 5.0, self._start)
        if entropy and now <= self._start["reward"]:
            return f"{entropy} by step {step} and the reward ({now:.2f}) is no better than at the start"
        return None

    def _signs(self, start: Mapping[str, float]) -> list[str]:
        """What else went wrong since the start, in words."""
        found = [self._grown("entropy", 2.0, start), self._grown("completions/mean_length", 2.0, start)]
        cut = self._recent.get("completions/clipped_ratio")
        if cut and len(cut) == self.window and _mean(cut) > 0.5 + start["completions/clipped_ratio"] / 2:
            found.append(f"{_mean(cut):.0%} of the completions were cut off")
        for key, (first, latest) in self._energy.items():
            if key == "spectrum/relative_norm":
                found.append(f"the update is {latest:.2g}x as large as the base's weights" if latest > 1 else None)
            elif latest > 1.5 and latest > 1.5 * first:
                side = "input" if key.endswith("right") else "output"
                found.append(
                    f"the update moved into the base's leading {side} directions ({first:.1f}x to {latest:.1f}x random)"
                )
        return [sign for sign in found if sign]

    def _grown(self, key: str, times: float, start: Mapping[str, float]) -> str | None:
        recent = self._recent.get(key)
        if not recent or len(recent) < self.window:
            return None
        before, now = start[key], _mean(recent)
        plain = "length" if key == "completions/mean_length" else key
        return f"{plain} rose from {before:.3g} to {now:.3g}" if before > 0 and now > times * before else None


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def _squared_error(values: Iterable[float]) -> float:
    """Squared standard error of a mean, never quite zero: constant rewards are coarse, not certain."""
    values = list(values)
    mean = _mean(values)
    return math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values) + 1e-6
