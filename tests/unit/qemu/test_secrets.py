# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret of a command line, nor one that QEMU tells, gets into a text."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmfleet.suspend.plugins.module_utils._qemu._secrets import (
    HIDDEN,
    SHORTEST,
    hide,
    hide_in,
    secrets_in,
)

QEMU = "qemu-system-x86_64"
S = "geheim"


def found(*words: str) -> frozenset[str]:
    return secrets_in([QEMU, *words])


CARRIERS = [
    ["-object", f"secret,id=s,data={S}"],
    ["-object", f"qom-type=secret,id=s,data={S}"],
    ["--object", f"secret,id=s,format=base64,keyid=m,iv=abc,data={S}"],
    ["-object", json.dumps({"qom-type": "secret", "id": "s", "data": S})],
    ["-spice", f"port=1,password={S}"],
    ["-spice", f"port=1,x509-key-password={S}"],
    ["-iscsi", f"user=me,password={S}"],
    ["-drive", f"file=rbd:pool/image:id=a:key={S}:mon_host=h,format=raw"],
    ["-drive", f"file=https://me:{S}@h/image,format=raw"],
    ["-drive", f"file=ssh://me:{S}@h/image"],
    ["-drive", f"file=ftp://me:{S}@h/image"],
    ["-drive", f"file=nbd+tls://me:{S}@h/export"],
    ["-drive", f"file=iscsi://me%{S}@h/iqn/1"],
    ["-drive", f"file=https://h/image?token={S}&x=1"],
    ["-drive", f"file=https://h/image?X-Amz-Signature={S}"],
    ["-drive", f"file=https://h/image?sv=1&sig={S}"],
    ["-drive", f"file.driver=https,file.url=https://h/i,file.cookie={S}"],
    ["-drive", 'file=json:{"driver":"x",,"file":{"password":"' + S + '"}}'],
    ["-blockdev", f"driver=x,node-name=n,password={S}"],
    ["-blockdev", json.dumps({"driver": "raw", "file": {"driver": "x", "passwd": S}})],
    ["-blockdev", json.dumps({"driver": "x", "list": [{"key": S}]})],
    ["-blockdev", json.dumps({"driver": "https", "url": f"https://me:{S}@h/i"})],
    ["-hda", f"rbd:pool/image:id=a:key={S}:mon_host=h"],
    ["-hda", 'json:{"driver":"x","password":"' + S + '"}'],
    [f"rbd:pool/image:key={S}"],
    [f"https://me:{S}@h/image"],
    ["-fw_cfg", f"name=opt/x,string={S}"],
    ["-smbios", f"type=11,value={S}"],
    ["-smbios", f"type=11,value=one,value={S}"],
    ["-smbios", f"type=11,value=io.systemd.credential:login={S}"],
    ["-append", f"root=/dev/vda quiet password={S} ro"],
    ["-append", f"rootpw.token={S}"],
    ["-append", f'SECRET="{S}"'],
    ["-append", f"x.api-key={S}"],
    ["-append", f"systemd.set_credential=login:{S}"],
    ["-append", f"inst.ks=https://me:{S}@h/ks"],
    ["-global", f"driver.password={S}"],
    ["-device", json.dumps({"driver": "d", "password": S})],
]


@pytest.mark.parametrize("words", CARRIERS, ids=" ".join)
def test_a_secret_is_found_wherever_an_option_carries_it(words: list[str]) -> None:
    assert S in found(*words)
    assert S in found("-m", "64", *words, "-nodefaults")


