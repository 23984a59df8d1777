//! Access in PostgreSQL: who may do what, and every way around append-only, tried as every role.

/// The four roles: what each may do, and how they come about.
mod roles;

/// Every way around append-only.
mod ways;

/// The policies of `tool_usage_ledger`.
mod policies;

/// A database that has its own registries, roles and policies already.
mod surroundings;

use crate::support::daemon::{Environment, ledgerd, text_of};
use crate::support::postgres::Database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    Daemon,
    Reader,
    Chairman,
    Authenticated,
    /// `authenticated`, with the chairman's claims.
    Claimant,
    ServiceRole,
    Superuser,
}

use Who::{Authenticated, Chairman, Claimant, Daemon, Owner, Reader, ServiceRole, Superuser};

const EVERYBODY: [Who; 8] = [Owner, Daemon, Reader, Chairman, Authenticated, Claimant, ServiceRole, Superuser];

const CLAIMS: &str = r#"{"role": "chairman"}"#;

impl Who {
    /// The role that a login is made a member of.
    fn group(self) -> Option<&'static str> {
        match self {
            Owner => Some("ledgerd_owner"),
            Daemon => Some("ledgerd_daemon"),
            Reader => Some("ledgerd_reader"),
            Chairman => Some("ledgerd_chairman"),
            Authenticated | Claimant => Some("authenticated"),
            ServiceRole => Some("service_role"),
            Superuser => None,
        }
    }
}

/// One agent, one tool, one venture.
const REGISTERED: &str = "
    insert into public.agent_registry (id) values ('00000000-0000-0000-0000-00000000000a');
    insert into public.tool_registry (id) values ('00000000-0000-0000-0000-00000000000b');
    insert into public.ventures (id) values ('00000000-0000-0000-0000-00000000000c');
";

