"""API tokens from a file."""

from __future__ import annotations

import pytest

from ddpm_api import ApiError
from ddpm_service.errors import ServiceError
from ddpm_service.gateway import auth
from ddpm_service.gateway.auth import Tokens, may_listen

FIRST, SECOND = "a-token-of-24-characters", "another-token-of-many-more"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# who may ask\nalice {FIRST}  # since May\n\n{SECOND}\n")
    return path


def test_a_bearer_token_names_its_owner(file):
    tokens = Tokens(file)
    assert tokens.caller(f"Bearer {FIRST}").name == "alice"
    assert tokens.caller(f"bearer {FIRST}").name == "alice"


def test_a_token_without_a_name_is_called_by_its_hash_and_never_by_itself(file):
    name = Tokens(file).caller(f"Bearer {SECOND}").name
    assert len(name) == 8
    assert name not in SECOND


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", f"Basic {FIRST}", FIRST, f"Bearer {FIRST}x", "Bearer ä"]
)
def test_all_else_is_unauthorized(file, header):
    with pytest.raises(ApiError) as caught:
        Tokens(file).caller(header)
    assert caught.value.status == 401
    assert FIRST not in caught.value.error.message


def test_a_changed_file_holds_and_a_wrong_or_missing_one_changes_nothing(file, monkeypatch):
    monkeypatch.setattr(auth, "_LOOK_SECONDS", 0.0)
    tokens = Tokens(file)

    file.write_text("# nobody yet\n")
    assert tokens.caller(f"Bearer {FIRST}").known
    file.unlink()
    assert tokens.caller(f"Bearer {FIRST}").known

    file.write_text(f"bob {SECOND}\n")
    assert tokens.caller(f"Bearer {SECOND}").name == "bob"
    with pytest.raises(ApiError):
        tokens.caller(f"Bearer {FIRST}")


@pytest.mark.parametrize(
    "text", ["", "# none\n", "short\n", "alice her token-of-many-characters\n", f"anonymous {FIRST}\n"]
)
def test_a_useless_file_is_refused_at_the_start_without_repeating_it(tmp_path, text):
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(ServiceError) as caught:
        Tokens(file)
    assert "token-of-many" not in str(caught.value)


def test_off_loopback_it_listens_with_tokens_or_an_explicit_wish_only():
    may_listen("127.0.0.1", tokens=False, insecure=False)
    may_listen("localhost", tokens=False, insecure=False)
    may_listen("0.0.0.0", tokens=True, insecure=False)
    may_listen("0.0.0.0", tokens=False, insecure=True)
    for host in ("0.0.0.0", "::", "192.168.1.5", ""):
        with pytest.raises(ServiceError, match="--tokens"):
            may_listen(host, tokens=False, insecure=False)
