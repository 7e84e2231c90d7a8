"""Wrong warnings from libraries stay out of the log, and true ones come through."""

from __future__ import annotations

import logging
import warnings

import pytest

from diffusers_relay.pipelines.base.library_log import NAME, without_empty_warning, without_rounding_warnings


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("Should have ta>=t0 but got ta=0.0291675366461277 and t0=0.029168.", False),
        ("Should have tb<=t1 but got tb=14.614643 and t1=14.614640.", False),
        ("Should have ta>=t0 but got ta=0.0281 and t0=0.029168.", True),
        ("Should have tb<=t1 but got tb=157.4 and t1=14.614641.", True),
        ("BrownianInterval is optimised for interval-based queries, not point evaluation.", True),
    ],
)
def test_torchsde_warns_of_its_own_rounding(text: str, passes: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with without_rounding_warnings():
            warnings.warn(text, stacklevel=1)
    assert [str(one.message) for one in caught] == ([text] if passes else [])


def test_torchsde_still_rounds() -> None:
    """When this test fails, torchsde no longer warns about its own interval's ends, and ``without_rounding_warnings`` can go."""
    import torch
    from diffusers.schedulers.scheduling_dpmsolver_sde import BrownianTreeNoiseSampler

    low = 0.0291675366461277
    draw = BrownianTreeNoiseSampler(torch.zeros(1, 4, 2, 2), low, 14.6, seed=[3])
    with pytest.warns(UserWarning, match=r"Should have ta>=t0 but got ta=0\.02916.* and t0=0\.029168\."):
        draw(1.0, low)


@pytest.mark.parametrize(("modules", "passes"), [("[]", False), ("['norm']", True)])
def test_diffusers_warns_of_no_modules(caplog: pytest.LogCaptureFixture, modules: str, passes: bool) -> None:
    logger = logging.getLogger(NAME)
    logger.addHandler(caplog.handler)
    try:
        with without_empty_warning():
            logger.warning("There are modules in X that should be kept in float32: %s. Casting", modules)
    finally:
        logger.removeHandler(caplog.handler)
    assert bool(caplog.records) is passes
