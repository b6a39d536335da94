//! Check 7: what this controller may ask for. Audience, scopes, image, limits, network, policy.

use serde_json::{Number, Value};

use crate::{
    config::{Controller, GateConfig, Limits, Policy},
    wire::{
        Code, Payload, Problem,
        fields::invalid,
        payload::{Network, SandboxRequest},
    },
};

/// What is signed must be for this agent, if it says for whom it is; where that is required, it must say so.
pub(super) fn audience(config: &GateConfig, agent_id: Option<&str>) -> Result<(), Problem> {
    match agent_id {
        Some(asked) if asked != config.agent_id => Err(Problem::new(Code::WrongAgent)
            .details(format!("`agent_id` is `{asked}`, but this agent is `{}`", config.agent_id))
            .with("field", "agent_id")
            .with("agent_id", config.agent_id.as_str())),
        None if config.audience_required => {
            let why = format!("is missing: this agent takes only what is signed for `{}`", config.agent_id);
            Err(invalid("agent_id", &why))
        }
        Some(_) | None => Ok(()),
    }
}

/// The controller must hold every scope that the job requires.
pub(super) fn scopes(controller: &Controller, required: Option<&[String]>) -> Result<(), Problem> {
    let missing: Vec<&str> = required
        .unwrap_or_default()
        .iter()
        .filter(|scope| !holds(controller, scope))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::new(Code::InsufficientScopes)
        .details(format!("the controller does not hold {}", missing.join(", ")))
        .with("missing_scopes", missing))
}

/// A pattern is `*`, or ends with `:*`; anything else is the scope itself. No pattern grants `admin`.
fn holds(controller: &Controller, scope: &str) -> bool {
    if scope == super::ADMIN {
        return controller.admin;
    }
    controller.scopes.iter().any(|held| match held.strip_suffix('*') {
        Some(prefix) if prefix.is_empty() || prefix.ends_with(':') => scope.starts_with(prefix),
        _ => held == scope,
    })
}

/// The image that the job gets: its own wish or the agent's default, on the controller's list.
pub(super) fn image(
    config: &GateConfig,
    controller: &Controller,
    asked: Option<&str>,
) -> Result<String, Problem> {
    let image = asked.unwrap_or(&config.default_image);
    let allowed = controller.images.as_ref().unwrap_or(&config.allowed_images);
    if allowed.iter().any(|one| one == image) {
        return Ok(image.to_owned());
    }
    let default = if asked.is_none() { ", the agent's default," } else { "" };
    Err(Problem::new(Code::ImageNotAllowed)
        .details(format!("`{image}`{default} is not among the images that this controller may use"))
        .with("field", "sandbox.image")
        .with("image", image)
        .with("allowed_images", allowed.as_slice()))
}

/// The limits that the job gets: its own wishes, none above the controller's maximum; the agent's defaults
/// otherwise, which a lower maximum lowers.
pub(super) fn limits(
    config: &GateConfig,
    controller: &Controller,
    asked: &SandboxRequest,
) -> Result<Limits, Problem> {
    let (default, max) = (&config.defaults, &controller.max);
    let whole = |field, asked: Option<u64>, default: u64, max: u64| match asked {
        Some(value) if value > max => Err(exceeded(field, value.into(), max.into())),
        Some(value) => Ok(value),
        None => Ok(default.min(max)),
    };
    let cpu = match asked.cpu_limit {
        Some(cores) if cores > max.cpu => {
            return Err(exceeded("cpu_limit", number(cores), number(max.cpu)));
        }
        Some(cores) => cores,
        None => default.cpu.min(max.cpu),
    };
    Ok(Limits {
        cpu,
        memory: whole("memory_limit", asked.memory_limit, default.memory, max.memory)?,
        pids: whole("pids_limit", asked.pids_limit, default.pids, max.pids)?,
        timeout_seconds: whole(
            "timeout_seconds",
            asked.timeout_seconds,
            default.timeout_seconds,
            max.timeout_seconds,
        )?,
        tmpfs: whole("tmpfs_size", asked.tmpfs_size, default.tmpfs, max.tmpfs)?,
    })
}

fn number(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn exceeded(field: &str, value: Value, maximum: Value) -> Problem {
    let field = format!("sandbox.{field}");
    Problem::new(Code::LimitExceeded)
        .details(format!("`{field}` is {value}, but this controller may ask for {maximum} at most"))
        .with("field", field)
        .with("value", value)
        .with("maximum", maximum)
}

/// What the job sees of the network: nothing, unless it asks and the controller is granted it.
pub(super) fn network(controller: &Controller, asked: Option<Network>) -> Result<Network, Problem> {
    match asked.unwrap_or_default() {
        Network::Bridge if !controller.network => Err(exceeded("network", "bridge".into(), "none".into())),
        granted => Ok(granted),
    }
}

/// A deny rule that matches wins; where there are allow rules, one must match.
pub(super) fn policy(policy: &Policy, payload: &Payload) -> Result<(), Problem> {
    let command = payload.command_text();
    if let Some(rule) = policy.deny.iter().find(|rule| rule.pattern.is_match(&command)) {
        return Err(Problem::new(Code::PolicyDenied)
            .details(format!("the rule `{}` denies this command", rule.name))
            .with("rule", rule.name.as_str()));
    }
    if !policy.allow.is_empty() && !policy.allow.iter().any(|rule| rule.pattern.is_match(&command)) {
        return Err(Problem::new(Code::PolicyDenied)
            .details("no rule of the allow list matches this command")
            .with("rule", "allow"));
    }
    Ok(())
}
