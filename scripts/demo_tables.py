"""What the demo shows of the four other tables and of the budget alerts, and whether they hold what they must."""

from decimal import Decimal

from demo_report import columns, paint, title
from sample_records import SPENDER

POOL = ["WRK-003", "WRK-004"]


class Tables:
    """What became of the records, by sequence, and what was heard on `alert.budget.*`."""

    def __init__(self, database, records, outcomes, heard):
        self.database, self.records = database, records
        self.rows = [row for row in outcomes.values() if row["outcome"] == "recorded"]
        self.heard = heard

    def of_lane(self, lane, field):
        return [row[field] for row in self.rows if row["subject"].split(".")[1] == lane]

    def show(self, is_private):
        """Returns whether all is as expected. Sums and alerts are compared on private servers alone: others may have spent before."""
        checks = [self.show_days(), self.show_alerts(), self.show_trails(), self.show_metrics(), self.show_uses()]
        if not is_private:
            del checks[:2]
        differences = [line for found, expected in checks for line in compare(found, expected)]
        for line in differences:
            print(paint("wrong", f"  {line}"))
        return not differences

    def show_days(self):
        days = self.database.days(["ARCHITECT", SPENDER, *POOL])
        found = [tuple(day.values())[:5] for day in days]
        show("Days of token_ledger: every call is added to its agent's day, once",
             ("agent", "tokens in", "out", "USD", "status", "limit"),
             [(*line[:4], line[4] or "-", day["limited_to"]) for line, day in zip(found, days)])
        return found, self.records.days()

    def show_alerts(self):
        alerts = sorted((alert for _, alert in self.heard), key=lambda alert: (alert["agent_name"], alert["raised_at"]))
        found = [(alert["agent_name"], f"{alert['old_status']} → {alert['new_status']}", Decimal(alert["spent_usd"]),
                  Decimal(alert["limit_usd"]), alert["limit_key"]) for alert in alerts]
        show("Budget alerts, as heard on alert.budget.*", ("subject", "change", "spent", "of", "limit"),
             [(f"alert.budget.{agent}", change, f"{spent:.2f}", f"{limit:.2f}", key) for agent, change, spent, limit, key in found])
        subjects = [(subject,) for subject, alert in self.heard if subject != f"alert.budget.{alert['agent_name']}"]
        return found + subjects, self.records.alerts()

    def show_trails(self):
        found = [tuple(row.values()) for row in self.database.trails(self.of_lane("TRAIL", "record_id"))]
        show("Rows of decision_trails", ("trail id", "outcome", "votes", "ledger_ref", ""),
             [(*line[:4], "is there" if line[4] else "dangles") for line in found])
        return found, self.records.trail_rows()

    def show_metrics(self):
        found = [tuple(row.values()) for row in self.database.metrics(self.of_lane("METRIC", "row_id"))]
        reference = len(self.database.metrics_in_force()) - len(found) + 1
        show(f"Rows of economic_metrics, besides the {reference} reference limits and rates", ("key", "value", "period", "set by"),
             [(*line[:2], line[2] or "-", line[3]) for line in found])
        return found, self.records.metric_rows()

    def show_uses(self):
        places = {use_id: place for place, use_id in enumerate(self.records.use_ids)}
        rows = self.database.uses(self.of_lane("USAGE", "record_id"))
        found = [tuple(row.values()) for row in sorted(rows, key=lambda row: places.get(row["id"], len(places)))]
        show("Rows of tool_usage_ledger", ("id", "agent", "tool", "venture", "tokens", "USD", "ms"),
             [(*(str(name or "-")[:8] for name in line[:4]), *line[4:]) for line in found])
        return found, self.records.use_rows()


def show(heading, head, rows):
    title(heading)
    head, *lines = columns([head, *rows])
    print(f"  {paint('quiet', head)}")
    for line in lines:
        print(f"  {paint('recorded', line)}")


def compare(found, expected):
    for row in found:
        if row not in expected:
            yield f"not expected: {', '.join(map(str, row))}"
    for row in expected:
        if row not in found:
            yield f"missing: {', '.join(map(str, row))}"
    if not set(found) ^ set(expected) and found != expected:
        yield f"in another order or number than expected: {found}"
