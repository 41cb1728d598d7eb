"""Settings: where they come from, which wins, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import llm_magics as lm
from llm_magics.errors import ConfigurationError
from llm_magics.settings.config import Config
from llm_magics.settings.schema import Settings


def user_file(text: str) -> None:
    """Write the user's own settings."""
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "llm_magics"
    folder.mkdir(parents=True)
    (folder / "llm_magics.yaml").write_text(text)


def test_defaults_are_there_without_any_file(tmp_path: Path) -> None:
    """The starter models, and the word "default" for where they come from."""
    config = Config(tmp_path, {})
    assert config.model == "local/smollm2-135m"
    assert config.embedding_model == "local/minilm-l6-v2"
    assert config.source("model") == "default"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llm_magics.yaml", "model: echo/echo\ntemperature: 0.5"),
        ("llm_magics.yml", "{model: echo/echo, temperature: 0.5}"),
        ("llm_magics.json", json.dumps({"model": "echo/echo", "temperature": 0.5})),
        ("pyproject.toml", '[tool.llm_magics]\nmodel = "echo/echo"\ntemperature = 0.5'),
    ],
)
def test_every_kind_of_file_is_read(tmp_path: Path, name: str, text: str) -> None:
    """YAML, JSON and pyproject.toml, from the folder or one above it."""
    (tmp_path / name).write_text(text)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    config = Config(tmp_path / "deep" / "er", {})
    assert (config.model, config.temperature) == ("echo/echo", 0.5)
    assert config.source("model") == f"file {tmp_path / name}"


def test_direct_beats_environment_beats_project_beats_user(tmp_path: Path) -> None:
    """Each value is taken from the nearest source that has it."""
    user_file("model: a/user\nsystem: user\nseed: 1\ntop_p: 0.1")
    (tmp_path / "llm_magics.yaml").write_text("model: a/project\nsystem: project\nseed: 2")
    config = Config(tmp_path, {"LLM_MAGICS_MODEL": "a/env", "LLM_MAGICS_SYSTEM": "env"})
    config.model = "a/direct"
    found = {key: (config.get(key), config.source(key).split()[0]) for key in ("model", "system")}
    assert found == {"model": ("a/direct", "set"), "system": ("env", "environment")}
    assert config.source("system") == "environment LLM_MAGICS_SYSTEM"
    assert (config.seed, config.top_p) == (2, 0.1)
    config.reset("model")
    assert config.model == "a/env"


def test_environment_values_get_their_type() -> None:
    """The environment holds strings; the settings do not."""
    assert Config(Path("/"), {"LLM_MAGICS_TEMPERATURE": "0.25"}).temperature == 0.25


