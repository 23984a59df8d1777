//! Access control: the four roles, the daemon's privileges, and the guards around the tables. None of it is in the
//! migrations. Roles belong to the whole server, guards need a superuser, and grants must follow each new table.

use crate::postgres::connections::Connections;
use crate::postgres::remedy::{DatabaseError, advised};
use crate::postgres::schema;
use sqlx::{AssertSqlSafe, PgConnection};

const RELATIONS: &str = include_str!("access/relations.sql");
const DAEMON: &str = include_str!("access/daemon.sql");
const CREATE_ROLES: &str = include_str!("access/create_roles.sql");
const STRANGERS: &str = include_str!("access/strangers.sql");
const OWNERSHIP: &str = include_str!("access/ownership.sql");
const GUARDS: &str = include_str!("access/guards.sql");
const FINDINGS: &str = include_str!("access/findings.sql");

/// Puts the queries in the place of their names.
fn complete(sql: &str) -> AssertSqlSafe<String> {
    let sql = sql.replace("(:daemon)", &format!("(\n{DAEMON})"));
    AssertSqlSafe(sql.replace("(:relations)", &format!("(\n{RELATIONS})")))
}

/// What a migration did about access.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whether the ledger belongs to `ledgerd_owner`.
    pub has_roles: bool,
    /// Who has the daemon's privileges now.
    pub daemons: Vec<String>,
    /// Why the guards could not be put up, where they could not.
    pub unguarded: Option<String>,
}

/// Brings access up to the schema: grants to whom they were given before, to `grant`, and with `make_roles` to the four
/// roles, which are made where they are missing. Puts the guards up where this role may.
pub async fn apply(connections: &Connections, make_roles: bool, grant: Option<&str>) -> Result<Access, DatabaseError> {
    let mut lease = connections.lease().await?;
    let connection: &mut PgConnection = &mut lease;
    // Two that do this at a time would trip over each other's rows in the catalogue.
    let session =
        "set statement_timeout = 0; set ledgerd.migrating = on; select pg_advisory_lock(hashtext('ledgerd access'))";
    sqlx::raw_sql(session).execute(&mut *connection).await.map_err(DatabaseError::new)?;
    if make_roles {
        create_roles(connection).await?;
    }
    let advice = if make_roles {
        "run `ledgerd migrate --roles` as a superuser"
    } else {
        "run `ledgerd migrate` as the owner of the ledger's tables, or as a superuser"
    };
    let (has_roles, daemons) = grant_all(connection, make_roles, grant).await.map_err(|failure| match failure {
        AccessFailure::OfTheServer(error) => advised(error, advice),
        AccessFailure::Refusal(why) => DatabaseError::of_the_operator(why),
    })?;
    let unguarded = put_guards_up(connection).await?;
    Ok(Access { has_roles, daemons, unguarded })
}

async fn create_roles(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let (role, may_create, missing): (String, bool, Vec<String>) = sqlx::query_as(
        "select
            current_user::text,
            (select rolsuper or rolcreaterole from pg_roles where rolname = current_user),
            array(
                select name
                from unnest(array['ledgerd_owner', 'ledgerd_daemon', 'ledgerd_reader', 'ledgerd_chairman']) as name
                where to_regrole(name) is null
            )",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DatabaseError::new)?;
    if !missing.is_empty() && !may_create {
        return Err(DatabaseError::of_the_operator(format!(
            "{role} may not create the roles {}: run `ledgerd migrate --roles` as a superuser, or as the database's owner \
             with CREATEROLE",
            missing.join(", ")
        )));
    }
    let created = sqlx::raw_sql(complete(CREATE_ROLES)).execute(connection).await;
    created.map_err(|error| advised(error, "run `ledgerd migrate --roles` as a superuser"))?;
    Ok(())
}

/// Why not all could be granted.
enum AccessFailure {
    OfTheServer(sqlx::Error),
    Refusal(String),
}

impl From<sqlx::Error> for AccessFailure {
    fn from(error: sqlx::Error) -> Self {
        Self::OfTheServer(error)
    }
}

/// In one transaction: a daemon that runs is never without what it needs.
async fn grant_all(
    connection: &mut PgConnection,
    make_roles: bool,
    grant: Option<&str>,
) -> Result<(bool, Vec<String>), AccessFailure> {
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    sqlx::raw_sql(complete(STRANGERS)).execute(&mut *connection).await?;
    // Roles belong to the server: that they are there does not mean that this database's ledger is theirs.
    let has_roles: bool = sqlx::query_scalar(
        "select coalesce(nspowner = to_regrole('ledgerd_owner'), false) from pg_namespace where nspname = 'ledger'",
    )
    .fetch_one(&mut *connection)
    .await?;
    let has_roles = has_roles || make_roles;
    if has_roles {
        sqlx::raw_sql(complete(OWNERSHIP)).execute(&mut *connection).await?;
    }
    // Who may enter leaves was granted the daemon's privileges by an earlier migration, and needs those of the new tables.
    let mut daemons: Vec<String> = sqlx::query_scalar(
        "select distinct rolname::text
        from pg_class
        cross join lateral aclexplode(relacl)
        join pg_roles on pg_roles.oid = grantee
        where pg_class.oid = 'ledger.batch'::regclass and privilege_type = 'INSERT' and grantee <> relowner",
    )
    .fetch_all(&mut *connection)
    .await?;
    daemons.extend(has_roles.then(|| "ledgerd_daemon".to_owned()));
    daemons.extend(grant.map(str::to_owned));
    daemons.sort();
    daemons.dedup();
    for daemon in &daemons {
        grant_daemon(connection, daemon).await?;
    }
    sqlx::raw_sql("commit").execute(&mut *connection).await?;
    Ok((has_roles, daemons))
}

/// What the role had is taken away first: an earlier version may have given more.
async fn grant_daemon(connection: &mut PgConnection, role: &str) -> Result<(), AccessFailure> {
    let owns: bool = sqlx::query_scalar(
        "select exists (
            select from pg_class join pg_roles on pg_roles.oid = relowner where pg_class.oid = 'ledger.batch'::regclass and rolname = $1
        )",
    )
    .bind(role)
    .fetch_one(&mut *connection)
    .await?;
    if owns {
        return Err(AccessFailure::Refusal(format!(
            "{role} owns the ledger's tables, and no grant binds an owner: give the daemon a role of its own"
        )));
    }
    let statements: Vec<String> = sqlx::query_scalar(complete(
        "select format('revoke all on %I.%I from %I', schema, name, $1)
        from (:relations) as relation
        where pg_has_role(relowner, 'usage')

        union all

        select format('grant usage on schema ledger, public to %I', $1)

        union all

        select format(
            'grant %s%s on %I.%I to %I',
            privilege,
            ' (' || (select string_agg(quote_ident(column_name), ', ') from unnest(columns) as column_name) || ')',
            schema,
            name,
            $1
        )
        from (:daemon) as wanted",
    ))
    .bind(role)
    .fetch_all(&mut *connection)
    .await?;
    sqlx::raw_sql(AssertSqlSafe(statements.join(";\n"))).execute(connection).await?;
    Ok(())
}

