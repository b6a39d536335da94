//! `POST /api/v1/drain` and `/api/v1/undrain`: for who holds the right to operate.

use std::sync::Arc;

use axum::{Json, extract::State};

use super::to_the_end;
use crate::{
    api::{app::App, extract::OperatedBy},
    wire::{Problem, result::DrainAnswer},
};

/// No more jobs are taken or started; those that run go on.
pub async fn drain(
    State(app): State<Arc<App>>,
    OperatedBy(operator): OperatedBy,
) -> Result<Json<DrainAnswer>, Problem> {
    to_the_end(app.jobs.clone(), move |jobs| Box::pin(async move { jobs.drain(&operator, true).await }))
        .await
        .map(Json)
}

/// Takes that back.
pub async fn undrain(
    State(app): State<Arc<App>>,
    OperatedBy(operator): OperatedBy,
) -> Result<Json<DrainAnswer>, Problem> {
    to_the_end(app.jobs.clone(), move |jobs| Box::pin(async move { jobs.drain(&operator, false).await }))
        .await
        .map(Json)
}