def test_somebody_elses_pyproject_is_left_alone(tmp_path: Path) -> None:
    """Neither one without our table nor a broken one is our business."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'")
    assert Config(tmp_path, {}).source("model") == "default"
    (tmp_path / "pyproject.toml").write_text("not toml at all")
    assert Config(tmp_path, {}).source("model") == "default"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("modle: x", '"modle"', "Did you mean model"),
        ("temperature: hot", "'hot' for temperature", "number"),
        ("temperature: -1", "-1 for temperature", "greater than or equal to 0"),
        ("render: sometimes", "'sometimes' for render", "auto"),
        ("providers: [a]", "for providers", "dictionary"),
        ("model: [unclosed", "Could not read", "Fix or remove"),
        ("- a\n- b", "got list", "Example"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    """The error says which file, which key, and what it may be."""
    (tmp_path / "llm_magics.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Config(tmp_path, {}).model  # noqa: B018
    assert "llm_magics.yaml" in str(caught.value)
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert len(caught.value._render_traceback_()) <= 4


def test_a_mended_file_is_read_again(tmp_path: Path) -> None:
    """After an error nothing has to be restarted."""
    file = tmp_path / "llm_magics.yaml"
    file.write_text("modle: x")
    config = Config(tmp_path, {})
    with pytest.raises(ConfigurationError):
        config.get("model")
    file.write_text("model: echo/echo")
    assert config.model == "echo/echo"


def test_a_wrong_value_cannot_be_set() -> None:
    """Neither an unknown key nor a wrong type; what was before stays."""
    config = Config(Path("/"), {})
    with pytest.raises(ConfigurationError, match="temperature"):
        config.temperature = "hot"
    with pytest.raises(ConfigurationError) as caught:
        config.modle = "x"
    assert caught.value.hint == "Did you mean model?"
    assert config.temperature is None
    assert not hasattr(config, "modle")


def test_settings_of_a_provider_come_from_everywhere_too(tmp_path: Path) -> None:
    """From the file, over it from the environment, over it set directly."""
    (tmp_path / "llm_magics.yaml").write_text(
        "providers: {local: {threads: 1, context: 512}, echo: {ttft_s: 1}}"
    )
    config = Config(tmp_path, {"LLM_MAGICS_LOCAL_CONTEXT": "1024"})
    config.set("providers.local.weights_dir", "/w")
    assert config.for_provider("local", ["threads", "context", "weights_dir"]) == {
        "threads": 1,
        "context": "1024",
        "weights_dir": "/w",
    }


def test_all_settings_can_be_seen_with_their_sources(tmp_path: Path) -> None:
    """As a table that says what each does, and in the repr."""
    config = Config(tmp_path, {"LLM_MAGICS_SEED": "7"})
    frame = config.frame()
    assert frame.loc["seed", ["value", "source"]].tolist() == [7, "environment LLM_MAGICS_SEED"]
    assert frame.description[list(Settings.model_fields)[:-1]].str.len().gt(10).all()
    assert "environment LLM_MAGICS_SEED" in repr(config)
    assert "model" in dir(config)


def test_a_key_among_the_settings_is_not_shown(tmp_path: Path) -> None:
    """From a file, the environment or the session: shown as stars, given to its provider."""
    key = "canary-7d1e5b2c"
    (tmp_path / "llm_magics.yaml").write_text(f"providers: {{a: {{api_key: {key}}}}}")
    config = Config(tmp_path, {"LLM_MAGICS_B_TOKEN": key})
    config.set("providers.c.password", key)
    shown = f"{config!r} {config.frame().to_string()} {config.get('providers.c.password')}"
    assert key not in shown
    assert "****" in shown
    for provider, name in (("a", "api_key"), ("b", "token"), ("c", "password")):
        assert config.for_provider(provider, [name]) == {name: key}


def test_the_environment_of_a_provider_is_seen(tmp_path: Path) -> None:
    """What is used is what is told."""
    (tmp_path / "llm_magics.yaml").write_text("providers: {local: {threads: 3}}")
    config = Config(tmp_path, {"LLM_MAGICS_LOCAL_THREADS": "2"})
    assert config.get("providers.local.threads") == "2"
    assert config.source("providers.local.threads") == "environment LLM_MAGICS_LOCAL_THREADS"


def test_a_hyphen_in_a_providers_name_is_an_underscore_in_its_variables(tmp_path: Path) -> None:
    """A shell can set no variable with a hyphen."""
    config = Config(tmp_path, {"LLM_MAGICS_GPU_BOX_BASE_URL": "http://box:1"})
    config.set("providers.gpu-box.type", "openai")
    assert str(config.get("providers.gpu-box.base_url")) == "http://box:1"


def test_a_broken_pyproject_with_our_table_is_named(tmp_path: Path) -> None:
    """It is ours as well, and would be ignored in silence."""
    (tmp_path / "pyproject.toml").write_text("[tool.llm_magics]\nmodel = ")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml"):
        Config(tmp_path, {}).get("model")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ask_above_usd", "confirm_above_usd"),
        ("longest_wait_s", "max_retry_delay_s"),
        ("retries_end_s", "retry_timeout_s"),
    ],
)
def test_an_old_name_names_the_new_one(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In code, in a settings file, and in the environment."""
    with pytest.raises(ConfigurationError) as caught:
        lm.config.set(old, 3)
    assert new in (caught.value.hint or "")
    with pytest.raises(AttributeError, match=new):
        getattr(lm.config, old)
    monkeypatch.setenv(f"LLM_MAGICS_{old.upper()}", "3")
    lm.config.reload()
    with pytest.raises(ConfigurationError) as caught:
        lm.config.get("model")
    assert new.upper() in (caught.value.hint or "")


def test_settings_for_another_process_have_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may have another working directory."""
    monkeypatch.chdir(tmp_path)
    lm.config.cache_dir = Path("cache")
    assert lm.config.set_here()["cache_dir"] == tmp_path / "cache"
