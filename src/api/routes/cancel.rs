//! `POST /api/v1/jobs/{id}/cancel`.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use serde_json::value::RawValue;

use super::to_the_end;
use crate::{
    api::{
        app::App,
        extract::{CameBy, JobId, MayBeOperatedBy, SignedBody},
    },
    base::clock::Timestamp,
    wire::{Problem, result::CancelAnswer},
};

/// 200 if the job has ended by it, 202 if it has been asked to end.
pub async fn cancel(
    State(app): State<Arc<App>>,
    CameBy(via): CameBy,
    JobId(id): JobId,
    operator: MayBeOperatedBy,
    SignedBody(body): SignedBody,
) -> Result<(StatusCode, Json<CancelAnswer>), Problem> {
    let now = Timestamp::now();
    let operator = match operator {
        MayBeOperatedBy::Token(operator) => Some(operator),
        MayBeOperatedBy::Certificate(operator) if !is_envelope(&body) => Some(operator),
        MayBeOperatedBy::Certificate(_) | MayBeOperatedBy::Nobody => None,
    };
    let jobs = app.jobs.clone();
    let answer = to_the_end(jobs, move |jobs| {
        Box::pin(async move {
            match operator {
                None => jobs.cancel(&id, body, via, now).await,
                Some(operator) => jobs.cancel_by(&operator, &id, body, now).await,
            }
        })
    })
    .await?;
    let status = if answer.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(answer)))
}

/// Whether something in there says that it is signed.
fn is_envelope(body: &[u8]) -> bool {
    let members = serde_json::from_slice::<HashMap<Cow<'_, str>, &RawValue>>(body);
    members.is_ok_and(|members| members.contains_key("payload") || members.contains_key("signature"))
}
