import pytest

import tfcorr


@pytest.mark.parametrize("name", tfcorr.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(tfcorr, name).__doc__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = tfcorr.trian
