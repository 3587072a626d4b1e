"""Whether the Hugging Face hub can be asked. Called by what reads models and data by hub names."""

import functools


@functools.cache
def is_hub_reachable() -> bool:
    """Return whether the hub answers; its own client tries for half a minute before it says no."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # of whichever HTTP library the hub's client uses
        return False
    return True
