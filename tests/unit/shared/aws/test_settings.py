"""The settings about AWS are documented as they are."""

from __future__ import annotations

from shared.aws.settings import AwsSettings
from tests.unit.test_docs import rows, shown_default, shown_range


def test_every_setting_is_documented_as_it_is() -> None:
    documented = rows("AWS, for every service")
    fields = AwsSettings.model_fields
    assert set(documented) == {name.upper() for name in fields}
    for name, field in fields.items():
        _, default, _unit, limits, meaning = documented[name.upper()]
        assert default == shown_default(field), name
        assert limits == (shown_range(field) or "\N{EN DASH}"), name
        assert meaning.endswith("."), name
