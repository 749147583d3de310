"""Every measure against a dense float64 decomposition, constructed updates with known answers, and invariances."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.analysis import _spectrum_principal
from rlvr_lite.analysis.spectrum import (
    SHARES,
    Directions,
    MatrixSpectrum,
    Update,
    chance,
    compare_updates,
    decompose,
    directions,
    effective_rank,
    measure_matrix,
    overlap,
    stable_rank,
)
from rlvr_lite.errors import UserError
from tests.analysis.test_spectrum_base import random_orthonormal

EXACT = 1e-6
SHAPES = [(60, 60), (90, 57), (53, 90), (48, 7), (700, 540)]  # the last one takes the iterative path


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_weight(shape, seed=0):
    """A weight with a decaying spectrum, like a language model's."""
    size = min(shape)
    values = torch.arange(1, size + 1, dtype=torch.float64) ** -0.5
    return (
        random_orthonormal(shape[0], size, generator(seed))
        * values
        @ random_orthonormal(shape[1], size, generator(seed + 1)).T
    )


def make_factors(shape, rank=4, size=0.05, seed=2):
    g = generator(seed)
    b = torch.randn(shape[0], rank, generator=g, dtype=torch.float64) * size
    return b, torch.randn(rank, shape[1], generator=g, dtype=torch.float64), 2.0


def measure(weight, factors, **options) -> MatrixSpectrum:
    return measure_matrix("m", decompose(weight, **options), directions(Update("m", weight, factors)), weight.double())


def dense_reference(weight, change):
    """All measures by dense float64 SVDs, straight from their definitions."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    u2, s2, vh2 = torch.linalg.svd(weight + change, full_matrices=False)
    d = torch.linalg.svdvals(change)
    d = d[d > d[0] * 1e-12]
    size, total = min(weight.shape), float((change**2).sum())
    edges = [round(i * size / min(10, size)) for i in range(min(10, size) + 1)]
    found = {
        "effective_rank": math.exp(-sum(float(p) * math.log(p) for p in d / d.sum())),
        "stable_rank": total / float(d[0]) ** 2,
        "relative_norm": math.sqrt(total) / float(weight.norm()),
        "singular_values": d.tolist(),
    }
    held = torch.cumsum(s**2, 0) / (s**2).sum()
    ranks = [int((held < share - 1e-12).sum()) + 1 for share in SHARES]
    for side, energy in (("right", (change @ vh.T) ** 2), ("left", (change.T @ u) ** 2)):
        energy = energy.sum(0) / total
        found[f"{side}.bins"] = [float(energy[a:b].sum()) for a, b in itertools.pairwise(edges)]
        found[f"{side}.shares"] = [float(energy[:k].sum()) for k in ranks]
        found[f"{side}.top_rank"] = float(energy[: len(d)].sum())
        found[f"{side}.bottom_rank"] = float(energy[-len(d) :].sum())
        found[f"{side}.outside"] = 1 - float(energy.sum())
        product = weight @ change.T if side == "right" else weight.T @ change
        dimension = weight.shape[1] if side == "right" else weight.shape[0]
        found[f"{side}.alignment"] = dimension * float((product**2).sum()) / float((weight**2).sum()) / total
    k = min(32, max(1, size // 4))

    def turned(before, after):
        rest = after - before @ (before.T @ after)
        sine = float(torch.linalg.matrix_norm(rest, 2))
        return math.degrees(math.asin(min(1, sine))), float((rest**2).sum()) / k

    found["rotation_right"], found["turned_right"] = turned(vh[:k].T, vh2[:k].T)
    found["rotation_left"], found["turned_left"] = turned(u[:, :k], u2[:, :k])
    found["drift"] = float((s2[:k] - s[:k]).norm() / s[:k].norm())
    found["intruders"] = int(((u.T @ u2[:, : min(10, k)]).abs().max(0).values < 0.5).sum())
    return found


def as_flat(matrix: MatrixSpectrum):
    found = {
        name: getattr(matrix, name) for name in ("effective_rank", "stable_rank", "relative_norm", "singular_values")
    }
    for side in ("right", "left"):
        energy = getattr(matrix, side)
        found[f"{side}.bins"] = [region.energy for region in energy.bins]
        found[f"{side}.shares"] = [region.energy for region in energy.shares]
        for name in ("top_rank", "bottom_rank"):
            found[f"{side}.{name}"] = getattr(energy, name).energy
        found[f"{side}.outside"], found[f"{side}.alignment"] = energy.outside, energy.alignment
    principal = dataclasses.asdict(matrix.principal)
    principal.pop("k")
    return found | principal


def assert_same(found, expected, relative=EXACT):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=relative, abs=1e-12), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1e-4, 0.05, 3.0])
def test_low_rank_path_equals_dense_decompositions(shape, size):
    weight, factors = make_weight(shape), make_factors(shape, size=size)
    b, a, scale = factors
    assert_same(as_flat(measure(weight, factors)), dense_reference(weight, scale * b @ a))


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_dense_path_equals_dense_decompositions(shape):
    weight = make_weight(shape)
    change = torch.randn(shape, generator=generator(3), dtype=torch.float64) * 0.01
    found = measure_matrix("m", decompose(weight), directions(Update("m", weight, dense=change)), weight)
    expected = dense_reference(weight, change)
    assert_same(as_flat(found), expected | {"singular_values": expected["singular_values"][:64]})


def test_fp32_factors_of_a_delta_form_lose_nothing():
    """[B - B0, B0] [A; A - A0] is far smaller than its factors: their rounding is the data, not the method's error."""
    weight = make_weight((80, 60)).float()
    g = generator(5)
    b0, a0 = torch.randn(80, 4, generator=g), torch.randn(4, 60, generator=g)
    db, da = torch.randn(80, 4, generator=g) * 1e-4, torch.randn(4, 60, generator=g) * 1e-4
    factors = torch.cat([db, b0], 1), torch.cat([a0 + da, da]), 1.0
    exact = db.double() @ (a0 + da).double() + b0.double() @ da.double()
    assert_same(as_flat(measure(weight, factors)), dense_reference(weight.double(), exact))


