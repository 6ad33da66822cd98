"""Passwords in addresses are never shown or stored."""

from __future__ import annotations

import pytest

from oaks.addresses import redacted


@pytest.mark.parametrize(("address", "shown"), [
    ("rtsp://admin:secret@10.0.0.1:554/stream1", "rtsp://admin:***@10.0.0.1:554/stream1"),
    ("rtsp://admin:se@cr:et/x@host/s", "rtsp://admin:***@host/s"),
    ("http://user:pa?ss#w@cam/video.mjpg", "http://user:***@cam/video.mjpg"),
    ("HTTPS://a:b@h", "HTTPS://a:***@h"),
    ("rtsp://:secret@host/", "rtsp://:***@host/"),
    ("rtsp://admin@host/stream", "rtsp://admin@host/stream"),
    ("http://cam/video?user=me&password=secret&fps=5", "http://cam/video?user=me&password=***&fps=5"),
    ("http://cam/v?access_token=a.b.c#t", "http://cam/v?access_token=***#t"),
    ("http://cam/v?X-Amz-Signature=abc&X=1", "http://cam/v?X-Amz-Signature=***&X=1"),
    ("srt://h:9000?passphrase=secret&mode=caller", "srt://h:9000?passphrase=***&mode=caller"),
    ("http://cam/v?pw=secret&n=2", "http://cam/v?pw=***&n=2"),
    ("http://cam/v#access_token=secret", "http://cam/v#access_token=***"),
    ("https://h/v?code=secret&ticket=a&jwt=b&x=1", "https://h/v?code=***&ticket=***&jwt=***&x=1"),
    ("http://cam:8080/video", "http://cam:8080/video"),
    ("street.mp4", "street.mp4"),
    ("a:b@c", "a:b@c"),
    ("cannot open 'rtsp://u:p@h/x': timed out", "cannot open 'rtsp://u:***@h/x': timed out"),
])  # fmt: skip
def test_passwords_in_addresses_are_replaced(address, shown):
    assert redacted(address) == shown
    assert redacted(shown) == shown
