"""Settings: which place wins, what is refused, and that no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimhouse import settings
from claimhouse.errors import SettingsError, UsageError

SECRET = "pl4nted-s3cret"


def write(folder: Path, text: str) -> Path:
    path = folder / "claimhouse.toml"
    path.write_text(text)
    return path


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(tmp_path: Path) -> None:
    path = write(tmp_path, '[query]\nformat = "csv"\n')
    environment = {"CLAIMHOUSE_QUERY_FORMAT": "json"}

    def found(*, file: bool, variables: bool, flag: bool) -> tuple[str, str]:
        loaded = settings.load(
            path if file else None,
            {"query.format": "arrow"} if flag else {},
            {"CLAIMHOUSE_CONFIG": str(path)} if file and variables is None else (environment if variables else {}),
        )
        return loaded.query.format, loaded.origins.get("query.format", "default")

    assert found(file=True, variables=True, flag=True) == ("arrow", "command line")
    assert found(file=True, variables=True, flag=False) == ("json", "CLAIMHOUSE_QUERY_FORMAT")
    assert found(file=True, variables=False, flag=False) == ("csv", str(path))


def test_without_any_of_them_the_default_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = settings.load(environment={})
    assert loaded.query.format == "table"
    assert {origin for _, _, origin in settings.shown(loaded)} == {"default"}


def test_the_file_in_this_folder_is_found_and_another_is_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '[lake]\nregion = "here"\n')
    other = tmp_path / "other.toml"
    other.write_text('[lake]\nregion = "there"\n')
    monkeypatch.chdir(tmp_path)
    assert settings.load(environment={}).lake.region == "here"
    assert settings.load(environment={"CLAIMHOUSE_CONFIG": str(other)}).lake.region == "there"


def test_a_file_that_was_asked_for_and_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no settings file"):
        settings.load(tmp_path / "none.toml", environment={})


@pytest.mark.parametrize(
    ("text", "wrong", "near"),
    [
        ('[lake]\nlocaton = "x"\n', "lake.locaton", "lake.location"),
        ('[source.claims]\nfreshnes = "1s"\n', "source.claims.freshnes", "source.claims.freshness"),
        ('[quary]\nformat = "csv"\n', "quary.format", "query.format"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(tmp_path: Path, text: str, wrong: str, near: str) -> None:
    with pytest.raises(SettingsError, match="unknown setting") as caught:
        settings.load(write(tmp_path, text), environment={})
    assert caught.value.hint == f"did you mean {near}?"
    assert wrong.split(".")[0] in str(caught.value)


def test_a_misspelt_variable_is_an_error_too_but_variables_of_other_kinds_are_left_alone() -> None:
    with pytest.raises(SettingsError, match=r"lake\.locaton in CLAIMHOUSE_LAKE_LOCATON"):
        settings.load(environment={"CLAIMHOUSE_LAKE_LOCATON": "x"})
    settings.load(environment={"CLAIMHOUSE_FAILPOINT": "tail.before_link", "PATH": "/bin"})


@pytest.mark.parametrize("text", ["[lake", "lake = 3\n", '[source]\ndsn = "x"\n', '[source."A B"]\ndsn = "x"\n'])
def test_a_malformed_file_is_an_error_not_a_traceback(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        settings.load(write(tmp_path, text), environment={})


def test_a_malformed_value_names_its_setting_and_where_it_stands(tmp_path: Path) -> None:
    path = write(tmp_path, '[source.main]\nfreshness = "3"\n')
    with pytest.raises(
        SettingsError, match=r"source\.main\.freshness in .*claimhouse\.toml: a duration looks like 25ms"
    ):
        settings.load(path, environment={})
    with pytest.raises(SettingsError, match=r"query\.format in CLAIMHOUSE_QUERY_FORMAT"):
        settings.load(environment={"CLAIMHOUSE_QUERY_FORMAT": "xml"})


def test_variables_reach_sources_whose_names_have_underscores() -> None:
    loaded = settings.load(
        environment={"CLAIMHOUSE_SOURCE_CLAIMS_EU_DSN": "service=eu", "CLAIMHOUSE_SOURCE_CLAIMS_EU_TABLES": "a, b.*"}
    )
    assert loaded.source["claims_eu"].dsn.reveal() == "service=eu"
    assert loaded.source["claims_eu"].tables == ["a", "b.*"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("25ms", 0.025), ("2s", 2.0), ("1.5m", 90.0), ("250us", 0.00025), ("1h", 3600.0)]
)
def test_durations_are_read_with_their_unit(text: str, seconds: float) -> None:
    assert settings.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["25", "ms", "-1s", "1 day", "", "nan"])
def test_a_duration_without_a_unit_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration looks like"):
        settings.parse_duration(text)


@given(st.integers(1, 10**9))
def test_a_duration_is_printed_as_it_is_read(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert settings.parse_duration(settings.format_duration(seconds)) == pytest.approx(seconds)


def test_the_lake_of_the_file_lies_beside_the_file(tmp_path: Path) -> None:
    assert settings.load(write(tmp_path, '[lake]\nlocation = "lake"\n'), environment={}).lake.location == str(
        tmp_path / "lake"
    )
    for fixed in ("/srv/lake", "s3://bucket/lake"):
        assert settings.load(write(tmp_path, f'[lake]\nlocation = "{fixed}"\n'), environment={}).lake.location == fixed


def test_times_that_are_not_set_follow_where_the_lake_lies() -> None:
    here, there = (settings.load(flags={"lake.location": place}, environment={}) for place in ("lake", "s3://b/lake"))
    source = settings.Source()
    assert here.timing(source) == (0.025, 2.0)
    assert there.timing(source) == (1.0, 30.0)
    assert there.timing(settings.changed(source, "main", {"freshness": "50ms"})) == (0.05, 30.0)


def test_an_s3_server_without_tls_is_told_to_the_store() -> None:
    loaded = settings.load(flags={"lake.endpoint": "http://127.0.0.1:5000", "lake.region": "eu-1"}, environment={})
    assert loaded.storage_options() == {"endpoint": "http://127.0.0.1:5000", "allow_http": "true", "region": "eu-1"}


class TestWhichSource:
    def loaded(self, tmp_path: Path) -> settings.Settings:
        text = '[source.claims]\ndsn = "service=claims"\n[source.billing]\ndsn = "service=billing"\n'
        return settings.load(write(tmp_path, text), environment={})

    def test_none_given_means_all_of_the_settings(self, tmp_path: Path) -> None:
        assert list(settings.choose(self.loaded(tmp_path), None, environment={})) == ["claims", "billing"]

    def test_a_name_chooses_one(self, tmp_path: Path) -> None:
        assert list(settings.choose(self.loaded(tmp_path), "billing", environment={})) == ["billing"]
        assert list(settings.choose(self.loaded(tmp_path), None, "billing", environment={})) == ["billing"]

    def test_a_wrong_name_is_answered_with_the_nearest(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError) as caught:
            settings.choose(self.loaded(tmp_path), "biling", environment={})
        assert caught.value.hint == "did you mean billing?"

    def test_a_connection_string_is_called_main_unless_named(self, tmp_path: Path) -> None:
        loaded = self.loaded(tmp_path)
        assert settings.choose(loaded, "host=x")["main"].dsn.reveal() == "host=x"
        assert settings.choose(loaded, "postgresql://x/y", "eu")["eu"].dsn.reveal() == "postgresql://x/y"

    def test_libpq_variables_alone_are_a_source(self, tmp_path: Path) -> None:
        bare = settings.load(write(tmp_path, ""), environment={})
        assert settings.choose(bare, None, environment={"PGSERVICE": "claims"})["main"].dsn.reveal() == ""
        with pytest.raises(UsageError, match="no source is named"):
            settings.choose(bare, None, environment={})

    @pytest.mark.parametrize("name", ["A", "1a", "a-b", "", "a" * 41, "_a", "a_xb"])
    def test_a_name_that_is_no_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="a source's name"):
            settings.choose(self.loaded(tmp_path), "host=x", name)


def test_a_password_in_the_file_is_warned_about_and_never_shown(tmp_path: Path) -> None:
    path = write(tmp_path, f'[source.main]\ndsn = "postgresql://app:{SECRET}@db/claims"\n')
    loaded = settings.load(path, environment={})
    assert any("source.main" in text for text in loaded.warnings())
    assert loaded.source["main"].dsn.reveal().count(SECRET) == 1
    for seen in (repr(loaded), str(loaded), str(settings.shown(loaded)), *loaded.warnings(), loaded.model_dump_json()):
        assert SECRET not in seen


def test_a_password_from_the_environment_is_no_reason_to_warn() -> None:
    loaded = settings.load(environment={"CLAIMHOUSE_SOURCE_MAIN_DSN": f"host=db password={SECRET}"})
    assert loaded.warnings() == []
    assert SECRET not in repr(loaded)


def test_an_error_about_a_connection_string_does_not_repeat_it(tmp_path: Path) -> None:
    path = write(tmp_path, f'[source.main]\ndsn = ["host=db password={SECRET}"]\n')
    with pytest.raises(SettingsError) as caught:
        settings.load(path, environment={})
    assert SECRET not in str(caught.value) + str(caught.value.hint)
