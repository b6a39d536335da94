//! `/api/v1/jobs` and `/api/v1/jobs/{id}`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode, response::Response};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::to_the_end;
use crate::{
    api::{
        app::App,
        extract::{CameBy, JobId, Parameters, Peer, ReadBy, SignedBody, short},
        large,
        service::ListQuery,
    },
    base::clock::Timestamp,
    wire::{Code, Problem, Reason, Status, result::Accepted},
};

/// Rows of a page, unless the query says so.
pub const PAGE: usize = 50;
/// Rows of a page at most.
pub const MAX_PAGE: usize = 500;
/// Bytes of memory for a row at most: 4,096 characters of its command, and as many as JSON.
const ROW: usize = 32 << 10;

/// `POST /api/v1/jobs`: 202 once the job is on disk.
pub async fn submit(
    State(app): State<Arc<App>>,
    CameBy(via): CameBy,
    SignedBody(body): SignedBody,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let now = Timestamp::now();
    let accepted = to_the_end(app.jobs.clone(), move |jobs| jobs.submit(body, via, now)).await?;
    Ok((StatusCode::ACCEPTED, Json(accepted)))
}

/// `GET /api/v1/jobs/{id}`.
pub async fn status(
    State(app): State<Arc<App>>,
    Peer(peer): Peer,
    ReadBy(reader): ReadBy,
    JobId(id): JobId,
    mut given: Parameters,
) -> Result<Response, Problem> {
    let reader = given.whose(reader)?;
    given.end()?;
    let (status, held) = app.jobs.status(&reader, &id, &large::purse(&app, peer)).await?;
    large::json(status, held, app.pace.large)
}

/// `GET /api/v1/jobs`.
pub async fn list(
    State(app): State<Arc<App>>,
    Peer(peer): Peer,
    ReadBy(reader): ReadBy,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let query = list_query(parameters)?;
    let held = large::purse(&app, peer).take(query.limit * ROW).await.ok_or_else(|| {
        Problem::new(Code::Busy)
            .details("too many large answers are being read; try again later")
            .retry_after(5)
    })?;
    let page = app.jobs.list(&reader, query).await?;
    large::json(page, Some(held), app.pace.large)
}

fn list_query(mut given: Parameters) -> Result<ListQuery, Problem> {
    const MOMENT: &str = "must be RFC 3339 or Unix seconds";
    let query = ListQuery {
        status: given.take(
            "status",
            "must be one of pending, running, completed, failed, rejected",
            Status::parse,
        )?,
        reason: given.take("reason", "must be a reason or a code of a refusal", |text| {
            let known = Reason::parse(text).is_some() || Code::parse(text).is_some();
            known.then(|| text.to_owned())
        })?,
        controller_id: given.take("controller_id", "must have 1 to 512 bytes", short)?,
        since: given.take("since", MOMENT, moment)?,
        until: given.take("until", MOMENT, moment)?,
        limit: given
            .take("limit", "must be 1 to 500", |text| {
                text.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit))
            })?
            .unwrap_or(PAGE),
        cursor: given.take("cursor", "must be the next_cursor of a page", short)?,
    };
    given.end()?;
    Ok(query)
}

fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(secs) = text.parse() {
        return Some(Timestamp::from_secs(secs));
    }
    // A plus sign that was not escaped has become a space.
    let text = text.replace(' ', "+");
    let at = OffsetDateTime::parse(&text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos()).ok().map(Timestamp)
}
