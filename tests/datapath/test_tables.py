"""Layouts: what the kernel and other processes rely on."""

from dataclasses import fields, replace

import pytest

from lbmux.datapath.tables import BACKEND, BUCKET_BYTES, ENDPOINT, FLOW, LAYOUTS, LOOKUP_ROWS, LOOKUPS, ROWS, Sizes


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.names[0])
def test_every_field_is_naturally_aligned_and_nothing_is_padded(layout) -> None:  # type: ignore[no-untyped-def]
    end = 0
    for name in layout.names:
        kind, offset = layout.fields[name][:2]
        assert offset % kind.itemsize == 0
        assert offset == end
        end = offset + kind.itemsize
    assert end == layout.itemsize


def test_a_backend_is_one_cache_line_and_a_bucket_two() -> None:
    assert (BACKEND.itemsize, ENDPOINT.itemsize, FLOW.itemsize, BUCKET_BYTES) == (64, 64, 32, 128)


def test_every_region_has_a_layout_and_whole_rows() -> None:
    sizes = Sizes()
    assert set(sizes.regions()) == set(ROWS)
    assert all((size - 64) % ROWS[name].itemsize == 0 for name, size in sizes.regions().items())


@pytest.mark.parametrize("field", [field.name for field in fields(Sizes)])
def test_the_version_changes_with_every_size(field: str) -> None:
    assert replace(Sizes(), **{field: 2}).version != Sizes().version


def test_every_lookup_has_a_counter() -> None:
    assert len(LOOKUPS) <= LOOKUP_ROWS
