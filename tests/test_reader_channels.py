"""Stacks of channels: arrays and sparse rows, and what damaged or hostile files come to."""

import io
import zipfile

import numpy as np
import pytest
from scipy import sparse

from promptseg.errors import DataError
from promptseg.reader.channels import channels_of, read_stack
from promptseg.reader.folder import MaskFile

SIZE = (4, 6)
STACK = np.zeros((3, *SIZE), np.uint8)
STACK[0, 1:3, 1:3] = 1
STACK[2, 2:4, 2:5] = 1


def sound():
    """Give the parts of a sound sparse file."""
    rows = sparse.csr_array(STACK.reshape(3, -1))
    return {
        "data": rows.data,
        "indices": rows.indices,
        "indptr": rows.indptr,
        "shape": np.array(rows.shape),
        "format": np.array(b"csr"),
    }


def write(path, **parts):
    """Write a sparse file with some parts replaced; None leaves one away."""
    np.savez(path, **{k: v for k, v in (sound() | parts).items() if v is not None})
    return path


def test_scipys_own_files_come_back(tmp_path):
    """What `scipy.sparse.save_npz` writes, with every bit."""
    sparse.save_npz(tmp_path / "a.npz", sparse.csr_array(STACK.reshape(3, -1).astype(np.int32)))

    assert np.array_equal(read_stack(tmp_path / "a.npz", 3, SIZE), STACK)


@pytest.mark.parametrize(
    "array",
    [
        STACK,
        STACK.astype(bool),
        STACK.astype(">f4"),
        np.asfortranarray(STACK),
        np.moveaxis(STACK, 0, 2),
        STACK[..., None],
        STACK.reshape(3, -1),
    ],
    ids=["plain", "bool", "big-endian", "columns", "channels last", "4 axes", "flat"],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_come_back(tmp_path, array, suffix):
    """Channels first or last, in any order in memory."""
    path = tmp_path / f"a{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)

    assert np.array_equal(read_stack(path, 3, SIZE), STACK)


def test_every_channel_that_is_not_empty_is_a_mask_of_its_object(tmp_path):
    """An organ that is not in the slice is no mask, as in a label map."""
    np.save(tmp_path / "a.npy", STACK)
    file = MaskFile("a.npy")
    parts = list(channels_of(tmp_path / "a.npy", file, ("liver", "spleen", "aorta"), SIZE))

    assert [part.object for part, _ in parts] == ["liver", "aorta"]
    assert [int(raw.values.sum()) for _, raw in parts] == [4, 6]


def test_a_stack_without_anything_is_one_empty_mask(tmp_path):
    """So that its image counts as one without objects."""
    np.save(tmp_path / "a.npy", np.zeros_like(STACK))
    ((part, raw),) = channels_of(tmp_path / "a.npy", MaskFile("a.npy"), ("a", "b", "c"), SIZE)

    assert part.object is None
    assert not raw.values.any()


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"shape": np.array([3, 25])}, "3 x 25 is not that of 3 channels on its image, 3 x 4 x 6"),
        ({"shape": np.array([3.0, 24.0])}, "no whole number"),
        ({"format": np.array(b"csc")}, "'csc' are not read"),
        ({"indices": sound()["indices"] + 15}, "broken"),
        ({"indices": sound()["indices"] - 8}, "broken"),
        ({"indices": sound()["indices"][1:]}, "broken"),
        ({"indices": sound()["indices"].astype(float)}, "no whole number"),
        ({"indptr": np.array([0, 12, 4, 10])}, "broken"),
        ({"indptr": np.array([0, 4, 10])}, "broken"),
        ({"indptr": np.array([2, 4, 4, 10])}, "broken"),
        ({"indptr": np.array([0, 4, 4, 9])}, "broken"),
        ({"data": np.array(["x"] * 10)}, "no mask"),
        ({"data": np.zeros(10, complex) + 1}, "are not read"),
        ({"data": np.ones(10**4)}, "10000 values"),
        ({"data": None}, "expected is one, or a sparse matrix"),
    ],
)
def test_a_broken_sparse_matrix_is_refused(tmp_path, parts, told):
    """SciPy itself would read beyond its arrays."""
    with pytest.raises(DataError) as raised:
        read_stack(write(tmp_path / "a.npz", **parts), 3, SIZE)

    assert told in str(raised.value)


def test_nothing_is_unpickled(tmp_path):
    """An array of objects could run anything."""
    np.save(tmp_path / "a.npy", np.array([STACK, None], dtype=object), allow_pickle=True)
    write(tmp_path / "b.npz", data=np.array([{}] * 10, dtype=object))

    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="Python objects, which are not unpickled"):
            read_stack(tmp_path / name, 3, SIZE)


def test_a_header_that_promises_too_much_is_refused_before_it_is_read(tmp_path):
    """A petabyte in 200 bytes, and an array larger than the image, compressed to nothing."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (2**25, 2**25), "fortran_order": False, "descr": "|u1"}
    )
    (tmp_path / "a.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", header.getvalue() + b"\0" * 10**6)

    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="ends before its"):
            read_stack(tmp_path / name, 3, SIZE)
    with pytest.raises(DataError, match="too many"):
        read_stack(tmp_path / "a.npy", 1000, (2**14, 2**14))


@pytest.mark.parametrize("end", [0, 5, 40, 120, -1])
def test_damaged_files_have_a_reason(tmp_path, end):
    """Decoders raise anything on what is cut off."""
    np.save(tmp_path / "a.npy", STACK)
    np.savez(tmp_path / "a.npz", STACK)

    for name in ("a.npy", "a.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:end])
        with pytest.raises(DataError) as raised:
            read_stack(path, 3, SIZE)
        assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 4, 6), (4, 6), (3, 6, 4), (3, 4, 6, 2), ()])
def test_another_shape_is_refused(tmp_path, shape):
    """A mask of another image, or with an object more, is not cut to fit."""
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))

    with pytest.raises(DataError, match=r"is not that of 3 channels|not what fits"):
        read_stack(tmp_path / "a.npy", 3, SIZE)


def test_several_arrays_in_a_file_are_not_chosen_from(tmp_path):
    """Which of them is the mask, nobody says."""
    np.savez(tmp_path / "a.npz", x=STACK, y=STACK)

    with pytest.raises(DataError, match="it holds 2 arrays"):
        read_stack(tmp_path / "a.npz", 3, SIZE)
