"""What is secret in an address opens the server and is shown nowhere."""

import base64

import pytest

from experts.engines.address import read_address
from experts.errors import ModelUnusable


def test_a_key_is_sent_as_a_bearer_without_the_line_break_of_its_file() -> None:
    address = read_address("http://host:8000/v1/", "sk-secret\n")
    assert (address.url, address.authorization) == ("http://host:8000/v1", "Bearer sk-secret")
    assert "sk-secret" not in repr(address)


def test_a_name_and_password_are_taken_out_of_the_address() -> None:
    address = read_address("https://us%40er:p%3Ass@[::1]:8443/v1", None)
    assert address.url == "https://[::1]:8443/v1"
    assert address.authorization == "Basic " + base64.b64encode(b"us@er:p:ss").decode()
    assert {"p:ss", "p%3Ass"} <= set(address.secrets)
    assert repr(address) == "Address(url='https://[::1]:8443/v1')"


@pytest.mark.parametrize("key", [None, "", " "])
def test_without_a_key_nothing_is_sent(key: str | None) -> None:
    address = read_address("http://host/v1", key)
    assert (address.authorization, address.secrets) == (None, ())


@pytest.mark.parametrize(
    ("base_url", "key", "said"),
    [
        ("", None, "http://127.0.0.1:8000/v1"),
        ("host:8000/v1", None, "http://127.0.0.1:8000/v1"),
        ("ftp://host/v1", None, "http://127.0.0.1:8000/v1"),
        ("http:///v1", None, "http://127.0.0.1:8000/v1"),
        ("http://hidden:hidden@host:port/v1", None, "http://127.0.0.1:8000/v1"),
        ("http://hidden@[::1/v1", None, "http://127.0.0.1:8000/v1"),
        ("http://host/v1?key=hidden", None, "host goes on after its path"),
        ("http://host/v1#hidden", None, "host goes on after its path"),
        ("http://host/v1", "hidden\nhidden", "no header can carry"),
        ("http://host/v1", "hidden-é", "no header can carry"),
        ("http://hidden:hidden@host/v1", "hidden", "only one can be sent"),
    ],
)
def test_what_cannot_be_used_is_refused_without_being_shown(base_url: str, key: str | None, said: str) -> None:
    with pytest.raises(ModelUnusable, match=said) as caught:
        read_address(base_url, key)
    assert "hidden" not in str(caught.value)
