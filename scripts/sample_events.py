"""A small real mix of audit events: good ones of every lane, one bad one of each kind, and one duplicate."""

import hashlib
import json
import time
from collections import namedtuple
from datetime import datetime, timezone

# `expected` is `recorded`, `duplicate`, or the code of a reject.
Sample = namedtuple("Sample", "subject payload expected")

# Of LDG-002's actions: lane, actor, action, outcome, other fields. A sub-agent may do what its parent may.
GOOD = [
    ("EXEC", "BRM-CTO", "EXECUTION_STARTED", "SUCCESS", {"task_id": "TASK-1001"}),
    ("EXEC", "BRM-CTO", "EXECUTION_COMPLETED", "SUCCESS", {"task_id": "TASK-1001", "details": {
        "proposal_id": "SRN-TEL-1001", "council_vote_ref": "VOTE-RXY-CEO-1708451234000", "steps_completed": 4, "steps_total": 4,
        "n8n_workflows_triggered": ["HEGEMON-09", "HEGEMON-05"], "error": None}}),
    ("VOTE", "RXY-CEO", "VOTE_RECORDED", "APPROVED", {"details": {
        "proposal_id": "SRN-TEL-1001",
        "votes": {"RXY-CEO": "APPROVED", "SRN-CIO": "APPROVED", "BRM-CTO": "APPROVED", "VRA-CFO": "REJECTED"},
        "result": "APPROVED", "threshold_required": 2, "threshold_met": True}}),
    ("PROP", "SRN-CIO", "PROPOSAL_SUBMITTED", "SUCCESS", {"details": {"proposal_id": "SRN-TEL-1001", "confidence": "HIGH"}}),
    ("CLR", "VRA-CFO", "CLEARANCE_ISSUED", "APPROVED", {"details": {
        "model_tier_assigned": "STANDARD", "estimated_token_cost": 0.045, "current_daily_spend": 1.23, "budget_status": "GREEN",
        "roi_score": "HIGH", "clearance_decision": "APPROVED", "block_reason": None}}),
    ("SEC", "WRK-006", "INJECTION_SCAN", "BLOCKED", {"details": {
        "severity": "CRITICAL", "matched_patterns": ["CRITICAL", "HIGH"], "input_source": "telegram", "input_length": 142,
        "blocked": True, "sanitized": False}}),
    ("TOOL", "BRM-WFB-01", "TOOL_REQUEST_N8N_TRIGGER", "DENIED_NEEDS_ARCHITECT", {"details": {
        "tool_name": "n8n_trigger", "agent_tier": "TIER_2_SUBAGENT", "council_vote_ref": None, "architect_approval_ref": None}}),
    ("SYS", "ARCHITECT", "SECRET_ROTATED", "SUCCESS", {}),
    ("ROUTE", "RXY-CEO", "ROUTING_COMPLETE", "SUCCESS", {"task_id": "TASK-1001", "details": {"destination": "BRM-CTO"}}),
    ("CORP", "AST-AUD-01", "CORPUS_AUDIT", "SUCCESS", {"details": {"documents": 41, "language": "Ελληνικά"}}),
    ("N8N", "N8N_SANITIZER", "INJECTION_BLOCKED_AT_INTAKE", "BLOCKED", {"details": {"workflow": "HEGEMON-01"}}),
    ("ERR", "BRM-INT-01", "WORKFLOW_TRIGGERED", "FAILURE", {"details": {"workflow": "HEGEMON-09", "error": "timeout"}}),
]


class Events:
    """Makes events whose ids are new: each takes the next millisecond from now on."""

    def __init__(self):
        self.next_ms = time.time_ns() // 1_000_000

    def make(self, lane, actor, action, outcome, **others):
        milliseconds, self.next_ms = self.next_ms, self.next_ms + 1
        moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        event = {"event_id": f"{lane}-{actor}-{milliseconds}", "actor": actor, "action": action, "outcome": outcome,
                 "timestamp": f"{moment}.{milliseconds % 1000:03}Z"}
        event.update(others)
        return event

    def started(self, **others):
        """The good event that most bad ones are a change of."""
        return self.make("EXEC", "BRM-CTO", "EXECUTION_STARTED", "SUCCESS", **others)


