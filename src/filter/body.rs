//! The bodies of create and update calls. What may differ between two calls of the agent's is read out of the body and
//! checked; then the agent's own code makes the call anew from it, and the two must be the same. So there is no list of
//! what is dangerous that could have a hole: whatever the agent does not ask for is refused, known or not. Pure.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Refusal, Rules,
    call::{Name, is_hex},
};
use crate::{
    config::Limits,
    sandbox::{
        LABEL_AGENT, LABEL_ATTEMPT, LABEL_HOME, LABEL_INSTANCE, LABEL_JOB, LABEL_PAYLOAD, LABEL_POOL,
        LABEL_ROW, Mould, update_call,
    },
    wire::payload::Network,
};

/// Longest value of a label: a job's id.
const LABEL: usize = 256;

/// A create call that passes.
#[derive(Debug)]
pub(super) struct Create {
    /// The body to send: made here.
    pub(super) body: Value,
    /// The image's id; whether that may be used is still to be found out.
    pub(super) image: String,
}

/// Holds a create call against what the agent would send.
pub(super) fn create(rules: &Rules, name: &Name, body: &[u8]) -> Result<Create, Refusal> {
    let asked = parse(body)?;
    let network = match text(&asked, "/HostConfig/NetworkMode")? {
        "none" => Network::None,
        "bridge" if rules.bridge => Network::Bridge,
        "bridge" => {
            return Err(Refusal::forbidden(
                "HostConfig.NetworkMode: the filter was started without --bridge",
            ));
        }
        other => {
            return Err(Refusal::forbidden(format!("HostConfig.NetworkMode: {other:?} is not the agent's")));
        }
    };
    let runtime = match asked.pointer("/HostConfig/Runtime") {
        None => None,
        Some(_) => Some(text(&asked, "/HostConfig/Runtime")?.to_owned()),
    };
    if let Some(runtime) = runtime.as_ref().filter(|runtime| !rules.runtimes.contains(*runtime)) {
        return Err(Refusal::forbidden(format!(
            "HostConfig.Runtime: the filter was started without --runtime {runtime}"
        )));
    }
    let image = text(&asked, "/Image")?;
    if !image.strip_prefix("sha256:").is_some_and(|id| is_hex(id, 64)) {
        return Err(Refusal::forbidden("Image: the agent names images by their id"));
    }
    let (workdir, tmpfs) = tmpfs(&asked)?;
    let mould = Mould {
        user: rules.user,
        workdir,
        nofile: nofile(&asked)?,
        shm: number(&asked, "/HostConfig/ShmSize")?,
        runtime,
        image: image.to_owned(),
        network,
        limits: limits(&asked, "/HostConfig", tmpfs)?,
        folder: format!("{}/{}", rules.sandboxes, name.as_str()),
        volumes: volumes(&asked)?,
        labels: labels(&asked, name)?,
    };
    let made = mould.create().map_err(|error| Refusal::forbidden(error.to_string()))?;
    same(&asked, &made)?;
    Ok(Create { body: made, image: mould.image })
}

/// Holds an update call against what the agent would send.
pub(super) fn update(body: &[u8]) -> Result<Value, Refusal> {
    let asked = parse(body)?;
    let limits = limits(&asked, "", 1)?;
    let made = update_call(&limits).map_err(|error| Refusal::forbidden(error.to_string()))?;
    same(&asked, &made)?;
    Ok(made)
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad(format!("the body is no JSON: {error}")))
}

/// A pointer as people write it: `HostConfig.Memory`.
fn dotted(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

fn text<'a>(asked: &'a Value, pointer: &str) -> Result<&'a str, Refusal> {
    asked
        .pointer(pointer)
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::forbidden(format!("{}: must be text", dotted(pointer))))
}

