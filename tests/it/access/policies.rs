//! Who reads and writes `tool_usage_ledger`: its four policies, and what stands behind them.

use super::{Authenticated, Chairman, Claimant, Daemon, Installed, Owner, Reader, ServiceRole, Superuser, attempt};
use sqlx::AssertSqlSafe;

const READ: &str = "do $$ begin if not exists (select from public.tool_usage_ledger) then raise 'nothing' using errcode = 'no_data_found'; end if; end $$";
const INSERT: &str =
    "insert into public.tool_usage_ledger (agent_id, tool_id) select agent_id, tool_id from ledger.tool_usage";
const INSERT_BLINDLY: &str = "insert into public.tool_usage_ledger (agent_id, tool_id)
    values ('00000000-0000-0000-0000-00000000000a', '00000000-0000-0000-0000-00000000000b')";
const UPDATE: &str = "update public.tool_usage_ledger set cost_usd = 0";
const DELETE: &str = "delete from public.tool_usage_ledger";
const TRUNCATE: &str = "truncate public.tool_usage_ledger";

/// What came of it: met rows, met none, or was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Rows,
    None,
    Refused,
}
use Outcome::{None as Nothing, Refused, Rows};

async fn outcome(installed: &Installed, who: super::Who, sql: &str) -> Outcome {
    match installed.attempt(who, sql).await {
        // A block counts no rows; it complains where there are none.
        Ok(0) if sql == READ => Rows,
        Ok(0) => Nothing,
        Ok(_) => Rows,
        Err(refusal) if refusal.code == "P0002" => Nothing,
        Err(refusal) if refusal.code == "42501" => Refused,
        Err(refusal) => panic!("{who:?}: {sql}: {refusal:?}"),
    }
}

#[tokio::test]
async fn each_role_meets_its_policy() {
    let installed = Installed::with_rows().await;
    for (who, reads, inserts) in [
        (Owner, Rows, Rows),
        // Its door is ledger.tool_usage.
        (Daemon, Refused, Refused),
        (Reader, Refused, Refused),
        (Chairman, Rows, Refused),
        (Authenticated, Nothing, Refused),
        (Claimant, Rows, Refused),
        (ServiceRole, Rows, Rows),
        (Superuser, Rows, Rows),
    ] {
        let found = (outcome(&installed, who, READ).await, outcome(&installed, who, INSERT_BLINDLY).await);
        assert_eq!(found, (reads, inserts), "{who:?}");
        for change in [UPDATE, DELETE, TRUNCATE] {
            assert_eq!(outcome(&installed, who, change).await, Refused, "{who:?}: {change}");
        }
    }
    // Through the door: the daemon writes and reads, readers read.
    let through = "insert into ledger.tool_usage (agent_id, tool_id) select agent_id, tool_id from ledger.tool_usage";
    for (who, reads, inserts) in [
        (Daemon, true, true),
        (Reader, true, false),
        (Chairman, true, false),
        (Authenticated, false, false),
        (ServiceRole, false, false),
    ] {
        assert_eq!(installed.attempt(who, "select * from ledger.tool_usage").await.is_ok(), reads, "{who:?}");
        assert_eq!(installed.attempt(who, through).await.is_ok(), inserts, "{who:?}");
    }
}

/// A platform gives each new table to its roles, with all privileges: then the policies alone stand between them and the
/// rows, and the triggers where no policy binds.
#[tokio::test]
async fn the_policies_hold_where_everything_is_granted() {
    let installed = Installed::with_rows().await;
    installed.database.execute("grant all on public.tool_usage_ledger to authenticated, service_role").await;
    for (who, reads, inserts, changes) in [
        (Authenticated, Nothing, Refused, Nothing),
        (Claimant, Rows, Refused, Nothing),
        (Chairman, Rows, Refused, Nothing),
        // Its policy allows everything; the triggers do not.
        (ServiceRole, Rows, Rows, Refused),
    ] {
        let found = (
            outcome(&installed, who, READ).await,
            outcome(&installed, who, INSERT_BLINDLY).await,
            outcome(&installed, who, UPDATE).await,
            outcome(&installed, who, DELETE).await,
            outcome(&installed, who, TRUNCATE).await,
        );
        assert_eq!(found, (reads, inserts, changes, changes, Refused), "{who:?}");
    }
    assert_eq!(outcome(&installed, ServiceRole, INSERT).await, Refused, "the door is not the platform's");
}

/// Whoever speaks SQL may claim what he likes: the claims bind those for whom an API makes them.
#[tokio::test]
async fn the_chairman_is_known_by_his_claims() {
    let installed = Installed::with_rows().await;
    for (claims, is_chairman) in [
        (r#"{"role": "chairman"}"#, true),
        (r#"{"sub": "00000000-0000-0000-0000-000000000001"}"#, true),
        (r#"{"sub": "00000000-0000-0000-0000-000000000001", "role": "authenticated"}"#, true),
        (r#"{"role": "authenticated"}"#, false),
        (r#"{"sub": "00000000-0000-0000-0000-000000000002"}"#, false),
        (r#"{"claims": {"role": "chairman"}}"#, false),
        (r#"["chairman"]"#, false),
        ("\"chairman\"", false),
        ("null", false),
        ("chairman", false),
        ("{", false),
        ("", false),
    ] {
        let mut connection = installed.connect(Authenticated).await;
        let set = format!("set \"request.jwt.claims\" = '{claims}'");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await.expect("set");
        assert_eq!(attempt(&mut connection, READ).await.is_ok(), is_chairman, "{claims}");
    }
    assert_eq!(outcome(&installed, Authenticated, READ).await, Nothing, "no claims at all");
}

#[tokio::test]
async fn usage_outlives_its_venture_and_holds_its_agent_and_tool() {
    let installed = Installed::with_rows().await;
    for who in [Owner, Superuser] {
        for refused in ["delete from public.agent_registry", "delete from public.tool_registry"] {
            let code = installed.attempt(who, refused).await.expect_err("usage refers to it").code;
            assert!(["23503", "23001"].contains(&code.as_str()), "{who:?}: {refused}: {code}");
        }
        let deleted = "delete from public.ventures;
            do $$ begin
                assert exists (select from public.tool_usage_ledger), 'the usage is gone';
                assert not exists (select from public.tool_usage_ledger where venture_id is not null), 'the venture is not';
            end $$";
        installed.attempt(who, deleted).await.unwrap_or_else(|refusal| panic!("{who:?}: {refusal:?}"));
        // What the deletion may do, nobody else may.
        let by_hand = "alter table public.ventures add x int; update public.tool_usage_ledger set venture_id = null";
        assert_eq!(installed.attempt(who, by_hand).await.expect_err("the venture is there").code, "42501");
    }
}
