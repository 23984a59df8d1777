"""Records of the lanes TOKENS, TRAIL, METRIC and USAGE: good ones, bad ones, duplicates, and what their tables must hold then."""

import time
import uuid
from datetime import datetime, timezone
from decimal import Decimal

from sample_events import Sample, changed, encode

# It spends its day's limit step by step.
SPENDER = "SRN-MRS-01"
SPENDS = f"ledger.TOKENS.{SPENDER}"


def sample(expected, subject, record):
    return Sample(subject, encode(record), expected)


class Records:
    """`vote_id`: the event_id of a VOTE_RECORDED. `agents`, `tools`, `ventures`: ids of their registries, one, one and two."""

    def __init__(self, vote_id, agents, tools, ventures):
        self.vote_id, (self.agent,), (self.tool,), self.ventures = vote_id, agents, tools, ventures
        self.milliseconds = time.time_ns() // 1_000_000
        self.month = datetime.now(timezone.utc).strftime("%Y-%m")
        self.mark = uuid.uuid4().hex[:8]
        self.use_ids = [str(uuid.uuid4()) for _ in range(3)]
        self.steps = [[*self.tokens(), *self.trails(), *self.metrics(), *self.uses(), *self.bad()], *self.day()]

    def usage(self, tokens_input, tokens_output, agent=SPENDER, **others):
        return {"agent_name": agent, "tokens_input": tokens_input, "tokens_output": tokens_output, **others}

    def tokens(self):
        # As the engine sends it: the model tells the tier, and the tier's rates tell the cost, 0.30 + 0.30 here.
        yield sample("recorded", SPENDS, self.usage(
            100_000, 20_000, model_used="claude-sonnet-4", task_id="TASK-1001", operation_type="research"))
        # The workers share one limit, and three quarters of it are spent.
        for agent, cost in (("WRK-003", 1.00), ("WRK-004", 0.50)):
            yield sample("recorded", f"ledger.TOKENS.{agent}", self.usage(25_000, 5_000, agent, cost_usd=cost))
        # Nobody has set a limit for the Architect, so its day has no status.
        yield sample("recorded", "ledger.TOKENS.ARCHITECT", self.usage(800, 200, "ARCHITECT", model_used="ollama/llama3"))

    def day(self):
        """The rest of the spender's day. Each step is stored before the next begins, so that each change of status is seen."""
        yellow = self.usage(9_000, 1_000, cost_usd=0.15, usage_id=f"call-{self.mark}-2")
        yield [sample("recorded", SPENDS, yellow), sample("duplicate", SPENDS, yellow),
               sample("conflict", SPENDS, changed(yellow, tokens_output=1_001))]
        yield [sample("recorded", SPENDS, self.usage(400_000, 80_000, model_tier="ECONOMY"))]
        yield [sample("recorded", SPENDS, self.usage(5_000, 500, cost_usd=0.1, usage_id=f"call-{self.mark}-4"))]
        # A limit takes effect on the present day at once.
        yield [sample("recorded", "ledger.METRIC.VRA-CFO", {"metric_key": f"daily_limit_{SPENDER}", "metric_value": 1.5})]

    def trail(self, number=0, **others):
        return {"trail_id": f"TRAIL-SRN-TEL-1001-{self.milliseconds + number}", "outcome": "APPROVED", "ledger_ref": self.vote_id,
                "council_vote": {"RXY-CEO": "APPROVED", "SRN-CIO": "APPROVED", "BRM-CTO": "APPROVED", "VRA-CFO": "REJECTED"},
                "proposal": {"proposal_id": "SRN-TEL-1001", "task_id": "TASK-1001", "description": "An affiliate funnel",
                             "sorin_confidence": "HIGH", "vera_clearance": "APPROVED"}, **others}

    def timeout(self):
        """Nobody voted, and the event that it names has not come."""
        return self.trail(1, outcome="TIMEOUT", council_vote={}, ledger_ref=f"VOTE-RXY-CEO-{self.milliseconds + 999}")

    def trails(self):
        yield sample("recorded", "ledger.TRAIL.RXY-CEO", self.trail())
        yield sample("duplicate", "ledger.TRAIL.RXY-CEO", self.trail())
        yield sample("conflict", "ledger.TRAIL.RXY-CEO", self.trail(outcome="VETOED"))
        yield sample("recorded", "ledger.TRAIL.BRM-CTO", self.timeout())

    def metrics(self):
        for actor, key, value in (
            ("VRA-ROI-01", f"venture_revenue_affiliate_funnel_{self.month}", 1840.5),
            ("VRA-CFO", f"operating_cost_{self.month}", 612.25),
            ("ARCHITECT", "venture_capital_affiliate_funnel", 2500),
        ):
            yield sample("recorded", f"ledger.METRIC.{actor}", {"metric_key": key, "metric_value": value})

    def use(self, number=0, **others):
        return {"id": self.use_ids[number], "agent_id": self.agent, "tool_id": self.tool, "venture_id": self.ventures[0],
                "tokens_consumed": 1200, "cost_usd": 0.0125, "execution_ms": 340, **others}

    def uses(self):
        yield sample("recorded", "ledger.USAGE.BRM-CTO", self.use())
        yield sample("duplicate", "ledger.USAGE.BRM-CTO", self.use())
        yield sample("conflict", "ledger.USAGE.BRM-CTO", self.use(cost_usd=0.0126))
        # Under the agent's own UUID, and for no venture.
        yield sample("recorded", f"ledger.USAGE.{self.agent}", changed(self.use(1, cost_usd=0.000025), venture_id=None))
        yield sample("recorded", "ledger.USAGE.WRK-006", self.use(2, venture_id=self.ventures[1], created_at="2026-02-20T17:47:14Z"))

    def bad(self):
        """Each code at least once, and where a lane gives it another meaning, once more."""
        call, model = self.usage(1200, 340, cost_usd=0.01), self.usage(1200, 340)

        def tokens(expected, record, agent=SPENDER):
            return sample(expected, f"ledger.TOKENS.{agent}", record)

        yield tokens("missing_field", model)
        yield tokens("unknown_field", changed(call, total_cost=0.01))
        yield tokens("wrong_type", changed(call, tokens_input="1200"))
        yield tokens("number_out_of_range", changed(call, tokens_output=-340))
        yield tokens("too_long", changed(call, usage_id="u" * 256))
        yield tokens("actor_mismatch", changed(call, agent_name="RXY-CEO"))
        yield tokens("unknown_actor", changed(call, agent_name="SRN-MRS-99"), "SRN-MRS-99")
        yield tokens("bad_event_id", changed(call, usage_id=""))
        yield tokens("details_mismatch", changed(model, model_tier="standard"))
        yield tokens("bad_timestamp", changed(call, timestamp="yesterday"))
        yield tokens("unknown_reference", changed(model, model_used="a-model-of-nobodys"))
        yield tokens("unknown_reference", changed(model, model_tier="PREVIEW"))

        def trail(expected, actor="RXY-CEO", **others):
            return sample(expected, f"ledger.TRAIL.{actor}", self.trail(2, **others))

        yield trail("action_not_allowed", "SRN-CIO")
        yield trail("bad_event_id", trail_id=f"TRAIL-SRN-TEL-1002-{self.milliseconds}")
        yield trail("outcome_not_allowed", outcome="ABSTAIN")
        yield trail("outcome_not_allowed", council_vote={"RXY-CEO": "SUCCESS"})
        yield trail("action_not_allowed", council_vote={"WRK-006": "APPROVED"})
        yield trail("details_mismatch", council_vote={})

        def metric(expected, key, value, actor="VRA-CFO", **others):
            return sample(expected, f"ledger.METRIC.{actor}", {"metric_key": key, "metric_value": value, **others})

        yield metric("action_not_allowed", f"daily_limit_{SPENDER}", 500, SPENDER)
        yield metric("actor_mismatch", f"daily_limit_{SPENDER}", 500, SPENDER, set_by="VRA-CFO")
        yield metric("details_mismatch", "weekly_limit_RXY-CEO", 25)
        yield metric("details_mismatch", f"operating_cost_{self.month}", 612.25, period="weekly")
        yield metric("unknown_reference", "daily_limit_RXY-CFO", 5)
        yield metric("number_out_of_range", "daily_limit_RXY-CEO", -5)

        nowhere = str(uuid.UUID(int=0))

        def use(expected, actor="BRM-CTO", **others):
            return sample(expected, f"ledger.USAGE.{actor}", changed(self.use(), id=None, **others))

        yield use("wrong_type", agent_id="BRM-CTO")
        yield sample("bad_event_id", "ledger.USAGE.BRM-CTO", self.use(id="1"))
        yield use("number_out_of_range", cost_usd=10_000)
        yield use("actor_mismatch", nowhere)
        yield use("bad_timestamp", created_at="2026-02-20")
        yield use("unknown_reference", agent_id=nowhere)
        yield use("unknown_reference", tool_id=nowhere)
        yield use("unknown_reference", venture_id=nowhere)

    # What must be there afterwards, on servers that were empty.

    def days(self):
        """Of token_ledger: agent, tokens in and out, cost, status."""
        return [("ARCHITECT", 800, 200, "0.0000", None), (SPENDER, 514_000, 101_500, "1.0500", "YELLOW"),
                ("WRK-003", 25_000, 5_000, "1.0000", "YELLOW"), ("WRK-004", 25_000, 5_000, "0.5000", "YELLOW")]

    def alerts(self):
        """By agent, and for each in the order of their raising: agent, change, USD spent, of how many, and who set that."""
        own, pool = f"daily_limit_{SPENDER}", "daily_limit_WORKERS"
        return [(agent, change, Decimal(spent), Decimal(limit), key) for agent, change, spent, limit, key in (
            (SPENDER, "GREEN → YELLOW", "0.75", "1", own), (SPENDER, "YELLOW → RED", "0.95", "1", own),
            (SPENDER, "RED → EXCEEDED", "1.05", "1", own), (SPENDER, "EXCEEDED → YELLOW", "1.05", "1.5", own),
            ("WRK-003", "GREEN → YELLOW", "1.5", "2", pool), ("WRK-004", "GREEN → YELLOW", "1.5", "2", pool))]

    def trail_rows(self):
        """Of decision_trails: trail, outcome, votes, what it refers to, and whether that is there."""
        return [(self.trail()["trail_id"], "APPROVED", 4, self.vote_id, True),
                (self.timeout()["trail_id"], "TIMEOUT", 0, self.timeout()["ledger_ref"], False)]

    def metric_rows(self):
        """Of economic_metrics, besides the reference: key, value, period, setter."""
        return [(f"daily_limit_{SPENDER}", "1.5", "daily", "VRA-CFO"),
                (f"operating_cost_{self.month}", "612.25", self.month, "VRA-CFO"),
                ("venture_capital_affiliate_funnel", "2500", None, "ARCHITECT"),
                (f"venture_revenue_affiliate_funnel_{self.month}", "1840.5", self.month, "VRA-ROI-01")]

    def use_rows(self):
        """Of tool_usage_ledger: id, agent, tool, venture, tokens, cost, milliseconds."""
        ventures = (self.ventures[0], None, self.ventures[1])
        costs = ("0.012500", "0.000025", "0.012500")
        return [(use_id, self.agent, self.tool, venture, 1200, cost, 340)
                for use_id, venture, cost in zip(self.use_ids, ventures, costs)]
