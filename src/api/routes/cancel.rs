//! `POST /api/v1/jobs/{id}/cancel`.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};

use super::to_the_end;
use crate::{
    api::{
        app::App,
        extract::{JobId, MayBeOperatedBy, Peer, SignedBody},
    },
    base::clock::Timestamp,
    wire::{Problem, result::CancelAnswer},
};

/// 200 if the job has ended by it, 202 if it has been asked to end.
pub async fn cancel(
    State(app): State<Arc<App>>,
    Peer(peer): Peer,
    JobId(id): JobId,
    MayBeOperatedBy(operator): MayBeOperatedBy,
    SignedBody(body): SignedBody,
) -> Result<(StatusCode, Json<CancelAnswer>), Problem> {
    let now = Timestamp::now();
    let jobs = app.jobs.clone();
    let answer = to_the_end(jobs, move |jobs| {
        Box::pin(async move {
            match operator {
                None => jobs.cancel(&id, body, peer, now).await,
                Some(operator) => jobs.cancel_by(&operator, &id, body, now).await,
            }
        })
    })
    .await?;
    let status = if answer.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(answer)))
}
