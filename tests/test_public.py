import pytest

import tfcorr


@pytest.mark.parametrize("name", tfcorr.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tfcorr, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = tfcorr.trian
