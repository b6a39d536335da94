//! From what an agent names in a refusal (fields of the payload, parameters of a query) to what a person has typed:
//! the options.

use serde_json::Value;

use crate::{
    client::{Error, Refusal},
    wire::{Code, Payload},
};

/// Which option says a field of a signed request. What lies below a field is its option's, too.
const FIELDS: &[(&str, &str)] = &[
    ("job_id", "--job-id"),
    ("prompt", "--prompt"),
    ("required_scopes", "--scope"),
    ("ttl", "--ttl"),
    ("controller_id", "--controller-id"),
    ("agent_id", "--agent-id"),
    ("sandbox.image", "--image"),
    ("sandbox.cpu_limit", "--cpu"),
    ("sandbox.memory_limit", "--memory"),
    ("sandbox.pids_limit", "--pids"),
    ("sandbox.timeout_seconds", "--timeout"),
    ("sandbox.tmpfs_size", "--tmpfs"),
    ("sandbox.network", "--network"),
    ("sandbox.env", "--env"),
    ("sandbox.secret_env", "--secret-env"),
    ("sandbox.workdir", "--workdir"),
    ("sandbox.stdin", "--stdin"),
    ("sandbox.files", "--file"),
    ("sandbox.artifacts", "--artifact"),
    // Of a cancellation.
    ("job_controller_id", "--of"),
    ("reason", "--reason"),
];

/// Which option says a parameter of a query.
const PARAMETERS: &[(&str, &str)] = &[
    ("status", "--status"),
    ("reason", "--reason"),
    ("controller_id", "--of"),
    ("since", "--since"),
    ("until", "--until"),
    ("limit", "--limit"),
    ("cursor", "--cursor"),
    ("stream", "--stream"),
    ("from_seq", "--from-seq"),
];

/// An agent takes requests of this size at most, unless its configuration says otherwise (`max_body_bytes`); of one
/// that is four times larger it may close the connection instead of saying so.
const USUAL: u64 = 1 << 20;

/// The option that says what the agent did not like, if it names a field or a parameter that has one.
pub fn of(refusal: &Refusal) -> Option<&'static str> {
    let named = |key| refusal.more.get(key).and_then(Value::as_str);
    let (table, name) = match (named("field"), named("parameter")) {
        (Some(field), _) => (FIELDS, field),
        (None, parameter) => (PARAMETERS, parameter?.trim_matches('`')),
    };
    let is =
        |known: &str| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    table.iter().find(|(known, _)| is(known)).map(|(_, option)| *option)
}

/// What to do about a job that is too large for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Large {
    /// The agent has said so.
    Surely(String),
    /// It has said nothing, and that may be why.
    Perhaps(String),
}

/// Whether a job was not taken for its size, and what of it to make smaller.
pub fn too_large(error: &Error, payload: &Payload) -> Option<Large> {
    let bytes = |part: Option<usize>| part.unwrap_or(0) as u64;
    let sandbox = payload.sandbox.as_ref();
    let whole = bytes(serde_json::to_vec(payload).ok().map(|json| json.len()));
    let part =
        |json: Option<serde_json::Result<Vec<u8>>>| bytes(json.and_then(Result::ok).map(|json| json.len()));
    let files = part(sandbox.and_then(|sandbox| sandbox.files.as_ref()).map(serde_json::to_vec));
    let stdin = part(sandbox.and_then(|sandbox| sandbox.stdin.as_ref()).map(serde_json::to_vec));
    let (what, less) = if files >= stdin && files > whole / 2 {
        (
            format!("the files of --file are {files} of the job's {whole} bytes"),
            "give smaller or compressed ones, put them into the image",
        )
    } else if stdin > whole / 2 {
        (format!("the standard input is {stdin} of the job's {whole} bytes"), "give less of it")
    } else {
        (format!("the job has {whole} bytes"), "make it shorter")
    };
    match error {
        Error::Refused(refusal) if refusal.code == Some(Code::BodyTooLarge) => {
            let most = match refusal.more.get("max").and_then(Value::as_u64) {
                Some(max) => format!("{max} in a request"),
                None => "less in a request".to_owned(),
            };
            Some(Large::Surely(format!(
                "{what}, and the agent takes {most}: {less}, or have max_body_bytes in its configuration raised"
            )))
        }
        Error::Lost { .. } | Error::Unsure { .. } if whole > 4 * USUAL => Some(Large::Perhaps(format!(
            "{what}, and an agent takes {USUAL} in a request unless its max_body_bytes says more: {less}"
        ))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Args;
    use serde_json::json;

    use super::*;
    use crate::{base::clock::Timestamp, cli::job::JobArgs};

    fn refused(code: Code, key: &str, name: &str) -> Refusal {
        let Value::Object(more) = json!({ key: name }) else { unreachable!("it is an object") };
        let (status, code_text, error) = (code.status(), code.as_str().to_owned(), String::new());
        Refusal { status, code: Some(code), code_text, error, details: None, more, retry_after: None }
    }

    #[test]
    fn what_the_agent_names_is_said_as_it_was_typed() {
        for (name, option) in [
            ("sandbox.memory_limit", Some("--memory")),
            ("sandbox.files.3.path", Some("--file")),
            ("sandbox.env.PATH", Some("--env")),
            ("required_scopes.0", Some("--scope")),
            ("ttl", Some("--ttl")),
            ("command", None),
            ("sandbox.environment", None),
            ("sandbox", None),
        ] {
            assert_eq!(of(&refused(Code::InvalidField, "field", name)), option, "{name}");
        }
        assert_eq!(of(&refused(Code::InvalidQuery, "parameter", "since")), Some("--since"));
        assert_eq!(of(&refused(Code::InvalidQuery, "other", "since")), None);
    }

    /// Each option of a job that reaches the agent has its field here, and each field here is one of a payload.
    #[test]
    fn no_option_of_a_job_is_forgotten() {
        let command = JobArgs::augment_args(clap::Command::new("job"));
        let typed: Vec<String> =
            command.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
        assert!(typed.len() > 15, "{typed:?}");
        let said = |option: &String| FIELDS.iter().any(|(_, known)| known == option);
        let forgotten: Vec<&String> = typed.iter().filter(|option| !said(option)).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}");

        let matches = command.get_matches_from(
            "job --job-id a --prompt b --scope c --agent-id d --image e --cpu 1 --memory 64m --pids 9 --timeout 9 \
             --tmpfs 1m --network none --env A=b --secret-env B=c --workdir /srv --stdin /dev/null \
             --file /dev/null:x --artifact y --ttl 5m true"
                .split_whitespace(),
        );
        let args = <JobArgs as clap::FromArgMatches>::from_arg_matches(&matches).expect("a job");
        let payload = args.payload("controller-1", None, Timestamp::from_secs(1)).expect("a payload");
        let payload = serde_json::to_value(payload).expect("JSON");
        for (field, option) in FIELDS.iter().filter(|(_, option)| !["--of", "--reason"].contains(option)) {
            let value = payload.pointer(&format!("/{}", field.replace('.', "/")));
            assert!(value.is_some_and(|value| !value.is_null()), "{option}: {field} is not in {payload}");
        }
        let sandbox = payload["sandbox"].as_object().expect("an object");
        for field in sandbox.keys() {
            assert!(
                of(&refused(Code::InvalidField, "field", &format!("sandbox.{field}"))).is_some(),
                "{field}"
            );
        }
    }
}
