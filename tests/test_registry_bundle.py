"""A bundle is saved whole, loaded only when nothing is wrong with it, and decides row by row."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from registry_kit import CARD, make_scaler, make_spec, observations, save_baseline

from core.errors import BadBundle, DiskFull, SpecMismatch, StorageError
from registry import bundle as bundle_module
from registry.baselines import make_baseline
from registry.bundle import canonical, load_bundle, save_bundle
from registry.card import Card

SIZE = observations(1, make_spec()).shape[1]


def graph(
    nodes: list[Any],
    constants: list[Any],
    inputs: str = "observation",
    size: int = SIZE,
    k: int = 1,
) -> bytes:
    def tensor(name: str, shape: list[str | int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    outputs = [tensor("weight", ["n", k]), tensor("score", ["n", k]), tensor("confidence", ["n"])]
    made = helper.make_graph(nodes, "test", [tensor(inputs, ["n", size])], outputs, constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString()


def linear(size: int = SIZE, k: int = 1, bias: float = 0.0, centred: bool = False) -> bytes:
    """weight = score = observation · 1 + bias; ``centred`` subtracts the mean over the batch."""
    source = "deviation" if centred else "observation"
    nodes = [
        helper.make_node("ReduceMean", ["observation"], ["mean"], axes=[0]),
        helper.make_node("Sub", ["observation", "mean"], ["deviation"]),
        helper.make_node("MatMul", [source, "W"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["weight"]),
        helper.make_node("Identity", ["weight"], ["score"]),
        helper.make_node("ReduceMax", ["weight"], ["top"], axes=[1], keepdims=0),
        helper.make_node("Sigmoid", ["top"], ["confidence"]),
    ]
    constants = [
        numpy_helper.from_array(np.ones((size, k), np.float32), "W"),
        numpy_helper.from_array(np.array(bias, np.float32), "bias"),
    ]
    return graph(nodes, constants, size=size, k=k)


def save(folder: Path, policy: bytes, card: Card = CARD) -> str:
    spec = make_spec()
    return save_bundle(folder, policy, spec, make_scaler(spec), card)


def test_a_bundle_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    spec = make_spec()
    scaler = make_scaler(spec)
    policy = linear()
    card = replace(
        CARD, trial=4, train_last="2012-06-29T00:00:00+00:00", gate={"verdict": "promote"}
    )
    sha256 = save_bundle(tmp_path / "b", policy, spec, scaler, card)
    loaded = load_bundle(tmp_path / "b", expect_sha256=sha256)
    assert (loaded.card, loaded.spec, loaded.policy_onnx) == (card, spec, policy)
    rows = np.random.default_rng(1).normal(size=(5, 4))
    assert loaded.scaler.transform(rows).tobytes() == scaler.transform(rows).tobytes()
    decision = loaded.decide(np.full((2, SIZE), 0.5, np.float32))
    assert decision.weight.tolist() == [[SIZE / 2], [SIZE / 2]]
    assert decision.weight.dtype == np.float64


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = save(tmp_path / "one", linear()), save(tmp_path / "two", linear())
    assert one == two
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert save(tmp_path / "three", linear(), replace(CARD, seed=8)) != one


def test_saving_again_is_harmless_and_overwriting_is_refused(tmp_path: Path) -> None:
    sha256 = save(tmp_path / "b", linear())
    assert save(tmp_path / "b", linear()) == sha256
    with pytest.raises(StorageError, match="never overwritten"):
        save(tmp_path / "b", linear(bias=1.0))
    assert load_bundle(tmp_path / "b").sha256 == sha256


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_module.os, "fsync", full)
    with pytest.raises(DiskFull, match="nothing was written"):
        save(tmp_path / "b", linear())
    assert list(tmp_path.iterdir()) == []


def rewrite(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Alter a JSON file and bring the manifest in line, as a clumsy editor would."""

    def apply(folder: Path) -> None:
        import hashlib

        content = change(json.loads((folder / name).read_text()))
        (folder / name).write_bytes(canonical(content))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "manifest.json").write_bytes(canonical(manifest))

    return apply


def without(key: str) -> Callable[[Any], Any]:
    return lambda content: {k: v for k, v in content.items() if k != key}


def append(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + data) and None


DEFECTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no policy": (lambda f: (f / "policy.onnx").unlink(), "policy.onnx: missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json: missing"),
    "altered policy": (append("policy.onnx", b"x"), "policy.onnx: altered: sha256 is"),
    "altered card": (append("card.json", b" "), "card.json: altered"),
    "broken manifest": (append("manifest.json", b"}"), "manifest.json: not JSON"),
    "empty manifest": (
        lambda f: (f / "manifest.json").write_text("{}") and None,
        "does not list policy.onnx",
    ),
    "future manifest": (
        lambda f: (
            (f / "manifest.json").write_bytes(
                canonical(json.loads((f / "manifest.json").read_text()) | {"format": 99})
            )
            and None
        ),
        "format 99, expected 1",
    ),
    "card without agent": (
        rewrite("card.json", without("agent")),
        "incomplete or misshapen .*agent",
    ),
    "card with a stranger": (rewrite("card.json", lambda c: c | {"x": 1}), "unknown field `x`"),
    "future card": (
        rewrite("card.json", lambda c: c | {"format": 9}),
        "expected format 1, found 9",
    ),
    "no scaler": (rewrite("features.json", without("scaler")), "keys `spec` and `scaler`"),
}


@pytest.mark.parametrize(("spoil", "message"), DEFECTS.values(), ids=DEFECTS)
def test_a_damaged_bundle_is_refused_in_one_sentence(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    save(tmp_path / "b", linear())
    spoil(tmp_path / "b")
    with pytest.raises(BadBundle, match=message):
        load_bundle(tmp_path / "b")


def external() -> bytes:
    model = onnx.load_model_from_string(linear())
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return model.SerializeToString()


POLICIES: dict[str, tuple[bytes, str]] = {
    "text": (b"import os", "not an ONNX model|not a model that runs"),
    "nothing": (b"", "not a model that runs"),
    "weights elsewhere": (external(), "weight `W` lies outside the file"),
    "other input": (
        graph([helper.make_node("Identity", ["x"], [o]) for o in ("weight", "score")], [], "x"),
        "not a model that runs|inputs are",
    ),
    "infinite": (linear(bias=float("inf")), "answers weight .*inf"),
    "not a number": (linear(bias=float("nan")), "answers weight .*nan"),
    "two symbols": (linear(k=2), r"answers of shapes \(8, 2\)"),
}


@pytest.mark.parametrize(("policy", "message"), POLICIES.values(), ids=POLICIES)
def test_a_policy_that_breaks_the_contract_is_refused(
    tmp_path: Path, policy: bytes, message: str
) -> None:
    save(tmp_path / "b", policy)
    with pytest.raises(BadBundle, match=message):
        load_bundle(tmp_path / "b")


def test_another_bundle_than_expected_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "b", linear())
    with pytest.raises(BadBundle, match="expected eeeeeeeeeeee"):
        load_bundle(tmp_path / "b", expect_sha256="e" * 64)
    with pytest.raises(BadBundle, match="no such bundle"):
        load_bundle(tmp_path / "missing")


def test_other_features_than_this_code_builds_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "narrow", linear(size=SIZE - 1))
    with pytest.raises(SpecMismatch, match=f"expects {SIZE - 1} inputs.* has {SIZE}; retrain demo"):
        load_bundle(tmp_path / "narrow")
    save(tmp_path / "old", linear())
    rewrite("features.json", lambda c: c | {"spec": c["spec"] | {"version": 0}})(tmp_path / "old")
    with pytest.raises(SpecMismatch, match="version 0"):
        load_bundle(tmp_path / "old")
    save(tmp_path / "good", linear())
    with pytest.raises(SpecMismatch, match=rf"shape \(1, 2\), the policy expects \(n, {SIZE}\)"):
        load_bundle(tmp_path / "good").decide(np.zeros((1, 2), np.float32))


def test_a_row_is_decided_the_same_alone_and_among_many(tmp_path: Path) -> None:
    # This graph looks at the whole batch, an exaggeration of what kernels do in the last bits.
    save(tmp_path / "b", linear(centred=True, bias=0.25))
    loaded = load_bundle(tmp_path / "b")
    rows = observations(9, make_spec())
    together = loaded.decide(rows)
    for i in range(len(rows)):
        alone = loaded.decide(rows[i : i + 1])
        assert alone.weight.tobytes() == together.weight[i : i + 1].tobytes()
        assert alone.confidence.tobytes() == together.confidence[i : i + 1].tobytes()
    assert (together.weight == 0.25).all()
    assert not np.allclose(loaded.policy.decide_batch(rows).weight, 0.25)


def test_deciding_nothing_gives_nothing(tmp_path: Path) -> None:
    save_baseline(tmp_path / "b")
    decision = load_bundle(tmp_path / "b").decide(np.zeros((0, SIZE), np.float32))
    assert decision.weight.shape == (0, 1)
    assert decision.confidence.shape == (0,)


def test_hold_is_an_answer(tmp_path: Path) -> None:
    spec = make_spec()
    save(tmp_path / "b", make_baseline("buy_and_hold", spec, make_scaler(spec)))
    invested = np.ones((1, SIZE), np.float32)
    assert np.isnan(load_bundle(tmp_path / "b").decide(invested).weight).all()
