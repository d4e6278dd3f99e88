"""Secrets in pairs: which one signs, which ones are believed, and what makes no sense."""

from __future__ import annotations

import pytest

from api_gateway.settings import Settings as GatewaySettings
from broadcast_service.settings import Settings as FeedSettings
from shared.aliases import AliasSettings
from shared.identity.api_keys import ApiKeySettings
from shared.secret_pairs import SecretPair, check_distinct, checked_pair, totals_of
from shared.settings import EnvironmentSettings

NEW, OLD = "n" * 32, "o" * 32
SINCE = "2030-01-31T18:00:00Z"
SINCE_US = 1_896_112_800_000_000
JWT = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}


def test_the_old_one_signs_until_the_instant_and_both_are_believed() -> None:
    pair = checked_pair("X_SECRET", NEW, OLD, SINCE)
    assert pair.since_us == SINCE_US
    assert [pair.at(SINCE_US - 1), pair.at(SINCE_US)] == [OLD, NEW]
    assert [pair.now(lambda: SINCE_US / 1e6 - 1), pair.now(lambda: SINCE_US / 1e6 + 1)] == [OLD, NEW]
    assert list(pair.believed()) == [NEW, OLD]


def test_one_alone_always_holds_and_none_is_believed_nowhere() -> None:
    alone = checked_pair("X_SECRET", NEW)
    assert [alone.at(0), alone.now()] == [NEW, NEW]
    assert list(alone.believed()) == [NEW]
    assert bool(alone) is True
    none = checked_pair("X_SECRET", "")
    assert (list(none.believed()), bool(none)) == ([], False)


def test_what_needs_the_old_one_is_counted_by_its_setting() -> None:
    pair, alone = checked_pair("X_SECRET", NEW, OLD, SINCE), checked_pair("Y_SECRET", NEW)
    for used in (NEW, OLD, OLD):
        pair.note(used)
        alone.note(used)
    assert totals_of([pair, alone]) == {"X_SECRET": 2.0}
    # An empty one is no secret that anything can be believed by.
    SecretPair("X_SECRET", "").note("")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ((NEW, NEW, SINCE), "X_SECRET and X_SECRET_ALSO must differ"),
        (("n" * 31, OLD, SINCE), "X_SECRET must have at least 32 bytes"),
        ((NEW, "o" * 31, SINCE), "X_SECRET_ALSO must have at least 32 bytes"),
        (("", OLD, SINCE), "X_SECRET_ALSO is set, and X_SECRET, the secret that lasts, is not"),
        (("", "", SINCE), "X_SECRET_SINCE is set, and X_SECRET"),
        ((NEW, OLD, ""), "X_SECRET_ALSO and X_SECRET_SINCE go together"),
        ((NEW, "", SINCE), "X_SECRET_ALSO and X_SECRET_SINCE go together"),
        ((NEW, OLD, "tomorrow"), "X_SECRET_SINCE: 'tomorrow' is no date and time with a UTC offset"),
        ((NEW, OLD, "2030-01-31T18:00:00"), "X_SECRET_SINCE: .* UTC offset, such as 2030-01-31T18:00:00Z"),
    ],
)
def test_what_makes_no_sense_is_named_and_no_secret_is_shown(values: tuple[str, str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as told:
        checked_pair("X_SECRET", *values)
    assert "nnnn" not in str(told.value)
    assert "oooo" not in str(told.value)


def test_secrets_of_two_things_are_two() -> None:
    check_distinct({"X_SECRET": NEW, "X_SECRET_ALSO": "", "Y_SECRET": OLD, "Y_SECRET_ALSO": ""})
    with pytest.raises(ValueError, match="X_SECRET_ALSO and Y_SECRET must differ"):
        check_distinct({"X_SECRET": NEW, "X_SECRET_ALSO": OLD, "Y_SECRET": OLD})


@pytest.mark.parametrize(
    ("settings", "name", "more"),
    [
        (AliasSettings, "ALIAS_SECRET", {"AUTH_MODE": "jwt"}),
        (FeedSettings, "FEED_TOKEN_SECRET", {}),
        (GatewaySettings, "FEED_TOKEN_SECRET", {}),
        (ApiKeySettings, "API_KEY_SECRET", {}),
        (GatewaySettings, "API_KEY_SECRET", {}),
        (GatewaySettings, "AUTH_HS256_SECRET", JWT | {"OPEN_CATALOGUE": "false", "OPEN_IDENTITY": "false"}),
    ],
)
def test_every_secret_of_our_own_has_the_same_three_settings(
    settings: type[EnvironmentSettings], name: str, more: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting, value in (more | {name: NEW, f"{name}_ALSO": OLD, f"{name}_SINCE": SINCE}).items():
        monkeypatch.setenv(setting, value)
    found = settings()
    assert NEW not in repr(found)
    assert OLD not in repr(found)
    for setting, value, complaint in (
        (f"{name}_ALSO", NEW, f"{name} and {name}_ALSO must differ"),
        (f"{name}_ALSO", "short", "must have at least 32 bytes"),
        (f"{name}_SINCE", "", f"{name}_ALSO and {name}_SINCE go together"),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(setting, value)
            with pytest.raises(ValueError, match=complaint):
                settings()


def test_an_old_secret_is_none_of_another_thing_either(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {"ALIAS_SECRET": NEW, "ALIAS_SECRET_ALSO": OLD, "ALIAS_SECRET_SINCE": SINCE}
    for setting, value in (pair | {"FEED_TOKEN_SECRET": OLD}).items():
        monkeypatch.setenv(setting, value)
    with pytest.raises(ValueError, match="ALIAS_SECRET_ALSO and FEED_TOKEN_SECRET must differ"):
        AliasSettings()


def test_a_gateway_keys_its_api_keys_with_a_secret_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_nobody = JWT | {"OPEN_CATALOGUE": "false", "OPEN_IDENTITY": "false"}
    for setting, value in (open_to_nobody | {"AUTH_HS256_SECRET": NEW, "API_KEY_SECRET": NEW}).items():
        monkeypatch.setenv(setting, value)
    with pytest.raises(ValueError, match="AUTH_HS256_SECRET and API_KEY_SECRET must differ"):
        GatewaySettings()