/// A limit. Zero and less mean "none" to Docker.
fn number(asked: &Value, pointer: &str) -> Result<u64, Refusal> {
    asked
        .pointer(pointer)
        .and_then(Value::as_u64)
        .filter(|number| *number > 0)
        .ok_or_else(|| Refusal::forbidden(format!("{}: must be a whole number above 0", dotted(pointer))))
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53, where the way back is exact; else it is refused")]
fn limits(asked: &Value, place: &str, tmpfs: u64) -> Result<Limits, Refusal> {
    let read = |name: &str| number(asked, &format!("{place}/{name}"));
    Ok(Limits {
        cpu: read("NanoCpus")? as f64 / 1e9,
        memory: read("Memory")?,
        pids: read("PidsLimit")?,
        timeout_seconds: 0,
        tmpfs,
    })
}

/// The work folder, and the size that its tmpfs and that of `/tmp` have. How both are mounted is compared later.
fn tmpfs(asked: &Value) -> Result<(String, u64), Refusal> {
    let fault = |why: &str| Refusal::forbidden(format!("HostConfig.Tmpfs: {why}"));
    let all = asked.pointer("/HostConfig/Tmpfs").and_then(Value::as_object);
    let all = all.ok_or_else(|| fault("must be /tmp and the work folder"))?;
    let mut others = all.iter().filter(|(path, _)| *path != "/tmp");
    let (Some((workdir, options)), None) = (others.next(), others.next()) else {
        return Err(fault("must be /tmp and the work folder"));
    };
    if !is_place(workdir) {
        return Err(fault("the work folder must be a plain path outside of the kernel's folders"));
    }
    let options = options.as_str().unwrap_or_default();
    let size = options.split(',').find_map(|option| option.strip_prefix("size=")?.parse::<u64>().ok());
    // A tmpfs of size 0 has no limit.
    let size = size.filter(|size| *size > 0).ok_or_else(|| fault("must have a size"))?;
    Ok((workdir.clone(), size))
}

/// Where in a container something may be mounted: a plain absolute path, none of the kernel's.
fn is_place(path: &str) -> bool {
    let mut parts = path.split('/');
    path.len() <= 512
        && parts.next() == Some("")
        && !matches!(parts.clone().next(), Some("proc" | "sys" | "dev") | None)
        && parts.all(|part| !matches!(part, "" | "." | ".."))
        && !path.chars().any(|c| c.is_control() || c == ',')
}

fn nofile(asked: &Value) -> Result<u64, Refusal> {
    let all = asked.pointer("/HostConfig/Ulimits").and_then(Value::as_array);
    let limit = all.and_then(|all| all.iter().find(|limit| limit["Name"] == "nofile"));
    limit
        .and_then(|limit| limit["Soft"].as_u64())
        .ok_or_else(|| Refusal::forbidden("HostConfig.Ulimits: must name nofile"))
}

/// Where the mounts after the first, which is the sandbox's folder, lie: over the image's volumes.
fn volumes(asked: &Value) -> Result<Vec<String>, Refusal> {
    let fault = |why: &str| Refusal::forbidden(format!("HostConfig.Mounts: {why}"));
    let all = asked.pointer("/HostConfig/Mounts").and_then(Value::as_array);
    let all = all.ok_or_else(|| fault("must have the sandbox's folder"))?;
    let targets = all.iter().skip(1).map(|mount| {
        let target = mount["Target"].as_str().filter(|target| is_place(target));
        target
            .map(str::to_owned)
            .ok_or_else(|| fault("a target is no plain path outside of the kernel's folders"))
    });
    targets.collect()
}

fn labels(asked: &Value, name: &Name) -> Result<HashMap<String, String>, Refusal> {
    const KNOWN: &[&str] = &[
        LABEL_AGENT,
        LABEL_ATTEMPT,
        LABEL_HOME,
        LABEL_INSTANCE,
        LABEL_JOB,
        LABEL_PAYLOAD,
        LABEL_POOL,
        LABEL_ROW,
    ];
    let fault = |why: String| Refusal::forbidden(format!("Labels: {why}"));
    let all = asked.get("Labels").and_then(Value::as_object);
    let mut labels = HashMap::new();
    for (key, value) in all.ok_or_else(|| fault("must be there".to_owned()))? {
        let value = value.as_str().filter(|value| value.len() <= LABEL);
        match (KNOWN.contains(&key.as_str()), value) {
            (true, Some(value)) => labels.insert(key.clone(), value.to_owned()),
            _ => return Err(fault(format!("{key:?} is not the agent's"))),
        };
    }
    match labels.get(LABEL_HOME) {
        Some(home) if home == name.home() => Ok(labels),
        _ => Err(fault(format!("{LABEL_HOME} must be the one of the container's name"))),
    }
}

/// Whether both are the same; else the first place where they are not.
fn same(asked: &Value, made: &Value) -> Result<(), Refusal> {
    difference(asked, made, "").map_or(Ok(()), |why| Err(Refusal::forbidden(why)))
}

fn difference(asked: &Value, made: &Value, path: &str) -> Option<String> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (asked, made) {
        (Value::Object(asked), Value::Object(made)) => {
            for (key, value) in asked {
                let Some(wanted) = made.get(key) else {
                    return Some(format!("{}: the agent sends no such member", below(key)));
                };
                if let Some(found) = difference(value, wanted, &below(key)) {
                    return Some(found);
                }
            }
            made.keys().find(|key| !asked.contains_key(*key)).map(|key| format!("{}: is missing", below(key)))
        }
        (Value::Array(asked), Value::Array(made)) if asked.len() == made.len() => {
            let mut pairs = asked.iter().zip(made).enumerate();
            pairs.find_map(|(n, (asked, made))| difference(asked, made, &below(&n.to_string())))
        }
        _ if asked == made => None,
        _ => {
            let mut wanted = made.to_string();
            if wanted.chars().count() > 80 {
                wanted = wanted.chars().take(80).chain("...".chars()).collect();
            }
            Some(format!("{path}: the agent sends {wanted}"))
        }
    }
}
