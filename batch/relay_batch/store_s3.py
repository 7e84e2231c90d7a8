"""The same store in an S3 bucket, or in any service that speaks S3 and honours If-None-Match."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from .errors import BadOutput
from .store_names import checked_name

ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")
MISSING = ("NoSuchKey", "404")
IS_THERE = "PreconditionFailed"
OTHERS_AT_IT = "ConditionalRequestConflict"
"""Another write of the same name is under way: nobody knows yet which one counts."""
TRIES, PAUSE = 20, 0.1
ATTEMPTS = 8
"""For one request: a fault of the store stops the run."""
Answer = TypeVar("Answer")


class S3Store:
    """A prefix of a bucket. The region, the endpoint and the keys come from the environment or from AWS's own files.

    S3 shows a file whole or not at all. Raises OSError for all that the service refuses, after botocore's own retries.
    """

    def __init__(self, address: str):
        """`address` is s3://BUCKET or s3://BUCKET/PREFIX."""
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise BadOutput(f"{address!r} is no place in S3. Write s3://BUCKET/PREFIX.")
        self.bucket, self.prefix = found[1], (found[2] or "").strip("/")
        if self.prefix:
            checked_name(self.prefix, f"s3://{self.bucket}")
        self._client = _client()
        self._keeps_the_first = False
        """Whether this service was seen to refuse a second write."""
        self._appended: dict[str, bytes] = {}
        """The files that this writer appends to, whole."""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def write_new(self, name: str, data: bytes) -> bool:
        """Where the file is there already, its content decides: equal content is this very write, whose answer was lost."""
        if not self._put_new(name, data):
            return self.read(name) == data
        if not self._keeps_the_first:
            if self._put_new(name, data):
                raise OSError(
                    f"{self}: this service ignores If-None-Match, so a row could be published twice. "
                    "Use one that honours it, or a folder."
                )
            self._keeps_the_first = True
        return True

    def replace(self, name: str, data: bytes) -> None:
        self._ask(name, lambda key: self._client.put_object(Bucket=self.bucket, Key=key, Body=data))

    def read(self, name: str) -> bytes:
        def get(key: str) -> bytes:
            return bytes(self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

        return self._ask(name, get)

    def remove(self, name: str) -> None:
        self._ask(name, lambda key: self._client.delete_object(Bucket=self.bucket, Key=key))

    def names(self, folder: str) -> Iterator[str]:
        return (name for name, _ in self.sizes(folder))

    def sizes(self, folder: str) -> Iterator[tuple[str, int]]:
        start = f"{self.prefix}/" if self.prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=f"{self._key(folder)}/"
        )
        listed = iter(pages)
        while (page := self._ask(folder, lambda key: next(listed, None))) is not None:
            yield from ((one["Key"].removeprefix(start), int(one["Size"])) for one in page.get("Contents", ()))

    def append(self, name: str, data: bytes) -> None:
        """Writes the whole file again: S3 can't add to one."""
        if name not in self._appended:
            with suppress(FileNotFoundError):
                self._appended[name] = self.read(name)
        self._appended[name] = self._appended.get(name, b"") + data
        self.replace(name, self._appended[name])

    def sweep(self) -> None:
        """S3 keeps nothing half written."""

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{checked_name(name, str(self))}".lstrip("/")

    def _put_new(self, name: str, data: bytes) -> bool:
        """False if there is a file of that name."""
        for _ in range(TRIES):
            try:
                self._ask(
                    name, lambda key: self._client.put_object(Bucket=self.bucket, Key=key, Body=data, IfNoneMatch="*")
                )
                return True
            except _Refused as error:
                if error.code == IS_THERE:
                    return False
                if error.code != OTHERS_AT_IT:
                    raise
                time.sleep(PAUSE)
        raise OSError(f"{self}: {name} is being written by others all the time. Nothing was written.")

    def _ask(self, name: str, request: Callable[[str], Answer]) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request(self._key(name))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in MISSING:
                raise FileNotFoundError(f"{self} has no {name}") from error
            raise _Refused(f"{self}: {name}: {error}", code) from error
        except BotoCoreError as error:
            raise OSError(f"{self} can't be reached ({error}).") from error


@cache
def s3_store(address: str) -> S3Store:
    """The store of an address, one a process: making the client takes longer than a request."""
    return S3Store(address)


class _Refused(OSError):
    """An answer of the service. `code` is the service's own word for it."""

    def __init__(self, message: str, code: str):
        super().__init__(message)
        self.code = code


def _client() -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise BadOutput("An output in S3 needs boto3: pip install diffusers-relay-batch[s3].") from error
    try:
        attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
        return boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": attempts}))
    except (BotoCoreError, ValueError) as error:
        raise BadOutput(f"S3 can't be used ({error}). Set AWS_ENDPOINT_URL, AWS_REGION and the keys.") from error
