"""How network targets are written, and that no key is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdbridge.errors import UsageError
from kdbridge.transports.address import TargetAddress, parse_target
from kdbridge.transports.net_form import masked, masked_keys, target_place

_KEY = "17890.af3489a.9345kjm.lio147"
_RIGHT = {
    # WinDbg's own (kdnet 1).
    f"net:port=50000,key={_KEY}": TargetAddress("net", port=50000, key=_KEY),
    f"net:port=50000,key={_KEY},target=10.0.0.7": TargetAddress(
        "net", port=50000, options=(("target", "10.0.0.7"),), key=_KEY
    ),
    f"NET:KEY={_KEY},Port=1": TargetAddress("net", port=1, key=_KEY),
    f"net:port=50000,key={_KEY},bind=192.168.1.5": TargetAddress("net", host="192.168.1.5", port=50000, key=_KEY),
    "net:port=0": TargetAddress("net", port=0),
    "net:port=50000,keyfile=/etc/kd.key": TargetAddress("net", port=50000, options=(("keyfile", "/etc/kd.key"),)),
    # This program's.
    f"net://:50000?key={_KEY}": TargetAddress("net", port=50000, key=_KEY),
    f"net://192.168.1.5:50000?key={_KEY}&target=pc.example": TargetAddress(
        "net", host="192.168.1.5", port=50000, options=(("target", "pc.example"),), key=_KEY
    ),
    "net://[fd00::5]:50000": TargetAddress("net", host="fd00::5", port=50000),
    "net://:50000?bind=::1": TargetAddress("net", host="::1", port=50000),
    "net://:50000?key=…": TargetAddress("net", port=50000),
}
_WRONG = {
    f"net:key={_KEY}": "lacks port=",
    "net:": "has no option '…'",
    f"net:50000,{_KEY}": "has no option '…'; it knows port, key, target, bind, keyfile",
    f"net:port=50000,kye={_KEY}": "has no option 'kye'",
    f"net:port=many,key={_KEY}": "'many' is not a port number (0 to 65535)",
    f"net:port=65536,key={_KEY}": "not a port number",
    f"net:port=5,port=6,key={_KEY}": "port is given twice",
    f"net:port=5,key={_KEY},key={_KEY}": "key is given twice",
    "net:port=5,key=": "key has no value",
    f"net:port=5,key={_KEY},keyfile=x": "leave one out",
    f"net:port=5,key={_KEY},bind=eth0": "'eth0' is no IP address of this machine to listen at",
    f"net:port=5,key={_KEY},target=a/b": "target=a/b is no host",
    f"net:port=5,key={_KEY},target=a:0": "target=a:0 is no host",
    f"net://50000?key={_KEY}": "the port goes behind a colon",
    f"net://:50000?key={_KEY}&port=5": "the port goes behind a colon",
    "net://10.0.0.1:50000?bind=10.0.0.2": "given twice",
    f"nett:port=50000,key={_KEY}": "there is no 'nett' target",
    f"com:port=1,key={_KEY}": "com: has no 'key'",
    f"net:port=1,key={_KEY}\n": "is not a target address",
    f"net:port=1,key={_KEY}," + "x" * 5000: "is not a target address",
}


@pytest.mark.parametrize("text", _RIGHT)
def test_a_right_address_is_taken_apart(text: str) -> None:
    assert parse_target(text) == _RIGHT[text]


@pytest.mark.parametrize("text", _WRONG)
def test_what_is_wrong_is_said_and_the_key_is_not(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_target(text)
    assert _WRONG[text] in str(raised.value)
    assert _KEY not in str(raised.value)
    assert "net:port=50000,key=w.x.y.z" in str(raised.value) or "net:port=50000" not in text


@pytest.mark.parametrize("text", _RIGHT)
def test_its_url_and_its_repr_mask_the_key_and_say_all_else(text: str) -> None:
    address = parse_target(text)
    assert _KEY not in address.url and _KEY not in repr(address) and _KEY not in str(address)
    assert ("key=…" in address.url) == bool(address.key)
    again = parse_target(address.url)
    assert (again.host, again.port, again.options, again.key) == (address.host, address.port, address.options, "")
    assert _KEY not in masked(text)


def test_where_the_target_is_asked_to_poke() -> None:
    assert target_place("10.0.0.7", 50000) == ("10.0.0.7", 50000)
    assert target_place("pc.example:50007", 50000) == ("pc.example", 50007)
    assert target_place("fe80::1%eth0", 50000) == ("fe80::1%eth0", 50000)
    assert target_place("[fd00::7]", 50000) == ("fd00::7", 50000)
    assert target_place("[fd00::7]:5", 50000) == ("fd00::7", 5)


def test_keys_are_masked_in_any_sentence() -> None:
    assert masked_keys(f"cannot open key={_KEY}: no") == "cannot open key=… no"
    assert masked_keys("there is no key: write one") == "there is no key: write one"
    assert masked_keys(f"Got unexpected extra argument ( key={_KEY} )") == "Got unexpected extra argument ( key=… )"
    assert masked_keys(f"dbgsettings net hostip:1.2.3.4 port:5 key:{_KEY}").endswith("port:5 key:…")
    assert masked_keys("a monkey=banana") == "a monkey=banana"
    assert masked_keys("write key=w.x.y.z, or net:port=5,key=w.x.y.z") == "write key=w.x.y.z, or net:port=5,key=w.x.y.z"
    assert masked_keys("key=w.x.y.z1 and key=w.x.y") == "key=… and key=…"
    assert masked("tcp:10.0.0.1:5003") == "tcp:10.0.0.1:5003"


_BASE36 = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=8, max_size=13)
_KEYS = st.lists(_BASE36, min_size=4, max_size=4).map(".".join)


@given(
    _KEYS,
    st.sampled_from(["net:port=5,{}", "net:{}", "net://:5?{}", "net:port=5,target=a,{}", "net:{},port=5", "netx:{}"]),
    st.sampled_from(["key=", "KEY=", "key = ", "kee=", "", "keys="]),
)
def test_whatever_is_mistyped_around_a_key_it_is_not_shown(key: str, form: str, name: str) -> None:
    text = form.format(name + key)
    shown = masked(text)
    try:
        shown += parse_target(text).url
    except UsageError as error:
        shown += str(error)
    assert key not in shown
