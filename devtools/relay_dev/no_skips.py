"""A pytest plugin: a skipped test or test file counts as failed. A layer that can't run has not passed.

Expected failures (xfail) stay expected failures.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

MESSAGE = "Skipped, and nothing may be skipped here: put in place what the test needs. The reason given was: {}"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        place = report.longrepr
        reason = place[2] if isinstance(place, tuple) else str(place)
        report.outcome = "failed"
        report.longrepr = MESSAGE.format(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