/// What the daemon writes, in each table at least once.
const DAEMON_WRITES: [&str; 26] = [
    "insert into ledger.epoch (stream, stream_created_ns, regressions) values ('LEDGER', 1, 0)",
    "insert into public.audit_events
        (event_id, actor, action, outcome, details, task_id, timestamp, integrity_hash, created_at, timestamp_text)
        values ('E', 'BRM-CTO', 'A', 'SUCCESS', '{}', 'T', now(), 'h', now(), 'now')
        on conflict (event_id) do nothing",
    "insert into public.token_ledger (agent_name, date, total_tokens_input, total_tokens_output, total_cost, last_updated,
        budget_status, exact_cost, budget_group) values ('BRM-CTO', '2026-02-20', 1, 1, 1, now(), 'GREEN', 1, null)",
    "insert into public.token_ledger (agent_name, date, exact_cost) values ('BRM-CTO', '2026-02-20', 1)
        on conflict (agent_name, date) do update
        set exact_cost = token_ledger.exact_cost + excluded.exact_cost, total_tokens_input = 9, total_tokens_output = 9,
            total_cost = 2, last_updated = now(), budget_status = 'RED', budget_group = null",
    "insert into ledger.token_usage (agent_name, usage_id, usage_id_given, date, tokens_input, tokens_output, cost_usd, cost_given)
        values ('BRM-CTO', 'U', true, '2026-02-20', 1, 1, 1, true)",
    "insert into ledger.budget_alert (agent_name, date, old_status, new_status, spent_usd, limit_usd, limit_key, raised_at)
        values ('BRM-CTO', '2026-02-20', 'GREEN', 'RED', 9, 9, 'K', now())",
    "update ledger.budget_alert set published_at = now()",
    "insert into public.decision_trails (trail_id, council_vote, proposal, outcome, ledger_ref) values ('D', '{}', '{}', 'PASSED', 'E')",
    "insert into public.economic_metrics (metric_key, metric_value, period, set_by) values ('K', 1, 'DAILY', 'VRA-CFO')",
    "insert into ledger.tool_usage (id, agent_id, venture_id, tool_id, tokens_consumed, cost_usd, execution_ms, created_at)
        select gen_random_uuid(), a.id, v.id, t.id, 1, 1, 1, now()
        from ledger.known_agent as a, ledger.known_tool as t, ledger.known_venture as v",
    "insert into ledger.batch
        (first_leaf, leaves, epoch, lane, layer, first_sequence, last_sequence, duplicates, rejected, committed_at, sequences, subjects,
        server_times_ns, payloads, dispositions, record_ids, leaf_hashes)
        select size, 1, 1, 'EXEC', 0, 1000, 1000, 0, 1, now(), array[1000], array['ledger.EXEC.BRM-CTO'], array[1], array[''::bytea],
            array['x'::\"char\"], array[null], array[sha256('')]
        from ledger.tree_head for update",
    "insert into ledger.dead_letter (leaf_index, reason, detail, dlq_subject, rejected_at) values (999, 'r', 'd', 's', now())",
    "insert into ledger.checkpoint (origin, tree_size, root, note) values ('example.com/ledger', 1, sha256('x'), 'n')",
    "insert into ledger.cosignature (origin, tree_size, witness, line) values ('example.com/ledger', 1, 'w', 'l')",
    "insert into ledger.reconciled (epoch, first_sequence, last_sequence, entries, expired, deleted, on_no_lane)
        values (1, 1, 10, 4, 3, 2, 1)",
    "insert into ledger.position (epoch, lane, sequence) values (1, 'EXEC', 5)",
    "update ledger.position set sequence = 7, fence = 1, owner = 'o', renewed_at = now(), suspect_after = 6",
    "insert into ledger.counted (epoch, through, counted_at) values (1, 3, now());
        update ledger.counted set through = 4, counted_at = now()",
    "insert into ledger.gap (epoch, lane, first_sequence, last_sequence, why) values (1, 'EXEC', 1, 2, 'w')",
    "insert into ledger.run (what, scope, started_at, ended_at, entries, findings, summary, program_version)
        values ('verify', 'whole', now(), now(), 1, 0, '{}', '0')",
    "insert into ledger.refusal (slot, status, webhook, address, calls, first_at, last_at)
        values (1, 401, 'audit', '127.0.0.1', 1, now(), now())",
    "update ledger.refusal set status = 403, webhook = 'usage', address = 'others', calls = 2, first_at = now(), last_at = now()",
    "update ledger.dead_letter set published_at = now() where leaf_index = 999",
    "insert into ledger.resolution (leaf_index, round, action, decided_by, why, replacement, stream, stream_created_ns, after_sequence,
        message_id, event_id) values (999, 1, 'REQUEUED', 'b', 'w', 'r', 'LEDGER', 1, 0, 'requeue-1', 'z')",
    "update ledger.resolution set settled_at = now(), new_created_ns = 1, new_sequence = 1",
    "insert into ledger.subtree (level, index, hash) values (1, 0, sha256(''));
        update ledger.tree_head set size = size + 1, root = sha256(''), frontier = ''",
];

/// What retention writes, as if it had run: its own triggers ask for a whole history behind each row.
const REMOVED: &str = "
    alter table ledger.export disable trigger all;
    alter table ledger.erasure disable trigger all;
    alter table ledger.removal disable trigger all;
    alter table ledger.erased disable trigger all;
    insert into ledger.export
        (table_name, cutoff, row_count, first_key, last_key, oldest, newest, location, file, file_bytes, file_sha256, lines_bytes,
        lines_sha256, manifest, manifest_sha256, event_id)
    values ('token_ledger', '2026-01-01', 1, 'a', 'a', 'a', 'a', 'file:///a', 'f', 1, sha256('x'), 1, sha256('x'), 'm', sha256('x'), 'x');
    insert into ledger.erasure (table_name, authorized_by, row_count, event_id) values ('audit_events', 'a', 1, 'y');
    insert into ledger.removal (table_name, row_key, erasure_id) values ('audit_events', 'gone', 1);
    insert into ledger.erased (leaf_index, erasure_id, payload_sha256) values (1000, 1, sha256('x'));
    do $$
    declare it record;
    begin
        for it in
            select tgrelid::regclass as relation, tgname
            from pg_trigger
            where tgrelid in ('ledger.export'::regclass, 'ledger.erasure'::regclass, 'ledger.removal'::regclass,
                'ledger.erased'::regclass) and not tgisinternal
        loop execute format('alter table %s enable always trigger %I', it.relation, it.tgname); end loop;
    end $$";

