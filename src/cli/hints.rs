//! What to do about each failure, and the exit code it means.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{exits, options};
use crate::{
    base::clock::Timestamp,
    client::{ConnectFault, Error, Refusal, TlsFault},
    wire::Code,
};

/// A difference of clocks below this is no reason for anything, in seconds.
const SKEW_OF_NOTE: i64 = 5;

/// Exit code and hints of a failure that was met at `now`.
pub fn of(error: &Error, now: Timestamp) -> (u8, Vec<String>) {
    let (exit, hint) = match error {
        Error::Refused(refusal) => return of_refusal(refusal, now),
        Error::Connect { fault, .. } => (
            exits::UNAVAILABLE,
            match fault {
                ConnectFault::Refused => {
                    "nothing listens there: is the agent running, and is the port right? (on its host: systemctl status quickcmd-agent)"
                }
                ConnectFault::Timeout => "is there a firewall between here and the agent?",
                ConnectFault::UnknownHost => "check the name in --url or QUICKCMD_URL",
                ConnectFault::Other => "check --url or QUICKCMD_URL, and the network",
            },
        ),
        Error::Tls { fault, .. } => (
            exits::TLS,
            match fault {
                TlsFault::UnknownIssuer => {
                    "if the agent's certificate is self-signed, copy it here and name it: --ca agent-cert.pem (or QUICKCMD_CA)"
                }
                TlsFault::WrongName => {
                    "use a name that is in the certificate, or name exactly this certificate: --ca agent-cert.pem"
                }
                TlsFault::Expired => "check the clock here; otherwise the agent needs a new certificate",
                TlsFault::Fingerprint => {
                    "if the agent has a new certificate, take its fingerprint on its host: openssl x509 -in agent-cert.pem -noout -fingerprint -sha256"
                }
                TlsFault::Other => {
                    "does that port speak HTTPS? a development agent on loopback has http:// addresses"
                }
            },
        ),
        Error::Plain { url, .. } => {
            let hint = format!("use {} (--url, QUICKCMD_URL)", url.replacen("http://", "https://", 1));
            return (exits::CONFIG, vec![hint]);
        }
        Error::Lost { .. } => (exits::UNAVAILABLE, "the agent may be restarting: try again"),
        Error::Unsure { job_id, .. } => {
            let hint = format!("ask before you submit it again: quickcmd status {job_id}");
            return (exits::UNKNOWN, vec![hint]);
        }
        Error::Answer { .. } => (exits::DATA, "check --url or QUICKCMD_URL: is that address the agent's?"),
        Error::Setting(_) => return (exits::CONFIG, Vec::new()),
        Error::Write(_) => return (exits::IO, Vec::new()),
    };
    (exit, vec![hint.to_owned()])
}

