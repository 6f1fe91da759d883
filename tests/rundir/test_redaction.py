"""What is never written down."""

import math

import pytest

from qig_core.rundir.redaction import redact, redact_argv

SECRET_KEYS = (
    "password db_passwd API_KEY apikey api-key aws_secret_access_key HF_TOKEN authToken token client_secret "
    "private_key slack_webhook credentials passphrase github_pat SENTRY_DSN Authorization"
).split()


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_what_stands_under_a_secret_looking_key_is_hidden(key: str) -> None:
    assert redact({"a": {key: "s3cret"}}) == {"a": {key: "***"}}
    assert redact({"a": [{key: ["s3cret", {"x": "y"}]}]}) == {"a": [{key: ["***", {"x": "***"}]}]}
    assert redact_argv(["train", f"--{key}", "s3cret", f"--{key}=s3cret", f"{key}=s3cret"]) == [
        "train", f"--{key}", "***", f"--{key}=***", f"{key}=***"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "key",
    ["tokens_per_s", "eos_token", "pad_token", "tokenizer", "max_new_tokens", "loss_per_tokens", "path", "pattern"],
)
def test_a_setting_that_only_sounds_like_one_stays(key: str) -> None:
    assert redact({key: "</s>"}) == {key: "</s>"}


def test_the_rest_is_verbatim() -> None:
    config = {"lr": 1e-3, "password": None, "token": 5, "api_key": "", "names": ["a", "b"], "n": {"deep": True}}
    assert redact(config) == config


def test_a_password_in_an_address_is_hidden_and_the_address_stays() -> None:
    assert redact({"dsn": ["postgres://me:hunter2@db:5432/x?y=1"]}) == {"dsn": ["postgres://me:***@db:5432/x?y=1"]}
    assert redact_argv(["x", "redis://:hunter2@db"]) == ["x", "redis://:***@db"]
    assert redact({"url": "https://host:8080/a@b"}) == {"url": "https://host:8080/a@b"}


def test_a_limit_that_is_not_finite_is_named() -> None:
    assert redact({"limits": [math.inf, -math.inf, math.nan]}) == {"limits": ["inf", "-inf", "nan"]}


def test_redacting_twice_is_redacting_once() -> None:
    once = redact({"a": {"token": "x", "url": "a://b:c@d", "max": math.inf}})
    assert redact(once) == once


def test_an_option_after_a_secret_option_is_not_its_value() -> None:
    assert redact_argv(["x", "--password", "--steps", "5"]) == ["x", "--password", "--steps", "5"]