/// Only a superuser may make event triggers, or whom a provider allows it. Returns why they do not stand.
async fn put_guards_up(connection: &mut PgConnection) -> Result<Option<String>, DatabaseError> {
    sqlx::raw_sql("begin").execute(&mut *connection).await.map_err(DatabaseError::new)?;
    let why = match sqlx::raw_sql(complete(GUARDS)).execute(&mut *connection).await {
        Ok(_) => {
            sqlx::raw_sql("commit").execute(&mut *connection).await.map_err(DatabaseError::new)?;
            return Ok(None);
        }
        Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("42501") => {
            refusal.message().to_owned()
        }
        Err(error) => return Err(DatabaseError::new(error)),
    };
    sqlx::raw_sql("rollback").execute(&mut *connection).await.map_err(DatabaseError::new)?;
    let unguarded = unguarded(connection).await.map_err(DatabaseError::new)?;
    Ok((!unguarded.is_empty()).then_some(why))
}

/// Guards that do not stand, and tables that they do not know.
async fn unguarded(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut unguarded: Vec<String> = sqlx::query_scalar(
        "select guard
        from unnest(array['ledgerd_refuses_rewrites', 'ledgerd_refuses_drops', 'ledgerd_refuses_changes']) as guard
        where not exists (select from pg_event_trigger where evtname = guard and evtenabled = 'A')",
    )
    .fetch_all(&mut *connection)
    .await?;
    if unguarded.is_empty() {
        let unknown = sqlx::query_scalar(complete(
            "select format('%s.%s', schema, name)
            from (:relations) as relation
            where (schema, name) <> ('ledger', 'migration') and oid not in (select oid from ledger_guard.guarded)",
        ));
        unguarded.extend(unknown.fetch_all(connection).await?);
    }
    Ok(unguarded)
}

/// What is not as it should be, by kind: the kinds are those of `access/findings.sql`.
#[derive(Clone, Debug, Default)]
pub struct AccessFindings(Vec<(String, String)>);

impl AccessFindings {
    /// The findings of a kind.
    pub fn of(&self, kind: &str) -> Vec<&str> {
        self.0.iter().filter(|(its, _)| its == kind).map(|(_, what)| what.as_str()).collect()
    }
}

/// Looks at access as this role has it.
pub async fn findings(connections: &Connections) -> Result<AccessFindings, DatabaseError> {
    connections.run("looking at access", find).await
}

async fn find(connection: &mut PgConnection) -> Result<AccessFindings, sqlx::Error> {
    let mut findings: Vec<(String, String)> = sqlx::query_as(complete(FINDINGS)).fetch_all(&mut *connection).await?;
    // A trigger that stands, and calls a function which no longer refuses anything.
    let functions: Vec<(String, String)> = sqlx::query_as(
        "select distinct format('the function %s', tgfoid::regprocedure), prosrc
        from pg_trigger
        join pg_proc on pg_proc.oid = tgfoid
        where pronamespace = to_regnamespace('ledger')",
    )
    .fetch_all(&mut *connection)
    .await?;
    let replaced = functions.into_iter().filter(|(_, source)| !schema::is_of_a_migration(source));
    findings.extend(replaced.map(|(function, _)| ("altered".to_owned(), function)));
    findings.extend(unguarded(connection).await?.into_iter().map(|guard| ("unguarded".to_owned(), guard)));
    Ok(AccessFindings(findings))
}
