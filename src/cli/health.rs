//! `quickcmd health`: the agent's own word on itself.

use serde_json::Value;

use super::{
    args::Global,
    fault::Fault,
    out,
    settings::{self, Need},
};

pub async fn run(global: &Global) -> Result<u8, Fault> {
    let client = settings::connect(global, Need::Nothing)?.client;
    let health = client.health().await?;
    if global.json {
        out::print_json(&health)?;
        return Ok(0);
    }
    let mut rows = Vec::new();
    if let Value::Object(fields) = &health {
        for (name, value) in fields {
            let value = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            rows.push(vec![name.clone(), value]);
        }
    }
    out::print(&out::table(&rows))?;
    Ok(0)
}
