"""Passwords in addresses are never shown or stored."""

from __future__ import annotations

import pytest

import oaks
from oaks.addresses import redacted
from oaks.boxes import boxes_from_file
from oaks.images import read_image


@pytest.mark.parametrize(("address", "shown"), [
    ("rtsp://admin:secret@10.0.0.1:554/stream1", "rtsp://admin:***@10.0.0.1:554/stream1"),
    ("rtsp://admin:se@cr:et/x@host/s", "rtsp://admin:***@host/s"),
    ("http://user:pa?ss#w@cam/video.mjpg", "http://user:***@cam/video.mjpg"),
    ("HTTPS://a:b@h", "HTTPS://a:***@h"),
    ("rtsp://:secret@host/", "rtsp://:***@host/"),
    ("rtsp://admin@host/stream", "rtsp://admin@host/stream"),
    ("rtsp://me@mail.com:pw@host/stream", "rtsp://me@mail.com:***@host/stream"),
    ("rtsp:\\me@mail.com:pw@host\\s", "rtsp:\\me@mail.com:***@host\\s"),
    ("rtsp://me@host:554/stream", "rtsp://me@host:554/stream"),
    ("http://minio:9000/img/a@2x.jpg", "http://minio:9000/img/a@2x.jpg"),
    ("rtsp://admin:12345@host:554/s", "rtsp://admin:***@host:554/s"),
    ("rtsp://admin:123456/7@host/s", "rtsp://admin:***@host/s"),  # no port has six digits
    ("http://cam/video?user=me&password=secret&fps=5", "http://cam/video?user=me&password=***&fps=5"),
    ("http://cam/v?access_token=a.b.c#t", "http://cam/v?access_token=***#t"),
    ("http://cam/v?X-Amz-Signature=abc&X=1", "http://cam/v?X-Amz-Signature=***&X=1"),
    ("srt://h:9000?passphrase=secret&mode=caller", "srt://h:9000?passphrase=***&mode=caller"),
    ("http://cam/v?pw=secret&n=2", "http://cam/v?pw=***&n=2"),
    ("http://cam/v#access_token=secret", "http://cam/v#access_token=***"),
    ("https://h/v?code=secret&ticket=a&jwt=b&x=1", "https://h/v?code=***&ticket=***&jwt=***&x=1"),
    ("rtsp://u:p@ss:w%40rd%3A@host/s", "rtsp://u:***@host/s"),
    ("ftp://u:secret@h/clip.mp4", "ftp://u:***@h/clip.mp4"),
    ("http:/u:secret@h/a.json", "http:/u:***@h/a.json"),  # a path made of an address
    ("http:\\u:secret@h\\a.json", "http:\\u:***@h\\a.json"),
    ("http://h/v?password=a@b:c%26&n=1", "http://h/v?password=***&n=1"),
    ("http://h/v?Pass%77ord[]=secret&psw=a&sessid=b", "http://h/v?Pass%77ord[]=***&psw=***&sessid=***"),
    ("http://h/v.cgi?loginuse=admin&loginpas=secret", "http://h/v.cgi?loginuse=admin&loginpas=***"),
    ("rtsp://h/user=admin_password=se.cret_channel=1_stream=0.sdp", "rtsp://h/user=admin_password=***"),
    ("rtsp://h/user=admin&password=secret&channel=1", "rtsp://h/user=admin&password=***&channel=1"),
    ("http://h/token=secret/stream", "http://h/token=***/stream"),
    ("http://cam:8080/video", "http://cam:8080/video"),
    ("street.mp4", "street.mp4"),
    ("a:b@c", "a:b@c"),
    ("cannot open 'rtsp://u:p@h/x': timed out", "cannot open 'rtsp://u:***@h/x': timed out"),
])  # fmt: skip
def test_passwords_in_addresses_are_replaced(address, shown):
    assert redacted(address) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(("address", "shown"), [
    ("rtsp://u:my pass@word 1@h/s", "rtsp://u:***@h/s"), ("rtsp://u:a\nb@h/s", "rtsp://u:***@h/s"),
    ("http://h/v?key=it's 'one&n=1", "http://h/v?key=***&n=1"), ("C:/a b@c/d.mp4", "C:/a b@c/d.mp4"),
    ("rtsp://u:secret@h/s", "rtsp://u:***@h/s"), ("street 1.mp4", "street 1.mp4"),
    ("rtsp://me@mail.com:my pw@h/s", "rtsp://me@mail.com:***@h/s"),
    ("http://minio:9000/a b@2x.jpg", "http://minio:9000/a b@2x.jpg"),
])  # fmt: skip
def test_white_space_belongs_to_the_password_of_an_address_alone(address, shown):
    assert redacted(address, alone=True) == shown
    assert redacted(shown, alone=True) == shown


@pytest.mark.parametrize(
    "call", [oaks.Bundle.load, oaks.Engine, oaks.Detector, read_image, boxes_from_file, oaks.Poses.load]
)
def test_errors_of_calls_that_take_no_addresses_hold_no_passwords(call):
    with pytest.raises((OSError, oaks.OaksError), match=r"http:/+me:\*\*\*@host/a\.onnx") as caught:
        call("http://me:sec@ret@host/a.onnx")
    assert "sec" not in str(caught.value)
