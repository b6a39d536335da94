//! What Docker itself says of one agent's containers and of the volumes that they had. Other tests use the same Docker,
//! so that a mere list of volumes says nothing of this agent.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::{PATIENCE, now};

#[derive(Default)]
struct Seen {
    created: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// Volumes that were made by name.
    marks: BTreeSet<String>,
    /// By the container that had them.
    volumes: BTreeSet<(String, String)>,
}

/// Follows Docker's events.
pub struct Volumes {
    events: Child,
    seen: Arc<Mutex<Seen>>,
}

impl Volumes {
    /// Of the agent with that id, whose first container is not there yet.
    pub fn of(agent: &str) -> Volumes {
        let since = (now() - 1).to_string();
        let mut events = Command::new("docker")
            .args(["events", "--since", &since, "--format", "{{json .}}"])
            .args(["--filter", "type=container", "--filter", "type=volume"])
            .args(["--filter", "event=create", "--filter", "event=mount", "--filter", "event=destroy"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("docker is there");
        let lines = BufReader::new(events.stdout.take().expect("it is piped")).lines();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (agent, notes) = (agent.to_owned(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: Value = serde_json::from_str(&line).expect("an event is JSON");
                note(&mut notes.lock().unwrap_or_else(PoisonError::into_inner), &agent, &event);
            }
        });
        Volumes { events, seen }
    }

    /// Waits until Docker has said of each container that it is gone; volumes of theirs that are still there.
    pub async fn left(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        // Events come in their order: with this one all before it have come.
        let mark = format!("quickcmd-test-mark-{}-{}", std::process::id(), crate::harness::unique());
        docker(&["volume", "create", &mark]);
        docker(&["volume", "rm", &mark]);
        loop {
            let (open, none) = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let none = seen.created.is_empty() || !seen.marks.contains(&mark);
                let open: Vec<String> = seen.created.difference(&seen.removed).cloned().collect();
                (open, none)
            };
            if open.is_empty() && !none {
                break;
            }
            assert!(
                Instant::now() < end,
                "Docker said of no container's end, none at all ({none}) or {open:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let had = seen.volumes.iter().filter(|(container, _)| seen.created.contains(container));
        let had: BTreeSet<&str> = had.map(|(_, volume)| volume.as_str()).collect();
        let there = docker(&["volume", "ls", "--quiet"]);
        there.lines().filter(|volume| had.contains(volume)).map(str::to_owned).collect()
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

fn note(seen: &mut Seen, agent: &str, event: &Value) {
    let (id, more) = (text(&event["Actor"]["ID"]), &event["Actor"]["Attributes"]);
    let mine = more["com.quickcmd.agent"] == agent;
    match (text(&event["Type"]).as_str(), text(&event["Action"]).as_str()) {
        ("container", "create") if mine => drop(seen.created.insert(id)),
        ("container", "destroy") if mine => drop(seen.removed.insert(id)),
        ("volume", "create") => drop(seen.marks.insert(id)),
        ("volume", "mount") => drop(seen.volumes.insert((text(&more["container"]), id))),
        _ => {}
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a call of Docker prints.
pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().expect("docker is there");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The search must be able to find, and what is another's is not this agent's.
#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_a_container_leaves_is_found() {
    let id = |name: &str| format!("quickcmd-test-{name}-{}-{}", std::process::id(), crate::harness::unique());
    let agents = [id("mine"), id("other")];
    let volumes = agents.each_ref().map(|agent| Volumes::of(agent));
    for agent in &agents {
        // With a name, which Docker does not remove with the container. The agent's own would have none.
        let (volume, label) = (format!("{agent}:/data"), format!("com.quickcmd.agent={agent}"));
        let image = crate::harness::image();
        docker(&["run", "--rm", "--network", "none", "--volume", &volume, "--label", &label, &image, "true"]);
    }
    let left = volumes[0].left().await;
    docker(&["volume", "rm", &agents[0]]);
    let later = [volumes[0].left().await, volumes[1].left().await];
    docker(&["volume", "rm", &agents[1]]);
    assert_eq!(left, agents[..1]);
    assert_eq!(later, [vec![], vec![agents[1].clone()]]);
}
