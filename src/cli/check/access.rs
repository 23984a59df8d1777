//! Checks that the ledger is append-only, and that the daemon's role is bound by its grants.

use crate::cli::check::CheckReport;
use crate::command::Failure;
use crate::postgres::access;
use crate::postgres::connections::Connections;
use crate::postgres::reads::ServerFacts;

pub(crate) async fn check(
    connections: &Connections,
    facts: &ServerFacts,
    report: &mut CheckReport,
) -> Result<(), Failure> {
    let findings = access::findings(connections).await?;
    let role = &facts.role;

    let missing = findings.of("missing").join(", ");
    report.expect(
        missing.is_empty(),
        "grants: all that the daemon needs",
        format!(
            "grants: {role} lacks {missing}: run `ledgerd migrate --grant {role}` as the owner, or make it a member of ledgerd_daemon"
        ),
    );
    let (owned, excess) = (findings.of("owner"), findings.of("excess"));
    if facts.is_superuser {
        // Said already; it owns and may everything.
    } else if owned.is_empty() {
        for excess in excess {
            report.warn(format!("grants: {role} may {excess}, which the daemon never needs"));
        }
    } else {
        report.warn(format!(
            "grants: {role} is an owner, whom no grant binds, of {}: give the daemon a role of its own",
            owned.join(", ")
        ));
    }
    for stranger in findings.of("stranger") {
        report.warn(format!("grants: {stranger}"));
    }

    let (unrefused, altered) = (findings.of("unrefused"), findings.of("altered"));
    if unrefused.is_empty() && altered.is_empty() {
        report.ok("append-only: each table's triggers refuse changes");
    }
    for unrefused in unrefused {
        report.bad(format!("append-only: nothing refuses {unrefused}: a trigger is missing, disabled or altered"));
    }
    for altered in altered {
        report.bad(format!("append-only: {altered} is not of ledgerd's making"));
    }

    let unguarded = findings.of("unguarded");
    if unguarded.is_empty() {
        report.ok("guards: changes of the tables themselves are refused");
    } else {
        report.warn(format!(
            "guards: missing or disabled: {}; an owner could drop the tables: run `ledgerd migrate` as a superuser",
            unguarded.join(", ")
        ));
    }
    Ok(())
}
