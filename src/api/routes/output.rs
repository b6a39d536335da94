//! `GET /api/v1/jobs/{id}/output`: the exact bytes of one stream, whole or one range of them (RFC 9110,
//! section 14).

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    api::{
        app::App,
        error::internal,
        extract::{JobId, Parameters, ReadBy},
        service::{Of, Output},
    },
    wire::{Code, Problem},
};

/// 200 with everything there is, 206 with a range, 304 if the caller has it already.
pub async fn output(
    State(app): State<Arc<App>>,
    ReadBy(reader): ReadBy,
    JobId(id): JobId,
    mut given: Parameters,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let of = given.take("stream", "must be stdout or stderr", |text| match text {
        "stdout" => Some(Of::Stdout),
        "stderr" => Some(Of::Stderr),
        _ => None,
    })?;
    let reader = given.whose(reader)?;
    given.end()?;
    answer(app.jobs.output(&reader, &id, of.unwrap_or(Of::Stdout)).await?, &headers)
}

/// The bytes that the headers ask for.
///
/// # Errors
/// A tag that is no header's value, which is a defect.
pub(super) fn answer(output: Output, headers: &HeaderMap) -> Result<Response, Problem> {
    let len = output.len;
    // Bytes of a job that still runs have no tag: there will be more of them.
    let etag = output.sha256.as_ref().map(|sha256| format!("\"{sha256}\""));

    let mut response = match wanted(headers, etag.as_deref(), len) {
        Wanted::Nothing => StatusCode::NOT_MODIFIED.into_response(),
        Wanted::Whole => Body::from_stream((output.chunks)(0..len)).into_response(),
        Wanted::Part(range) => {
            let shown = format!("bytes {}-{}/{len}", range.start, range.end - 1);
            let length = range.end - range.start;
            let body = Body::from_stream((output.chunks)(range));
            let headers = [(header::CONTENT_RANGE, shown), (header::CONTENT_LENGTH, length.to_string())];
            (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
        }
        Wanted::Outside => {
            let problem = Problem::new(Code::RangeNotSatisfiable)
                .details(format!("There are {len} bytes"))
                .with("length", len);
            let mut response = problem.into_response();
            response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{len}"))?);
            return Ok(response);
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if status == StatusCode::OK {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    }
    if let Some(etag) = etag {
        headers.insert(header::ETAG, value(&etag)?);
    }
    Ok(response)
}

fn value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|error| internal("an answer's header could not be written", &error))
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    /// A range without a byte in it.
    Outside,
    /// The caller holds these bytes.
    Nothing,
}

fn wanted(headers: &HeaderMap, etag: Option<&str>, len: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let (Some(held), Some(etag)) = (text(header::IF_NONE_MATCH), etag) {
        let same = |held: &str| held == "*" || held.strip_prefix("W/").unwrap_or(held) == etag;
        if held.split(',').any(|held| same(held.trim())) {
            return Wanted::Nothing;
        }
    }
    // Without the same tag a part would be glued to bytes of something else.
    if text(header::IF_RANGE).is_some_and(|held| Some(held) != etag) {
        return Wanted::Whole;
    }
    text(header::RANGE).map_or(Wanted::Whole, |range| one_range(range, len))
}

/// A header that is no range of bytes, or that asks for several, is ignored, as the standard allows.
fn one_range(range: &str, len: u64) -> Wanted {
    let Some((first, last)) = range.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    // Digits only: `parse` would take a sign.
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let range = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Wanted::Whole,
        (true, false) => match number(last) {
            Some(suffix) => len.saturating_sub(suffix)..len,
            None => return Wanted::Whole,
        },
        (false, true) => match number(first) {
            Some(first) => first..len,
            None => return Wanted::Whole,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..len.min(last.saturating_add(1)),
            _ => return Wanted::Whole,
        },
    };
    if range.start < range.end { Wanted::Part(range) } else { Wanted::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        for (range, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-4", Wanted::Part(2..5)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=9-18446744073709551615", Wanted::Part(9..10)),
            ("bytes=10-", Wanted::Outside),
            ("bytes=10-12", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=4-2", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=0-1,4-5", Wanted::Whole),
            ("lines=0-1", Wanted::Whole),
            ("bytes=99999999999999999999-", Wanted::Whole),
        ] {
            assert_eq!(one_range(range, 10), wanted, "{range}");
        }
        assert_eq!(one_range("bytes=0-", 0), Wanted::Outside);
    }

    #[test]
    fn tags_decide_before_ranges() {
        let headers = |pairs: &[(header::HeaderName, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        let part = (header::RANGE, "bytes=0-0");
        let tag = Some("\"abc\"");
        assert_eq!(
            wanted(&headers(&[part.clone(), (header::IF_RANGE, "\"abc\"")]), tag, 10),
            Wanted::Part(0..1)
        );
        assert_eq!(wanted(&headers(&[part.clone(), (header::IF_RANGE, "\"old\"")]), tag, 10), Wanted::Whole);
        assert_eq!(wanted(&headers(&[part.clone(), (header::IF_RANGE, "\"abc\"")]), None, 10), Wanted::Whole);
        let held = (header::IF_NONE_MATCH, "\"old\", W/\"abc\"");
        assert_eq!(wanted(&headers(&[part.clone(), held.clone()]), tag, 10), Wanted::Nothing);
        assert_eq!(wanted(&headers(&[part, held]), None, 10), Wanted::Part(0..1));
    }
}