/// A ledger in the hands of the four roles, with a login for everybody.
#[derive(Debug)]
struct Installed {
    database: Database,
}

impl Installed {
    /// An empty database, migrated with `--roles`.
    async fn start() -> Self {
        Self::into(Database::fresh().await).await
    }

    /// This database, migrated with `--roles`.
    async fn into(database: Database) -> Self {
        let installed = Self { database };
        installed.migrate(&["--roles"]).await;
        for who in EVERYBODY {
            let Some(group) = who.group() else { continue };
            let login = installed.database.create_role(&format!("{who:?}").to_lowercase()).await;
            installed.database.execute(&format!("grant {group} to {login}")).await;
            if who == Chairman {
                installed
                    .database
                    .execute(&format!("alter role {login} set \"request.jwt.claims\" = '{CLAIMS}'"))
                    .await;
            }
        }
        installed
    }

    /// With a row in each table, as the daemon writes it.
    async fn with_rows() -> Self {
        let installed = Self::start().await;
        installed.database.execute(REGISTERED).await;
        installed.write_as_the_daemon().await;
        installed.database.execute(REMOVED).await;
        installed
    }

    async fn write_as_the_daemon(&self) {
        let mut daemon = self.connect(Daemon).await;
        for statement in DAEMON_WRITES {
            let done = sqlx::raw_sql(statement).execute(&mut daemon).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }

    /// Runs `ledgerd migrate` as the superuser.
    async fn migrate(&self, arguments: &[&str]) -> String {
        let output = migrate(&self.database.url(), arguments).await;
        assert!(output.status.success(), "{}", text_of(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn login(&self, who: Who) -> String {
        format!("{}_{who:?}", self.database.name()).to_lowercase()
    }

    async fn connect(&self, who: Who) -> PgConnection {
        let Some(_) = who.group() else { return self.database.connect().await };
        let url = self.database.cluster().url_as(self.database.name(), &self.login(who));
        let mut connection = PgConnection::connect(&url).await.expect("the login is there");
        if who == Claimant {
            let claim = format!("set \"request.jwt.claims\" = '{CLAIMS}'");
            sqlx::raw_sql(AssertSqlSafe(claim)).execute(&mut connection).await.expect("anybody may claim anything");
        }
        connection
    }

    /// Tries statements as somebody, and takes back what they did.
    async fn attempt(&self, who: Who, sql: &str) -> Result<u64, Refusal> {
        attempt(&mut self.connect(who).await, sql).await
    }
}

/// The first column of the first row, as text.
async fn text(database: &Database, sql: &str) -> String {
    let text = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut database.connect().await).await;
    let text: Option<String> = text.unwrap_or_else(|error| panic!("{sql}: {error}"));
    text.unwrap_or_default()
}

/// Runs `ledgerd migrate` with this URL.
async fn migrate(url: &str, arguments: &[&str]) -> std::process::Output {
    let environment: Environment = [("LEDGERD__DATABASE__URL".to_owned(), url.to_owned())].into();
    ledgerd(&[&["migrate"], arguments].concat(), &environment).await
}

/// What PostgreSQL said: its code, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: String,
    what: String,
}

impl Refusal {
    /// A missing privilege, a trigger or a guard; and a view that takes no writes from anybody.
    fn is_of_access(&self) -> bool {
        ["42501", "55000"].contains(&self.code.as_str())
    }
}

/// Tries statements in a transaction that is rolled back, and says how many rows they met.
async fn attempt(connection: &mut PgConnection, sql: &str) -> Result<u64, Refusal> {
    sqlx::raw_sql("begin").execute(&mut *connection).await.expect("a transaction");
    let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *connection).await;
    sqlx::raw_sql("rollback").execute(&mut *connection).await.expect("its end");
    outcome.map(|result| result.rows_affected()).map_err(|error| {
        let refusal = error.as_database_error().unwrap_or_else(|| panic!("{sql}: {error}"));
        Refusal { code: refusal.code().unwrap_or_default().into_owned(), what: refusal.message().to_owned() }
    })
}