fn of_refusal(refusal: &Refusal, now: Timestamp) -> (u8, Vec<String>) {
    let Some(code) = refusal.code else { return (by_status(refusal.status), Vec::new()) };
    let later = || match refusal.retry_after {
        Some(wait) => format!("try again in {} s", wait.as_secs()),
        None => "try again later".to_owned(),
    };
    let (exit, hint) = match code {
        Code::InvalidSignature => (
            exits::REFUSED,
            "the secret here and the agent's (hmac_secret, or this controller's key) are not the same; compare them, and the key id".to_owned(),
        ),
        Code::JobFromFuture if ttl_too_far(refusal) => {
            let most = match refusal.more.get("allowed_seconds").and_then(Value::as_i64) {
                Some(seconds) => format!("{seconds} s"),
                None => "so much".to_owned(),
            };
            (exits::REFUSED, format!("give a shorter --ttl: the agent takes {most} at most (freshness.max_ttl in its configuration)"))
        }
        Code::JobExpired | Code::JobTooOld | Code::JobFromFuture => (exits::REFUSED, clocks(refusal, code, now)),
        Code::ControllerNotAllowed => (
            exits::REFUSED,
            "add this controller's id to allowed_controllers (or controllers) in the agent's configuration and reload it; the id here is --controller-id or QUICKCMD_CONTROLLER_ID".to_owned(),
        ),
        Code::InsufficientScopes => (exits::REFUSED, "the agent's configuration grants scopes to each controller: scopes (the job's own are those of --scope)".to_owned()),
        Code::ImageNotAllowed => (exits::REFUSED, "--image names another one; the agent's configuration lists what may be used: allowed_images".to_owned()),
        Code::LimitExceeded => (exits::REFUSED, match options::of(refusal) {
            Some("--network") => "leave --network out, or have the controller granted it in the agent's configuration".to_owned(),
            Some(option) => format!("ask for less with {option}, or have the controller's maximum raised in the agent's configuration"),
            None => "ask for less, or have the controller's maximum raised in the agent's configuration".to_owned(),
        }),
        Code::PolicyDenied => (exits::REFUSED, "the agent's policy denies this command; nothing was run".to_owned()),
        Code::Unauthenticated if refusal.more.contains_key("agent_time") => {
            (exits::REFUSED, clocks(refusal, code, now))
        }
        Code::Unauthenticated => (
            exits::REFUSED,
            "reads are proved with the controller's key (check the secret, the controller's id, the key id, and the clock here) or with a token that has not expired".to_owned(),
        ),
        Code::Forbidden => (exits::REFUSED, "that needs another controller's key, the scope admin, or a token with the scope that is missing".to_owned()),
        Code::JobIdConflict => (exits::REFUSED, "a job id is used once, for ever: leave --job-id out to get a fresh one".to_owned()),
        Code::JobIdAmbiguous => (exits::REFUSED, "several controllers have a job of that id: say whose you mean with --of".to_owned()),
        Code::JobEnded => (exits::REFUSED, "quickcmd status shows how it ended".to_owned()),
        Code::RateLimited | Code::QueueFull | Code::QuotaExceeded | Code::Draining | Code::Busy => {
            (exits::TRY_LATER, later())
        }
        Code::StorageLow | Code::StorageError => {
            (exits::TRY_LATER, format!("the agent's disk needs care (its log says more); {}", later()))
        }
        Code::RequestTimeout => (exits::TRY_LATER, later()),
        Code::JobNotFound => (
            exits::NOT_FOUND,
            "it may belong to another controller, or be older than what the agent keeps: quickcmd list".to_owned(),
        ),
        Code::ArtifactNotFound => (exits::NOT_FOUND, "quickcmd artifacts lists what was kept, and why something was not".to_owned()),
        Code::OutputGone => (exits::NOT_FOUND, "its hashes and sizes are still there: quickcmd status".to_owned()),
        Code::BodyTooLarge => (exits::USAGE, "have max_body_bytes in the agent's configuration raised".to_owned()),
        Code::InvalidField | Code::InvalidQuery => match options::of(refusal) {
            Some(option) => (exits::USAGE, format!("that is what {option} says")),
            None => return (exits::USAGE, Vec::new()),
        },
        Code::RangeNotSatisfiable => return (exits::USAGE, Vec::new()),
        Code::UnknownField => (exits::DATA, format!("the agent is older than this program: leave {} out or upgrade the agent", options::of(refusal).unwrap_or("that option"))),
        Code::InvalidJson
        | Code::UnsupportedMediaType
        | Code::UpgradeRequired
        | Code::InvalidRequest
        | Code::NotFound
        | Code::MethodNotAllowed => (exits::DATA, "agent and controller don't understand each other: compare their versions, and check --url".to_owned()),
        Code::Internal => (exits::SOFTWARE, "the agent's log says more: journalctl -u quickcmd-agent".to_owned()),
        Code::WrongAgent => (
            exits::REFUSED,
            "the job names another agent: compare --agent-id (or agent_id in the configuration here) with the agent's".to_owned(),
        ),
        // A code that needs no hint: its sentence says it all.
        _ => return (by_status(refusal.status), Vec::new()),
    };
    (exit, vec![hint])
}

