import os
import warnings

import pytest
import torch

from anti_i2v_lit.archive.files import clean_temporaries
from anti_i2v_lit.archive.in_flight import InFlightStore, Progress

from .killing import run_and_kill_at_line

KEYS = ("a/1.jpg", "\udcff.png", "名前.heic")


def progress(step):
    generator = torch.Generator().manual_seed(step)
    return Progress(
        tensors={
            "delta": torch.randn(2, 3, 8, 8, generator=generator),
            "half": torch.randn(5, generator=generator).to(torch.bfloat16),
            "strided": torch.randn(4, 6, generator=generator).T,
            "step": torch.tensor(step),
            "empty": torch.zeros(0, 3),
        },
        facts={"step": step, "losses": [1.5, None], "nested": {"done": False}},
    )


def assert_equal(found, expected):
    assert found.facts == expected.facts
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_progress_comes_back_bit_for_bit(tmp_path):
    store = InFlightStore(tmp_path)
    assert store.load(KEYS) is None and store.groups() == []
    store.save(KEYS, progress(1))
    store.save(KEYS, progress(2))
    store.save(("z",), progress(3))
    assert_equal(InFlightStore(tmp_path).load(KEYS), progress(2))
    assert store.groups() == [KEYS, ("z",)]
    assert store.load(KEYS[::-1]) is None
    store.discard(KEYS)
    store.discard(KEYS)
    assert store.groups() == [("z",)]


def test_loaded_tensors_outlive_the_file(tmp_path):
    store = InFlightStore(tmp_path)
    store.save(("a",), progress(1))
    loaded = store.load(("a",))
    store.save(("a",), progress(2))
    store.discard(("a",))
    assert_equal(loaded, progress(1))
    loaded.tensors["delta"].add_(1)


@pytest.mark.parametrize("keys", [(), "abc"])
def test_keys_must_be_a_tuple(tmp_path, keys):
    with pytest.raises(ValueError, match="tuple of photo keys"):
        InFlightStore(tmp_path).save(keys, progress(1))


@pytest.mark.parametrize("fact", [float("nan"), {1, 2}])
def test_facts_must_be_json(tmp_path, fact):
    with pytest.raises(ValueError, match="not JSON"):
        InFlightStore(tmp_path).save(("a",), Progress(tensors={}, facts={"x": fact}))


def _only_file(store):
    (path,) = store._files()
    return path


def test_every_truncation_and_a_flipped_bit_are_set_aside(tmp_path):
    store = InFlightStore(tmp_path)
    store.save(KEYS, progress(4))
    path = _only_file(store)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-20] ^= 1
    damaged = [whole[:end] for end in range(0, len(whole), 97)] + [bytes(flipped), b"\0" * 4096]
    for content in damaged:
        path.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged.*start from the first step"):
            assert store.load(KEYS) is None
        assert not path.exists() and path.with_name(path.name + ".damaged").exists()
    path.write_bytes(whole[:100])
    assert store.peek() == [] and path.exists(), "looking must not change anything"
    with pytest.warns(UserWarning, match="damaged"):
        assert store.groups() == []


def test_a_file_of_another_group_is_not_taken(tmp_path):
    store = InFlightStore(tmp_path)
    store.save(("a",), progress(1))
    os.replace(_only_file(store), store._path(("b",)))
    with pytest.warns(UserWarning, match="belongs to"):
        assert store.load(("b",)) is None


def test_killed_at_every_line_of_a_save_the_old_or_the_new_progress_is_there(tmp_path):
    store = InFlightStore(tmp_path)
    store.save(KEYS, progress(1))
    line, steps = 1, []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while run_and_kill_at_line(lambda: store.save(KEYS, progress(2)), line):
            found = InFlightStore(tmp_path).load(KEYS)
            steps.append(found.facts["step"])
            assert_equal(found, progress(steps[-1]))
            store.save(KEYS, progress(1))
            line += 1
    assert set(steps) == {1, 2} and len(steps) > 20
    assert steps == sorted(steps)
    assert clean_temporaries(tmp_path) > 0
    assert len(list((tmp_path / ".anti_i2v" / "in_flight").iterdir())) == 1
