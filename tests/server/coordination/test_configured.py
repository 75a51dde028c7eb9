"""A webhook in the configuration: CMS's results come by themselves to a client that knows nothing of Subscriptions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from server.coordination.configured import webhooks
from server.domain.coordination import SubscriptionStatus, WorkItem
from tests.server.coordination.test_result_notification import asked, sent

__all__ = ["sent"]  # the fixture
HOOK = "http://127.0.0.1:9/hook"


def _configured(installation: Any, **client: Any) -> None:
    """The EHR's client with other settings."""
    settings = installation.context.settings
    clients = settings.clients | {"ehr-1": replace(settings.clients["ehr-1"], **client)}
    object.__setattr__(settings, "clients", clients)


async def test_a_result_is_posted_to_the_webhook(installation: Any, sent: list[dict[str, Any]], tmp_path: Path) -> None:
    """A handshake, then the status URL of the submission, without PHI; headers from the file."""
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer s3cret\n", "utf-8")
    _configured(installation, webhook=HOOK, webhook_header_file=file)
    await webhooks(installation.context)
    await installation.work()
    location = await asked(installation)
    handshake, event = sent
    assert handshake["endpoint"] == event["endpoint"] == HOOK
    assert location.partition("/fhir/")[2] in str(event["bundle"]["entry"][0]["resource"]["parameter"])
    assert b"1EG4" not in event["bytes"]


async def test_nothing_is_done_twice(installation: Any, sent: list[dict[str, Any]]) -> None:
    """Each start, and each process, finds the Subscription as it should be."""
    _configured(installation, webhook=HOOK)
    for _ in range(3):
        await webhooks(installation.context)
        await installation.work()
    assert len(sent) == 1
    assert len(await installation.context.store.find(SubscriptionStatus)) == 1


async def test_a_webhook_that_was_taken_out_hears_nothing(installation: Any, sent: list[dict[str, Any]]) -> None:
    """The Subscription is off, and on again when the line is back."""
    for webhook in (HOOK, None, HOOK):
        _configured(installation, webhook=webhook)
        await webhooks(installation.context)
        await installation.work()
        (row,) = await installation.context.store.find(SubscriptionStatus)
        assert row.status == ("off" if webhook is None else "active")
    assert len(sent) == 2


@pytest.mark.parametrize("webhook", ["http://cms.example/hook", "ftp://127.0.0.1/x"])
async def test_a_webhook_that_may_not_be_called_is_told(installation: Any, webhook: str) -> None:
    """A work item, and a worker that works all the same."""
    _configured(installation, webhook=webhook)
    await webhooks(installation.context)
    (item,) = await installation.context.store.find(WorkItem)
    assert item.kind == "configuration"
    assert "ehr-1" in item.text