def integrity_hash(event):
    """LDG-002's formula."""
    text = "".join(event[name] for name in ("event_id", "actor", "action", "outcome", "timestamp"))
    return hashlib.sha256(text.encode()).hexdigest()


def encode(event):
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def subject_of(event):
    return f"ledger.{event['event_id'].split('-')[0]}.{event['actor']}"


def good_samples(events):
    for lane, actor, action, outcome, others in GOOD:
        event = events.make(lane, actor, action, outcome, **others)
        yield Sample(subject_of(event), encode(event), "recorded")
    # With its hash, and with a timestamp of another zone: the hash covers the text as it stands here.
    event = events.started()
    event["timestamp"] = "2026-02-20T18:47:14.568+01:00"
    event["integrity_hash"] = integrity_hash(event)
    yield Sample(subject_of(event), encode(event), "recorded")


def changed(event, **changes):
    """An event with other values; None removes the field."""
    return {name: value for name, value in {**event, **changes}.items() if value is not None}


def bad_samples(events):
    """One event for each reject that a publisher can cause in these lanes."""
    def bad(expected, event, subject="ledger.EXEC.BRM-CTO"):
        return Sample(subject, event if isinstance(event, bytes) else encode(event), expected)

    # What is wrong with the bytes ...
    yield bad("not_utf8", encode(events.started(task_id="TASK-?")).replace(b"?", b"\xff"))
    yield bad("malformed_json", encode(events.started())[:-1])
    # Objects nested too deep; a record of too many bytes is rejected for the same reason.
    yield bad("too_large", encode(events.started(details={})).replace(b"{}", b'{"in":' * 40 + b"{}" + b"}" * 40))
    yield bad("duplicate_key", encode(events.started())[:-1] + b',"outcome":"FAILURE"}')
    yield bad("nul_character", events.started(task_id="TASK-\0-1001"))
    yield bad("number_out_of_range", encode(events.started(details={"cost": 0})).replace(b'"cost":0', b'"cost":1e400'))
    # ... with the fields ...
    yield bad("missing_field", changed(events.started(), outcome=None))
    yield bad("unknown_field", events.started(severity="HIGH"))
    yield bad("wrong_type", events.started(task_id=1001))
    yield bad("too_long", events.started(task_id="T" * 256))
    yield bad("bad_event_id", changed(events.started(), event_id="EXEC-BRM-CTO-yesterday"))
    yield bad("prefix_mismatch", events.make("VOTE", "BRM-CTO", "EXECUTION_STARTED", "SUCCESS"))
    yield bad("bad_timestamp", changed(events.started(), timestamp="2026-02-30T12:00:00Z"))
    yield bad("hash_mismatch", events.started(integrity_hash="0" * 64))
    # ... with who says it ...
    yield bad("actor_mismatch", events.make("EXEC", "VRA-CFO", "EXECUTION_STARTED", "SUCCESS"))
    yield bad("unknown_actor", events.make("EXEC", "BRM-CFO", "EXECUTION_STARTED", "SUCCESS"), "ledger.EXEC.BRM-CFO")
    # ... and with what is said.
    yield bad("unknown_action", changed(events.started(), action="EXECUTION_BEGUN"))
    yield bad("action_not_allowed", events.make("EXEC", "VRA-CFO", "EXECUTION_STARTED", "SUCCESS"), "ledger.EXEC.VRA-CFO")
    yield bad("outcome_not_allowed", changed(events.started(), outcome="ABSTAIN"))
    yield bad("details_mismatch", events.make("VOTE", "RXY-CEO", "VOTE_RECORDED", "APPROVED", details={
        "proposal_id": "SRN-TEL-1002", "votes": {"RXY-CEO": "APPROVED", "SRN-CIO": "REJECTED"}, "result": "APPROVED",
        "threshold_required": 2, "threshold_met": True}), "ledger.VOTE.RXY-CEO")


def samples():
    """All of them, in the order in which they are to be published."""
    events = Events()
    yield from good_samples(events)
    yield from bad_samples(events)
    # The same bytes again, and the same event id with something else under it.
    first = events.started()
    yield Sample(subject_of(first), encode(first), "recorded")
    yield Sample(subject_of(first), encode(first), "duplicate")
    yield Sample(subject_of(first), encode(changed(first, task_id="TASK-9999")), "conflict")
