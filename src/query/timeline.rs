//! The timeline: what agents did, the newest first.

use crate::postgres::remedy::DatabaseError;
use crate::query::Reader;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What a page of the timeline shows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct TimelineFilter {
    /// Only what this agent did.
    pub actor: Option<String>,
}

/// One line of the timeline.
#[derive(Clone, Debug, Serialize, ToSchema, sqlx::FromRow)]
pub struct TimelineLine {
    pub event_id: String,
    pub actor: String,
    pub action: String,
    pub outcome: String,
    pub task_id: Option<String>,
    /// As the publisher wrote it.
    pub timestamp: String,
}

const LINES_MAX: i64 = 50;

impl Reader {
    pub async fn timeline(&self, filter: &TimelineFilter) -> Result<Vec<TimelineLine>, DatabaseError> {
        self.0
            .run("reading the timeline", async |connection| {
                sqlx::query_as(
                    "select event_id, actor, action, outcome, task_id, timestamp_text as timestamp
                    from public.audit_events
                    where $1::text is null or actor = $1
                    order by id desc
                    limit $2",
                )
                .bind(&filter.actor)
                .bind(LINES_MAX)
                .fetch_all(connection)
                .await
            })
            .await
    }
}
