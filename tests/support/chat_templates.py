"""Chat templates that are rendered in this process: none is started, and there are no limits."""

from tif.data import chat_template
from tif.utils import render_chat


def render_here(monkeypatch):
    """Render in this process until the test ends."""

    def render(template, variables, chats):
        request = {"template": template, "variables": variables, "chats": chats, "characters": 20_000}
        try:
            return render_chat.render_twice(request)
        except Exception as error:
            raise ValueError(str(error)) from None

    monkeypatch.setattr(chat_template, "_render", render)
    monkeypatch.setattr(chat_template, "_find_frame", chat_template._find_frame.__wrapped__)
