"""A local S3 server (moto) that the real client (s3fs) talks to."""

from contextlib import contextmanager, suppress

import pytest

SECRET = "not-for-any-file-0123456789"


@contextmanager
def running():
    """Give a client of a server that runs here, and let every library find it."""
    boto3 = pytest.importorskip("boto3")
    server = pytest.importorskip("moto.server")
    with pytest.MonkeyPatch.context() as patch:
        here = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        here.start()
        host, port = here.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "somebody-known",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": host,
        }.items():
            patch.setenv(name, value)
        patch.setattr("s3fs.core.S3FileSystem.retries", 1)
        yield boto3.client("s3")
        here.stop()


def names_of(server, bucket):
    """Return the keys of a bucket."""
    found = server.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [each["Key"] for each in found]


def keys_of(server, bucket):
    """Return what a bucket holds, by key; what goes meanwhile is left out."""
    found = {}
    for key in names_of(server, bucket):
        with suppress(server.exceptions.NoSuchKey):
            found[key] = server.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found
