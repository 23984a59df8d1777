//! Notices: what targets are told of that no commit of records causes. Each is written once, however many instances see it.

use crate::command::{Exit, Failure, connect, output};
use crate::config::Config;
use crate::postgres::connections::Connections;
use crate::postgres::remedy::DatabaseError;
use serde_json::{Value, json};

/// A lane stands still. A lane of which that was said last is not mentioned again.
pub(crate) async fn lane_stalled(connections: &Connections, lane: &str, what: &str) -> Result<(), DatabaseError> {
    let data = json!({ "lane": lane, "detail": what });
    raise(connections, LANE_STALLED, "lane.stalled", lane, &data).await
}

/// A lane that was said to stand still does so no more, for all that this instance knows.
pub(crate) async fn lane_moves(connections: &Connections, lane: &str) -> Result<(), DatabaseError> {
    raise(connections, LANE_MOVES, "lane.recovered", lane, &json!({ "lane": lane })).await
}

/// Says of each lane that moved since it was said to stand still that it moves: whoever said so may be gone.
pub(crate) async fn lanes_recovered(connections: &Connections) -> Result<(), DatabaseError> {
    raise(connections, LANES_RECOVERED, "lane.recovered", "", &json!({})).await
}

/// A check found a difference. The same one is told once a day.
pub(crate) async fn difference(connections: &Connections, check: &str, detail: &str) -> Result<(), DatabaseError> {
    let detail: String = detail.chars().take(DETAIL_CHARS_MAX).collect();
    raise(connections, DIFFERENCE, "integrity.difference", check, &json!({ "check": check, "detail": detail })).await
}

/// Tells what a command found. Its login may be a mere reader's, so a failure is no failure of the command.
pub(crate) async fn tell_difference(config: &Config, check: &str, failure: &Failure) {
    if failure.exit != Exit::Difference {
        return;
    }
    let told = async {
        let connections = connect::database(config, 1)?;
        difference(&connections, check, &failure.what).await.map_err(Failure::from)
    };
    if let Err(failure) = told.await {
        output::complain(&format!("no target of notifications is told of it: {}", failure.what));
    }
}

/// Who looks first writes; who looks at the same time waits, and then sees the notice.
async fn raise(
    connections: &Connections,
    statement: &'static str,
    kind: &str,
    subject: &str,
    data: &Value,
) -> Result<(), DatabaseError> {
    connections
        .run("writing a notice", async |connection| {
            sqlx::raw_sql("begin; select pg_advisory_xact_lock(hashtext('ledger.notice'))")
                .execute(&mut *connection)
                .await?;
            let raising = sqlx::query(statement).bind(kind).bind(subject).bind(data.to_string());
            raising.execute(&mut *connection).await?;
            sqlx::raw_sql("commit").execute(connection).await.map(drop)
        })
        .await
}

const DETAIL_CHARS_MAX: usize = 2000;

/// Remembers where the lane stood, so that anybody can see that it moves again.
const LANE_STALLED: &str = "
    insert into ledger.notice (event, type, subject, data)
    select 'stall', $1, $2, $3::jsonb || coalesce(
        (
            select jsonb_build_object('epoch', epoch, 'position', sequence)
            from ledger.position
            where lane = $2
            order by epoch desc
            limit 1
        ),
        '{}'
    )
    where (
        select type from ledger.notice where event = 'stall' and subject = $2 order by id desc limit 1
    ) is distinct from $1";

const LANE_MOVES: &str = "
    insert into ledger.notice (event, type, subject, data)
    select 'stall', $1, $2, $3::jsonb
    where (
        select type from ledger.notice where event = 'stall' and subject = $2 order by id desc limit 1
    ) = 'lane.stalled'";

const LANES_RECOVERED: &str = "
    insert into ledger.notice (event, type, subject, data)
    select 'stall', $1, said.subject, $3::jsonb || jsonb_build_object('lane', said.subject)
    from (
        select distinct on (subject) subject, type, data
        from ledger.notice
        where event = 'stall' and $2 = ''
        order by subject, id desc
    ) as said
    where said.type = 'lane.stalled'
        and exists (
            select
            from ledger.position
            where lane = said.subject
                and (epoch, sequence) > ((said.data ->> 'epoch')::integer, (said.data ->> 'position')::bigint)
        )";

const DIFFERENCE: &str = "
    insert into ledger.notice (event, type, subject, data)
    select 'integrity', $1, $2, $3::jsonb
    where not exists (
        select
        from ledger.notice
        where event = 'integrity' and subject = $2 and type = $1 and data = $3::jsonb
            and raised_at > clock_timestamp() - interval '1 day'
    )";