@pytest.mark.parametrize(
    ("words", "secret"),
    [
        (["-object", "secret,id=s,data=ge,,heim"], "ge,heim"),
        (["-spice", "password=ge,,heim"], "ge,heim"),
        (["-drive", r"file=rbd:p/i:key=ge\:heim:id=a"], "ge:heim"),
        (["-drive", r"file=rbd:p/i:key=ge\:heim:id=a"], r"ge\:heim"),
        (["-drive", "file=https://me:g%40heim@h/i"], "g@heim"),
        (["-append", 'password="ge heim" ro'], "ge heim"),
        (["-append", '"password=ge heim" ro'], "ge heim"),
        (["-object", json.dumps({"qom-type": "secret", "data": 'ge"heim'})], 'ge"heim'),
        (["-object", json.dumps({"qom-type": "secret", "data": 'ge"heim'})], r"ge\"heim"),
        (["-object", json.dumps({"qom-type": "secret", "data": "grün"})], "grün"),
        (["-blockdev", json.dumps({"driver": "x", "password": 12345})], "12345"),
        (["-hda", 'json:{"driver":"x","password":12345}'], "12345"),
        (["-object", json.dumps({"qom-type": "secret", "data": "ge,heim"})], "ge,,heim"),
        (["-spice", 'password=grün"'], r"grün\""),
        (["-spice", 'password=grün"'], r"gr\u00fcn\""),
        (["-append", "token=ge\x85heim"], "ge\x85heim"),
    ],
)
def test_a_secret_is_known_as_it_is_written_and_as_it_is_meant(
    words: list[str], secret: str
) -> None:
    assert secret in found(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["-vnc", ":0,password=on"],
        ["-vnc", ":0,password"],
        ["-drive", "file=d,file.password-secret=sec0,encrypt.key-secret=sec1"],
        ["-object", "secret,id=sec0,file=/run/key"],
        ["-object", "tls-creds-x509,id=t,dir=/etc/pki,passwordid=sec0"],
        ["-object", "memory-backend-file,id=m,mem-path=/dev/shm/data"],
        ["-device", "loader,addr=0x10,data=1234"],
        ["-fw_cfg", "name=opt/x,file=/etc/x"],
        ["-smbios", "type=1,serial=1234"],
        ["-append", "root=/dev/vda vconsole.keymap=de-latin1 iommu=pt ro"],
        ["-drive", "file=ssh://me@h/image"],
        ["-netdev", "user,id=n,hostfwd=tcp::2222-:22"],
        ["-qmp", "unix:/run/qmp,server=on,wait=off"],
        ["-k", "de"],
    ],
    ids=" ".join,
)
def test_ids_files_and_switches_are_no_secrets(words: list[str]) -> None:
    assert found(*words) == frozenset()


def test_a_command_line_without_options_has_no_secrets() -> None:
    assert secrets_in([]) == secrets_in([QEMU]) == frozenset()


# Known values taken out.


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("-spice password=geheim,port=1", ["geheim"], "-spice password=[hidden],port=1"),
        ("geheim geheim", ["geheim"], "[hidden] [hidden]"),
        ("geheimnis", ["geheim", "geheimnis"], "[hidden]"),
        ("geheimnis", ["heim", "geheimnis"], "[hidden]"),
        ("abcde.", ["abc", "bcde"], "[hidden]."),  # parts of the second would be left
        ("abcabc", ["abc"], "[hidden]"),
        ("aaaaa", ["aaa"], "[hidden]"),
        ("nothing of it", ["geheim"], "nothing of it"),
        ("", ["geheim"], ""),
        ("on the 1st", ["1", "on", ""], "on the 1st"),  # too short: see SHORTEST
    ],
)
def test_every_occurrence_goes_and_the_rest_stays(
    text: str, secrets: list[str], shown: str
) -> None:
    assert hide(text, secrets) == shown


letters = st.text("abc,:\\\"'[]hide", max_size=12)


@given(letters, st.lists(letters, max_size=5))
def test_no_secret_survives(text: str, secrets: list[str]) -> None:
    longer = [secret for secret in secrets if len(secret) >= SHORTEST]
    pieces = hide(text.join([*secrets, ""]), longer).split(HIDDEN)
    assert not [secret for secret in longer if any(secret in piece for piece in pieces)]


@given(letters, st.lists(letters, max_size=5))
def test_nothing_else_goes(text: str, secrets: list[str]) -> None:
    if not any(secret in text for secret in secrets):
        assert hide(text, secrets) == text


# Whatever can be typed in one word of a command line, beside what the notation itself needs.
typed = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters=",\\\":'@/?#&=%{}[]"),
    min_size=SHORTEST,
).filter(lambda value: value.lower() not in ("yes", "off", "true", "false"))


