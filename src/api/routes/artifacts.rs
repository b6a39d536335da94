//! `GET /api/v1/jobs/{id}/artifacts/{path}`: a file that a job has left, whole or one range of it;
//! `GET /api/v1/jobs/{id}/artifacts`: all of them as an archive.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use super::output;
use crate::{
    api::{
        app::App,
        extract::{JobId, Parameters, Peer, ReadBy},
        large,
    },
    wire::{Code, Problem},
};

/// One file; ranges and tags as of output.
pub async fn one(
    State(app): State<Arc<App>>,
    Peer(peer): Peer,
    ReadBy(reader): ReadBy,
    path: Result<Path<(String, String)>, PathRejection>,
    mut given: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // What can't be decoded is no job's id and no file's path.
    let Path((id, path)) = path.map_err(|_| Problem::new(Code::ArtifactNotFound))?;
    let reader = given.whose(reader)?;
    given.end()?;
    let file = app.jobs.artifact(&reader, &id, &path, &large::purse(&app, peer)).await?;
    output::answer(file, &headers).map(for_saving)
}

/// All of them. Ranges are not known here: the parts of an archive are files.
pub async fn all(
    State(app): State<Arc<App>>,
    Peer(peer): Peer,
    ReadBy(reader): ReadBy,
    JobId(id): JobId,
    mut given: Parameters,
) -> Result<Response, Problem> {
    let reader = given.whose(reader)?;
    given.end()?;
    let archive = app.jobs.artifacts(&reader, &id, &large::purse(&app, peer)).await?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar")),
        (header::CONTENT_LENGTH, HeaderValue::from(archive.len)),
    ];
    let parts = (archive.chunks)(0..archive.len);
    let body = if archive.holds {
        large::timed(parts, large::time_for(archive.len, app.pace.large))
    } else {
        Body::from_stream(parts)
    };
    Ok(for_saving((headers, body).into_response()))
}

/// A job may have written anything: a browser is to save it, not to show it.
fn for_saving(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    response
}