/// The exit code of a refusal by its HTTP status alone.
fn by_status(status: u16) -> u8 {
    match status {
        404 | 410 => exits::NOT_FOUND,
        408 | 429 | 503 => exits::TRY_LATER,
        502 | 504 => exits::UNAVAILABLE,
        500..=599 => exits::SOFTWARE,
        _ => exits::REFUSED,
    }
}

/// Whether it is not a clock but the distance between the job's own times that the agent did not like: both
/// refusals have the same code, and only the details tell.
fn ttl_too_far(refusal: &Refusal) -> bool {
    refusal.details.as_deref().is_some_and(|details| details.contains("TTL is too far"))
}

/// Says plainly whose clock is where, with numbers, as far as the agent told us.
fn clocks(refusal: &Refusal, code: Code, now: Timestamp) -> String {
    let agent = refusal.more.get("agent_time").and_then(|value| match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp),
        _ => None,
    });
    let Some(agent) = agent else {
        return "compare the clocks of this machine and the agent's (timedatectl)".to_owned();
    };
    let here = now.secs();
    let ahead = here.saturating_sub(agent);
    if ahead.abs() > SKEW_OF_NOTE {
        let side = if ahead > 0 { "ahead of" } else { "behind" };
        return format!(
            "the clock here is {} s {side} the agent's (here {}, agent {}): set both by NTP (timedatectl set-ntp true)",
            ahead.unsigned_abs(),
            Timestamp::from_secs(here).rfc3339(),
            Timestamp::from_secs(agent).rfc3339(),
        );
    }
    match code {
        Code::JobExpired => {
            "the clocks agree; the job's own time ran out before it arrived: give it more with --ttl"
                .to_owned()
        }
        _ => "the clocks agree now: try again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: Code, more: Value) -> Error {
        let Value::Object(more) = more else { panic!("an object") };
        Error::Refused(Box::new(Refusal {
            status: code.status(),
            code: Some(code),
            code_text: code.as_str().to_owned(),
            error: code.sentence().to_owned(),
            details: None,
            more,
            retry_after: None,
        }))
    }

    #[test]
    fn a_skewed_clock_is_said_with_numbers() {
        let now = Timestamp::from_secs(1_704_629_200);
        let (exit, hints) = of(&refused(Code::JobExpired, json!({ "agent_time": 1_704_628_800 })), now);
        assert_eq!(exit, exits::REFUSED);
        assert_eq!(
            hints,
            [
                "the clock here is 400 s ahead of the agent's (here 2024-01-07T12:06:40Z, agent 2024-01-07T12:00:00Z): set both by NTP (timedatectl set-ntp true)"
            ]
        );
        let (_, hints) = of(&refused(Code::JobTooOld, json!({ "agent_time": "2024-01-07T12:10:00Z" })), now);
        assert!(hints[0].contains("200 s behind"), "{hints:?}");
        let (_, hints) = of(&refused(Code::JobExpired, json!({ "agent_time": 1_704_629_201 })), now);
        assert!(hints[0].contains("--ttl"), "{hints:?}");
    }

    #[test]
    fn a_ttl_that_is_too_long_is_no_matter_of_clocks() {
        let more = json!({ "agent_time": 100, "skew_seconds": 172_800, "allowed_seconds": 86_400 });
        let mut error = refused(Code::JobFromFuture, more);
        let (_, hints) = of(&error, Timestamp::from_secs(100));
        assert!(!hints[0].contains("--ttl"), "{hints:?}");
        // As the agent's gate says it.
        if let Error::Refused(refusal) = &mut error {
            refusal.details = Some("JOB_FROM_FUTURE: Job TTL is too far after its timestamp".to_owned());
        }
        let (exit, hints) = of(&error, Timestamp::from_secs(100));
        assert_eq!(exit, exits::REFUSED);
        assert_eq!(
            hints,
            [
                "give a shorter --ttl: the agent takes 86400 s at most (freshness.max_ttl in its configuration)"
            ]
        );
    }

    #[test]
    fn every_code_has_an_exit_code_of_ours() {
        for code in Code::ALL {
            let (exit, _) = of(&refused(*code, json!({})), Timestamp::default());
            assert!((64..=78).contains(&exit), "{code:?}: {exit}");
        }
    }
}
