from pathlib import Path

import pytest

from tests.parity import metric_cases


@pytest.mark.parametrize("case", metric_cases.CASES)
def test_metrics_are_those_of_the_released_programs(case, request):
    consumed: set[str] = set()
    golden = Path(request.config.getoption("--golden"))
    getattr(metric_cases, case)(golden, consumed)
    assert consumed
