import anyio
import pytest

from tests.support.llm_server_stub import KEY, serving


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stub():
    with serving() as stub:
        yield stub


@pytest.fixture
def sleeps(monkeypatch):
    """Return the seconds that the openai package waits before it sends again; none are waited."""
    seconds, pause = [], anyio.sleep

    async def note(delay):
        seconds.append(delay)
        await pause(0)

    monkeypatch.setattr(anyio, "sleep", note)
    return seconds
