import pytest

from peerloom.config import check, compose
from peerloom.errors import ConfigError

KEY = "sk-" + "a1B2" * 8


@pytest.mark.parametrize(
    "override",
    [
        f"llm.api_key={KEY}",
        "llm.api_key=short",
        f"llm.api_key_env={KEY}",
        f"llm.extra_body={{note:{KEY}}}",
        "llm.extra_body={authorization:abc}",
        "llm.base_url=http://user:hunter2@host/v1",
        f"llm.model='{KEY}",
        "api-token=abc",
        "source.path=s3://id:hunter2@bucket/q.jsonl",
        "source.path=[a.jsonl,'https://h/q.jsonl?X-Amz-Signature=hunter2']",
        f"recipe.note=[a,{KEY}]",
    ],
)
def test_a_secret_is_refused_and_not_repeated(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(compose("coral", ["llm=openai", override]))
    assert KEY not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_source_is_told_where_credentials_come_from() -> None:
    with pytest.raises(
        ConfigError, match=r"source.path holds what looks like a secret.*storage's own library"
    ):
        check(compose("coral", ["source.path=https://h/q.parquet?sig=hunter2"]))


def test_a_secret_from_the_environment_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(ConfigError, match=r"llm.model holds what looks like a secret.*api_key_env"):
        check(compose("coral", ["llm=openai", "llm.model=${oc.env:MY_KEY}"]))


def test_what_only_resembles_a_secret_passes() -> None:
    config = check(compose("coral", ["llm=openai", "llm.model=task-sk-small", "llm.api_key_env=LAB_API_KEY"]))
    assert config.llm is not None