def test_iterative_and_dense_leading_subspaces_agree(monkeypatch):
    weight, factors = make_weight((640, 600)), make_factors((640, 600), rank=8)
    iterative = measure(weight, factors).principal
    monkeypatch.setattr(_spectrum_principal, "_leading", lambda *arguments: None)
    assert_same(dataclasses.asdict(iterative), dataclasses.asdict(measure(weight, factors).principal))


@pytest.mark.parametrize("shape", [(60, 60), (90, 50), (50, 90)])
@pytest.mark.parametrize(("where", "place"), [("top", 0), ("bottom", -1), ("middle", 4)])
def test_constructed_updates_are_found_where_they_were_put(shape, where, place):
    weight = make_weight(shape)
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    size = min(shape)
    first = {"top": 0, "bottom": size - size // 10, "middle": round(4 * size / 10)}[where]
    chosen = slice(first, first + size // 10)
    matrix = measure(weight, (u[:, chosen] * torch.arange(1, size // 10 + 1), vh[chosen], 0.01))
    for energy in (matrix.right, matrix.left):
        shares = [region.energy for region in energy.bins]
        assert shares.pop(place) == pytest.approx(1, abs=1e-10)
        assert max(shares) < 1e-10
        assert energy.outside < 1e-10
        assert energy.bins[place].ratio == pytest.approx(energy.dimension / energy.bins[place].count)
    assert matrix.rank == size // 10
    if where == "top":
        assert matrix.right.top_rank.energy == pytest.approx(1)
    if where == "bottom":
        assert matrix.left.bottom_rank.energy == pytest.approx(1)
        assert matrix.principal.rotation_right < 1e-4


@pytest.mark.parametrize("rank", [1, 4, 60])
def test_random_updates_match_the_analytic_expectation_and_spread(rank):
    """Mean within 4 standard errors and spread within 25 % of the closed form, over 300 random updates."""
    weight = make_weight((90, 60))
    base = decompose(weight)
    g = generator(77)
    values = torch.arange(rank, 0, -1, dtype=torch.float64)
    shares = []
    for _ in range(300):
        update = Directions(random_orthonormal(90, rank, g), values, random_orthonormal(60, rank, g))
        energy = [base.coefficients("right", update.right, weight), base.coefficients("left", update.left, weight)]
        shares.append([float((((c * values) ** 2).sum(1)[:6]).sum() / (values**2).sum()) for c in energy])
    found = torch.tensor(shares, dtype=torch.float64)
    for column, dimension in enumerate((60, 90)):
        expected, deviation = chance(6, dimension, values)
        assert float(found[:, column].mean()) == pytest.approx(expected, abs=4 * deviation / math.sqrt(300) + 1e-12)
        assert float(found[:, column].std()) == pytest.approx(deviation, rel=0.25, abs=1e-9)


def test_gaussian_lora_looks_random_and_words_say_so():
    updates = []
    for i in range(12):
        weight = make_weight((80, 60), seed=10 * i)
        updates.append(Update(f"layers.{i}.q_proj", weight, make_factors((80, 60), seed=100 + i)))
    spectrum = compare_updates({"random": updates})
    for side in ("right", "left"):
        assert all(average.by_chance for average in spectrum.runs[0].bins(side))
    assert all("as by chance" in line for line in spectrum.words())


def test_a_run_in_the_leading_directions_is_not_called_chance():
    weight = make_weight((60, 60))
    u, _, vh = torch.linalg.svd(weight)
    spectrum = compare_updates({"pissa": [Update("q", weight, (u[:, :6], vh[:6], 0.1))]})
    top = spectrum.runs[0].bins("right")[0]
    assert top.ratio == pytest.approx(10)
    assert not top.by_chance


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), rank=st.integers(1, 6), wide=st.booleans())
def test_energies_know_neither_the_basis_of_the_factors_nor_the_size_of_the_update(seed, scale, rank, wide):
    shape = (30, 44) if wide else (44, 30)
    weight, (b, a, s) = make_weight(shape, seed), make_factors(shape, rank, seed=seed + 2)
    turn = random_orthonormal(rank, rank, generator(seed + 3)) * 3.0
    plain = measure(weight, (b, a, s))
    turned = measure(weight, (b @ turn, torch.linalg.inv(turn) @ a, s))
    assert_same(as_flat(turned), as_flat(plain))
    scaled, flat = as_flat(measure(weight, (b, a, s * scale))), as_flat(plain)
    for name in flat:
        if "." in name or name.endswith("_rank"):
            assert scaled[name] == pytest.approx(flat[name], rel=1e-9, abs=1e-12), name
    assert scaled["relative_norm"] == pytest.approx(scale * flat["relative_norm"])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_turning_the_spaces_of_weight_and_update_together_changes_nothing(seed):
    shape = (36, 28)
    weight, (b, a, s) = make_weight(shape, seed), make_factors(shape, 3, seed=seed + 2)
    left, right = random_orthonormal(36, 36, generator(seed + 4)), random_orthonormal(28, 28, generator(seed + 5))
    assert_same(as_flat(measure(left @ weight @ right, (left @ b, a @ right, s))), as_flat(measure(weight, (b, a, s))))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_transposing_swaps_the_sides(seed):
    weight, (b, a, s) = make_weight((36, 28), seed), make_factors((36, 28), 3, seed=seed + 2)
    plain, swapped = as_flat(measure(weight, (b, a, s))), as_flat(measure(weight.T.contiguous(), (a.T, b.T, s)))
    for name, value in plain.items():
        if name == "intruders":  # counted on the left side only
            continue
        other = name.replace("right", "#").replace("left", "right").replace("#", "left")
        assert swapped[other] == pytest.approx(value, rel=EXACT, abs=1e-12), name


def test_randomised_base_measures_what_it_reached_and_says_none_of_the_rest():
    shape = (300, 200)
    weight, factors = make_weight(shape), make_factors(shape, rank=6)
    found, exact = measure(weight, factors, rank=70), measure(weight, factors)
    assert found.base_error > 0
    for side in ("right", "left"):
        ours, true = getattr(found, side), getattr(exact, side)
        for i in range(10):
            if i < 3:
                assert ours.bins[i].energy == pytest.approx(true.bins[i].energy, rel=0.35)
            else:
                assert ours.bins[i] is None
        assert ours.bottom_rank is None
        assert ours.shares[0].energy == pytest.approx(true.shares[0].energy, rel=0.1)
        assert ours.alignment == pytest.approx(true.alignment, rel=1e-9)
        assert ours.curve[-1] is None
        assert ours.curve[5] == pytest.approx(true.curve[5], rel=0.1)
    ours, true = found.principal, exact.principal
    assert ours.drift == pytest.approx(true.drift, rel=1e-3)
    assert ours.turned_right == pytest.approx(true.turned_right, rel=1e-2)
    assert ours.turned_left == pytest.approx(true.turned_left, rel=1e-2)
    assert ours.intruders == true.intruders


def test_randomised_base_finds_an_intruder_outside_what_it_kept():
    weight = make_weight((120, 100))
    b, a = torch.randn(120, 1, generator=generator(1)), torch.randn(1, 100, generator=generator(2))
    assert measure(weight, (b, a, 0.05), rank=40).principal.intruders == 1
    assert measure(weight, (b, a, 0.05)).principal.intruders == 1


def test_ranks_of_known_spectra():
    assert effective_rank(torch.tensor([1.0, 1.0, 1.0])) == pytest.approx(3)
    assert effective_rank(torch.tensor([1.0, 0.0])) == pytest.approx(1)
    assert stable_rank(torch.tensor([3.0, 3.0, 3.0, 0.0])) == pytest.approx(3)


@pytest.mark.parametrize("dense", [False, True])
def test_directions_that_are_rounding_are_not_counted(dense):
    b, a, scale = make_factors((50, 40), rank=3)
    mixed = torch.randn(3, 8, generator=generator(4), dtype=torch.float64)  # eight columns, three directions
    factors = (b @ mixed, torch.linalg.pinv(mixed) @ a, scale)
    found = directions(
        Update("m", torch.eye(50, 40), dense=scale * b @ a) if dense else Update("m", torch.eye(50, 40), factors)
    )
    assert found.rank == 3
    assert effective_rank(found.values) < 3 + 1e-9


def test_overlap_of_known_updates():
    g = generator(0)
    p, q = random_orthonormal(50, 8, g), random_orthonormal(40, 8, g)
    ones = torch.ones(4, dtype=torch.float64)
    first, same_left = Directions(p[:, :4], ones, q[:, :4]), Directions(p[:, :4], ones, q[:, 4:])
    assert overlap(first, first)["cosine"] == pytest.approx(1)
    found = overlap(first, same_left)
    assert (found["left"], found["right"], found["cosine"]) == pytest.approx((1, 0, 0), abs=1e-12)
    assert (found["left_by_chance"], found["right_by_chance"]) == (4 / 50, 4 / 40)
    opposite = Directions(-p[:, :4], ones, q[:, :4])
    assert overlap(first, opposite)["cosine"] == pytest.approx(-1)
    mean = [
        overlap(Directions(random_orthonormal(50, 4, g), ones, random_orthonormal(40, 4, g)), first) for _ in range(200)
    ]
    assert sum(m["left"] for m in mean) / 200 == pytest.approx(4 / 50, rel=0.1)


def test_overlap_equals_the_dense_cosine():
    shape = (30, 20)
    (b, a, s), (b2, a2, s2) = make_factors(shape), make_factors(shape, rank=2, seed=9)
    first, second = s * b @ a, s2 * b2 @ a2
    found = overlap(directions(Update("m", first, (b, a, s))), directions(Update("m", first, (b2, a2, s2))))
    assert found["cosine"] == pytest.approx(float((first * second).sum() / first.norm() / second.norm()), rel=1e-9)


def test_lazy_bases_are_asked_for_one_at_a_time():
    """On a 4-bit base each weight is dequantised when its turn comes, once a run."""
    order = []

    def lazy(name, seed):
        return lambda: order.append(name) or make_weight((20, 12), seed)

    def run():
        return [Update(f"layers.{i}", lazy(f"layers.{i}", i), make_factors((20, 12), seed=i)) for i in range(3)]

    compare_updates({"a": run(), "b": run()})
    assert order == ["layers.0", "layers.0", "layers.1", "layers.1", "layers.2", "layers.2"]


def test_matrices_that_did_not_move_are_named_and_left_out():
    weight, factors = make_weight((20, 12)), make_factors((20, 12))
    zero = (torch.zeros(20, 2), torch.ones(2, 12), 1.0)
    spectrum = compare_updates({"lora": [Update("a", weight, factors), Update("b", weight, zero)]})
    assert len(spectrum.runs[0].moved) == 1
    assert spectrum.runs[0].matrices[1].right is None
    assert any("1 of 2 matrices did not move" in line for line in spectrum.words())


class TestBadInput:
    weight = make_weight((20, 12))
    factors = make_factors((20, 12))

    def update(self, **changes):
        return Update(**({"name": "layers.0.q_proj", "base": self.weight, "factors": self.factors} | changes))

    def test_different_bases_are_named(self):
        other = self.update(base=self.weight * 1.001)
        with pytest.raises(UserError, match=r"'a' and 'b'.*layers\.0\.q_proj"):
            compare_updates({"a": [self.update()], "b": [other]})
        with pytest.raises(UserError, match="different bases"):
            compare_updates({"a": [self.update()], "b": [self.update(base=self.weight[:, :10])]})

    def test_a_run_without_an_adapter(self):
        with pytest.raises(UserError, match="'b' has no adapter"):
            compare_updates({"a": [self.update()], "b": []})
        with pytest.raises(UserError):
            compare_updates({})

    def test_an_untrained_run(self):
        with pytest.raises(UserError, match="'a' is zero"):
            compare_updates({"a": [self.update(factors=(torch.zeros(20, 2), torch.ones(2, 12), 1.0))]})

    @pytest.mark.parametrize("what", ["base weight", "adapter's B", "adapter's A", "update"])
    def test_nan_names_its_tensor(self, what):
        b, a, scale = self.factors
        nan = torch.full_like
        changes = {
            "base weight": {"base": nan(self.weight, math.nan)},
            "adapter's B": {"factors": (nan(b, math.inf), a, scale)},
            "adapter's A": {"factors": (b, nan(a, math.nan), scale)},
            "update": {"factors": None, "dense": nan(self.weight, math.nan)},
        }[what]
        with pytest.raises(UserError, match=rf"layers\.0\.q_proj: the {what} holds NaN"):
            compare_updates({"a": [self.update(**changes)]})

    def test_shapes_that_do_not_fit(self):
        b, a, scale = self.factors
        for changes in ({"factors": (b.T, a, scale)}, {"factors": (b[:10], a, scale)}, {"factors": None, "dense": a}):
            with pytest.raises(UserError, match=r"layers\.0\.q_proj"):
                compare_updates({"a": [self.update(**changes)]})
        with pytest.raises(UserError, match="scale"):
            compare_updates({"a": [self.update(factors=(b, a, math.nan))]})

    def test_neither_or_both_forms(self):
        for changes in ({"factors": None}, {"dense": self.weight}):
            with pytest.raises(UserError):
                self.update(**changes)

    def test_one_module_twice(self):
        with pytest.raises(UserError, match="two updates"):
            compare_updates({"a": [self.update(), self.update()]})

    def test_zero_base(self):
        with pytest.raises(UserError, match=r"layers\.0\.q_proj.*zero"):
            compare_updates({"a": [self.update(base=torch.zeros(20, 12))]})