@given(st.sampled_from(CARRIERS), typed)
def test_a_command_line_is_told_without_its_secrets(words: list[str], secret: str) -> None:
    argv = [QEMU, *(word.replace(S, secret) for word in words)]
    shown = hide(" ".join(argv), secrets_in(argv))
    around = " ".join(argv).replace(secret, "")  # what is there without it
    assert secret in around or all(secret not in piece for piece in shown.split(HIDDEN))


# Secrets known by their shape alone.

SHAPES = [
    ("http://u:geheim@h/", "http://u:[hidden]@h/"),
    ("http://u:ge@heim@h/a@b", "http://u:[hidden]@h/a@b"),
    ("http://:geheim@h/", "http://:[hidden]@h/"),
    ("iscsi://u%geheim@h/iqn/0", "iscsi://u%[hidden]@h/iqn/0"),
    ("https://h/i?a=1&token=geheim", "https://h/i?a=1&token=[hidden]"),
    ("https://h/i?X-T-Signature=geheim,a=1", "https://h/i?X-T-Signature=[hidden],a=1"),
    ("https://h/i?sig=geheim&a=1", "https://h/i?sig=[hidden]&a=1"),
    ("rbd:pool/img:id=a:key=geheim", "rbd:pool/img:id=a:key=[hidden]"),
    ("-spice port=1,password=ge,,heim,addr=h", "-spice port=1,password=[hidden],addr=h"),
    ("-object secret,id=s,data=geheim", "-object secret,id=s,data=[hidden]"),
    ('json:{"driver":"x","password":"geheim"}', 'json:{"driver":"x","password":"[hidden]"}'),
    ('{"password" : "ge\\"heim", "a": 1}', '{"password" : "[hidden]", "a": 1}'),
    ("{'password': 'geheim', 'a': 1}", "{'password': '[hidden]', 'a': 1}"),
    (
        '{"file": "json:{\\"passwd\\": \\"geheim\\", \\"a\\": 1}"}',
        '{"file": "json:{\\"passwd\\": \\"[hidden]\\", \\"a\\": 1}"}',
    ),
    ('{"qom-type": "secret", "data": "geheim"}', '{"qom-type": "secret", "data": "[hidden]"}'),
    ('{"data": "geheim", "qom-type": "secret"}', '{"data": "[hidden]", "qom-type": "secret"}'),
    ('{"password": "gehe', '{"password": "[hidden]'),  # cut short
    ("PASSWORD=geheim", "PASSWORD=[hidden]"),
]


@pytest.mark.parametrize(("text", "shown"), SHAPES, ids=[row[0] for row in SHAPES])
def test_a_text_that_names_a_secret_loses_it(text: str, shown: str) -> None:
    assert hide_in(text) == shown
    assert hide_in(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/var/lib/images/disk.qcow2",
        "ssh://me@h/image",
        "http://h:80/a@b",
        "nbd://[::1]:10809/export",
        "-vnc :0,password=on",
        "-vnc :0,password=off -m 64",
        "encrypt.key-secret=sec0,file.password-secret=sec1",
        '{"driver": "luks", "key-secret": "sec0"}',
        '{"data": "of no secret object"}',
        "Could not open 'a:b': No such file or directory",
        "",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert hide_in(text) == text


@given(st.sampled_from(SHAPES), typed)
def test_a_secret_of_any_letters_is_known_by_its_shape(row: tuple[str, str], secret: str) -> None:
    text, _shown = row
    around = text.replace("geheim", "")
    shown = hide_in(text.replace("geheim", secret))
    assert secret in around or all(secret not in piece for piece in shown.split(HIDDEN))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "://" * 70_000,
        "://a:" * 40_000,
        'key"' * 50_000,
        "key=," * 40_000,
        "?" + "a" * 200_000,
        "?token" * 40_000,
    ],
    ids=lambda text: text[:5],
)
def test_a_long_text_takes_no_longer_than_its_length_asks(text: str) -> None:
    start = time.process_time()
    hide_in(text)
    assert time.process_time() - start < 5
